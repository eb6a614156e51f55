//! `clerk-authz serve`

use clap::Args;

use super::{SUCCESS, run, until_signal};
use crate::{
    server,
    settings::{LogFormat, Settings, SettingsArgs, process_environment},
    telemetry::logs,
};

/// Runs the service until Ctrl-C or SIGTERM.
#[derive(Args)]
#[command(
    after_help = "Example: CLERK_PUBLISHABLE_KEY=pk_live_… CLERK_AUTHORIZED_PARTIES=https://app.example.com clerk-authz serve\n\
                  Exit codes: 0 stopped, 2 could not start"
)]
pub(super) struct Serve {
    /// Print every setting with its value and origin, secrets masked, and exit
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let settings = Settings::load(&self.settings, &process_environment())?;
        if self.print_config {
            anstream::print!("{}", settings.print_config());
            return Ok(SUCCESS);
        }
        let _guard = set_up_logs(&settings)?;
        run(async move {
            let running = server::start(&settings, server::system_clock()).await?;
            until_signal().await?;
            running.stop().await;
            Ok(SUCCESS)
        })
    }
}

/// Lines still waiting are written when the guard is dropped.
pub(super) fn set_up_logs(settings: &Settings) -> Result<impl Drop + use<>, logs::LogsError> {
    let format = match settings.log_format {
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    logs::set_up(&settings.log, format)
}
