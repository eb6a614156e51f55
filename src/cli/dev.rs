//! `clerk-authz dev`

mod guide;
#[cfg(test)]
mod tests;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::Args;

use super::{SUCCESS, emulator, serve::set_up_logs, until_signal};
use crate::{
    emulator::SECRET_KEY_PREFIX,
    server,
    settings::{EnvironmentVariables, Settings, SettingsArgs, process_environment},
};

/// Runs the offline Clerk and the service, and prints what to try. With a CLERK_SECRET_KEY of Clerk's
/// the service asks the real Clerk instead.
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
        let emulator = if is_for_the_real_clerk(&self.settings, &environment) {
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

/// Whether a secret key is given that is not the offline Clerk's own, which `dev` says to export: in
/// that shell it starts once more as it did.
fn is_for_the_real_clerk(args: &SettingsArgs, environment: &EnvironmentVariables) -> bool {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let is_emulators = |key: &OsString| {
        key.to_str()
            .is_some_and(|key| key.trim().starts_with(SECRET_KEY_PREFIX))
    };
    set("CLERK_SECRET_KEY").is_some_and(|key| !is_emulators(key))
        || set("CLERK_SECRET_KEY_FILE").is_some()
        || args.get("CLERK_SECRET_KEY").is_some()
}
