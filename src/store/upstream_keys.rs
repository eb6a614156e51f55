//! The keys that sign upstream assertions, for the trait of `upstream_assertion`.

use super::{
    SqlStore,
    connection::{Sql, values},
};
use crate::{
    mirror::StoreError,
    upstream_assertion::{
        AssertionKey, AssertionKeyStore, Generation, KeepingKeys, KeyMaterial, KeyStoreError,
    },
};

// Whole table; it has a row for the present key, the next and the last.
const KEYS: Sql = Sql::both(
    "SELECT generation, signs_from_ms, private_key FROM upstream_keys ORDER BY generation",
);
// The primary key decides who was first.
const ADD: Sql = Sql::both(
    "INSERT INTO upstream_keys (generation, signs_from_ms, private_key) VALUES ($1, $2, $3) \
     ON CONFLICT DO NOTHING",
);
// The primary key.
const FORGET: Sql = Sql::both("DELETE FROM upstream_keys WHERE generation <= $1");

impl AssertionKeyStore for SqlStore {
    fn keys(&self) -> KeepingKeys<'_, Vec<AssertionKey>> {
        Box::pin(async move { self.assertion_keys().await.map_err(failed) })
    }

    fn add<'a>(&'a self, key: &'a AssertionKey) -> KeepingKeys<'a, ()> {
        Box::pin(async move { self.add_assertion_key(key).await.map_err(failed) })
    }

    fn forget(&self, last: Generation) -> KeepingKeys<'_, ()> {
        Box::pin(async move { self.forget_assertion_keys(last).await.map_err(failed) })
    }
}

impl SqlStore {
    async fn assertion_keys(&self) -> Result<Vec<AssertionKey>, StoreError> {
        let mut session = self.reading().await?;
        let rows = session.rows(KEYS, values![]).await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(AssertionKey {
                    generation: Generation(row.int()?),
                    signs_from: row.time()?,
                    material: KeyMaterial::of(row.maybe_blob()?.unwrap_or_default()),
                })
            })
            .collect()
    }

    async fn add_assertion_key(&self, key: &AssertionKey) -> Result<(), StoreError> {
        let mut session = self.writing().await?;
        let row = values![
            key.generation.0,
            key.signs_from,
            Some(key.material.expose()),
        ];
        session.run(ADD, row).await?;
        session.commit().await
    }

    async fn forget_assertion_keys(&self, last: Generation) -> Result<(), StoreError> {
        let mut session = self.writing().await?;
        session.run(FORGET, values![last.0]).await?;
        session.commit().await
    }
}

fn failed(error: StoreError) -> KeyStoreError {
    KeyStoreError(error.to_string())
}
