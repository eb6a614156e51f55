//! What a reconciliation has come across. Entities come in one text, a list of pairs of ids, so that
//! a page costs one statement.

use super::{
    connection::{Session, Sql, values},
    contents::json,
    coordination, heads,
};
use crate::{
    identity::{InstanceName, Timestamp},
    mirror::{Entity, EntityKind, Looked, Sighting, StoreError, Versioned},
};

/// The pairs of `$3`, each with its place.
macro_rules! sqlite_pairs {
    () => {
        "(SELECT key AS place, json_extract(value, '$[0]') AS first_id, \
          json_extract(value, '$[1]') AS second_id FROM json_each($3)) j "
    };
}
macro_rules! postgres_pairs {
    () => {
        "(SELECT place, value ->> 0 AS first_id, value ->> 1 AS second_id \
          FROM jsonb_array_elements($3::jsonb) WITH ORDINALITY AS e (value, place)) j "
    };
}

/// Of a table `t`; behind it stand how its rows are found.
macro_rules! look {
    ($pairs:ident, $kind:literal, $table:literal, $found:literal) => {
        concat!(
            "SELECT CAST(CASE WHEN s.instance IS NULL THEN 0 ELSE 1 END AS BIGINT), \
             CAST(CASE WHEN t.instance IS NULL THEN 0 ELSE 1 END AS BIGINT), ",
            heads::head_columns!(),
            " FROM ",
            $pairs!(),
            "LEFT JOIN ",
            $table,
            " t ON t.instance = $1 AND ",
            $found,
            " LEFT JOIN sightings s ON s.instance = $1 AND s.run_ms = $2 AND s.kind = '",
            $kind,
            "' AND s.first_id = j.first_id AND s.second_id = j.second_id ORDER BY j.place"
        )
    };
}

// The primary keys of both.
const LOOK_AT_USERS: Sql = Sql::each(
    look!(sqlite_pairs, "user", "users", "t.id = j.first_id"),
    look!(postgres_pairs, "user", "users", "t.id = j.first_id"),
);
const LOOK_AT_ORGANIZATIONS: Sql = Sql::each(
    look!(
        sqlite_pairs,
        "organization",
        "organizations",
        "t.id = j.first_id"
    ),
    look!(
        postgres_pairs,
        "organization",
        "organizations",
        "t.id = j.first_id"
    ),
);
const LOOK_AT_MEMBERSHIPS: Sql = Sql::each(
    look!(
        sqlite_pairs,
        "membership",
        "memberships",
        "t.organization_id = j.first_id AND t.user_id = j.second_id"
    ),
    look!(
        postgres_pairs,
        "membership",
        "memberships",
        "t.organization_id = j.first_id AND t.user_id = j.second_id"
    ),
);

// The primary key.
const NOTE: Sql = Sql::each(
    "INSERT INTO sightings (instance, run_ms, kind, first_id, second_id, gone) \
     SELECT $1, $2, $4, json_extract(value, '$[0]'), json_extract(value, '$[1]'), \
     json_extract(value, '$[2]') FROM json_each($3) WHERE true \
     ON CONFLICT (instance, run_ms, kind, first_id, second_id) DO UPDATE SET gone = excluded.gone",
    "INSERT INTO sightings (instance, run_ms, kind, first_id, second_id, gone) \
     SELECT $1, $2, $4, value ->> 0, value ->> 1, CAST(value ->> 2 AS BIGINT) \
     FROM jsonb_array_elements($3::jsonb) AS e (value) WHERE true \
     ON CONFLICT (instance, run_ms, kind, first_id, second_id) DO UPDATE SET gone = excluded.gone",
);

// Primary keys, from the last id on.
const UNSEEN_USERS: Sql = Sql::both(concat!(
    "SELECT ",
    heads::head_columns!(),
    ", id FROM users t WHERE instance = $1 AND id > $2 AND live = 1 AND version_ms <= $4 \
     AND NOT EXISTS (SELECT 1 FROM sightings s WHERE s.instance = $1 AND s.run_ms = $4 \
     AND s.kind = 'user' AND s.first_id = t.id AND s.second_id = '') ORDER BY id LIMIT $3"
));
const UNSEEN_ORGANIZATIONS: Sql = Sql::both(concat!(
    "SELECT ",
    heads::head_columns!(),
    ", id FROM organizations t WHERE instance = $1 AND id > $2 AND live = 1 AND version_ms <= $4 \
     AND NOT EXISTS (SELECT 1 FROM sightings s WHERE s.instance = $1 AND s.run_ms = $4 \
     AND s.kind = 'organization' AND s.first_id = t.id AND s.second_id = '') ORDER BY id LIMIT $3"
));
const UNSEEN_MEMBERSHIPS: Sql = Sql::both(concat!(
    "SELECT ",
    heads::head_columns!(),
    ", organization_id, user_id FROM memberships t \
     WHERE instance = $1 AND (organization_id, user_id) > ($2, $5) AND live = 1 \
     AND version_ms <= $4 \
     AND NOT EXISTS (SELECT 1 FROM sightings s WHERE s.instance = $1 AND s.run_ms = $4 \
     AND s.kind = 'membership' AND s.first_id = t.organization_id AND s.second_id = t.user_id) \
     AND NOT EXISTS (SELECT 1 FROM sightings s WHERE s.instance = $1 AND s.run_ms = $4 \
     AND s.kind = 'organization' AND s.first_id = t.organization_id AND s.second_id = '' \
     AND s.gone = 1) \
     AND NOT EXISTS (SELECT 1 FROM sightings s WHERE s.instance = $1 AND s.run_ms = $4 \
     AND s.kind = 'user' AND s.first_id = t.user_id AND s.second_id = '' AND s.gone = 1) \
     ORDER BY organization_id, user_id LIMIT $3"
));

// The primary key.
const FORGET: Sql = Sql::both(
    "DELETE FROM sightings WHERE instance = $1 AND (run_ms, kind, first_id, second_id) IN \
     (SELECT run_ms, kind, first_id, second_id FROM sightings WHERE instance = $1 \
     AND run_ms <> $2 LIMIT $3)",
);

/// What is known of these entities, in their order.
pub(super) async fn look(
    session: &mut Session,
    instance: &InstanceName,
    run: Timestamp,
    entities: &[Entity],
) -> Result<Vec<Looked>, StoreError> {
    let Some(kind) = entities.first().map(Entity::kind) else {
        return Ok(Vec::new());
    };
    let sql = match kind {
        EntityKind::User => LOOK_AT_USERS,
        EntityKind::Organization => LOOK_AT_ORGANIZATIONS,
        EntityKind::Membership => LOOK_AT_MEMBERSHIPS,
    };
    let pairs: Vec<(&str, &str)> = entities.iter().map(ids).collect();
    let pairs = json(&pairs)?;
    let rows = session
        .rows(sql, values![instance.as_str(), run, &*pairs])
        .await?;
    rows.into_iter()
        .map(|mut row| {
            let noted = row.flag()?;
            let head = row.flag()?.then(|| heads::read(&mut row)).transpose()?;
            Ok(Looked { head, noted })
        })
        .collect()
}

/// Notes what was come across, and how far the run is.
pub(super) async fn note(
    session: &mut Session,
    instance: &InstanceName,
    run: Timestamp,
    sightings: &[(Entity, Sighting)],
    (name, value): (&str, &str),
    now: Timestamp,
) -> Result<(), StoreError> {
    if let Some((first, _)) = sightings.first() {
        let kind = first.kind();
        let rows: Vec<(&str, &str, i64)> = sightings
            .iter()
            .map(|(entity, sighting)| {
                let (first, second) = ids(entity);
                (first, second, i64::from(*sighting == Sighting::Gone))
            })
            .collect();
        let rows = json(&rows)?;
        let row = values![instance.as_str(), run, &*rows, kind.name()];
        session.run(NOTE, row).await?;
    }
    coordination::set_checkpoint(session, instance, name, value, now).await
}

/// Entities that are there and that the run has not come across.
pub(super) async fn unseen(
    session: &mut Session,
    instance: &InstanceName,
    run: Timestamp,
    kind: EntityKind,
    after: Option<&Entity>,
    limit: u32,
) -> Result<Vec<Versioned>, StoreError> {
    let (first, second) = after.map_or(("", ""), ids);
    let mut row = values![instance.as_str(), first, limit, run];
    let sql = match kind {
        EntityKind::User => UNSEEN_USERS,
        EntityKind::Organization => UNSEEN_ORGANIZATIONS,
        EntityKind::Membership => {
            row.push(second.into());
            UNSEEN_MEMBERSHIPS
        }
    };
    let rows = session.rows(sql, row).await?;
    rows.into_iter()
        .map(|mut row| heads::versioned(&mut row, kind))
        .collect()
}

/// Forgets notes of other runs than `keep`.
pub(super) async fn forget_sightings(
    session: &mut Session,
    instance: &InstanceName,
    keep: Option<Timestamp>,
    limit: u32,
) -> Result<u64, StoreError> {
    // No run has this time.
    let keep = keep.unwrap_or(Timestamp::from_unix_millis(i64::MIN));
    let row = values![instance.as_str(), keep, limit];
    session.run(FORGET, row).await
}

/// The ids of an entity; the second is empty but for a membership.
fn ids(entity: &Entity) -> (&str, &str) {
    match entity {
        Entity::User(id) => (id.as_str(), ""),
        Entity::Organization(id) => (id.as_str(), ""),
        Entity::Membership(organization, user) => (organization.as_str(), user.as_str()),
    }
}
