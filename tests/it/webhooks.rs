//! Clerk's webhooks: from the HTTP door through the inbox into the mirror, on both engines.

mod answers;
mod commands;
mod crashes;
mod effects;
mod ending;
mod hostile;
mod logs;
mod reload;

use std::{net::SocketAddr, time::Duration};

use clerk_authz::{
    mirror::{Inbox, InboxEntry, InboxFilter, InboxState, Mirror, Upkeep, UserKey},
    settings::Settings,
};

use crate::support::{
    Fixture, PATIENCE,
    database::{Database, user_id},
    eventually_within, offline_clerk, settings_for,
    webhook::{NEXT_SECRET, SECRET},
};

/// The service on a database, and the database beside it.
struct Scene {
    database: Database,
    fixture: Fixture,
}

impl Scene {
    async fn start(database: Database) -> Self {
        Self::start_with(database, &[]).await
    }

    async fn start_with(database: Database, more: &[(&str, &str)]) -> Self {
        let clerk = offline_clerk().await;
        let secrets = format!("{SECRET}, {NEXT_SECRET}");
        let url = database.place.url();
        let mut variables = vec![
            ("CLERK_WEBHOOK_SIGNING_SECRET", &*secrets),
            ("CLERK_AUTHZ_DATABASE_URL", &*url),
        ];
        variables.extend(more);
        let settings: Settings = settings_for(&clerk, &variables);
        Self {
            fixture: Fixture::start_on(clerk, &settings).await,
            database,
        }
    }

    fn addr(&self) -> SocketAddr {
        self.fixture.service.http_addr()
    }

    async fn list(&self, state: InboxState) -> Vec<InboxEntry> {
        list(&self.database, state).await
    }

    /// How the mirror names a user; `None` while there is none.
    async fn first_name(&self, user: &str) -> Option<String> {
        first_name(&self.database, user).await
    }

    /// Waits until nothing waits.
    async fn settled(&self) {
        settled(&self.database, PATIENCE).await;
    }

    /// Ends the service; the database stays.
    async fn stop(self) -> Database {
        let Self { database, fixture } = self;
        fixture.stop().await;
        database
    }
}

async fn list(database: &Database, state: InboxState) -> Vec<InboxEntry> {
    let filter = InboxFilter {
        state,
        after: 0,
        limit: 1_000,
    };
    let listed = database.store.list(&database.instance, filter).await;
    listed.expect("answered")
}

async fn first_name(database: &Database, user: &str) -> Option<String> {
    let id = user_id(user);
    let found = database
        .store
        .user(&database.instance, UserKey::Id(&id))
        .await;
    let user = found.expect("answered")?.value;
    user.first_name.map(Into::into)
}

async fn settled(database: &Database, within: Duration) {
    eventually_within(within, "the inbox is empty", || async {
        let stats = database.store.stats(&database.instance).await;
        stats.expect("answered").oldest_waiting.is_none()
    })
    .await;
}
