//! What the feed says behind a position, with what each entity is now: read once for all watches that
//! stand there, which are all that have caught up.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::Instant;

use super::{WatchChange, WatchEnd, WatchScope};
use crate::{
    identity::{InstanceName, UserId},
    mirror::{
        Change, ChangeEvent, FeedPage, MembershipKey, MirroredMembership, Position, Seen, Store,
        StoreError,
    },
};

/// Entries of the feed that are read at once; of those that are watched, with all that they are.
const AT_ONCE: u32 = 200;
/// For how long a read answers others: less than from one look of a watch to its next, so that what it
/// came too early for is read then.
const REMEMBERED: Duration = Duration::from_millis(15);
/// Reads that are remembered. At it the oldest is forgotten.
const MAX_REMEMBERED: usize = 4;

/// A part of the feed, as far as it is watched.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// In order; of several about one entity the last.
    pub(super) changes: Vec<(Position, WatchChange)>,
    /// How far it goes.
    pub(super) until: Position,
    /// Whether nothing more was there.
    pub(super) is_last: bool,
}

/// Which slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) instance: InstanceName,
    pub(super) scope: WatchScope,
    pub(super) position: Position,
}

type Read = Shared<BoxFuture<'static, Result<Arc<Slice>, WatchEnd>>>;

struct Remembered {
    behind: Behind,
    read: Read,
    began: Instant,
}

/// Reads the feed for all watches.
pub(super) struct Slices {
    store: Arc<dyn Store>,
    remembered: Mutex<VecDeque<Remembered>>,
}

impl Slices {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            remembered: Mutex::default(),
        }
    }

    /// What is there behind a position. It may be read for others too, but not before `since`: when
    /// the watch began, or last read something, so that it is never told what is older than that.
    pub(super) async fn read(
        &self,
        behind: Behind,
        since: Instant,
    ) -> Result<Arc<Slice>, WatchEnd> {
        self.shared(behind, since).await
    }

    fn shared(&self, behind: Behind, since: Instant) -> Read {
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        remembered.retain(|it| it.began.elapsed() < REMEMBERED);
        let mut newest_first = remembered.iter().rev();
        let same = newest_first.find(|it| it.behind == behind && it.began >= since);
        if let Some(same) = same {
            return same.read.clone();
        }
        let (store, asked) = (Arc::clone(&self.store), behind.clone());
        let read = async move { slice(&*store, &asked).await.map(Arc::new) };
        let read = read.boxed().shared();
        if remembered.len() == MAX_REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back(Remembered {
            behind,
            read: read.clone(),
            began: Instant::now(),
        });
        read
    }
}

/// Entries behind a position, at most `limit`.
pub(super) async fn entries(
    store: &dyn Store,
    instance: &InstanceName,
    after: Position,
    limit: u32,
) -> Result<Vec<Change>, WatchEnd> {
    match store.changes(instance, after, limit).await? {
        FeedPage::Changes(changes) => Ok(changes),
        FeedPage::Gone { oldest: _ } => Err(WatchEnd::Expired),
    }
}

/// What an entry says is different; what it is now has to be read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(UserId),
    Membership(MembershipKey),
}

impl Subject {
    fn of(event: ChangeEvent, scope: WatchScope) -> Option<Self> {
        let with_memberships = scope == WatchScope::UsersAndMemberships;
        match event {
            ChangeEvent::UserChanged(id) | ChangeEvent::UserDeleted(id) => Some(Self::User(id)),
            ChangeEvent::MembershipChanged(organization, user)
            | ChangeEvent::MembershipDeleted(organization, user) => {
                with_memberships.then_some(Self::Membership((organization, user)))
            }
            ChangeEvent::UserRevoked(..)
            | ChangeEvent::OrganizationChanged(_)
            | ChangeEvent::OrganizationDeleted(_)
            | ChangeEvent::SessionEnded(_)
            | ChangeEvent::RoleChanged(_) => None,
        }
    }

    fn gone(self) -> WatchChange {
        match self {
            Self::User(id) => WatchChange::UserDeleted(id),
            Self::Membership((organization, user)) => {
                WatchChange::MembershipDeleted(organization, user)
            }
        }
    }
}

/// Of several entries about one subject the last is told, so that a token never stands behind
/// something that was not.
async fn slice(store: &dyn Store, behind: &Behind) -> Result<Slice, WatchEnd> {
    let Behind {
        instance,
        scope,
        position,
    } = behind;
    let entries = entries(store, instance, *position, AT_ONCE).await?;
    let is_last = entries.len() < AT_ONCE as usize;
    let until = entries.last().map_or(*position, |entry| entry.position);
    let mut seen = HashSet::new();
    let mut subjects = Vec::new();
    for entry in entries.into_iter().rev() {
        if let Some(subject) = Subject::of(entry.event, *scope)
            && seen.insert(subject.clone())
        {
            subjects.push((entry.position, subject));
        }
    }
    let mut now = what_they_are(store, instance, &subjects).await?;
    let changes = subjects.into_iter().rev().map(|(position, subject)| {
        let change = now.remove(&subject);
        (position, change.unwrap_or_else(|| subject.gone()))
    });
    Ok(Slice {
        changes: changes.collect(),
        until,
        is_last,
    })
}

async fn what_they_are(
    store: &dyn Store,
    instance: &InstanceName,
    subjects: &[(Position, Subject)],
) -> Result<HashMap<Subject, WatchChange>, StoreError> {
    let (mut users, mut keys) = (Vec::new(), Vec::new());
    for (_, subject) in subjects {
        match subject {
            Subject::User(id) => users.push(id.clone()),
            Subject::Membership(key) => keys.push(key.clone()),
        }
    }
    let mut found = HashMap::with_capacity(subjects.len());
    if !users.is_empty() {
        for seen in store.users(instance, &users).await? {
            let subject = Subject::User(seen.value.id.clone());
            found.insert(subject, WatchChange::User(Arc::new(seen)));
        }
    }
    if !keys.is_empty() {
        for seen in store.memberships(instance, &keys).await? {
            let subject = Subject::Membership(key(&seen));
            found.insert(subject, WatchChange::Membership(Arc::new(seen)));
        }
    }
    Ok(found)
}

pub(super) fn key(seen: &Seen<MirroredMembership>) -> MembershipKey {
    let membership = &seen.value.membership;
    (
        membership.organization.id.clone(),
        membership.user_id.clone(),
    )
}
