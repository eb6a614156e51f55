//! `clerk-authz policy`

mod explain;
mod test;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};

use self::{explain::Explain, test::Test};
use super::{DENIED, SUCCESS};
use crate::policy::{Case, Policy as RoutePolicy};

/// Checks, explains and tests a route policy without a service.
#[derive(Args)]
pub(super) struct Policy {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Say everything that is wrong with a policy, and where
    #[command(
        after_help = "Example: clerk-authz policy check policy.yaml\nExit codes: 0 good, 1 wrong, 2 cannot be read"
    )]
    Check {
        /// The policy
        file: PathBuf,
    },
    /// Say which route a request is of and why it is of no other; with a token, the whole decision
    Explain(Box<Explain>),
    /// Run the cases that are written beside the routes
    Test(Test),
}

impl Policy {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        match self.action {
            Action::Check { file } => check(&file),
            Action::Explain(explain) => explain.run().await,
            Action::Test(test) => test.run().await,
        }
    }
}

fn check(file: &Path) -> anyhow::Result<u8> {
    let Some((policy, cases)) = read(file)? else {
        return Ok(DENIED);
    };
    anstream::println!(
        "{}: good, version {}: {}, {}",
        file.display(),
        policy.version(),
        counted(policy.routes().len(), "route"),
        counted(cases.len(), "test")
    );
    Ok(SUCCESS)
}

/// The policy; `None` when it is wrong, and why was said.
fn read(file: &Path) -> anyhow::Result<Option<(RoutePolicy, Vec<Case>)>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{} cannot be read", file.display()))?;
    match RoutePolicy::parse_with_cases(&text) {
        Ok(read) => Ok(Some(read)),
        Err(problems) => {
            for problem in problems.iter() {
                anstream::eprintln!(
                    "{}:{}:{}: {}",
                    file.display(),
                    problem.line.unwrap_or(1),
                    problem.column.unwrap_or(1),
                    problem.message
                );
            }
            Ok(None)
        }
    }
}

/// `1 route`, `2 routes`.
fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
