//! Connections to the database.

use std::fmt;

use super::number;
use crate::{
    store::SqlStore,
    telemetry::metrics::{self as catalogue, Writer},
};

pub(super) fn write(writer: &mut Writer<'_>, store: Option<&SqlStore>) -> fmt::Result {
    let pools = store.map(SqlStore::pools).unwrap_or_default();
    let connections = pools.iter().flat_map(|pool| {
        [("used", pool.used), ("idle", pool.idle)]
            .map(|(state, count)| ([pool.name, state].map(str::to_owned), number(count)))
    });
    writer.write(catalogue::DATABASE_CONNECTIONS, connections)?;
    let most = pools
        .iter()
        .map(|pool| ([pool.name.to_owned()], number(pool.most)));
    writer.write(catalogue::DATABASE_CONNECTIONS_MAX, most)?;
    let waits = store.into_iter().flat_map(SqlStore::waits);
    let waits = waits.map(|(purpose, recorded)| ([purpose.to_owned()], recorded));
    writer.write_durations(catalogue::DATABASE_WAIT, waits)
}
