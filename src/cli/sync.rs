//! `clerk-authz sync`

use std::{
    io::{IsTerminal, Read},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use futures_util::stream::{self, StreamExt};
use serde_json::json;

use super::{
    DENIED, SUCCESS,
    mirror::{DatabaseArgs, Mirror, parsed},
    progress::Progress,
};
use crate::{
    identity::UserId,
    sync::{SyncError, SyncOutcome, SyncUser, Synced, UserSync},
};

/// Users that are asked for at once, within the budget.
const AT_ONCE: usize = 8;
/// How long one waits for its turn and its answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is read of standard input at most: a million ids.
const MAX_INPUT_BYTES: u64 = 64 << 20;

/// Brings users with all their memberships from Clerk into the mirror now, each on a line of its own.
///
/// Several are asked for at once. Takes of the budget for Clerk's API (CLERK_AUTHZ_API_BUDGET) only
/// what is above the reserve for checks.
#[derive(Args)]
#[command(after_help = "Example: clerk-authz sync user_2abc user_2def\n\
                  Example: clerk-authz sync - < ids.txt\n\
                  It reads the service's settings from the environment: CLERK_PUBLISHABLE_KEY, CLERK_SECRET_KEY, CLERK_AUTHZ_DATABASE_URL.\n\
                  Exit codes: 0 all are as at Clerk, 1 some are unknown to Clerk (and deleted in the mirror) or failed, 2 could not begin")]
pub(super) struct Sync {
    /// Users by id, or - for a list in standard input, an id on each line
    #[arg(required = true, value_name = "USER|-")]
    users: Vec<String>,
    /// Print JSON, an object for each user
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

impl Sync {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let users = self.users()?;
        let mirror = self.database.open_mirror().await?;
        let code = self.sync_all(&mirror, &users).await;
        mirror.store.close().await;
        Ok(code)
    }

    /// Each once, in the order given.
    fn users(&self) -> anyhow::Result<Vec<UserId>> {
        let mut texts = Vec::new();
        for argument in &self.users {
            if argument == "-" {
                texts.extend(from_input()?);
            } else {
                texts.push(argument.trim().to_owned());
            }
        }
        let mut users: Vec<UserId> = Vec::with_capacity(texts.len());
        let mut once = std::collections::HashSet::new();
        for text in &texts {
            let user: UserId = parsed("USER", text)?;
            if once.insert(user.clone()) {
                users.push(user);
            }
        }
        if users.is_empty() {
            bail!("no user is given; expected ids, on the command line or in standard input");
        }
        Ok(users)
    }

    async fn sync_all(&self, mirror: &Mirror, users: &[UserId]) -> u8 {
        let sync = UserSync::new(Arc::new(mirror.store.clone()));
        let progress = Progress::new();
        let total = u64::try_from(users.len()).ok();
        progress.set("syncing users", 0, total);
        let mut outcomes = stream::iter(users)
            .map(|user| {
                let sync = &sync;
                async move {
                    let asked = SyncUser {
                        instance: &mirror.instance,
                        directory: &mirror.clerk,
                        user,
                        max_staleness: Duration::ZERO,
                        patience: PATIENCE,
                    };
                    (user, sync.sync(&asked, (mirror.clock)()).await)
                }
            })
            .buffered(AT_ONCE);
        let mut code = SUCCESS;
        let mut done = 0;
        while let Some((user, outcome)) = outcomes.next().await {
            if !matches!(&outcome, Ok(synced) if synced.user.is_some()) {
                code = DENIED;
            }
            progress.print(&self.line(user, &outcome));
            done += 1;
            progress.set("syncing users", done, total);
        }
        progress.finish();
        code
    }

    fn line(&self, user: &UserId, outcome: &Result<Synced, SyncError>) -> String {
        let (name, failure) = match outcome {
            Ok(synced) => (name_of(synced.outcome), None),
            Err(error) => ("failed", Some(error.to_string())),
        };
        if self.json {
            let value = json!({ "user": user.as_str(), "outcome": name, "failure": failure });
            return value.to_string();
        }
        match failure {
            Some(failure) => format!("{user}  {name}: {failure}"),
            None => format!("{user}  {name}"),
        }
    }
}

fn name_of(outcome: SyncOutcome) -> &'static str {
    match outcome {
        SyncOutcome::Created => "created",
        SyncOutcome::Updated => "updated",
        SyncOutcome::Unchanged => "unchanged",
        SyncOutcome::Deleted => "deleted",
    }
}

fn from_input() -> anyhow::Result<Vec<String>> {
    if std::io::stdin().is_terminal() {
        anstream::eprintln!("reading ids from standard input; end with Ctrl-D");
    }
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_INPUT_BYTES + 1)
        .read_to_string(&mut text)
        .context("cannot read the ids")?;
    if text.len() as u64 > MAX_INPUT_BYTES {
        bail!("standard input has more than {MAX_INPUT_BYTES} bytes; give the ids in parts");
    }
    let lines = text.lines().map(str::trim);
    Ok(lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}
