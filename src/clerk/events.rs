//! Clerk's events: what each type says of users, organizations, memberships, sessions and roles.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    mirrored,
    model::{Unreadable, read, with_one_prefix},
};
use crate::{
    identity::{OrganizationId, SessionId, Timestamp, UserId},
    mirror::{
        Concern, Entity, EventReader, Fact, Origin, RevocationCause, SessionEnd, UnreadableEvent,
        ordering,
    },
    webhook::{Envelope, EventType},
};

/// Reads the events of Clerk's webhook schema of 2025-04-15.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClerkEvents;

/// What an event of a type does to what is mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    User,
    UserDeleted,
    SessionEnded,
    Organization,
    OrganizationDeleted,
    Membership,
    MembershipDeleted,
    Role,
    Permission,
    Nothing,
}

fn meaning(event_type: &EventType) -> Meaning {
    match event_type {
        EventType::UserCreated | EventType::UserUpdated => Meaning::User,
        EventType::UserDeleted => Meaning::UserDeleted,
        EventType::SessionEnded | EventType::SessionRemoved | EventType::SessionRevoked => {
            Meaning::SessionEnded
        }
        EventType::OrganizationCreated | EventType::OrganizationUpdated => Meaning::Organization,
        EventType::OrganizationDeleted => Meaning::OrganizationDeleted,
        EventType::OrganizationMembershipCreated | EventType::OrganizationMembershipUpdated => {
            Meaning::Membership
        }
        EventType::OrganizationMembershipDeleted => Meaning::MembershipDeleted,
        EventType::RoleCreated | EventType::RoleUpdated | EventType::RoleDeleted => Meaning::Role,
        EventType::PermissionCreated
        | EventType::PermissionUpdated
        | EventType::PermissionDeleted => Meaning::Permission,
        // A pending session's tokens say so themselves.
        EventType::SessionCreated
        | EventType::SessionPending
        | EventType::EmailCreated
        | EventType::SmsCreated
        | EventType::OrganizationDomainCreated
        | EventType::OrganizationDomainUpdated
        | EventType::OrganizationDomainDeleted
        | EventType::OrganizationInvitationCreated
        | EventType::OrganizationInvitationAccepted
        | EventType::OrganizationInvitationRevoked
        | EventType::PaymentAttemptCreated
        | EventType::PaymentAttemptUpdated
        | EventType::SubscriptionCreated
        | EventType::SubscriptionUpdated
        | EventType::SubscriptionActive
        | EventType::SubscriptionPastDue
        | EventType::SubscriptionItemAbandoned
        | EventType::SubscriptionItemActive
        | EventType::SubscriptionItemCanceled
        | EventType::SubscriptionItemEnded
        | EventType::SubscriptionItemFreeTrialEnding
        | EventType::SubscriptionItemIncomplete
        | EventType::SubscriptionItemPastDue
        | EventType::SubscriptionItemUpcoming
        | EventType::SubscriptionItemUpdated
        | EventType::WaitlistEntryCreated
        | EventType::WaitlistEntryUpdated
        | EventType::Unknown(_) => Meaning::Nothing,
    }
}

/// Of most objects, a deleted one included.
#[derive(Deserialize)]
struct Identified {
    id: Box<str>,
}

/// `Session`.
#[derive(Deserialize)]
struct ClerkSession {
    id: Box<str>,
    user_id: Option<Box<str>>,
}

/// Whose membership of what.
#[derive(Deserialize)]
struct MembershipIds {
    organization: Identified,
    public_user_data: PublicUserData,
}

#[derive(Deserialize)]
struct PublicUserData {
    user_id: Box<str>,
}

/// `Role`; a deleted one has no key.
#[derive(Deserialize)]
struct ClerkRole {
    key: Option<Box<str>>,
}

impl EventReader for ClerkEvents {
    fn concern(&self, envelope: &Envelope) -> Concern {
        let meaning = meaning(&envelope.event_type);
        if meaning == Meaning::Nothing {
            return Concern::Nothing;
        }
        let Some(data) = envelope.data.as_deref() else {
            return Concern::Anything;
        };
        match entity(meaning, data) {
            Ok(Some(entity)) => Concern::Entity(entity.into()),
            // What cannot be read is said by whoever reads the facts.
            Ok(None) | Err(_) => Concern::Anything,
        }
    }

    fn facts(
        &self,
        envelope: &Envelope,
        received_at: Timestamp,
    ) -> Result<Vec<Fact>, UnreadableEvent> {
        let meaning = meaning(&envelope.event_type);
        let Some(data) = envelope.data.as_deref() else {
            return Ok(Vec::new());
        };
        let times = Times {
            earliest: envelope.time.map_or(received_at, |time| time.earliest()),
            latest: envelope.time.map_or(received_at, |time| time.latest()),
        };
        facts(meaning, data, times).map_err(|unreadable| UnreadableEvent {
            cause: match unreadable {
                Unreadable::NotJson => "it is not JSON".into(),
                Unreadable::Member(text) => text.into(),
            },
        })
    }
}

/// When an event happened: a time in whole seconds is any moment of that second.
#[derive(Clone, Copy)]
struct Times {
    /// To order by.
    earliest: Timestamp,
    /// To judge by what was issued before.
    latest: Timestamp,
}

fn facts(meaning: Meaning, data: &RawValue, times: Times) -> Result<Vec<Fact>, Unreadable> {
    let revoked = |user: UserId, cause| Fact::UserRevoked {
        user,
        not_before: ordering::not_before(times.latest),
        cause,
    };
    let deleted = |entity| Fact::Deleted {
        entity,
        at: times.earliest,
    };
    Ok(match meaning {
        Meaning::User => {
            let user = mirrored::user(data)?;
            let out = RevocationCause::of(user.standing());
            let out = out.map(|cause| revoked(user.id.clone(), cause));
            let mut facts = vec![Fact::User(Box::new(user), Origin::Event)];
            facts.extend(out);
            facts
        }
        Meaning::UserDeleted => {
            let user: UserId = id(data)?;
            vec![
                deleted(Entity::User(user.clone())),
                revoked(user, RevocationCause::Deleted),
            ]
        }
        Meaning::SessionEnded => {
            let session: ClerkSession = object(data)?;
            vec![Fact::SessionEnded(SessionEnd {
                session: parsed(session.id, "id")?,
                user: session.user_id.and_then(|user| user.try_into().ok()),
                at: times.earliest,
            })]
        }
        Meaning::Organization => {
            let organization = mirrored::organization(data)?;
            vec![Fact::Organization(Box::new(organization), Origin::Event)]
        }
        Meaning::OrganizationDeleted => vec![deleted(Entity::Organization(id(data)?))],
        Meaning::Membership => {
            let (membership, organization) = mirrored::membership(data)?;
            vec![
                Fact::Organization(Box::new(organization), Origin::Event),
                Fact::Membership(Box::new(membership), Origin::Event),
            ]
        }
        Meaning::MembershipDeleted => {
            let (organization, user) = membership_ids(data)?;
            vec![deleted(Entity::Membership(organization, user))]
        }
        Meaning::Role => {
            let role: ClerkRole = object(data)?;
            vec![Fact::RoleChanged {
                role: role.key.and_then(|key| with_one_prefix(&key)),
                at: times.latest,
            }]
        }
        // Which roles have it is not said.
        Meaning::Permission => vec![Fact::RoleChanged {
            role: None,
            at: times.latest,
        }],
        Meaning::Nothing => Vec::new(),
    })
}

/// What it is about, as text; `None` where no order is needed.
fn entity(meaning: Meaning, data: &RawValue) -> Result<Option<String>, Unreadable> {
    Ok(match meaning {
        Meaning::User | Meaning::UserDeleted => Some(id::<UserId>(data)?.to_string()),
        Meaning::SessionEnded => Some(id::<SessionId>(data)?.to_string()),
        Meaning::Organization | Meaning::OrganizationDeleted => {
            Some(id::<OrganizationId>(data)?.to_string())
        }
        Meaning::Membership | Meaning::MembershipDeleted => {
            let (organization, user) = membership_ids(data)?;
            Some(format!("{organization}/{user}"))
        }
        Meaning::Role | Meaning::Permission | Meaning::Nothing => None,
    })
}

fn membership_ids(data: &RawValue) -> Result<(OrganizationId, UserId), Unreadable> {
    let ids: MembershipIds = object(data)?;
    Ok((
        parsed(ids.organization.id, "organization.id")?,
        parsed(ids.public_user_data.user_id, "public_user_data.user_id")?,
    ))
}

fn id<T: TryFrom<Box<str>>>(data: &RawValue) -> Result<T, Unreadable> {
    parsed(object::<Identified>(data)?.id, "id")
}

fn object<T: DeserializeOwned>(data: &RawValue) -> Result<T, Unreadable> {
    read(data.get().as_bytes())
}

fn parsed<T: TryFrom<Box<str>>>(text: Box<str>, member: &str) -> Result<T, Unreadable> {
    T::try_from(text).map_err(|_| Unreadable::Member(format!("{member} is not such an id")))
}

#[cfg(test)]
mod tests;
