//! The commands, one file each.
//!
//! Called by `main`. Puts the rooms together; holds no rule.

mod args;
mod check;
#[cfg(feature = "emulator")]
mod dev;
#[cfg(feature = "emulator")]
mod emulator;
mod health;
mod inbox;
mod mirror;
mod policy;
mod progress;
mod reconcile;
mod report;
mod serve;
mod store;
mod sync;
mod verify;
mod version;

use std::{future::Future, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Verified, allowed, or done.
const SUCCESS: u8 = 0;
/// Denied, not serving, or not in step.
const DENIED: u8 = 1;
/// Could not tell, or could not start.
const FAILED: u8 = 2;
/// How long threads that are still at work have when everything else has ended.
const THREADS_WITHIN: Duration = Duration::from_secs(1);

/// A second signal ended it at once, whatever was under way.
const CUT_SHORT: u8 = 3;

#[derive(Parser)]
#[command(
    name = "clerk-authz",
    version,
    long_version = version::BUILD,
    about = "An authorization service for back ends whose users sign in with Clerk",
    after_help = "Try it: clerk-authz dev"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything on one machine with nothing set: an offline Clerk and the service
    #[cfg(feature = "emulator")]
    Dev(dev::Dev),
    /// The service
    Serve(serve::Serve),
    /// Only the offline Clerk, for tests of your own
    #[cfg(feature = "emulator")]
    Emulator(emulator::Emulator),
    /// Verify one token and explain every step
    Verify(verify::Verify),
    /// Decide about an organization and explain every step
    Check(Box<check::Check>),
    /// Ask a running service whether it serves, for container health checks
    Health(health::Health),
    /// Bring users from Clerk into the mirror now
    Sync(sync::Sync),
    /// Compare all of Clerk with the mirror, and mend what is not in step
    Reconcile(reconcile::Reconcile),
    /// Look at webhook messages, and decide about those that cannot be applied
    Inbox(inbox::Inbox),
    /// Copy the database to another engine, back it up, and say that it was restored
    Store(store::Store),
    /// Check, explain and test a route policy
    Policy(policy::Policy),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example: clerk-authz completions bash > /etc/bash_completion.d/clerk-authz"
    )]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// Parses the process's arguments, runs the command, and says how it ended.
pub fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        #[cfg(feature = "emulator")]
        Command::Dev(dev) => run(dev.run()),
        Command::Serve(serve) => serve.run(),
        #[cfg(feature = "emulator")]
        Command::Emulator(emulator) => run(emulator.run()),
        Command::Verify(verify) => run(verify.run()),
        Command::Check(check) => run(check.run()),
        Command::Health(health) => run(health.run()),
        Command::Sync(sync) => run(sync.run()),
        Command::Reconcile(reconcile) => run(reconcile.run()),
        Command::Inbox(inbox) => run(inbox.run()),
        Command::Store(store) => run(store.run()),
        Command::Policy(policy) => run(policy.run()),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "clerk-authz",
                &mut std::io::stdout(),
            );
            Ok(SUCCESS)
        }
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            anstream::eprintln!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Runs a command on a runtime with a thread for each core that it may use.
fn run(command: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let ended = runtime.block_on(command);
    // A thread that waits for a disk, or for whoever reads its output, is not waited for without end.
    runtime.shutdown_timeout(match ended {
        Ok(CUT_SHORT) => Duration::ZERO,
        Ok(_) | Err(_) => THREADS_WITHIN,
    });
    ended
}

/// Ctrl-C and SIGTERM. What comes between two looks is not lost.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?,
            terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?,
        })
    }

    /// Ends with the next of them.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Ends with Ctrl-C or SIGTERM.
async fn until_signal() -> anyhow::Result<()> {
    Signals::listen()?.next().await;
    Ok(())
}
