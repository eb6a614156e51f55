//! `clerk-authz emulator`

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::SystemTime};

use clap::Args;

use super::{SUCCESS, until_signal};
use crate::{
    emulator::{self, World},
    identity::Timestamp,
};

/// Runs the offline Clerk until Ctrl-C or SIGTERM.
#[derive(Args)]
#[command(after_help = "Example: clerk-authz emulator --world world.toml\n\
                  Exit codes: 0 stopped, 2 could not start")]
pub(super) struct Emulator {
    /// Where it listens; further instances of the world take ports of their own
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5050")]
    addr: SocketAddr,
    /// A TOML file that says who lives there; see docs/emulator.md
    #[arg(long, value_name = "FILE")]
    world: Option<PathBuf>,
}

impl Emulator {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let emulator = start(self.world, self.addr).await?;
        for instance in emulator.instances() {
            anstream::println!(
                "instance {}: {}\n  CLERK_PUBLISHABLE_KEY={}\n  CLERK_SECRET_KEY={}\n  \
                 CLERK_API_URL={}\n  CLERK_AUTHZ_ISSUER={}\n  curl -s '{}/_emulator/token?user={}'",
                instance.name(),
                instance.issuer(),
                instance.publishable_key().as_str(),
                instance.secret_key(),
                instance.issuer(),
                instance.issuer(),
                instance.issuer(),
                instance.seed().users.first().map_or("", |user| &user.id),
            );
        }
        until_signal().await?;
        emulator.stop().await;
        Ok(SUCCESS)
    }
}

pub(super) async fn start(
    world: Option<PathBuf>,
    addr: SocketAddr,
) -> anyhow::Result<emulator::Emulator> {
    let world = world.map_or_else(
        || Ok(World::default_world()),
        |file| World::from_file(&file),
    )?;
    let clock: emulator::Clock = Arc::new(|| Timestamp::from(SystemTime::now()));
    Ok(emulator::Emulator::start(world, addr, clock).await?)
}
