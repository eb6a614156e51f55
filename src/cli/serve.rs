//! `clerk-authz serve`

use std::{future::Future, time::Duration};

use clap::Args;
use tokio::{task::spawn_blocking, time::timeout};
use tracing::{info, warn};
use tracing_appender::non_blocking::WorkerGuard;

use super::{CUT_SHORT, SUCCESS, Signals, run};
use crate::{
    server::{self, Running},
    settings::{LogFormat, Settings, SettingsArgs, process_environment},
    telemetry::{
        logs,
        otlp::{self, Otlp},
    },
    trace::Sampler,
};

/// Runs the service until Ctrl-C or SIGTERM. Then health checks say that it leaves; after
/// CLERK_AUTHZ_DRAIN_PAUSE it accepts no more, and calls in flight have CLERK_AUTHZ_DRAIN_TIMEOUT to end. A
/// second signal ends it at once.
#[derive(Args)]
#[command(
    after_help = "Example: CLERK_PUBLISHABLE_KEY=pk_live_… CLERK_AUTHORIZED_PARTIES=https://app.example.com clerk-authz serve\n\
                  Exit codes: 0 stopped, 2 could not start, 3 a second signal ended it at once"
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
            settings.check_exposure()?;
            anstream::print!("{}", settings.print_config());
            return Ok(SUCCESS);
        }
        run(async move {
            let telemetry = set_up_telemetry(&settings)?;
            let mut signals = Signals::listen()?;
            let Some(running) = start(&settings, &mut signals).await? else {
                telemetry.end().await;
                return Ok(SUCCESS);
            };
            end_at_signal(signals, running, telemetry, async {}).await
        })
    }
}

/// How long what was said may take to get away when a second signal has come.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(500);

/// Starts the service, unless a signal comes before it answers: as the first process of a container it
/// would hear of none that it does not wait for.
pub(super) async fn start(
    settings: &Settings,
    signals: &mut Signals,
) -> anyhow::Result<Option<Running>> {
    tokio::select! {
        started = server::start(settings, server::system_clock()) => Ok(Some(started?)),
        () = signals.next() => {
            info!("a signal before the start was done: ending");
            Ok(None)
        }
    }
}

/// Runs until a signal, and ends in order, with `and_then` behind the service; or at once with a second
/// signal.
pub(super) async fn end_at_signal(
    mut signals: Signals,
    running: Running,
    telemetry: Telemetry,
    and_then: impl Future<Output = ()>,
) -> anyhow::Result<u8> {
    signals.next().await;
    let ended = async {
        running.stop().await;
        and_then.await;
    };
    let code = tokio::select! {
        () = ended => SUCCESS,
        () = signals.next() => {
            warn!("a second signal: ending at once");
            CUT_SHORT
        }
    };
    if code == SUCCESS {
        telemetry.end().await;
    } else {
        // A collector that does not answer is not waited for.
        let _ = timeout(LAST_WORDS_WITHIN, telemetry.end()).await;
    }
    Ok(code)
}

/// What this process says of itself, until it ends.
pub(super) struct Telemetry {
    otlp: Option<Otlp>,
    logs: WorkerGuard,
}

/// Logs, and what a collector gets.
pub(super) fn set_up_telemetry(settings: &Settings) -> anyhow::Result<Telemetry> {
    let format = match settings.log_format {
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    let otlp = settings.otlp.as_ref().map(|otlp| {
        Otlp::start(&otlp::Options {
            endpoint: otlp.endpoint.clone(),
            certificate: otlp.certificate.clone(),
            headers: otlp.headers.clone(),
            service_name: otlp.service_name.clone(),
            sampler: Sampler {
                heeds_parent: otlp.heeds_parent,
                ratio: otlp.ratio,
            },
        })
    });
    let otlp = otlp.transpose()?;
    let logs = logs::set_up(&settings.log, format, otlp.as_ref())?;
    Ok(Telemetry { otlp, logs })
}

impl Telemetry {
    /// Sends what waits for a collector; lines of the log are written when it is dropped.
    pub(super) async fn end(self) {
        let Self { otlp, logs } = self;
        // It waits, and the runtime has to go on for it.
        let _ = spawn_blocking(move || drop(otlp)).await;
        drop(logs);
    }
}
