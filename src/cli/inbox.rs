//! `clerk-authz inbox`

use std::time::SystemTime;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{DENIED, SUCCESS};
use crate::{
    identity::{InstanceName, Timestamp},
    mirror::{Inbox as _, InboxEntry, InboxFilter, InboxState},
    settings::{DatabaseSettings, Settings, SettingsArgs, process_environment},
    store::SqlStore,
};

/// Messages that are read from the database at once.
const PAGE: u32 = 500;

/// Looks at the webhook messages in the service's database, beside the service or without it.
#[derive(Args)]
#[command(
    after_help = "Example: CLERK_AUTHZ_DATABASE_URL=sqlite:///var/lib/clerk-authz/clerk-authz.db clerk-authz inbox list\n\
                  Exit codes: 0 done, 1 no such message, 2 could not"
)]
pub(super) struct Inbox {
    #[command(subcommand)]
    action: Action,
    /// A file that holds the database's address [env: CLERK_AUTHZ_DATABASE_URL, or its _FILE]
    #[arg(long, value_name = "FILE", global = true)]
    database_url_file: Option<String>,
    /// The Clerk instance whose inbox it is
    #[arg(long, value_name = "NAME", default_value = "default", global = true)]
    instance: String,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Action {
    /// List messages in the order in which they came, without what they say
    #[command(
        after_help = "Example: clerk-authz inbox list --state poison --json\nExit codes: 0 done, 2 could not"
    )]
    List {
        /// In which state
        #[arg(long, value_enum, default_value_t = State::Poison)]
        state: State,
    },
    /// Put a message of the poison list back, to be tried again
    #[command(
        after_help = "Example: clerk-authz inbox retry msg_2hFirst\nExit codes: 0 done, 1 no such message on the poison list, 2 could not"
    )]
    Retry {
        /// The message
        id: String,
    },
    /// Give a message up that waits or is on the poison list; its id stays known
    #[command(
        after_help = "Example: clerk-authz inbox drop msg_2hFirst\nExit codes: 0 done, 1 no such message that waits or is on the poison list, 2 could not"
    )]
    Drop {
        /// The message
        id: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    Waiting,
    Claimed,
    Done,
    Poison,
}

impl From<State> for InboxState {
    fn from(state: State) -> Self {
        match state {
            State::Waiting => Self::Waiting,
            State::Claimed => Self::Claimed,
            State::Done => Self::Done,
            State::Poison => Self::Poison,
        }
    }
}

impl Inbox {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let instance: InstanceName = parsed("--instance", &self.instance)?;
        let store = self.open().await?;
        let ended = self.act(&store, &instance).await;
        store.close().await;
        ended
    }

    async fn open(&self) -> anyhow::Result<SqlStore> {
        let mut args = SettingsArgs::default();
        if let Some(file) = &self.database_url_file {
            args.set("CLERK_AUTHZ_DATABASE_URL", file.clone());
        }
        Ok(
            match Settings::load_database(&args, &process_environment())? {
                DatabaseSettings::Sqlite { path } if !path.exists() => bail!(
                    "CLERK_AUTHZ_DATABASE_URL names {}, where there is no file; is it the service's?",
                    path.display()
                ),
                DatabaseSettings::Sqlite { path } => SqlStore::sqlite(&path).await?,
                DatabaseSettings::Postgres { url } => {
                    SqlStore::postgres(url.expose_secret()).await?
                }
            },
        )
    }

    async fn act(&self, store: &SqlStore, instance: &InstanceName) -> anyhow::Result<u8> {
        let now = Timestamp::from(SystemTime::now());
        let (id, done, found) = match &self.action {
            Action::List { state } => {
                self.list(store, instance, (*state).into()).await?;
                return Ok(SUCCESS);
            }
            Action::Retry { id } => {
                let found = store.retry(instance, &parsed("ID", id)?, now).await?;
                (id, "is tried again", found)
            }
            Action::Drop { id } => {
                let found = store.give_up(instance, &parsed("ID", id)?, now).await?;
                (id, "is given up", found)
            }
        };
        if self.json {
            anstream::println!("{}", json!({ "id": id, "found": found }));
        } else if found {
            anstream::println!("{id} {done}");
        } else {
            anstream::eprintln!(
                "{id} is not such a message of instance \"{instance}\"; see `clerk-authz inbox list`"
            );
        }
        Ok(if found { SUCCESS } else { DENIED })
    }

    async fn list(
        &self,
        store: &SqlStore,
        instance: &InstanceName,
        state: InboxState,
    ) -> anyhow::Result<()> {
        let mut filter = InboxFilter {
            state,
            after: 0,
            limit: PAGE,
        };
        let mut count = 0_usize;
        loop {
            let page = store.list(instance, filter).await?;
            for entry in &page {
                if self.json {
                    anstream::println!("{}", as_json(entry));
                } else {
                    anstream::println!("{}", as_text(entry));
                }
            }
            count += page.len();
            match page.last() {
                Some(last) if page.len() == PAGE as usize => filter.after = last.sequence,
                Some(_) | None => break,
            }
        }
        if count == 0 && !self.json {
            anstream::eprintln!("no message of instance \"{instance}\" is {}", state.name());
        }
        Ok(())
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    what: &str,
    text: &str,
) -> anyhow::Result<T> {
    text.parse()
        .map_err(|error| anyhow::anyhow!("{what} is {text:?}; {error}"))
}

/// One object a line.
fn as_json(entry: &InboxEntry) -> serde_json::Value {
    json!({
        "id": entry.id.as_str(),
        "event_type": entry.event_type,
        "entity": entry.entity,
        "state": entry.state.name(),
        "attempts": entry.attempts,
        "received_at": entry.received_at.to_string(),
        "next_attempt_at": (entry.state == InboxState::Waiting)
            .then(|| entry.next_attempt_at.to_string()),
        "failure": entry.failure,
    })
}

fn as_text(entry: &InboxEntry) -> String {
    let mut text = format!(
        "{}  {}  {}  {} tries  {}",
        entry.received_at,
        entry.id,
        entry.event_type,
        entry.attempts,
        entry.entity.as_deref().unwrap_or("-")
    );
    if let Some(failure) = &entry.failure {
        text.push_str("\n    ");
        text.push_str(failure);
    }
    text
}
