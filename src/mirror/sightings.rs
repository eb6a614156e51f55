use super::{Entity, EntityKind, Head, Storing, Versioned};
use crate::identity::{InstanceName, Timestamp};

/// What a run through all of Clerk has come across, kept so that a run that broke off goes on where
/// it was, and never held in memory.
pub trait Sightings: Send + Sync + 'static {
    /// What is known of these entities, all of one kind, in their order.
    fn look<'a>(
        &'a self,
        instance: &'a InstanceName,
        run: Timestamp,
        entities: &'a [Entity],
    ) -> Storing<'a, Vec<Looked>>;

    /// Notes that the run has come across these, all of one kind, and how far it is, in one
    /// transaction.
    fn note<'a>(
        &'a self,
        instance: &'a InstanceName,
        run: Timestamp,
        sightings: &'a [(Entity, Sighting)],
        checkpoint: (&'a str, &'a str),
        now: Timestamp,
    ) -> Storing<'a, ()>;

    /// Entities that are there, that the run has not come across, and whose version is from before
    /// the run; by id, those behind `after` and at most `limit`. Memberships of a user or an
    /// organization that was found gone are left out: they go with it.
    fn unseen<'a>(
        &'a self,
        instance: &'a InstanceName,
        run: Timestamp,
        kind: EntityKind,
        after: Option<&'a Entity>,
        limit: u32,
    ) -> Storing<'a, Vec<Versioned>>;

    /// Forgets up to `limit` notes of other runs than `keep`; says how many.
    fn forget_sightings<'a>(
        &'a self,
        instance: &'a InstanceName,
        keep: Option<Timestamp>,
        limit: u32,
    ) -> Storing<'a, u64>;
}

/// How an entity was come across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// Clerk has it.
    There,
    /// Clerk was asked for it alone, and has it not.
    Gone,
}

/// What is known of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// As far as ordering goes; `None` when nothing is.
    pub head: Option<Head>,
    /// Whether the run has come across it before.
    pub noted: bool,
}
