//! What follows a cursor: pages of the snapshot, then of the feed, with what each entity is now.

use std::collections::{HashMap, HashSet};

use super::{
    WatchChange, WatchEnd, WatchMessage, WatchScope,
    cursor::{Cursor, Stage},
};
use crate::{
    identity::{InstanceName, UserId},
    mirror::{
        Change, ChangeEvent, FeedPage, MembershipKey, MirroredMembership, Seen, Store, StoreError,
        User,
    },
};

/// Entities of a snapshot that are read at once, with all that they are.
const SNAPSHOT_PAGE: u32 = 100;
/// Entries of the feed that are read at once; of those that are watched, with all that they are.
const FEED_PAGE: u32 = 200;

/// A watch on its way through the store.
pub(super) struct Reading {
    instance: InstanceName,
    cursor: Cursor,
}

/// A part of a watch.
pub(super) struct Page {
    pub(super) messages: Vec<WatchMessage>,
    /// Whether nothing more is there now.
    pub(super) is_last: bool,
}

/// What an entry of the feed says is different; what it is now has to be read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(UserId),
    Membership(MembershipKey),
}

impl Subject {
    fn of(event: ChangeEvent, scope: WatchScope) -> Option<Self> {
        let with_memberships = scope == WatchScope::UsersAndMemberships;
        match event {
            ChangeEvent::UserChanged(id) | ChangeEvent::UserDeleted(id) => Some(Self::User(id)),
            ChangeEvent::MembershipChanged(organization, user)
            | ChangeEvent::MembershipDeleted(organization, user) => {
                with_memberships.then_some(Self::Membership((organization, user)))
            }
            ChangeEvent::UserRevoked(..)
            | ChangeEvent::OrganizationChanged(_)
            | ChangeEvent::OrganizationDeleted(_)
            | ChangeEvent::SessionEnded(_)
            | ChangeEvent::RoleChanged(_) => None,
        }
    }
}

impl Reading {
    pub(super) fn new(instance: InstanceName, cursor: Cursor) -> Self {
        Self { instance, cursor }
    }

    /// Whether what follows is still kept.
    pub(super) async fn check(&self, store: &dyn Store) -> Result<(), WatchEnd> {
        self.entries(store, 1).await.map(drop)
    }

    /// That there is nothing to tell, with the newest token.
    pub(super) fn heartbeat(&self) -> WatchMessage {
        self.tell(WatchChange::Heartbeat)
    }

    /// What follows.
    pub(super) async fn next_page(&mut self, store: &dyn Store) -> Result<Page, WatchEnd> {
        let messages = match &self.cursor.stage {
            Stage::Users(after) => {
                let after = after.as_ref();
                let users = store.users_after(&self.instance, after, SNAPSHOT_PAGE);
                let users = users.await?;
                self.users(users)
            }
            Stage::Memberships(after) => {
                let after = after.as_ref();
                let page = store.memberships_after(&self.instance, after, SNAPSHOT_PAGE);
                let page = page.await?;
                self.memberships(page)
            }
            Stage::Changes => {
                let entries = self.entries(store, FEED_PAGE).await?;
                let is_last = entries.len() < FEED_PAGE as usize;
                let messages = self.changes(store, entries).await?;
                return Ok(Page { messages, is_last });
            }
        };
        Ok(Page {
            messages,
            is_last: false,
        })
    }

    fn tell(&self, change: WatchChange) -> WatchMessage {
        WatchMessage {
            change,
            resume_token: self.cursor.token(&self.instance),
        }
    }

    fn users(&mut self, page: Vec<Seen<User>>) -> Vec<WatchMessage> {
        let is_end = page.len() < SNAPSHOT_PAGE as usize;
        let mut messages = Vec::with_capacity(page.len() + 1);
        for seen in page {
            self.cursor.stage = Stage::Users(Some(seen.value.id.clone()));
            messages.push(self.tell(WatchChange::User(Box::new(seen))));
        }
        match (is_end, self.cursor.scope) {
            (false, _) => {}
            (true, WatchScope::Users) => messages.push(self.complete()),
            (true, WatchScope::UsersAndMemberships) => {
                self.cursor.stage = Stage::Memberships(None);
            }
        }
        messages
    }

    fn memberships(&mut self, page: Vec<Seen<MirroredMembership>>) -> Vec<WatchMessage> {
        let is_end = page.len() < SNAPSHOT_PAGE as usize;
        let mut messages = Vec::with_capacity(page.len() + 1);
        for seen in page {
            self.cursor.stage = Stage::Memberships(Some(key(&seen)));
            messages.push(self.tell(WatchChange::Membership(Box::new(seen))));
        }
        if is_end {
            messages.push(self.complete());
        }
        messages
    }

    fn complete(&mut self) -> WatchMessage {
        self.cursor.stage = Stage::Changes;
        self.tell(WatchChange::SnapshotComplete)
    }

    async fn entries(&self, store: &dyn Store, limit: u32) -> Result<Vec<Change>, WatchEnd> {
        let page = store
            .changes(&self.instance, self.cursor.position, limit)
            .await?;
        match page {
            FeedPage::Changes(changes) => Ok(changes),
            FeedPage::Gone { oldest: _ } => Err(WatchEnd::Expired),
        }
    }

    /// Of several entries about one subject the last is told, so that a token never stands behind
    /// something that was not.
    async fn changes(
        &mut self,
        store: &dyn Store,
        entries: Vec<Change>,
    ) -> Result<Vec<WatchMessage>, StoreError> {
        let Some(newest) = entries.last().map(|entry| entry.position) else {
            return Ok(Vec::new());
        };
        let mut seen = HashSet::new();
        let mut subjects = Vec::new();
        for entry in entries.into_iter().rev() {
            if let Some(subject) = Subject::of(entry.event, self.cursor.scope)
                && seen.insert(subject.clone())
            {
                subjects.push((entry.position, subject));
            }
        }
        let mut now = self.what_they_are(store, &subjects).await?;
        let mut messages = Vec::with_capacity(subjects.len());
        for (position, subject) in subjects.into_iter().rev() {
            let change = match (now.remove(&subject), subject) {
                (Some(change), _) => change,
                (None, Subject::User(id)) => WatchChange::UserDeleted(id),
                (None, Subject::Membership((organization, user))) => {
                    WatchChange::MembershipDeleted(organization, user)
                }
            };
            self.cursor.position = position;
            messages.push(self.tell(change));
        }
        self.cursor.position = newest;
        Ok(messages)
    }

    async fn what_they_are<P>(
        &self,
        store: &dyn Store,
        subjects: &[(P, Subject)],
    ) -> Result<HashMap<Subject, WatchChange>, StoreError> {
        let (mut users, mut keys) = (Vec::new(), Vec::new());
        for (_, subject) in subjects {
            match subject {
                Subject::User(id) => users.push(id.clone()),
                Subject::Membership(key) => keys.push(key.clone()),
            }
        }
        let mut found = HashMap::with_capacity(subjects.len());
        if !users.is_empty() {
            for seen in store.users(&self.instance, &users).await? {
                let subject = Subject::User(seen.value.id.clone());
                found.insert(subject, WatchChange::User(Box::new(seen)));
            }
        }
        if !keys.is_empty() {
            for seen in store.memberships(&self.instance, &keys).await? {
                let subject = Subject::Membership(key(&seen));
                found.insert(subject, WatchChange::Membership(Box::new(seen)));
            }
        }
        Ok(found)
    }
}

fn key(seen: &Seen<MirroredMembership>) -> MembershipKey {
    let membership = &seen.value.membership;
    (
        membership.organization.id.clone(),
        membership.user_id.clone(),
    )
}
