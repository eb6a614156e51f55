//! `clerk-authz inbox`

use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{
    DENIED, SUCCESS,
    mirror::{DatabaseArgs, parsed},
};
use crate::{
    identity::{InstanceName, Timestamp},
    mirror::{Inbox as _, InboxEntry, InboxFilter, InboxState},
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
    #[command(flatten)]
    database: DatabaseArgs,
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
        let instance = self.database.instance()?;
        let store = self.database.open().await?;
        let ended = self.act(&store, &instance).await;
        store.close().await;
        ended
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
