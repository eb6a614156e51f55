use std::{fmt, future::Future, pin::Pin, time::Duration};

use thiserror::Error;

use super::{
    Applied, ClaimId, Claimed, Effect, Entity, EntityKind, Failed, FeedPage, Head, InboxEntry,
    InboxFilter, InboxState, MirroredMembership, MirroredOrganization, Position, Received,
    Sightings, User,
};
use crate::identity::{
    InstanceName, MessageId, OrganizationId, OrganizationSlug, Timestamp, UserId,
};

/// The checkpoint that holds the name of an instance's feed: positions of one name mean the same.
pub const FEED_ID_CHECKPOINT: &str = "feed-id";

/// An answer of the store on its way. May be dropped at any time: what was begun is undone.
pub type Storing<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// No answer, or nothing written; never to be taken for "no".
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// It cannot be reached or does not answer in time. Worth another try.
    #[error("the database is unavailable: {cause}")]
    Unavailable {
        /// What went wrong.
        cause: String,
    },
    /// Another transaction was in the way; nothing was written. Worth another try at once.
    #[error("the database had a conflict: {cause}")]
    Conflict {
        /// With what.
        cause: String,
    },
    /// It answers questions and takes no writes: the disk is full, or it is read-only. A person has
    /// to act.
    #[error("the database cannot be written: {cause}")]
    NotWritable {
        /// Why.
        cause: String,
    },
    /// It refuses us: the address, the credentials or the rights are wrong. A person has to act.
    #[error("the database refuses: {cause}")]
    Refused {
        /// Why.
        cause: String,
    },
    /// A newer clerk-authz has written it.
    #[error(
        "the database has schema version {found}, this clerk-authz knows up to {known}; start a \
         clerk-authz at least as new as the one that wrote it, or restore a backup from before"
    )]
    NewerSchema {
        /// The version of the database.
        found: i64,
        /// The newest version that this binary knows.
        known: i64,
    },
    /// The claim's lease has passed and the message was claimed again, or decided by hand; nothing
    /// was written.
    #[error("the message was taken by another worker")]
    ClaimLost,
    /// An effect of more than [`MAX_FACTS`](super::MAX_FACTS); nothing was written.
    #[error("{facts} facts in one effect; expected at most {}", super::MAX_FACTS)]
    TooManyFacts {
        /// How many.
        facts: usize,
    },
    /// What is stored cannot be read, or a statement is wrong: a fault of ours or of the disk.
    #[error("the database holds what cannot be read: {cause}")]
    Broken {
        /// What.
        cause: String,
    },
}

/// Our copy of Clerk's world. Everything is kept by instance; times come from the caller.
pub trait Store: Mirror + Feed + Inbox + Coordination + Sightings + Upkeep {}

impl<T: Mirror + Feed + Inbox + Coordination + Sightings + Upkeep> Store for T {}

/// What is known of users, organizations and memberships.
pub trait Mirror: fmt::Debug + Send + Sync + 'static {
    /// Writes all of `effect`, the entries of the feed, and that its message is done, in one
    /// transaction. What each fact does is for [`Head`] to say, so facts may come in any order, any
    /// number of times.
    fn apply<'a>(
        &'a self,
        instance: &'a InstanceName,
        effect: Effect,
        now: Timestamp,
    ) -> Storing<'a, Applied>;

    /// Writes several effects in one transaction, as if one after the other: all of them, or none.
    /// One at fault fails all: then they are tried one by one. The limit of [`MAX_FACTS`](super::MAX_FACTS) is for all of them.
    fn apply_all<'a>(
        &'a self,
        instance: &'a InstanceName,
        effects: &'a [Effect],
        now: Timestamp,
    ) -> Storing<'a, Vec<Applied>>;

    /// A user that is there.
    fn user<'a>(
        &'a self,
        instance: &'a InstanceName,
        key: UserKey<'a>,
    ) -> Storing<'a, Option<Seen<User>>>;

    /// The users that are there, by id, those behind `after` and at most `limit`: page by page all of
    /// them in flat memory.
    fn users_after<'a>(
        &'a self,
        instance: &'a InstanceName,
        after: Option<&'a UserId>,
        limit: u32,
    ) -> Storing<'a, Vec<Seen<User>>>;

    /// Those of these users that are there, in any order.
    fn users<'a>(
        &'a self,
        instance: &'a InstanceName,
        ids: &'a [UserId],
    ) -> Storing<'a, Vec<Seen<User>>>;

    /// What is known of one user in one organization.
    fn membership<'a>(
        &'a self,
        instance: &'a InstanceName,
        organization: &'a OrganizationId,
        user: &'a UserId,
    ) -> Storing<'a, KnownMembership>;

    /// The memberships of a user, by organization id, those behind `after` and at most `limit`.
    fn memberships_of<'a>(
        &'a self,
        instance: &'a InstanceName,
        user: &'a UserId,
        after: Option<&'a OrganizationId>,
        limit: u32,
    ) -> Storing<'a, Vec<Seen<MirroredMembership>>>;

    /// The memberships that are there, by organization and user, those behind `after` and at most
    /// `limit`.
    fn memberships_after<'a>(
        &'a self,
        instance: &'a InstanceName,
        after: Option<&'a MembershipKey>,
        limit: u32,
    ) -> Storing<'a, Vec<Seen<MirroredMembership>>>;

    /// Those of these memberships that are there, in any order.
    fn memberships<'a>(
        &'a self,
        instance: &'a InstanceName,
        keys: &'a [MembershipKey],
    ) -> Storing<'a, Vec<Seen<MirroredMembership>>>;

    /// An organization that is there.
    fn organization<'a>(
        &'a self,
        instance: &'a InstanceName,
        id: &'a OrganizationId,
    ) -> Storing<'a, Option<Seen<MirroredOrganization>>>;

    /// The organization that has this slug; of several, since slugs are reused and events come
    /// late, the newest.
    fn organization_by_slug<'a>(
        &'a self,
        instance: &'a InstanceName,
        slug: &'a OrganizationSlug,
    ) -> Storing<'a, Option<Seen<MirroredOrganization>>>;

    /// What is known of an entity as far as ordering goes; shows tombstones. `None` when nothing
    /// was ever said of it.
    fn head<'a>(
        &'a self,
        instance: &'a InstanceName,
        entity: &'a Entity,
    ) -> Storing<'a, Option<Head>>;

    /// Entities of a kind with what is known of them, tombstones included, by id, those behind
    /// `after` and at most `limit`: page by page the whole mirror in flat memory.
    fn heads<'a>(
        &'a self,
        instance: &'a InstanceName,
        kind: EntityKind,
        after: Option<&'a Entity>,
        limit: u32,
    ) -> Storing<'a, Vec<Versioned>>;

    /// Entities of which only Clerk can tell how they are; at most `limit`.
    fn to_look_up<'a>(
        &'a self,
        instance: &'a InstanceName,
        kind: EntityKind,
        limit: u32,
    ) -> Storing<'a, Vec<Entity>>;
}

/// What identifies a membership.
pub type MembershipKey = (OrganizationId, UserId);

/// How a user is found. Of several, since an event may come late, the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserKey<'a> {
    /// By Clerk's id.
    Id(&'a UserId),
    /// By the id that the customer's own system gave.
    ExternalId(&'a str),
    /// By a verified address, in any case of letters. One that is not verified finds nobody: anybody
    /// can claim it.
    Email(&'a str),
}

/// Something from the mirror, and how far it can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen<T> {
    /// What is known.
    pub value: T,
    /// When the API last showed it; all that had happened before is in it.
    pub seen_at: Option<Timestamp>,
}

/// An entity with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// Which.
    pub entity: Entity,
    /// What is known.
    pub head: Head,
}

/// What is known of one user in one organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownMembership {
    /// There is one. Whether the user may act is what the newer of membership and user says.
    Member(Box<Seen<MirroredMembership>>),
    /// It is known that there is none: there is a tombstone, of it or of its user.
    NotAMember {
        /// The time of the tombstone.
        since: Timestamp,
    },
    /// The organization has a tombstone.
    NoOrganization {
        /// The time of the tombstone.
        since: Timestamp,
    },
    /// Nothing is known, or only Clerk can tell.
    Unknown,
}

/// What changed, in order, for replicas and for watchers.
pub trait Feed: Send + Sync + 'static {
    /// The changes behind `after`, at most `limit`.
    fn changes<'a>(
        &'a self,
        instance: &'a InstanceName,
        after: Position,
        limit: u32,
    ) -> Storing<'a, FeedPage>;

    /// The position of the newest change.
    fn newest<'a>(&'a self, instance: &'a InstanceName) -> Storing<'a, Position>;

    /// The positions of the newest changes, of every instance that has any.
    fn positions(&self) -> Storing<'_, Vec<(InstanceName, Position)>>;

    /// A position behind which stands all that was recorded at `time` or later: where a replica
    /// begins to read when it starts. Of what is kept only.
    fn position_before<'a>(
        &'a self,
        instance: &'a InstanceName,
        time: Timestamp,
    ) -> Storing<'a, Position>;

    /// Hears of changes as they become visible.
    fn listen(&self) -> Storing<'_, Box<dyn Listener>>;
}

/// Hears of changes as they become visible. A connection can die without a word: whoever listens
/// reads the feed from time to time all the same.
pub trait Listener: Send + 'static {
    /// Waits for the next thing to hear. May be dropped half-way.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Heard> + Send + '_>>;
}

/// What a [`Listener`] hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An instance's feed has reached this position.
    Reached(InstanceName, Position),
    /// Changes may have been missed, or may be missed from now on: read the feed, and go on reading
    /// it from time to time until something is heard again. The listener mends itself; a pause
    /// before the next call is the caller's.
    Lost {
        /// Why.
        cause: String,
    },
}

/// Messages that were accepted and wait for their effect.
pub trait Inbox: Send + Sync + 'static {
    /// Keeps a message; durable when this returns. `false` when its id is known already. Messages
    /// that come at the same time may be kept in one transaction; each has an outcome of its own.
    fn receive<'a>(
        &'a self,
        instance: &'a InstanceName,
        message: Received,
        now: Timestamp,
    ) -> Storing<'a, bool>;

    /// Takes up to `limit` messages to work on until `lease_until`. Never two about one entity, and
    /// none before an earlier one about the same has been applied or given up.
    fn claim<'a>(
        &'a self,
        instance: &'a InstanceName,
        limit: u32,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Storing<'a, Vec<Claimed>>;

    /// Gives a message back that could not be applied.
    fn fail(&self, claim: ClaimId, failed: Failed) -> Storing<'_, ()>;

    /// Messages in a state.
    fn list<'a>(
        &'a self,
        instance: &'a InstanceName,
        filter: InboxFilter,
    ) -> Storing<'a, Vec<InboxEntry>>;

    /// Puts a poisoned message back, to be tried at `now`; `false` when there is no such message on
    /// the poison list.
    fn retry<'a>(
        &'a self,
        instance: &'a InstanceName,
        id: &'a MessageId,
        now: Timestamp,
    ) -> Storing<'a, bool>;

    /// Gives a message up that waits or is poisoned; its id stays known. `false` when there is none.
    fn give_up<'a>(
        &'a self,
        instance: &'a InstanceName,
        id: &'a MessageId,
        now: Timestamp,
    ) -> Storing<'a, bool>;
}

/// What replicas agree on.
pub trait Coordination: fmt::Debug + Send + Sync + 'static {
    /// Takes or renews a lease; `None` while somebody else has it.
    fn lease<'a>(
        &'a self,
        instance: &'a InstanceName,
        name: &'a str,
        holder: &'a str,
        until: Timestamp,
        now: Timestamp,
    ) -> Storing<'a, Option<Lease>>;

    /// Gives a lease back; nothing happens when it is somebody else's.
    fn release<'a>(
        &'a self,
        instance: &'a InstanceName,
        name: &'a str,
        holder: &'a str,
    ) -> Storing<'a, ()>;

    /// Keeps how far some work has come, in place of what was kept under the name.
    fn set_checkpoint<'a>(
        &'a self,
        instance: &'a InstanceName,
        name: &'a str,
        value: &'a str,
        now: Timestamp,
    ) -> Storing<'a, ()>;

    /// How far some work has come.
    fn checkpoint<'a>(
        &'a self,
        instance: &'a InstanceName,
        name: &'a str,
    ) -> Storing<'a, Option<Checkpoint>>;

    /// Uses something that may be used once, such as a token by its id; `false` when it was used
    /// before. Forgotten some time after `expires_at`, when it can no longer be used anyway.
    fn use_once<'a>(
        &'a self,
        instance: &'a InstanceName,
        id: &'a str,
        expires_at: Timestamp,
    ) -> Storing<'a, bool>;
}

/// A lease that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Grows each time the lease passes to another holder.
    pub term: i64,
    /// When it ends unless it is renewed.
    pub until: Timestamp,
}

/// How far some work has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// What the worker wrote.
    pub value: String,
    /// When.
    pub updated_at: Timestamp,
}

/// Housekeeping.
pub trait Upkeep: Send + Sync + 'static {
    /// Forgets what has been kept long enough, at most `limit` rows of each kind; says how many
    /// rows. Zero: nothing is left to forget.
    fn forget<'a>(
        &'a self,
        instance: &'a InstanceName,
        retention: Retention,
        limit: u32,
        now: Timestamp,
    ) -> Storing<'a, u64>;

    /// Counts, for metrics. Reads whole tables: not for every scrape.
    fn stats<'a>(&'a self, instance: &'a InstanceName) -> Storing<'a, StoreStats>;

    /// The size of the database in bytes.
    fn size_bytes(&self) -> Storing<'_, u64>;

    /// Whether it answers.
    fn ping(&self) -> Storing<'_, ()>;
}

/// How long things are kept. Three types of time that must not be mixed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The ids of messages that are done, and tombstones: longer than the sender can send again.
    pub messages: Duration,
    /// The feed: how long a watcher may be away and still go on where it was.
    pub changes: Duration,
    /// Revocations: longer than any token lives.
    pub revocations: Duration,
}

/// Counts of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Users that are there.
    pub users: u64,
    /// Organizations that are there.
    pub organizations: u64,
    /// Memberships that are there.
    pub memberships: u64,
    /// Tombstones of all three.
    pub tombstones: u64,
    /// Entities of which only Clerk can tell how they are.
    pub to_look_up: u64,
    /// Messages by state; every state stands there.
    pub inbox: Vec<(InboxState, u64)>,
    /// When the oldest message came that waits or is worked on.
    pub oldest_waiting: Option<Timestamp>,
    /// Entries of the feed.
    pub changes: u64,
    /// Revocations that are kept.
    pub revocations: u64,
}
