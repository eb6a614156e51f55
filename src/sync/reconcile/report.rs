use serde::{Deserialize, Serialize};

use crate::{
    closed_list::closed_list,
    identity::Timestamp,
    mirror::{Entity, EntityKind},
};

/// Ids of each kind and class of drift that a report names; all are counted.
const MAX_EXAMPLES: usize = 20;

closed_list! {
    /// In what way the mirror is not as Clerk is.
    Drift {
        /// Clerk has it, the mirror has it not.
        Missing = "missing",
        /// Both have it, and the mirror says something older of it.
        Stale = "stale",
        /// The mirror has it, Clerk has it not, which it was asked for by itself.
        Ghost = "ghost",
    }
}

/// What a run has found, and mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// When the run began. What is younger was not compared.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Whether what was found was mended.
    pub applied: bool,
    /// By kind, in the order of [`EntityKind::ALL`].
    pub kinds: [KindReport; EntityKind::ALL.len()],
}

/// What a run has found of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindReport {
    /// So many are at Clerk.
    pub at_clerk: u64,
    /// The mirror says of so many what Clerk says.
    pub in_step: u64,
    /// Of so many only Clerk's `updated_at` is newer, and nothing that the mirror compares. That is
    /// no drift: what raises it is not documented.
    pub touched: u64,
    /// So many changed after the run began, or the mirror knows something newer of them: they are
    /// left to the rules, and are no drift.
    pub overtaken: u64,
    drift: [DriftCount; Drift::ALL.len()],
}

/// How much of one class of drift there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftCount {
    /// So many.
    pub found: u64,
    /// So many of them were mended.
    pub mended: u64,
    /// The first of them by id; a membership's is that of its organization, `/`, and its user's.
    pub examples: Vec<String>,
}

impl Report {
    /// Of one kind.
    pub fn kind(&self, kind: EntityKind) -> &KindReport {
        &self.kinds[kind as usize]
    }

    /// Whether no drift was found, mended or not.
    pub fn is_in_step(&self) -> bool {
        self.kinds.iter().all(|kind| kind.found() == 0)
    }
}

impl KindReport {
    /// How much of a class.
    pub fn drift(&self, drift: Drift) -> &DriftCount {
        &self.drift[drift as usize]
    }

    /// How much of all classes.
    pub fn found(&self) -> u64 {
        self.drift.iter().map(|count| count.found).sum()
    }

    pub(super) fn found_drift(&mut self, drift: Drift, entity: &Entity, mended: bool) {
        let count = &mut self.drift[drift as usize];
        count.found += 1;
        count.mended += u64::from(mended);
        if count.examples.len() < MAX_EXAMPLES {
            count.examples.push(named(entity));
        }
    }
}

/// An entity as one text.
pub(super) fn named(entity: &Entity) -> String {
    match entity {
        Entity::User(id) => id.to_string(),
        Entity::Organization(id) => id.to_string(),
        Entity::Membership(organization, user) => format!("{organization}/{user}"),
    }
}

/// The opposite of [`named`].
pub(super) fn entity_named(kind: EntityKind, name: &str) -> Option<Entity> {
    Some(match kind {
        EntityKind::User => Entity::User(name.parse().ok()?),
        EntityKind::Organization => Entity::Organization(name.parse().ok()?),
        EntityKind::Membership => {
            let (organization, user) = name.split_once('/')?;
            Entity::Membership(organization.parse().ok()?, user.parse().ok()?)
        }
    })
}
