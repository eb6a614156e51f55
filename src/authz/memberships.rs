//! What Clerk says of memberships, organizations and roles, remembered for a while; of memberships,
//! what the mirror says, too. Facts are kept here, never decisions.

mod mirrored;

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use equivalent::Equivalent;

use self::mirrored::Mirrored;
pub use self::mirrored::{AskMirror, ComparedAt};
use super::{
    CannotTell, Instance, InstanceSerial, Source,
    asking::{Found, LookUp, Question, remembered, text},
    fact_cache::{FactCache, FactCacheStats, Known},
    lookups::Asked,
};
use crate::{
    explain::{Rule, Steps},
    identity::{Organization, OrganizationId, OrganizationSlug, Session, Texts, Timestamp, UserId},
    keys::Clock,
    mirror::{Answered, Directory, Membership, MembershipAnswer, OrganizationRecord, Standing},
};

/// The share of the bytes that slugs may take, and the share that roles may take.
const SIDE_SHARE: u64 = 16;
/// How long facts may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembershipSettings {
    /// The size of the memory in bytes; 0 switches it off.
    pub max_bytes: u64,
    /// How old a fact may be at most.
    pub max_age: Duration,
    /// How old it may be when it says that somebody is not a member, or that something is not there.
    pub negative_max_age: Duration,
    /// Questions that wait for Clerk at once. Each holds one of the calls that the service works on,
    /// and the others, for which nobody has to be asked, must have room: a further one is turned
    /// away.
    pub max_waiting: usize,
}

impl Default for MembershipSettings {
    fn default() -> Self {
        Self {
            max_bytes: 32 << 20,
            max_age: Duration::from_secs(60),
            negative_max_age: Duration::from_secs(10),
            max_waiting: 6_000,
        }
    }
}

/// Everything that is remembered of memberships, organizations and roles.
pub struct Memberships {
    settings: MembershipSettings,
    /// Says when an answer came, which may be long after it was asked for.
    clock: Clock,
    memberships: FactCache<MembershipKey, MembershipAnswer>,
    slugs: FactCache<SlugKey, Option<OrganizationRecord>>,
    roles: FactCache<RoleKey, Option<Texts>>,
    waiting: AtomicUsize,
    /// `None` where there is no mirror, or it is not believed.
    mirrored: Option<Mirrored>,
}

impl fmt::Debug for Memberships {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memberships")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Memberships {
    /// With nothing remembered.
    pub fn new(settings: MembershipSettings, clock: Clock) -> Self {
        Self {
            clock,
            memberships: FactCache::new(settings.max_bytes),
            slugs: FactCache::new(settings.max_bytes / SIDE_SHARE),
            roles: FactCache::new(settings.max_bytes / SIDE_SHARE),
            waiting: AtomicUsize::new(0),
            mirrored: None,
            settings,
        }
    }

    /// Asks the mirror before Clerk, and believes it for `max_age` after a membership was last known
    /// for certain. Zero: never.
    pub(super) fn with_mirror(
        self,
        ask: AskMirror,
        compared_at: ComparedAt,
        max_age: Duration,
    ) -> Self {
        Self {
            mirrored: (!max_age.is_zero()).then_some(Mirrored {
                ask,
                compared_at,
                max_age,
            }),
            ..self
        }
    }

    /// Counters of the memory of memberships.
    pub fn stats(&self) -> FactCacheStats {
        self.memberships.stats()
    }

    /// Whether a change of the membership in the session's active organization is known that the
    /// session's token cannot show. In doubt, it is: a second is the finest that a token says.
    ///
    /// What raises `updated_at` at Clerk is not documented, so that a younger fact is compared by what
    /// it takes away, too. What it gives shows with the next token.
    pub(super) fn changed_since(
        &self,
        instance: &Instance,
        active: &Organization,
        session: &Session,
    ) -> bool {
        let key = MembershipRef(instance.serial, &session.user_id, &active.id);
        let Some(known) = self.memberships.peek(&key) else {
            return false;
        };
        let is_since = |at: Timestamp| session.issued_at.is_none_or(|issued_at| at >= issued_at);
        match &*known.value {
            MembershipAnswer::Member(membership) => {
                is_since(membership.updated_at)
                    || (is_since(known.as_of) && takes_away(membership, active))
            }
            // The token says that there was one: it ended before we looked.
            MembershipAnswer::NotAMember | MembershipAnswer::NoOrganization => {
                is_since(known.as_of)
            }
        }
    }

    /// The membership, as fresh as asked.
    pub(super) async fn membership(
        &self,
        instance: &Instance,
        organization: &OrganizationId,
        user: &UserId,
        look_up: LookUp<'_>,
        steps: &mut Steps,
    ) -> Result<Found<MembershipAnswer>, CannotTell> {
        let key = MembershipRef(instance.serial, user, organization);
        if let Some(found) = remembered(&self.memberships, &key, look_up) {
            return Ok(found);
        }
        let key = MembershipKey {
            instance: instance.serial,
            user: user.clone(),
            organization: organization.clone(),
        };
        let heap = text(key.user.as_str()) + text(key.organization.as_str());
        if let Some(mirrored) = &self.mirrored
            && let Some(Answered { value, as_of }) = mirrored
                .membership(&instance.name, organization, user, look_up)
                .await
            && !self.is_known_since(&key, as_of, look_up.now)
        {
            // Remembered, and to be kept by callers, no longer than what Clerk says now.
            let age = look_up.now.since(as_of);
            let keep_for = (age + self.settings.max_age).min(mirrored.max_age);
            let bytes = size_of(&value) + heap;
            let value = MembershipAnswer::Member(value);
            let known = Known::new(value, as_of, keep_for, bytes);
            self.memberships.insert(key, known.clone(), (self.clock)());
            return Ok(Found {
                known,
                source: Source::Mirror,
            });
        }
        let asked = Question {
            key: key.clone(),
            waiting: &self.waiting,
            max_waiting: self.settings.max_waiting,
            rule: Rule::Membership,
            once: |lookups| &lookups.memberships,
        };
        let (user, organization) = (user.clone(), organization.clone());
        let ask = move |directory: Arc<dyn Directory>, ask| -> Asked<MembershipAnswer> {
            Box::pin(async move { directory.membership(&organization, &user, ask).await })
        };
        let Answered { value, as_of } = asked.answer(instance, ask, look_up, steps).await?;
        let (keep_for, bytes) = match &value {
            MembershipAnswer::Member(membership) => (self.settings.max_age, size_of(membership)),
            MembershipAnswer::NotAMember | MembershipAnswer::NoOrganization => {
                (self.settings.negative_max_age, 0)
            }
        };
        let known = Known::new(value, as_of, keep_for, bytes + heap);
        Ok(self.memberships.found(key, known, (self.clock)()))
    }

    /// Whether something is known of the membership that what the mirror says as of `as_of` must not
    /// undo: what is younger, or a "no" that is as old. What was learnt before the clock was set back is
    /// neither.
    fn is_known_since(&self, key: &MembershipKey, as_of: Timestamp, now: Timestamp) -> bool {
        let known = self.memberships.peek(key).filter(|it| it.as_of <= now);
        known.is_some_and(|known| match &*known.value {
            MembershipAnswer::Member(_) => known.as_of > as_of,
            MembershipAnswer::NotAMember | MembershipAnswer::NoOrganization => known.as_of >= as_of,
        })
    }

    /// The organization that has the slug, as fresh as asked.
    pub(super) async fn organization(
        &self,
        instance: &Instance,
        slug: &OrganizationSlug,
        look_up: LookUp<'_>,
        steps: &mut Steps,
    ) -> Result<Found<Option<OrganizationRecord>>, CannotTell> {
        let key: SlugKey = (instance.serial, slug.clone());
        if let Some(found) = remembered(&self.slugs, &key, look_up) {
            return Ok(found);
        }
        let asked = Question {
            key: key.clone(),
            waiting: &self.waiting,
            max_waiting: self.settings.max_waiting,
            rule: Rule::Membership,
            once: |lookups| &lookups.slugs,
        };
        let wanted = slug.clone();
        let ask = move |directory: Arc<dyn Directory>, ask| -> Asked<Option<OrganizationRecord>> {
            Box::pin(async move { directory.organization_by_slug(&wanted, ask).await })
        };
        let Answered { value, as_of } = asked.answer(instance, ask, look_up, steps).await?;
        let bytes = 3 * text(slug.as_str());
        // A slug can change and be reused: it is believed as briefly as a "no".
        let known = Known::new(value, as_of, self.settings.negative_max_age, bytes);
        Ok(self.slugs.found(key, known, (self.clock)()))
    }

    /// What a role permits, as fresh as asked.
    pub(super) async fn role_permissions(
        &self,
        instance: &Instance,
        role: &str,
        look_up: LookUp<'_>,
        steps: &mut Steps,
    ) -> Result<Found<Option<Texts>>, CannotTell> {
        let key: RoleKey = (instance.serial, role.into());
        if let Some(found) = remembered(&self.roles, &key, look_up) {
            return Ok(found);
        }
        let asked = Question {
            key: key.clone(),
            waiting: &self.waiting,
            max_waiting: self.settings.max_waiting,
            rule: Rule::Membership,
            once: |lookups| &lookups.roles,
        };
        let wanted: Box<str> = role.into();
        let ask = move |directory: Arc<dyn Directory>, ask| -> Asked<Option<Texts>> {
            Box::pin(async move { directory.role_permissions(&wanted, ask).await })
        };
        let Answered { value, as_of } = asked.answer(instance, ask, look_up, steps).await?;
        let (keep_for, held) = match &value {
            Some(permissions) => (self.settings.max_age, permissions.heap_bytes()),
            None => (self.settings.negative_max_age, 0),
        };
        let known = Known::new(value, as_of, keep_for, held + text(role));
        Ok(self.roles.found(key, known, (self.clock)()))
    }
}

/// Whether a session's role, or one of its permissions, is not the member's any more, or the member may
/// not act at all.
fn takes_away(membership: &Membership, active: &Organization) -> bool {
    let held = |permission: &str| membership.permissions.contains(permission);
    membership.standing != Standing::Good
        || active.role.as_deref() != Some(&*membership.role)
        || !active.permissions.iter().all(held)
}

/// By instance and slug.
pub(super) type SlugKey = (InstanceSerial, OrganizationSlug);
/// By instance and role.
pub(super) type RoleKey = (InstanceSerial, Box<str>);

/// By (instance, user, organization).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MembershipKey {
    instance: InstanceSerial,
    user: UserId,
    organization: OrganizationId,
}

/// A [`MembershipKey`] without its texts, so that a look-up allocates nothing.
struct MembershipRef<'a>(InstanceSerial, &'a UserId, &'a OrganizationId);

impl Hash for MembershipKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        MembershipRef(self.instance, &self.user, &self.organization).hash(state);
    }
}

impl Hash for MembershipRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self(instance, user, organization) = self;
        instance.hash(state);
        user.hash(state);
        organization.hash(state);
    }
}

impl Equivalent<MembershipKey> for MembershipRef<'_> {
    fn equivalent(&self, key: &MembershipKey) -> bool {
        let Self(instance, user, organization) = self;
        *instance == key.instance && **user == key.user && **organization == key.organization
    }
}

/// What a membership holds on the heap, in bytes.
fn size_of(membership: &Membership) -> usize {
    let Membership {
        organization: OrganizationRecord { id, slug },
        user_id,
        role,
        permissions,
        standing: _,
        updated_at: _,
    } = membership;
    size_of_val(membership)
        + text(id.as_str())
        + slug.as_ref().map_or(0, |slug| text(slug.as_str()))
        + text(user_id.as_str())
        + text(role)
        + permissions.heap_bytes()
        + 16
}

#[cfg(test)]
mod tests;
