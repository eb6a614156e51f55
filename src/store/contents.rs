//! What entities are: the columns that readers ask for, written and taken away.

use serde::{Deserialize, Serialize};

use super::{
    connection::{Row, Session, Sql, values},
    errors::broken,
};
use crate::{
    identity::{InstanceName, OrganizationId, OrganizationSlug, UserId},
    mirror::{
        EmailAddress, Entity, Fact, MirroredMembership, MirroredOrganization, Seen, StoreError,
        User, UserKey,
    },
};

// Primary keys; the row is there, its head has just been saved.
const WRITE_USER: Sql = Sql::both(
    "UPDATE users SET external_id = $3, username = $4, first_name = $5, last_name = $6, \
     image_url = $7, emails = $8, banned = $9, locked = $10, deprovisioned = $11, \
     public_metadata = $12, created_ms = $13, last_sign_in_ms = $14, source = $15 \
     WHERE instance = $1 AND id = $2",
);
const CLEAR_USER: Sql = Sql::both(
    "UPDATE users SET external_id = NULL, username = NULL, first_name = NULL, last_name = NULL, \
     image_url = NULL, emails = NULL, banned = NULL, locked = NULL, deprovisioned = NULL, \
     public_metadata = NULL, created_ms = NULL, last_sign_in_ms = NULL, source = NULL \
     WHERE instance = $1 AND id = $2",
);
const WRITE_ORGANIZATION: Sql = Sql::both(
    "UPDATE organizations SET slug = $3, name = $4, image_url = $5, public_metadata = $6, \
     created_ms = $7, source = $8 WHERE instance = $1 AND id = $2",
);
const CLEAR_ORGANIZATION: Sql = Sql::both(
    "UPDATE organizations SET slug = NULL, name = NULL, image_url = NULL, \
     public_metadata = NULL, created_ms = NULL, source = NULL WHERE instance = $1 AND id = $2",
);
const WRITE_MEMBERSHIP: Sql = Sql::both(
    "UPDATE memberships SET slug = $4, role = $5, permissions = $6, standing = $7, \
     created_ms = $8, source = $9 \
     WHERE instance = $1 AND organization_id = $2 AND user_id = $3",
);
const CLEAR_MEMBERSHIP: Sql = Sql::both(
    "UPDATE memberships SET slug = NULL, role = NULL, permissions = NULL, standing = NULL, \
     created_ms = NULL, source = NULL \
     WHERE instance = $1 AND organization_id = $2 AND user_id = $3",
);
// user_emails_by_user.
const FORGET_EMAILS: Sql =
    Sql::both("DELETE FROM user_emails WHERE instance = $1 AND user_id = $2");
const ADD_EMAIL: Sql = Sql::both(
    "INSERT INTO user_emails (instance, address, user_id) VALUES ($1, $2, $3) \
     ON CONFLICT DO NOTHING",
);

/// The columns of a user, as [`user`] takes them.
macro_rules! user_columns {
    () => {
        "u.id, u.external_id, u.username, u.first_name, u.last_name, u.image_url, u.emails, \
         u.banned, u.locked, u.deprovisioned, u.public_metadata, u.created_ms, u.version_ms, \
         u.last_sign_in_ms, u.source, u.seen_ms"
    };
}

// The primary key. Not `live = 1`: PostgreSQL, while it has no statistics, may take a partial index of
// what is live in place of the key, and read all of it.
const USER_BY_ID: Sql = Sql::both(concat!(
    "SELECT ",
    user_columns!(),
    " FROM users u WHERE u.instance = $1 AND u.id = $2 AND u.live <> 0"
));
// The primary key, from the last id on.
const USERS_AFTER: Sql = Sql::both(concat!(
    "SELECT ",
    user_columns!(),
    " FROM users u WHERE u.instance = $1 AND u.id > $2 AND u.live = 1 ORDER BY u.id LIMIT $3"
));
// The primary key, for each of a list; as an array, so that PostgreSQL looks each up and joins nothing.
const USERS_BY_ID: Sql = Sql::each(
    concat!(
        "SELECT ",
        user_columns!(),
        " FROM users u WHERE u.instance = $1 AND u.live <> 0 \
         AND u.id IN (SELECT value FROM json_each($2))"
    ),
    concat!(
        "SELECT ",
        user_columns!(),
        " FROM users u WHERE u.instance = $1 AND u.live <> 0 \
         AND u.id = ANY (ARRAY(SELECT json_array_elements_text($2::json)))"
    ),
);
// users_by_external_id.
const USER_BY_EXTERNAL_ID: Sql = Sql::both(concat!(
    "SELECT ",
    user_columns!(),
    " FROM users u WHERE u.instance = $1 AND u.external_id = $2 AND u.live = 1 \
     ORDER BY u.version_ms DESC, u.id LIMIT 1"
));
// The primary keys of both.
const USER_BY_EMAIL: Sql = Sql::both(concat!(
    "SELECT ",
    user_columns!(),
    " FROM user_emails e JOIN users u ON u.instance = e.instance AND u.id = e.user_id \
     WHERE e.instance = $1 AND e.address = $2 AND u.live <> 0 \
     ORDER BY u.version_ms DESC, u.id LIMIT 1"
));

macro_rules! organization_columns {
    () => {
        "id, slug, name, image_url, public_metadata, created_ms, version_ms, source, seen_ms"
    };
}

// The primary key.
const ORGANIZATION_BY_ID: Sql = Sql::both(concat!(
    "SELECT ",
    organization_columns!(),
    " FROM organizations WHERE instance = $1 AND id = $2 AND live <> 0"
));
// organizations_by_slug.
const ORGANIZATION_BY_SLUG: Sql = Sql::both(concat!(
    "SELECT ",
    organization_columns!(),
    " FROM organizations WHERE instance = $1 AND slug = $2 AND live = 1 \
     ORDER BY version_ms DESC, id LIMIT 1"
));

/// An address as it is kept.
#[derive(Serialize, Deserialize)]
struct KeptEmail {
    address: Box<str>,
    verified: bool,
    primary: bool,
}

/// Writes what the entity of `fact` is.
pub(super) async fn write(
    session: &mut Session,
    instance: &InstanceName,
    fact: &Fact,
) -> Result<(), StoreError> {
    match fact {
        Fact::User(user, _) => write_user(session, instance, user).await,
        Fact::Organization(organization, _) => {
            let MirroredOrganization {
                id,
                slug,
                name,
                image_url,
                public_metadata,
                created_at,
                updated_at: _,
                source,
            } = &**organization;
            let row = values![
                instance.as_str(),
                id.as_str(),
                slug.as_ref().map(OrganizationSlug::as_str),
                &**name,
                image_url.as_deref(),
                &**public_metadata,
                *created_at,
                &**source,
            ];
            session.run(WRITE_ORGANIZATION, row).await.map(drop)
        }
        Fact::Membership(mirrored, _) => {
            let MirroredMembership {
                membership,
                created_at,
                source,
            } = &**mirrored;
            let permissions: Vec<&str> = membership.permissions.iter().collect();
            let permissions = json(&permissions)?;
            let slug = membership.organization.slug.as_ref();
            let row = values![
                instance.as_str(),
                membership.organization.id.as_str(),
                membership.user_id.as_str(),
                slug.map(OrganizationSlug::as_str),
                &*membership.role,
                &*permissions,
                membership.standing.name(),
                *created_at,
                &**source,
            ];
            session.run(WRITE_MEMBERSHIP, row).await.map(drop)
        }
        Fact::Deleted { .. }
        | Fact::Absent { .. }
        | Fact::SessionEnded(_)
        | Fact::UserRevoked { .. }
        | Fact::RoleChanged { .. } => Ok(()),
    }
}

async fn write_user(
    session: &mut Session,
    instance: &InstanceName,
    user: &User,
) -> Result<(), StoreError> {
    let User {
        id,
        external_id,
        username,
        first_name,
        last_name,
        image_url,
        emails,
        banned,
        locked,
        deprovisioned,
        public_metadata,
        created_at,
        updated_at: _,
        last_sign_in_at,
        source,
    } = user;
    let kept: Vec<KeptEmail> = emails
        .iter()
        .map(|email| KeptEmail {
            address: email.address.clone(),
            verified: email.verified,
            primary: email.primary,
        })
        .collect();
    let row = values![
        instance.as_str(),
        id.as_str(),
        external_id.as_deref(),
        username.as_deref(),
        first_name.as_deref(),
        last_name.as_deref(),
        image_url.as_deref(),
        &*json(&kept)?,
        *banned,
        *locked,
        *deprovisioned,
        &**public_metadata,
        *created_at,
        *last_sign_in_at,
        &**source,
    ];
    session.run(WRITE_USER, row).await?;
    let key = || values![instance.as_str(), id.as_str()];
    session.run(FORGET_EMAILS, key()).await?;
    for email in emails.iter().filter(|email| email.verified) {
        let address = EmailAddress::key(&email.address);
        let row = values![instance.as_str(), &*address, id.as_str()];
        session.run(ADD_EMAIL, row).await?;
    }
    Ok(())
}

/// Takes away what an entity was.
pub(super) async fn clear(
    session: &mut Session,
    instance: &InstanceName,
    entity: &Entity,
) -> Result<(), StoreError> {
    let instance = instance.as_str();
    match entity {
        Entity::User(id) => {
            let key = || values![instance, id.as_str()];
            session.run(CLEAR_USER, key()).await?;
            session.run(FORGET_EMAILS, key()).await?;
        }
        Entity::Organization(id) => {
            session
                .run(CLEAR_ORGANIZATION, values![instance, id.as_str()])
                .await?;
        }
        Entity::Membership(organization, user) => {
            let key = values![instance, organization.as_str(), user.as_str()];
            session.run(CLEAR_MEMBERSHIP, key).await?;
        }
    }
    Ok(())
}

/// A user that is there.
pub(super) async fn find_user(
    session: &mut Session,
    instance: &InstanceName,
    key: UserKey<'_>,
) -> Result<Option<Seen<User>>, StoreError> {
    let instance = instance.as_str();
    let row = match key {
        UserKey::Id(id) => session.row(USER_BY_ID, values![instance, id.as_str()]),
        UserKey::ExternalId(id) => session.row(USER_BY_EXTERNAL_ID, values![instance, id]),
        UserKey::Email(address) => {
            let address = EmailAddress::key(address);
            session.row(USER_BY_EMAIL, values![instance, &*address])
        }
    };
    row.await?.map(user).transpose()
}

/// A page of the users that are there.
pub(super) async fn find_users_after(
    session: &mut Session,
    instance: &InstanceName,
    after: Option<&UserId>,
    limit: u32,
) -> Result<Vec<Seen<User>>, StoreError> {
    let after = after.map_or("", UserId::as_str);
    let key = values![instance.as_str(), after, limit];
    let rows = session.rows(USERS_AFTER, key).await?;
    rows.into_iter().map(user).collect()
}

/// Those of these users that are there.
pub(super) async fn find_users(
    session: &mut Session,
    instance: &InstanceName,
    ids: impl IntoIterator<Item = &UserId>,
) -> Result<Vec<Seen<User>>, StoreError> {
    let ids: Vec<&str> = ids.into_iter().map(UserId::as_str).collect();
    let key = values![instance.as_str(), &*json(&ids)?];
    let rows = session.rows(USERS_BY_ID, key).await?;
    rows.into_iter().map(user).collect()
}

fn user(mut row: Row) -> Result<Seen<User>, StoreError> {
    let row = &mut row;
    let value = User {
        id: row.id()?,
        external_id: row.maybe_boxed()?,
        username: row.maybe_boxed()?,
        first_name: row.maybe_boxed()?,
        last_name: row.maybe_boxed()?,
        image_url: row.maybe_boxed()?,
        emails: from_json::<Vec<KeptEmail>>(&row.text()?)?
            .into_iter()
            .map(|kept| EmailAddress {
                address: kept.address,
                verified: kept.verified,
                primary: kept.primary,
            })
            .collect(),
        banned: row.flag()?,
        locked: row.flag()?,
        deprovisioned: row.flag()?,
        public_metadata: row.boxed()?,
        created_at: row.time()?,
        updated_at: row.time()?,
        last_sign_in_at: row.maybe_time()?,
        source: row.boxed()?,
    };
    Ok(Seen {
        value,
        seen_at: row.maybe_time()?,
    })
}

/// An organization that is there, by its id.
pub(super) async fn find_organization(
    session: &mut Session,
    instance: &InstanceName,
    id: &OrganizationId,
) -> Result<Option<Seen<MirroredOrganization>>, StoreError> {
    let key = values![instance.as_str(), id.as_str()];
    let row = session.row(ORGANIZATION_BY_ID, key).await?;
    row.map(organization).transpose()
}

/// An organization that is there, by its slug.
pub(super) async fn find_organization_by_slug(
    session: &mut Session,
    instance: &InstanceName,
    slug: &OrganizationSlug,
) -> Result<Option<Seen<MirroredOrganization>>, StoreError> {
    let key = values![instance.as_str(), slug.as_str()];
    let row = session.row(ORGANIZATION_BY_SLUG, key).await?;
    row.map(organization).transpose()
}

fn organization(mut row: Row) -> Result<Seen<MirroredOrganization>, StoreError> {
    let row = &mut row;
    let value = MirroredOrganization {
        id: row.id()?,
        slug: row.maybe_id()?,
        name: row.boxed()?,
        image_url: row.maybe_boxed()?,
        public_metadata: row.boxed()?,
        created_at: row.time()?,
        updated_at: row.time()?,
        source: row.boxed()?,
    };
    Ok(Seen {
        value,
        seen_at: row.maybe_time()?,
    })
}

/// The text of a list.
pub(super) fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| broken("a list that has no JSON form"))
}

/// The list of a text.
pub(super) fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| broken("a list that is none"))
}
