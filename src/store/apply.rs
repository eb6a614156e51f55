//! Facts, written in one transaction with their entries of the feed and the message that is done.

use super::{
    connection::Session,
    contents, feed,
    feed::Draft,
    heads::{self, Members},
    inbox, locks,
};
use crate::{
    identity::{InstanceName, Timestamp},
    mirror::{
        Applied, ChangeEvent, Effect, Entity, Fact, FactOutcome, Head, Incoming, MAX_FACTS,
        Position, Revocation, StoreError, Write,
    },
};

/// Memberships that are read at once when their user or organization goes.
const MEMBERS_PAGE: u32 = 500;

/// Where a fact is written.
struct Writing<'a> {
    session: Session,
    instance: &'a InstanceName,
    now: Timestamp,
    /// The feed is written last: its lock is held for as short as can be.
    drafts: Vec<Draft>,
}

/// Writes effects, one after the other; `session` is a transaction.
pub(super) async fn apply(
    mut session: Session,
    instance: &InstanceName,
    effects: &[Effect],
    now: Timestamp,
) -> Result<Vec<Applied>, StoreError> {
    let facts = || effects.iter().flat_map(|effect| &effect.facts);
    if facts().count() > MAX_FACTS {
        return Err(StoreError::TooManyFacts {
            facts: facts().count(),
        });
    }
    locks::take(&mut session, instance, facts()).await?;
    let mut writing = Writing {
        session,
        instance,
        now,
        drafts: Vec::new(),
    };
    let mut written = Vec::with_capacity(effects.len());
    for effect in effects {
        written.push(writing.effect(effect).await?);
    }
    let Writing {
        mut session,
        drafts,
        ..
    } = writing;
    let last = feed::append(&mut session, instance, &drafts, now).await?;
    session.commit().await?;
    Ok(written
        .into_iter()
        .map(|written| Applied {
            outcomes: written.outcomes,
            position: last.zip(written.last_draft).map(|(last, nth)| {
                let behind = i64::try_from(drafts.len() - nth).unwrap_or(i64::MAX);
                Position::new(last.number() - behind)
            }),
        })
        .collect())
}

/// An effect that is written, not yet committed.
struct Written {
    outcomes: Vec<FactOutcome>,
    /// Its last entry of the feed, counted from 1 over those of the transaction.
    last_draft: Option<usize>,
}

impl Writing<'_> {
    async fn effect(&mut self, effect: &Effect) -> Result<Written, StoreError> {
        let drafts_before = self.drafts.len();
        if let Some(claim) = effect.done {
            inbox::finish(&mut self.session, claim, self.now).await?;
        }
        let mut outcomes = Vec::with_capacity(effect.facts.len());
        for fact in &effect.facts {
            outcomes.push(self.fact(fact).await?);
        }
        let drafts = self.drafts.len();
        Ok(Written {
            outcomes,
            last_draft: (drafts > drafts_before).then_some(drafts),
        })
    }

    async fn fact(&mut self, fact: &Fact) -> Result<FactOutcome, StoreError> {
        match fact {
            Fact::User(..)
            | Fact::Organization(..)
            | Fact::Membership(..)
            | Fact::Deleted { .. }
            | Fact::Absent { .. } => {
                let (entity, incoming) = fact
                    .incoming()
                    .expect("these five say something of an entity");
                self.mirrored(fact, &entity, incoming).await
            }
            Fact::SessionEnded(end) => {
                self.revoke(Revocation::Session {
                    session: end.session.clone(),
                    at: end.at,
                })
                .await
            }
            Fact::UserRevoked {
                user,
                not_before,
                cause,
            } => {
                self.revoke(Revocation::User {
                    user: user.clone(),
                    not_before: *not_before,
                    cause: *cause,
                })
                .await
            }
            Fact::RoleChanged { role, at } => {
                self.drafts
                    .push(Draft::new(ChangeEvent::RoleChanged(role.clone()), *at));
                Ok(outcome(Write::Updated))
            }
        }
    }

    async fn mirrored(
        &mut self,
        fact: &Fact,
        entity: &Entity,
        incoming: Incoming,
    ) -> Result<FactOutcome, StoreError> {
        let known = heads::load(&mut self.session, self.instance, entity).await?;
        let mut head = known.unwrap_or_default();
        if let Entity::Membership(organization, user) = entity {
            for parent in [
                Entity::Organization(organization.clone()),
                Entity::User(user.clone()),
            ] {
                self.bury_under(&mut head, &parent).await?;
            }
        }
        let write = head.take(incoming);
        self.save(entity, known.as_ref(), &head, Some((fact, incoming)))
            .await?;
        // A deletion counts for tokens also where nothing was known.
        if write.is_visible() || head.has_ended_since(&known.unwrap_or_default()) {
            let event = event_of(entity, &head);
            self.drafts.push(Draft::new(event, time_of(incoming)));
        }
        if let Some(revocation) = fact.puts_out(write) {
            self.revoke(revocation).await?;
        }
        let ends = matches!(incoming, Incoming::Deleted { .. } | Incoming::Absent { .. });
        if ends && head.is_dead() {
            self.end_members(entity, incoming).await?;
        }
        Ok(FactOutcome {
            write,
            look_up: head.wants_look_up(),
        })
    }

    /// A membership that comes in after its user or organization has gone is gone too.
    async fn bury_under(&mut self, head: &mut Head, parent: &Entity) -> Result<(), StoreError> {
        let parent = heads::load(&mut self.session, self.instance, parent).await?;
        let Some(parent) = parent.filter(Head::is_dead) else {
            return Ok(());
        };
        if let Some(at) = parent.deleted_at {
            head.take(Incoming::Deleted { at });
        }
        if let Some(as_of) = parent.absent_at {
            head.take(Incoming::Absent { as_of });
        }
        Ok(())
    }

    /// With a user or an organization go its memberships.
    async fn end_members(&mut self, entity: &Entity, incoming: Incoming) -> Result<(), StoreError> {
        let mut members = match entity {
            Entity::Organization(id) => Members::OfOrganization(id, None),
            Entity::User(id) => Members::OfUser(id, None),
            Entity::Membership(..) => return Ok(()),
        };
        loop {
            let page = heads::members(&mut self.session, self.instance, &mut members, MEMBERS_PAGE)
                .await?;
            if page.is_empty() {
                return Ok(());
            }
            for member in page {
                let mut head = member.head;
                let write = head.take(incoming);
                self.save(&member.entity, Some(&member.head), &head, None)
                    .await?;
                if write.is_visible() {
                    let event = event_of(&member.entity, &head);
                    self.drafts.push(Draft::new(event, time_of(incoming)));
                }
            }
        }
    }

    /// Writes the head where it is different, and the content where it is.
    async fn save(
        &mut self,
        entity: &Entity,
        known: Option<&Head>,
        head: &Head,
        said: Option<(&Fact, Incoming)>,
    ) -> Result<(), StoreError> {
        if known == Some(head) {
            return Ok(());
        }
        heads::save(&mut self.session, self.instance, entity, head, self.now).await?;
        let had = known.and_then(held);
        match (held(head), said) {
            (None, _) if had.is_some() => {
                contents::clear(&mut self.session, self.instance, entity).await
            }
            (Some(holds), Some((fact, _))) if had != Some(holds) => {
                contents::write(&mut self.session, self.instance, fact).await
            }
            (None | Some(_), _) => Ok(()),
        }
    }

    async fn revoke(&mut self, revocation: Revocation) -> Result<FactOutcome, StoreError> {
        // What is revoked in front of it in this transaction is not in the table yet.
        let mut drafted = self.drafts.iter().filter_map(|it| it.revocation.as_ref());
        if !drafted.any(|drafted| covers(drafted, &revocation))
            && feed::revokes_more(&mut self.session, self.instance, &revocation).await?
        {
            self.drafts.push(Draft::revoking(revocation));
            Ok(outcome(Write::Created))
        } else {
            Ok(outcome(Write::Unchanged))
        }
    }
}

/// Whether `first` denies all that `second` denies.
fn covers(first: &Revocation, second: &Revocation) -> bool {
    match (first, second) {
        (
            Revocation::Session { session, at: _ },
            Revocation::Session {
                session: second,
                at: _,
            },
        ) => session == second,
        (
            Revocation::User {
                user,
                not_before,
                cause,
            },
            Revocation::User {
                user: second,
                not_before: later,
                cause: other,
            },
        ) => user == second && (not_before, cause) >= (later, other),
        (Revocation::Session { .. }, Revocation::User { .. })
        | (Revocation::User { .. }, Revocation::Session { .. }) => false,
    }
}

fn outcome(write: Write) -> FactOutcome {
    FactOutcome {
        write,
        look_up: false,
    }
}

/// Which content a head holds.
fn held(head: &Head) -> Option<(Option<Timestamp>, [u8; 32])> {
    let content = head.content?;
    Some((head.version, *content.digest.as_bytes()))
}

fn time_of(incoming: Incoming) -> Timestamp {
    match incoming {
        Incoming::Content { version, .. } => version,
        Incoming::Deleted { at } => at,
        Incoming::Absent { as_of } => as_of,
    }
}

fn event_of(entity: &Entity, head: &Head) -> ChangeEvent {
    match (entity.clone(), head.is_live()) {
        (Entity::User(id), false) => ChangeEvent::UserDeleted(id),
        (Entity::User(id), true) => ChangeEvent::UserChanged(id),
        (Entity::Organization(id), false) => ChangeEvent::OrganizationDeleted(id),
        (Entity::Organization(id), true) => ChangeEvent::OrganizationChanged(id),
        (Entity::Membership(organization, user), false) => {
            ChangeEvent::MembershipDeleted(organization, user)
        }
        (Entity::Membership(organization, user), true) => {
            ChangeEvent::MembershipChanged(organization, user)
        }
    }
}
