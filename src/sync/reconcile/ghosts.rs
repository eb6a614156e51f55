//! What the mirror has and Clerk's list has not: asked for, each by itself.

use std::pin::Pin;

use futures_util::stream::{self, StreamExt};

use super::{
    ReconcileError, ReconcileStage, Run,
    judge::{Judgement, judge},
    persist::{PATIENCE, Persistent},
    report::named,
};
use crate::{
    identity::Timestamp,
    mirror::{Answered, Entity, EntityKind, Fact, Listing, Sighting, Versioned, WholeEntity},
};

/// Ghosts that are read from the mirror at once.
const PAGE: u32 = 100;
/// Questions to Clerk that are under way at once.
const AT_ONCE: usize = 8;
/// So many users of the mirror of whom none is at Clerk are of another Clerk. Of fewer nothing
/// follows.
const SUSPICIOUS: u32 = 20;

/// A ghost, or none, and what Clerk says of it.
type Question<'a> = Pin<
    Box<
        dyn Future<Output = Result<(&'a Versioned, Answered<Option<WholeEntity>>), ReconcileError>>
            + Send
            + 'a,
    >,
>;

fn question<'a>(
    io: Persistent<'a>,
    clerk: &'a dyn Listing,
    versioned: &'a Versioned,
) -> Question<'a> {
    Box::pin(async move {
        let answer = io.ask(|| clerk.entity(&versioned.entity, PATIENCE)).await?;
        Ok((versioned, answer))
    })
}

impl Run<'_> {
    /// Asks for some of the mirror's users before anything is written, mostly for one: with the
    /// secret key of another instance, all of them would be ghosts.
    pub(super) async fn check_instance(&mut self) -> Result<(), ReconcileError> {
        let (run, io, clerk) = (self.started(), self.io, self.job.clerk);
        let some = io.stored(|| {
            io.store
                .unseen(io.instance, run, EntityKind::User, None, SUSPICIOUS)
        });
        let some = some.await?;
        for versioned in &some {
            let (_, answer) = question(io, clerk, versioned).await?;
            if answer.value.is_some() {
                return Ok(());
            }
        }
        if some.len() < SUSPICIOUS as usize {
            Ok(())
        } else {
            let users = some.iter().map(|it| named(&it.entity)).collect();
            Err(ReconcileError::OtherInstance { users })
        }
    }

    /// Goes through all that Clerk's list of a kind did not have.
    pub(super) async fn ghosts(&mut self, kind: EntityKind) -> Result<(), ReconcileError> {
        loop {
            let run = self.started();
            let after = self.state.place.last(kind);
            let (store, instance) = (self.io.store, self.job.instance);
            let page = self
                .io
                .stored(|| store.unseen(instance, run, kind, after.as_ref(), PAGE))
                .await?;
            if page.is_empty() {
                return Ok(());
            }
            self.confirm(kind, &page).await?;
            let done = self.state.place.done;
            self.tell(kind, ReconcileStage::Confirms, done, None);
        }
    }

    async fn confirm(
        &mut self,
        kind: EntityKind,
        page: &[Versioned],
    ) -> Result<(), ReconcileError> {
        let (io, clerk) = (self.io, self.job.clerk);
        let questions: Vec<_> = page.iter().map(|it| question(io, clerk, it)).collect();
        let asked = stream::iter(questions).buffered(AT_ONCE);
        let asked: Vec<_> = asked.collect().await;
        let mut there = Vec::new();
        let mut gone = Vec::new();
        for answer in asked {
            let (versioned, Answered { value, as_of }) = answer?;
            match value {
                // The list left it out.
                Some(whole) => there.push((whole, as_of)),
                None => gone.push((versioned, as_of)),
            }
        }
        let mut seen: Vec<(Entity, Sighting)> = Vec::with_capacity(page.len());
        seen.extend(
            there
                .iter()
                .map(|(whole, _)| (whole.entity(), Sighting::There)),
        );
        seen.extend(
            gone.iter()
                .map(|(it, _)| (it.entity.clone(), Sighting::Gone)),
        );
        self.count_there(kind, there).await?;
        self.bury(kind, gone).await?;
        let passed: Vec<Entity> = page.iter().map(|it| it.entity.clone()).collect();
        self.state.place.passed(&passed);
        self.note(&seen).await
    }

    async fn count_there(
        &mut self,
        kind: EntityKind,
        there: Vec<(WholeEntity, Timestamp)>,
    ) -> Result<(), ReconcileError> {
        for (whole, as_of) in there {
            self.compare(kind, vec![whole], as_of).await?;
        }
        Ok(())
    }

    async fn bury(
        &mut self,
        kind: EntityKind,
        gone: Vec<(&Versioned, Timestamp)>,
    ) -> Result<(), ReconcileError> {
        let facts: Vec<Fact> = gone
            .iter()
            .map(|(versioned, as_of)| Fact::Absent {
                entity: versioned.entity.clone(),
                as_of: *as_of,
            })
            .collect();
        let judged: Vec<Judgement> = gone
            .iter()
            .zip(&facts)
            .map(|((versioned, _), fact)| {
                let (_, incoming) = fact.incoming().expect("the absence of an entity");
                judge(Some(versioned.head), incoming, self.started())
            })
            .collect();
        let outcomes = if self.job.apply {
            let applied = self.io.apply(facts).await?;
            let outcomes = applied.into_iter().flat_map(|part| part.outcomes);
            outcomes.map(Some).collect()
        } else {
            vec![None; gone.len()]
        };
        for (((versioned, _), judgement), outcome) in gone.into_iter().zip(judged).zip(outcomes) {
            self.count(kind, &versioned.entity, judgement, outcome);
        }
        Ok(())
    }
}
