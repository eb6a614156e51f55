//! What the difference between Clerk and the mirror is, by the mirror's own rules: what Clerk says
//! is put before a copy of what is known, and what became of it is looked at.

use super::Drift;
use crate::{
    identity::Timestamp,
    mirror::{Head, Incoming, Write},
};

/// What Clerk's word is beside what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The same.
    InStep,
    /// The same, and it settles a doubt.
    Settles,
    /// The same but for its version.
    Touched,
    /// Something else.
    Drift(Drift),
    /// Something else, about what changed after the run began: its event may be on its way. It is
    /// worth writing all the same.
    Young,
    /// Something older than is known.
    Overtaken,
}

impl Judgement {
    /// Whether writing Clerk's word changes anything.
    pub(super) const fn is_worth_writing(self) -> bool {
        match self {
            Self::Settles | Self::Touched | Self::Drift(_) | Self::Young => true,
            Self::InStep | Self::Overtaken => false,
        }
    }
}

/// Judges what Clerk says of an entity in a run that began at `started`.
pub(super) fn judge(known: Option<Head>, incoming: Incoming, started: Timestamp) -> Judgement {
    let before = known.unwrap_or_default();
    let mut after = before;
    let write = after.take(incoming);
    match (incoming, write) {
        (Incoming::Content { .. }, Write::Unchanged) => {
            if before.wants_look_up() && !after.wants_look_up() {
                Judgement::Settles
            } else {
                Judgement::InStep
            }
        }
        (
            Incoming::Content {
                version, digest, ..
            },
            Write::Created | Write::Updated,
        ) => {
            let is_same = before.is_live()
                && before
                    .content
                    .is_some_and(|content| content.digest == digest);
            if is_same {
                Judgement::Touched
            } else if version > started {
                Judgement::Young
            } else if write == Write::Created {
                Judgement::Drift(Drift::Missing)
            } else {
                Judgement::Drift(Drift::Stale)
            }
        }
        (Incoming::Absent { .. }, Write::Deleted) => Judgement::Drift(Drift::Ghost),
        // Clerk's word does not stand against what is known since.
        (
            Incoming::Content { .. } | Incoming::Absent { .. } | Incoming::Deleted { .. },
            Write::Created
            | Write::Updated
            | Write::Unchanged
            | Write::Stale
            | Write::Deleted
            | Write::Tombstoned
            | Write::HeldBack,
        ) => Judgement::Overtaken,
    }
}
