//! Fills what is known from the feed.

use std::{collections::HashSet, sync::atomic::Ordering::Relaxed};

use tracing::warn;

use super::{Changed, Ended, Out, Revocations};
use crate::{
    identity::{InstanceName, Timestamp, UserId},
    keys::Clock,
    mirror::{
        Change, ChangeEvent, Entity, FeedPage, Position, RevocationCause, Store, StoreError,
        UserKey, ordering::not_before,
    },
};

/// Changes that are read at once.
const PAGE: u32 = 5_000;

impl Revocations {
    /// Takes in all that was recorded within the memory, before anything is asked. Fails when the
    /// store does: then nobody knows what was revoked.
    pub async fn load(
        &self,
        store: &dyn Store,
        instance: &InstanceName,
        clock: &Clock,
    ) -> Result<(), StoreError> {
        let since = clock().minus(self.memory).minus(super::CLOCKS_APART);
        let position = store.position_before(instance, since).await?;
        self.position.store(position.number(), Relaxed);
        self.catch_up(store, instance, clock).await
    }

    /// Reads the feed to its end. When it fails, what was read is known, and the next call goes on.
    pub async fn catch_up(
        &self,
        store: &dyn Store,
        instance: &InstanceName,
        clock: &Clock,
    ) -> Result<(), StoreError> {
        loop {
            let asked_at = clock();
            let after = Position::new(self.position.load(Relaxed));
            let changes = match store.changes(instance, after, PAGE).await? {
                FeedPage::Changes(changes) => changes,
                // Away for longer than the feed is kept, or another database: from its beginning.
                // What is known stays known.
                FeedPage::Gone { oldest } => {
                    warn!(%instance, "a part of the feed of changes is gone; going on behind it");
                    self.position.store(oldest.number(), Relaxed);
                    continue;
                }
            };
            let Some(last) = changes.last() else {
                self.current_at.fetch_max(asked_at.unix_millis(), Relaxed);
                return Ok(());
            };
            let mut to_restate = HashSet::new();
            for change in &changes {
                self.take(change, clock(), &mut to_restate);
            }
            for user in &to_restate {
                let still = self.still_out(store, instance, user).await?;
                self.restate(user, still);
            }
            self.position.store(last.position.number(), Relaxed);
        }
    }

    /// Taking one twice changes nothing.
    pub(super) fn take(&self, change: &Change, now: Timestamp, to_restate: &mut HashSet<UserId>) {
        let recorded_at = change.recorded_at;
        let changed = Changed {
            at: change.at,
            heard_at: now,
            recorded_at,
        };
        match &change.event {
            ChangeEvent::SessionEnded(session) => self.end_session(session, recorded_at),
            ChangeEvent::UserRevoked(user, not_before, cause) => {
                let out = Out {
                    cause: *cause,
                    not_before: *not_before,
                    still: true,
                    recorded_at,
                    heard_at: now,
                };
                self.put_out(user, out);
                to_restate.insert(user.clone());
            }
            // The user may be back.
            ChangeEvent::UserChanged(user) => {
                if self.users.has(user.as_str()) {
                    to_restate.insert(user.clone());
                }
            }
            ChangeEvent::UserDeleted(user) => {
                let out = Out {
                    cause: RevocationCause::Deleted,
                    not_before: not_before(change.at),
                    still: true,
                    recorded_at,
                    heard_at: now,
                };
                self.put_out(user, out);
            }
            ChangeEvent::OrganizationDeleted(organization) => self
                .organizations
                .put(organization.as_str(), Ended { recorded_at }),
            // It is there after all: Clerk was asked.
            ChangeEvent::OrganizationChanged(organization) => {
                self.organizations.remove(organization.as_str());
            }
            ChangeEvent::MembershipChanged(organization, user)
            | ChangeEvent::MembershipDeleted(organization, user) => {
                self.change_membership(organization, user, changed);
            }
            ChangeEvent::RoleChanged(role) => self.change_role(role.as_deref(), changed),
        }
    }

    /// What the mirror says of a user who was put out.
    async fn still_out(
        &self,
        store: &dyn Store,
        instance: &InstanceName,
        user: &UserId,
    ) -> Result<Option<RevocationCause>, StoreError> {
        if let Some(seen) = store.user(instance, UserKey::Id(user)).await? {
            return Ok(RevocationCause::of(seen.value.standing()));
        }
        // Not there: deleted, unless nothing was ever known.
        let entity = Entity::User(user.clone());
        let head = store.head(instance, &entity).await?;
        Ok(head
            .is_some_and(|head| head.is_dead())
            .then_some(RevocationCause::Deleted))
    }
}
