//! `clerk-authz dev`

mod guide;

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::{SUCCESS, emulator, serve::set_up_logs, until_signal};
use crate::{
    server,
    settings::{Settings, SettingsArgs, process_environment},
};

/// Runs the offline Clerk and the service, and prints what to try. With CLERK_SECRET_KEY set the
/// service asks the real Clerk instead.
#[derive(Args)]
#[command(after_help = "Example: clerk-authz dev\n\
                  Exit codes: 0 stopped, 2 could not start")]
pub(super) struct Dev {
    /// Where the offline Clerk listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5050")]
    emulator_addr: SocketAddr,
    /// A TOML file that says who lives in the offline Clerk; see docs/emulator.md
    #[arg(long, value_name = "FILE")]
    world: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Dev {
    pub(super) async fn run(mut self) -> anyhow::Result<u8> {
        let mut environment = process_environment();
        let is_set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
        let real = is_set("CLERK_SECRET_KEY")
            || is_set("CLERK_SECRET_KEY_FILE")
            || self.settings.get("CLERK_SECRET_KEY").is_some();
        let emulator = if real {
            None
        } else {
            let emulator = emulator::start(self.world, self.emulator_addr).await?;
            if let Some(instance) = emulator.instances().first() {
                // The offline Clerk stands for whatever Clerk the environment names.
                environment.retain(|name, _| {
                    !name.starts_with("CLERK_") || name.starts_with("CLERK_AUTHZ_")
                });
                for (variable, value) in [
                    ("CLERK_PUBLISHABLE_KEY", instance.publishable_key().as_str()),
                    ("CLERK_AUTHZ_ISSUER", instance.issuer().as_str()),
                    ("CLERK_API_URL", instance.issuer().as_str()),
                    (
                        "CLERK_AUTHORIZED_PARTIES",
                        &instance.seed().authorized_party,
                    ),
                ] {
                    if self.settings.get(variable).is_none() {
                        self.settings.set(variable, value);
                    }
                }
                // A secret has no flag of its own.
                let secret_key = instance.secret_key();
                environment.insert("CLERK_SECRET_KEY".to_owned(), secret_key.into());
            }
            Some(emulator)
        };
        let settings = Settings::load(&self.settings, &environment)?;
        let _guard = set_up_logs(&settings)?;
        let running = server::start(&settings, server::system_clock()).await?;
        match emulator
            .as_ref()
            .and_then(|emulator| emulator.instances().first())
        {
            Some(instance) => {
                guide::print(instance, running.grpc_addr(), running.http_addr());
            }
            None => anstream::println!(
                "asking the real Clerk; gRPC on {}, HTTP on {}",
                running.grpc_addr(),
                running.http_addr()
            ),
        }
        until_signal().await?;
        running.stop().await;
        if let Some(emulator) = emulator {
            emulator.stop().await;
        }
        Ok(SUCCESS)
    }
}
