use serde::{Deserialize, Serialize};

use super::{
    KindReport, RESUMED_WITHIN, Report,
    report::{entity_named, named},
};
use crate::{
    identity::Timestamp,
    mirror::{Entity, EntityKind},
};

/// The last entities of a page that the next one is held against.
pub(super) const OVERLAP: usize = 20;

/// The steps of a run, in order. Users and organizations that are gone come before memberships,
/// which go with them.
const STEPS: [Step; 7] = [
    Step::CheckInstance,
    Step::Walk(EntityKind::User),
    Step::Ghosts(EntityKind::User),
    Step::Walk(EntityKind::Organization),
    Step::Ghosts(EntityKind::Organization),
    Step::Walk(EntityKind::Membership),
    Step::Ghosts(EntityKind::Membership),
];

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Whether it is the Clerk that the mirror is of.
    CheckInstance,
    /// Clerk's list.
    Walk(EntityKind),
    /// What the list did not have.
    Ghosts(EntityKind),
    /// There is nothing left.
    Done,
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    started_ms: i64,
    apply: bool,
    /// Of [`STEPS`].
    step: usize,
    /// Where in the step.
    #[serde(flatten)]
    pub(super) place: Place,
    kinds: [KindReport; EntityKind::ALL.len()],
}

/// Where in a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// From the first, where a list has numbers.
    pub(super) offset: u64,
    /// The last that were come across, the newest last.
    latest: Vec<String>,
    /// The list was read again because it says that there are more than were seen.
    pub(super) again: bool,
    /// How many were looked at, for progress.
    pub(super) done: u64,
    /// Of how many.
    pub(super) total: Option<u64>,
}

impl Checkpoint {
    /// In place of a run's: there is none.
    pub(super) const NONE: &str = "";

    pub(super) fn new(now: Timestamp, apply: bool) -> Self {
        Self {
            started_ms: now.unix_millis(),
            apply,
            step: 0,
            place: Place::default(),
            kinds: Default::default(),
        }
    }

    /// What another version wrote, and cannot be read, is no run.
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers have a JSON form")
    }

    /// Whether a run of this kind can go on here.
    pub(super) fn can_go_on(&self, apply: bool, now: Timestamp) -> bool {
        let started = self.started();
        self.apply == apply && started <= now && now.since(started) <= RESUMED_WITHIN
    }

    pub(super) fn started(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.started_ms)
    }

    pub(super) fn step(&self) -> Step {
        STEPS.get(self.step).copied().unwrap_or(Step::Done)
    }

    pub(super) fn next_step(&mut self) {
        self.step += 1;
        self.place = Place::default();
    }

    pub(super) fn kind(&mut self, kind: EntityKind) -> &mut KindReport {
        &mut self.kinds[kind as usize]
    }

    pub(super) fn report(&self, ended_at: Timestamp) -> Report {
        Report {
            started_at: self.started(),
            ended_at,
            applied: self.apply,
            kinds: self.kinds.clone(),
        }
    }
}

impl Place {
    /// The last that was come across.
    pub(super) fn last(&self, kind: EntityKind) -> Option<Entity> {
        entity_named(kind, self.latest.last()?)
    }

    /// Clerk does not know the last one any more.
    pub(super) fn drop_last(&mut self) {
        self.latest.pop();
    }

    /// Whether one of the last is among these.
    pub(super) fn meets(&self, entities: &[Entity]) -> bool {
        let names: Vec<String> = entities.iter().map(named).collect();
        self.latest.iter().any(|latest| names.contains(latest))
    }

    /// These were come across, in this order.
    pub(super) fn passed(&mut self, entities: &[Entity]) {
        self.done += u64::try_from(entities.len()).unwrap_or(u64::MAX);
        self.latest.extend(entities.iter().map(named));
        let too_many = self.latest.len().saturating_sub(OVERLAP);
        self.latest.drain(..too_many);
    }
}
