//! What is known of an entity as far as ordering goes: the same columns in three tables.

use super::{
    connection::{Row, Session, Sql, Value, values},
    errors::broken,
};
use crate::{
    identity::{InstanceName, OrganizationId, Timestamp, UserId},
    mirror::{Content, Digest, Entity, EntityKind, Head, Origin, StoreError, Versioned},
};

/// The columns of a [`Head`], as [`read`] takes them.
macro_rules! head_columns {
    () => {
        "version_ms, as_of_ms, digest, doubtful, deleted_ms, absent_ms, confirmed_ms, seen_ms"
    };
}
pub(super) use head_columns;

/// Sets them in an upsert.
macro_rules! set_head {
    () => {
        "version_ms = excluded.version_ms, as_of_ms = excluded.as_of_ms, \
         digest = excluded.digest, doubtful = excluded.doubtful, \
         deleted_ms = excluded.deleted_ms, absent_ms = excluded.absent_ms, \
         confirmed_ms = excluded.confirmed_ms, seen_ms = excluded.seen_ms, \
         live = excluded.live, look_up = excluded.look_up, touched_ms = excluded.touched_ms"
    };
}

// Primary keys.
const USER: Sql = Sql::both(concat!(
    "SELECT ",
    head_columns!(),
    " FROM users WHERE instance = $1 AND id = $2"
));
const ORGANIZATION: Sql = Sql::both(concat!(
    "SELECT ",
    head_columns!(),
    " FROM organizations WHERE instance = $1 AND id = $2"
));
const MEMBERSHIP: Sql = Sql::both(concat!(
    "SELECT ",
    head_columns!(),
    " FROM memberships WHERE instance = $1 AND organization_id = $2 AND user_id = $3"
));

const SAVE_USER: Sql = Sql::both(concat!(
    "INSERT INTO users (instance, id, ",
    head_columns!(),
    ", live, look_up, touched_ms) \
     VALUES ($12, $13, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
     ON CONFLICT (instance, id) DO UPDATE SET ",
    set_head!()
));
const SAVE_ORGANIZATION: Sql = Sql::both(concat!(
    "INSERT INTO organizations (instance, id, ",
    head_columns!(),
    ", live, look_up, touched_ms) \
     VALUES ($12, $13, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
     ON CONFLICT (instance, id) DO UPDATE SET ",
    set_head!()
));
const SAVE_MEMBERSHIP: Sql = Sql::both(concat!(
    "INSERT INTO memberships (instance, organization_id, user_id, ",
    head_columns!(),
    ", live, look_up, touched_ms) \
     VALUES ($12, $13, $14, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
     ON CONFLICT (instance, organization_id, user_id) DO UPDATE SET ",
    set_head!()
));

// Primary keys, from the last id on.
const USERS_AFTER: Sql = Sql::both(concat!(
    "SELECT ",
    head_columns!(),
    ", id FROM users WHERE instance = $1 AND id > $2 ORDER BY id LIMIT $3"
));
const ORGANIZATIONS_AFTER: Sql = Sql::both(concat!(
    "SELECT ",
    head_columns!(),
    ", id FROM organizations WHERE instance = $1 AND id > $2 ORDER BY id LIMIT $3"
));
const MEMBERSHIPS_AFTER: Sql = Sql::both(concat!(
    "SELECT ",
    head_columns!(),
    ", organization_id, user_id FROM memberships \
     WHERE instance = $1 AND (organization_id, user_id) > ($2, $4) \
     ORDER BY organization_id, user_id LIMIT $3"
));

// users_to_look_up, organizations_to_look_up, memberships_to_look_up.
const USERS_TO_LOOK_UP: Sql =
    Sql::both("SELECT id FROM users WHERE instance = $1 AND look_up = 1 ORDER BY id LIMIT $2");
const ORGANIZATIONS_TO_LOOK_UP: Sql = Sql::both(
    "SELECT id FROM organizations WHERE instance = $1 AND look_up = 1 ORDER BY id LIMIT $2",
);
const MEMBERSHIPS_TO_LOOK_UP: Sql = Sql::both(
    "SELECT organization_id, user_id FROM memberships WHERE instance = $1 AND look_up = 1 \
     ORDER BY organization_id, user_id LIMIT $2",
);

// The primary key and memberships_by_user. What is dead and empty already need not die again: a
// later write takes the tombstone of user and organization into account.
const OF_ORGANIZATION: Sql = Sql::each(
    concat!(
        "SELECT ",
        head_columns!(),
        ", organization_id, user_id FROM memberships \
         WHERE instance = $1 AND organization_id = $2 AND user_id > $3 \
         AND (live = 1 OR look_up = 1) ORDER BY user_id LIMIT $4"
    ),
    concat!(
        "SELECT ",
        head_columns!(),
        ", organization_id, user_id FROM memberships \
         WHERE instance = $1 AND organization_id = $2 AND user_id > $3 \
         AND (live = 1 OR look_up = 1) ORDER BY user_id LIMIT $4 FOR UPDATE"
    ),
);
const OF_USER: Sql = Sql::each(
    concat!(
        "SELECT ",
        head_columns!(),
        ", organization_id, user_id FROM memberships \
         WHERE instance = $1 AND user_id = $2 AND organization_id > $3 \
         AND (live = 1 OR look_up = 1) ORDER BY organization_id LIMIT $4"
    ),
    concat!(
        "SELECT ",
        head_columns!(),
        ", organization_id, user_id FROM memberships \
         WHERE instance = $1 AND user_id = $2 AND organization_id > $3 \
         AND (live = 1 OR look_up = 1) ORDER BY organization_id LIMIT $4 FOR UPDATE"
    ),
);

/// What is known of an entity; [`Head::default`] when nothing is.
pub(super) async fn load(
    session: &mut Session,
    instance: &InstanceName,
    entity: &Entity,
) -> Result<Option<Head>, StoreError> {
    let instance = instance.as_str();
    let row = match entity {
        Entity::User(id) => session.row(USER, values![instance, id.as_str()]).await,
        Entity::Organization(id) => {
            session
                .row(ORGANIZATION, values![instance, id.as_str()])
                .await
        }
        Entity::Membership(organization, user) => {
            let key = values![instance, organization.as_str(), user.as_str()];
            session.row(MEMBERSHIP, key).await
        }
    };
    row?.map(|mut row| read(&mut row)).transpose()
}

/// Keeps what is known of an entity, beside its content.
pub(super) async fn save(
    session: &mut Session,
    instance: &InstanceName,
    entity: &Entity,
    head: &Head,
    now: Timestamp,
) -> Result<(), StoreError> {
    let as_of = head.content.and_then(|content| match content.origin {
        Origin::Event => None,
        Origin::Api { as_of } => Some(as_of),
    });
    let digest = head.content.as_ref().map(|content| content.digest);
    let mut row = values![
        head.version,
        as_of,
        digest.as_ref().map(|digest| digest.as_bytes().as_slice()),
        head.content.is_some_and(|content| content.doubtful),
        head.deleted_at,
        head.absent_at,
        head.confirmed,
        head.seen_at,
        head.is_live(),
        head.wants_look_up(),
        now,
        instance.as_str(),
    ];
    let sql = match entity {
        Entity::User(id) => {
            row.push(id.as_str().into());
            SAVE_USER
        }
        Entity::Organization(id) => {
            row.push(id.as_str().into());
            SAVE_ORGANIZATION
        }
        Entity::Membership(organization, user) => {
            row.push(organization.as_str().into());
            row.push(user.as_str().into());
            SAVE_MEMBERSHIP
        }
    };
    session.run(sql, row).await.map(drop)
}

/// A page of entities of a kind, by id.
pub(super) async fn page(
    session: &mut Session,
    instance: &InstanceName,
    kind: EntityKind,
    after: Option<&Entity>,
    limit: u32,
) -> Result<Vec<Versioned>, StoreError> {
    let (first, second) = match after {
        Some(Entity::User(id)) => (id.as_str(), ""),
        Some(Entity::Organization(id)) => (id.as_str(), ""),
        Some(Entity::Membership(organization, user)) => (organization.as_str(), user.as_str()),
        None => ("", ""),
    };
    let mut key = values![instance.as_str(), first, limit];
    let sql = match kind {
        EntityKind::User => USERS_AFTER,
        EntityKind::Organization => ORGANIZATIONS_AFTER,
        EntityKind::Membership => {
            key.push(Value::from(second));
            MEMBERSHIPS_AFTER
        }
    };
    let rows = session.rows(sql, key).await?;
    rows.into_iter()
        .map(|mut row| versioned(&mut row, kind))
        .collect()
}

/// Entities of which only Clerk can tell how they are.
pub(super) async fn to_look_up(
    session: &mut Session,
    instance: &InstanceName,
    kind: EntityKind,
    limit: u32,
) -> Result<Vec<Entity>, StoreError> {
    let sql = match kind {
        EntityKind::User => USERS_TO_LOOK_UP,
        EntityKind::Organization => ORGANIZATIONS_TO_LOOK_UP,
        EntityKind::Membership => MEMBERSHIPS_TO_LOOK_UP,
    };
    let rows = session.rows(sql, values![instance.as_str(), limit]).await?;
    rows.into_iter()
        .map(|mut row| entity(&mut row, kind))
        .collect()
}

/// Where a walk over the memberships of a user or of an organization stands.
pub(super) enum Members<'a> {
    OfOrganization(&'a OrganizationId, Option<UserId>),
    OfUser(&'a UserId, Option<OrganizationId>),
}

/// The next page of memberships that have content; empty at the end.
pub(super) async fn members(
    session: &mut Session,
    instance: &InstanceName,
    members: &mut Members<'_>,
    limit: u32,
) -> Result<Vec<Versioned>, StoreError> {
    let (sql, of, after) = match members {
        Members::OfOrganization(id, after) => (
            OF_ORGANIZATION,
            id.as_str(),
            after.as_ref().map_or("", UserId::as_str),
        ),
        Members::OfUser(id, after) => (
            OF_USER,
            id.as_str(),
            after.as_ref().map_or("", OrganizationId::as_str),
        ),
    };
    let rows = session
        .rows(sql, values![instance.as_str(), of, after, limit])
        .await?;
    let page: Vec<Versioned> = rows
        .into_iter()
        .map(|mut row| versioned(&mut row, EntityKind::Membership))
        .collect::<Result<_, StoreError>>()?;
    if let Some(Entity::Membership(organization, user)) = page.last().map(|last| &last.entity) {
        match members {
            Members::OfOrganization(_, after) => *after = Some(user.clone()),
            Members::OfUser(_, after) => *after = Some(organization.clone()),
        }
    }
    Ok(page)
}

/// Reads the columns of a head, and the ids behind them.
pub(super) fn versioned(row: &mut Row, kind: EntityKind) -> Result<Versioned, StoreError> {
    Ok(Versioned {
        head: read(row)?,
        entity: entity(row, kind)?,
    })
}

fn entity(row: &mut Row, kind: EntityKind) -> Result<Entity, StoreError> {
    Ok(match kind {
        EntityKind::User => Entity::User(row.id()?),
        EntityKind::Organization => Entity::Organization(row.id()?),
        EntityKind::Membership => Entity::Membership(row.id()?, row.id()?),
    })
}

/// Reads the columns of a head.
pub(super) fn read(row: &mut Row) -> Result<Head, StoreError> {
    let version = row.maybe_time()?;
    let as_of = row.maybe_time()?;
    let digest = row.maybe_blob()?;
    let doubtful = row.flag()?;
    let content = digest
        .map(|digest| {
            let digest =
                <[u8; 32]>::try_from(digest).map_err(|_| broken("a digest that is none"))?;
            Ok(Content {
                origin: as_of.map_or(Origin::Event, |as_of| Origin::Api { as_of }),
                digest: Digest::from_bytes(digest),
                doubtful,
            })
        })
        .transpose()?;
    Ok(Head {
        version,
        content,
        deleted_at: row.maybe_time()?,
        absent_at: row.maybe_time()?,
        confirmed: row.maybe_time()?,
        seen_at: row.maybe_time()?,
    })
}
