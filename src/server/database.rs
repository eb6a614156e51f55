//! Opens what the settings name, and says who keeps what in it.

use std::sync::Arc;

use secrecy::ExposeSecret;
use tracing::info;

use super::StartError;
use crate::{
    clerk::ClerkEvents,
    keys::{Clock, SnapshotDirectory, SnapshotStore},
    settings::{DatabaseSettings, Settings},
    store::SqlStore,
    sync::{Ear, Inboxes},
};

/// The database, where one is configured; migrated, or the start fails.
pub(super) async fn open(settings: &Settings) -> Result<Option<SqlStore>, StartError> {
    let Some(database) = &settings.database else {
        return Ok(None);
    };
    let opened = match database {
        DatabaseSettings::Sqlite { path } => SqlStore::sqlite(path).await,
        DatabaseSettings::Postgres { url } => SqlStore::postgres(url.expose_secret()).await,
    };
    match opened {
        Ok(store) => {
            info!(%database, "opened the database");
            Ok(Some(store))
        }
        Err(source) => Err(StartError::Database {
            address: database.to_string(),
            source,
        }),
    }
}

/// The inboxes of all instances.
pub(super) fn inboxes(
    settings: &Settings,
    store: &SqlStore,
    ear: &Arc<Ear>,
    clock: Clock,
) -> Arc<Inboxes> {
    Arc::new(Inboxes::new(
        Arc::new(store.clone()),
        Arc::clone(ear),
        Arc::new(ClerkEvents),
        settings.inbox_retention,
        clock,
    ))
}

/// Where the last good keys are kept: the directory, where one is configured, else the database.
pub(super) fn snapshots(
    settings: &Settings,
    store: Option<&SqlStore>,
) -> Option<Arc<dyn SnapshotStore>> {
    match (&settings.state_dir, store) {
        (Some(directory), _) => Some(Arc::new(SnapshotDirectory::new(directory.clone()))),
        (None, Some(store)) => Some(Arc::new(store.clone())),
        (None, None) => None,
    }
}
