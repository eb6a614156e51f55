//! The last good keys of each instance and identity provider, for the trait of `keys`.

use super::{
    SqlStore,
    connection::{Sql, values},
};
use crate::{
    keys::{Keeping, KeysOf, SavedKeys, SnapshotError, SnapshotStore},
    mirror::StoreError,
};

// The primary key.
const LOAD: Sql =
    Sql::both("SELECT issuer, fetched_ms, document FROM key_snapshots WHERE instance = $1");
// The primary key. Whatever replica fetched last has the newest.
const SAVE: Sql = Sql::both(
    "INSERT INTO key_snapshots (instance, issuer, fetched_ms, document) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (instance) DO UPDATE SET issuer = excluded.issuer, \
     fetched_ms = excluded.fetched_ms, document = excluded.document",
);

impl SnapshotStore for SqlStore {
    fn load<'a>(&'a self, keys_of: &'a KeysOf) -> Keeping<'a, Option<SavedKeys>> {
        Box::pin(async move { self.saved(keys_of).await.map_err(failed) })
    }

    fn save<'a>(&'a self, keys_of: &'a KeysOf, saved: SavedKeys) -> Keeping<'a, ()> {
        Box::pin(async move { self.keep(keys_of, &saved).await.map_err(failed) })
    }
}

impl SqlStore {
    async fn saved(&self, keys_of: &KeysOf) -> Result<Option<SavedKeys>, StoreError> {
        let mut session = self.reading().await?;
        let Some(mut row) = session.row(LOAD, values![keys_of.as_str()]).await? else {
            return Ok(None);
        };
        Ok(Some(SavedKeys {
            issuer: row.text()?,
            fetched_at: row.time()?,
            document: row.maybe_blob()?.unwrap_or_default(),
        }))
    }

    async fn keep(&self, keys_of: &KeysOf, saved: &SavedKeys) -> Result<(), StoreError> {
        let mut session = self.writing().await?;
        let row = values![
            keys_of.as_str(),
            &*saved.issuer,
            saved.fetched_at,
            Some(saved.document.as_slice()),
        ];
        session.run(SAVE, row).await?;
        session.commit().await
    }
}

fn failed(error: StoreError) -> SnapshotError {
    SnapshotError(error.to_string())
}
