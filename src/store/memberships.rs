//! What is asked of memberships.

use super::{
    connection::{Row, Session, Sql, values},
    contents::{from_json, json},
    errors::broken,
    heads,
};
use crate::{
    identity::{InstanceName, OrganizationId, Texts, Timestamp, UserId},
    mirror::{
        Entity, KnownMembership, Membership, MembershipKey, MirroredMembership, OrganizationRecord,
        Seen, Standing, StoreError,
    },
};

/// The columns of a membership, as [`membership`] takes them: the slug is the organization's own
/// where it is known, and the standing is what the newer of user and membership says.
macro_rules! membership_columns {
    () => {
        "m.organization_id, CASE WHEN o.live = 1 THEN o.slug ELSE m.slug END, m.user_id, m.role, \
         m.permissions, m.standing, m.version_ms, m.created_ms, m.source, m.seen_ms, \
         CASE WHEN u.live = 1 AND u.version_ms >= m.version_ms THEN \
           CASE WHEN u.banned = 1 THEN 'banned' WHEN u.deprovisioned = 1 THEN 'deprovisioned' \
           ELSE 'good' END END \
         FROM memberships m \
         LEFT JOIN organizations o ON o.instance = m.instance AND o.id = m.organization_id \
         LEFT JOIN users u ON u.instance = m.instance AND u.id = m.user_id "
    };
}

// The primary keys of all three.
const MEMBERSHIP: Sql = Sql::both(concat!(
    "SELECT ",
    membership_columns!(),
    "WHERE m.instance = $1 AND m.organization_id = $2 AND m.user_id = $3 AND m.live = 1 \
     AND m.look_up = 0"
));
// memberships_by_user, and the primary keys of the others.
const MEMBERSHIPS_OF: Sql = Sql::both(concat!(
    "SELECT ",
    membership_columns!(),
    "WHERE m.instance = $1 AND m.user_id = $2 AND m.organization_id > $3 AND m.live = 1 \
     ORDER BY m.organization_id LIMIT $4"
));

// Likewise, from the last on.
const MEMBERSHIPS_AFTER: Sql = Sql::both(concat!(
    "SELECT ",
    membership_columns!(),
    "WHERE m.instance = $1 AND (m.organization_id, m.user_id) > ($2, $4) AND m.live = 1 \
     ORDER BY m.organization_id, m.user_id LIMIT $3"
));
// Likewise, for each of a list.
const MEMBERSHIPS_BY_KEY: Sql = Sql::each(
    concat!(
        "SELECT ",
        membership_columns!(),
        "WHERE m.instance = $1 AND m.live = 1 AND (m.organization_id, m.user_id) IN \
         (SELECT value ->> 0, value ->> 1 FROM json_each($2))"
    ),
    concat!(
        "SELECT ",
        membership_columns!(),
        "WHERE m.instance = $1 AND m.live = 1 AND (m.organization_id, m.user_id) IN \
         (SELECT pair ->> 0, pair ->> 1 FROM json_array_elements($2::json) AS pair)"
    ),
);

/// What is known of one user in one organization. Asked from the outside in, so that whatever is
/// deleted meanwhile shows at the latest where it is asked about itself.
pub(super) async fn find_membership(
    session: &mut Session,
    instance: &InstanceName,
    organization: &OrganizationId,
    user: &UserId,
) -> Result<KnownMembership, StoreError> {
    let died_at = async |session: &mut Session, entity| {
        let head = heads::load(session, instance, &entity).await?;
        Ok::<Option<Timestamp>, StoreError>(head.and_then(|head| head.died_at()))
    };
    if let Some(since) = died_at(session, Entity::Organization(organization.clone())).await? {
        return Ok(KnownMembership::NoOrganization { since });
    }
    if let Some(since) = died_at(session, Entity::User(user.clone())).await? {
        return Ok(KnownMembership::NotAMember { since });
    }
    let key = values![instance.as_str(), organization.as_str(), user.as_str()];
    if let Some(row) = session.row(MEMBERSHIP, key).await? {
        return Ok(KnownMembership::Member(Box::new(membership(row)?)));
    }
    let entity = Entity::Membership(organization.clone(), user.clone());
    Ok(match heads::load(session, instance, &entity).await? {
        // One that waits for the API to confirm it is neither.
        Some(head) if head.wants_look_up() => KnownMembership::Unknown,
        Some(head) => head.died_at().map_or(KnownMembership::Unknown, |since| {
            KnownMembership::NotAMember { since }
        }),
        None => KnownMembership::Unknown,
    })
}

/// A page of a user's memberships.
pub(super) async fn find_memberships_of(
    session: &mut Session,
    instance: &InstanceName,
    user: &UserId,
    after: Option<&OrganizationId>,
    limit: u32,
) -> Result<Vec<Seen<MirroredMembership>>, StoreError> {
    let after = after.map_or("", OrganizationId::as_str);
    let key = values![instance.as_str(), user.as_str(), after, limit];
    let rows = session.rows(MEMBERSHIPS_OF, key).await?;
    rows.into_iter().map(membership).collect()
}

/// A page of the memberships that are there.
pub(super) async fn find_memberships_after(
    session: &mut Session,
    instance: &InstanceName,
    after: Option<&MembershipKey>,
    limit: u32,
) -> Result<Vec<Seen<MirroredMembership>>, StoreError> {
    let (organization, user) = after.map_or(("", ""), |(organization, user)| {
        (organization.as_str(), user.as_str())
    });
    let key = values![instance.as_str(), organization, limit, user];
    let rows = session.rows(MEMBERSHIPS_AFTER, key).await?;
    rows.into_iter().map(membership).collect()
}

/// Those of these memberships that are there.
pub(super) async fn find_memberships(
    session: &mut Session,
    instance: &InstanceName,
    keys: &[MembershipKey],
) -> Result<Vec<Seen<MirroredMembership>>, StoreError> {
    let keys: Vec<[&str; 2]> = keys
        .iter()
        .map(|(organization, user)| [organization.as_str(), user.as_str()])
        .collect();
    let key = values![instance.as_str(), &*json(&keys)?];
    let rows = session.rows(MEMBERSHIPS_BY_KEY, key).await?;
    rows.into_iter().map(membership).collect()
}

fn membership(mut row: Row) -> Result<Seen<MirroredMembership>, StoreError> {
    let row = &mut row;
    let organization = OrganizationRecord {
        id: row.id()?,
        slug: row.maybe_id()?,
    };
    let user_id = row.id()?;
    let role = row.boxed()?;
    let permissions: Vec<String> = from_json(&row.text()?)?;
    let own_standing = standing(&row.text()?)?;
    let updated_at = row.time()?;
    let created_at = row.time()?;
    let source = row.boxed()?;
    let seen_at = row.maybe_time()?;
    let users_standing = row.maybe_text()?.as_deref().map(standing).transpose()?;
    Ok(Seen {
        value: MirroredMembership {
            membership: Membership {
                organization,
                user_id,
                role,
                permissions: permissions.into_iter().collect::<Texts>(),
                standing: users_standing.unwrap_or(own_standing),
                updated_at,
            },
            created_at,
            source,
        },
        seen_at,
    })
}

fn standing(name: &str) -> Result<Standing, StoreError> {
    [Standing::Good, Standing::Banned, Standing::Deprovisioned]
        .into_iter()
        .find(|standing| standing.name() == name)
        .ok_or_else(|| broken("a standing that is none"))
}
