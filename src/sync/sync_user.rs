//! One user from Clerk into the mirror, now.

use std::{collections::HashSet, sync::Arc, time::Duration};

use thiserror::Error;

use crate::{
    identity::{InstanceName, OrganizationId, Timestamp, UserId},
    mirror::{
        Answered, Ask, DirectoryError, Effect, Entity, Fact, Join, MAX_FACTS, Origin, Seen, Store,
        StoreError, User, UserDirectory, UserKey, WholeMembership, Write,
    },
};

/// Memberships of the mirror that are read at once.
const PAGE: u32 = 500;

/// Whom to bring in, and from where.
pub struct SyncUser<'a> {
    /// The instance that the user is of.
    pub instance: &'a InstanceName,
    /// Clerk's Backend API for it.
    pub directory: &'a dyn UserDirectory,
    /// Who.
    pub user: &'a UserId,
    /// What the mirror may answer by itself, if Clerk showed it no longer ago than this; zero asks
    /// Clerk always.
    pub max_staleness: Duration,
    /// How long the caller waits at most.
    pub patience: Duration,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Synced {
    /// The user as the mirror has it now; `None` when Clerk has no such user.
    pub user: Option<Seen<User>>,
    /// What was written.
    pub outcome: SyncOutcome,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncOutcome {
    /// The user was not there.
    Created,
    /// The user or a membership was different.
    Updated,
    /// The mirror had what Clerk says, or was fresh enough not to ask.
    Unchanged,
    /// Clerk has no such user; the mirror has a tombstone now.
    Deleted,
}

/// Nothing is known of how it is at Clerk, or nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SyncError {
    /// Clerk did not answer.
    #[error(transparent)]
    Clerk(#[from] DirectoryError),
    /// The store did not answer, or could not write.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Brings users in.
#[derive(Clone, Debug)]
pub struct UserSync {
    store: Arc<dyn Store>,
}

impl UserSync {
    /// Into `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// What the mirror knows of a user, however old.
    pub async fn known(
        &self,
        instance: &InstanceName,
        key: UserKey<'_>,
    ) -> Result<Option<Seen<User>>, SyncError> {
        Ok(self.store.user(instance, key).await?)
    }

    /// Brings one user in, with all memberships, in one transaction guarded by Clerk's own times; in
    /// several where there are more than [`MAX_FACTS`], the user in the first.
    ///
    /// At most one request about a user is under way, and one behind it: of many who ask at once
    /// each gets an answer that was asked for after they came, and each writes what it brought,
    /// which changes nothing after the first.
    pub async fn sync(&self, asked: &SyncUser<'_>, now: Timestamp) -> Result<Synced, SyncError> {
        let key = UserKey::Id(asked.user);
        let before = self.store.user(asked.instance, key).await?;
        if let Some(seen) = &before
            && seen.seen_at.is_some_and(|at| {
                at <= now && !asked.max_staleness.is_zero() && now.since(at) <= asked.max_staleness
            })
        {
            return Ok(Synced {
                user: before,
                outcome: SyncOutcome::Unchanged,
            });
        }
        let ask = Ask {
            patience: asked.patience,
            join: Join::SentAfter,
        };
        let Answered { value, as_of } = asked.directory.user(asked.user, ask).await?;
        let Some(user) = value else {
            return self.absent(asked, as_of, now).await;
        };
        let memberships = asked.directory.memberships_of(asked.user, ask).await?;
        let mut facts = vec![Fact::User(Box::new(user), Origin::Api { as_of })];
        facts.extend(self.membership_facts(asked, memberships).await?);
        let (mut first, mut is_different) = (None, false);
        while !facts.is_empty() {
            let rest = facts.split_off(facts.len().min(MAX_FACTS));
            let effect = Effect { facts, done: None };
            let applied = self.store.apply(asked.instance, effect, now).await?;
            first = first.or(applied.outcomes.first().map(|outcome| outcome.write));
            is_different |= applied
                .outcomes
                .iter()
                .any(|outcome| outcome.write.is_visible());
            facts = rest;
        }
        Ok(Synced {
            user: self.store.user(asked.instance, key).await?,
            outcome: match (first, is_different) {
                (Some(Write::Created), _) => SyncOutcome::Created,
                (_, true) => SyncOutcome::Updated,
                (_, false) => SyncOutcome::Unchanged,
            },
        })
    }

    async fn absent(
        &self,
        asked: &SyncUser<'_>,
        as_of: Timestamp,
        now: Timestamp,
    ) -> Result<Synced, SyncError> {
        let entity = Entity::User(asked.user.clone());
        let effect = Effect {
            facts: vec![Fact::Absent { entity, as_of }],
            done: None,
        };
        self.store.apply(asked.instance, effect, now).await?;
        Ok(Synced {
            user: None,
            outcome: SyncOutcome::Deleted,
        })
    }

    /// What Clerk lists, and that it does not list the others that the mirror has.
    async fn membership_facts(
        &self,
        asked: &SyncUser<'_>,
        listed: Answered<Vec<WholeMembership>>,
    ) -> Result<Vec<Fact>, SyncError> {
        let as_of = listed.as_of;
        let mut facts = Vec::new();
        let mut organizations = HashSet::new();
        for WholeMembership {
            membership,
            organization,
        } in listed.value
        {
            organizations.insert(organization.id.clone());
            facts.push(Fact::Organization(
                Box::new(organization),
                Origin::Api { as_of },
            ));
            facts.push(Fact::Membership(
                Box::new(membership),
                Origin::Api { as_of },
            ));
        }
        let mut after: Option<OrganizationId> = None;
        loop {
            let page = self
                .store
                .memberships_of(asked.instance, asked.user, after.as_ref(), PAGE)
                .await?;
            for seen in &page {
                let organization = &seen.value.membership.organization.id;
                if !organizations.contains(organization) {
                    facts.push(Fact::Absent {
                        entity: Entity::Membership(organization.clone(), asked.user.clone()),
                        as_of,
                    });
                }
            }
            let is_last = page.len() < PAGE as usize;
            after = page
                .last()
                .map(|seen| seen.value.membership.organization.id.clone());
            if is_last || after.is_none() {
                return Ok(facts);
            }
        }
    }
}
