//! Clerk's list of a kind, page by page, each held against the mirror.

use std::collections::HashSet;

use super::{
    NAME, ReconcileError, ReconcileStage, Run,
    checkpoint::OVERLAP,
    judge::{Judgement, judge},
    persist::PATIENCE,
};
use crate::{
    identity::Timestamp,
    mirror::{
        Answered, Entity, EntityKind, FactOutcome, ListPage, Looked, PageStart, Sighting,
        WholeEntity, Write,
    },
};

/// From the start of one page to that of the next: their ends overlap, so that one sees whether
/// something was left out between them.
const STRIDE: u64 = (WholeEntity::PAGE - OVERLAP) as u64;
/// How often a list is gone back in. At it the run ends.
const MAX_STEPS_BACK: u32 = 200;

impl Run<'_> {
    /// Goes through the whole list of a kind.
    pub(super) async fn walk(&mut self, kind: EntityKind) -> Result<(), ReconcileError> {
        if kind == EntityKind::User && self.state.place.total.is_none() {
            let clerk = self.job.clerk;
            let count = self.io.ask(|| clerk.count_users(PATIENCE)).await?;
            self.state.place.total = Some(count.value);
        }
        let mut steps_back = 0;
        loop {
            let Answered { value, as_of } = self.page(kind).await?;
            let place = &self.state.place;
            let connected = value.filter(|page| {
                let is_first = match kind {
                    // Behind a user nothing is left out.
                    EntityKind::User => true,
                    EntityKind::Organization | EntityKind::Membership => place.offset == 0,
                };
                is_first || place.meets(&entities_of(page))
            });
            let Some(page) = connected else {
                steps_back += 1;
                if steps_back > MAX_STEPS_BACK {
                    return Err(ReconcileError::Moving { kind });
                }
                self.step_back(kind);
                continue;
            };
            if let Some(total) = page.total {
                self.state.place.total = Some(total);
            }
            let is_last = page.is_last;
            self.take(kind, page, as_of).await?;
            if !is_last {
                continue;
            }
            let seen = self.state.kind(kind).at_clerk;
            let place = &mut self.state.place;
            let is_short = kind != EntityKind::User && place.total.is_some_and(|all| all > seen);
            if is_short && !place.again {
                place.again = true;
                place.offset = 0;
                continue;
            }
            return Ok(());
        }
    }

    async fn page(&self, kind: EntityKind) -> Result<Answered<Option<ListPage>>, ReconcileError> {
        let clerk = self.job.clerk;
        let last = self.state.place.last(kind);
        let from = match (kind, &last) {
            (EntityKind::User, Some(Entity::User(id))) => PageStart::Behind(Some(id)),
            (EntityKind::User, _) => PageStart::Behind(None),
            (EntityKind::Organization | EntityKind::Membership, _) => {
                PageStart::Offset(self.state.place.offset)
            }
        };
        self.io.ask(|| clerk.page(kind, from, PATIENCE)).await
    }

    /// The page does not join on to the one before: something before it was deleted.
    fn step_back(&mut self, kind: EntityKind) {
        let place = &mut self.state.place;
        match kind {
            EntityKind::User => place.drop_last(),
            EntityKind::Organization | EntityKind::Membership => {
                place.offset = place.offset.saturating_sub(STRIDE);
            }
        }
    }

    /// Compares a page, mends, and notes how far the run is.
    async fn take(
        &mut self,
        kind: EntityKind,
        page: ListPage,
        as_of: Timestamp,
    ) -> Result<(), ReconcileError> {
        let passed = entities_of(&page);
        let mut whole = page.entities;
        let mut once = HashSet::new();
        whole.retain(|each| once.insert(each.entity()));
        self.compare(kind, whole, as_of).await?;
        let place = &mut self.state.place;
        place.passed(&passed);
        place.offset = place.offset.saturating_add(STRIDE);
        let seen: Vec<(Entity, Sighting)> = passed
            .into_iter()
            .map(|entity| (entity, Sighting::There))
            .collect();
        self.note(&seen).await?;
        let place = &self.state.place;
        self.tell(kind, ReconcileStage::Compares, place.done, place.total);
        Ok(())
    }

    /// Judges what Clerk has, counts it, and writes what is worth it where it is wished.
    pub(super) async fn compare(
        &mut self,
        kind: EntityKind,
        whole: Vec<WholeEntity>,
        as_of: Timestamp,
    ) -> Result<(), ReconcileError> {
        let entities: Vec<Entity> = whole.iter().map(WholeEntity::entity).collect();
        let run = self.started();
        let looked = self
            .io
            .stored(|| self.io.store.look(self.job.instance, run, &entities))
            .await?;
        let mut facts = Vec::new();
        let mut judged = Vec::new();
        for ((whole, entity), Looked { head, noted }) in whole.into_iter().zip(entities).zip(looked)
        {
            if noted {
                continue;
            }
            let fact = whole.into_fact(as_of);
            let (_, incoming) = fact.incoming().expect("an entity's content");
            let judgement = judge(head, incoming, run);
            let report = self.state.kind(kind);
            report.at_clerk += 1;
            if self.job.apply && judgement.is_worth_writing() {
                facts.push(fact);
                judged.push((entity, judgement));
            } else {
                self.count(kind, &entity, judgement, None);
            }
        }
        let applied = self.io.apply(facts).await?;
        let outcomes = applied.into_iter().flat_map(|part| part.outcomes);
        for ((entity, judgement), outcome) in judged.into_iter().zip(outcomes) {
            self.count(kind, &entity, judgement, Some(outcome));
        }
        Ok(())
    }

    /// Counts one; `written` is what became of it where it was written.
    pub(super) fn count(
        &mut self,
        kind: EntityKind,
        entity: &Entity,
        judgement: Judgement,
        written: Option<FactOutcome>,
    ) {
        let report = self.state.kind(kind);
        // Something else was written between the look and the write.
        let is_overtaken = written.is_some_and(|outcome| match outcome.write {
            Write::Created | Write::Updated | Write::Deleted => false,
            Write::Unchanged | Write::Stale | Write::Tombstoned | Write::HeldBack => true,
        });
        match judgement {
            Judgement::InStep | Judgement::Settles => report.in_step += 1,
            Judgement::Touched => report.touched += 1,
            Judgement::Drift(drift) if !is_overtaken => {
                report.found_drift(drift, entity, written.is_some());
            }
            Judgement::Drift(_) | Judgement::Young | Judgement::Overtaken => {
                report.overtaken += 1;
            }
        }
    }

    /// Notes that these were come across, and how far the run is.
    pub(super) async fn note(
        &self,
        sightings: &[(Entity, Sighting)],
    ) -> Result<(), ReconcileError> {
        let (run, text, now) = (self.started(), self.state.to_text(), (self.io.clock)());
        let store = self.io.store;
        self.io
            .stored(|| store.note(self.job.instance, run, sightings, (NAME, &text), now))
            .await?;
        Ok(())
    }
}

fn entities_of(page: &ListPage) -> Vec<Entity> {
    page.entities.iter().map(WholeEntity::entity).collect()
}
