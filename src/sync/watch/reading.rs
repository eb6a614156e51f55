//! What follows a cursor: pages of the snapshot, then slices of the feed.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    WatchChange, WatchEnd, WatchMessage, WatchScope,
    cursor::{Cursor, Stage},
    slices::{Behind, Slices, entries, key},
};
use crate::{
    identity::InstanceName,
    mirror::{MirroredMembership, Position, Seen, Store, User},
};

/// Entities of a snapshot that are read at once, with all that they are.
const SNAPSHOT_PAGE: u32 = 100;

/// A watch on its way through the store.
pub(super) struct Reading {
    instance: InstanceName,
    cursor: Cursor,
    /// When it began, or last read something.
    read_at: Instant,
}

/// A part of a watch.
pub(super) struct Page {
    pub(super) messages: Vec<WatchMessage>,
    /// Whether nothing more is there now.
    pub(super) is_last: bool,
}

impl Reading {
    pub(super) fn new(instance: InstanceName, cursor: Cursor) -> Self {
        Self {
            instance,
            cursor,
            read_at: Instant::now(),
        }
    }

    /// Whether what follows is still kept.
    pub(super) async fn check(&self, store: &dyn Store) -> Result<(), WatchEnd> {
        let read = entries(store, &self.instance, self.cursor.position, 1);
        read.await.map(drop)
    }

    /// That there is nothing to tell, with the newest token.
    pub(super) fn heartbeat(&self) -> WatchMessage {
        self.tell(WatchChange::Heartbeat)
    }

    /// How far it has come in the feed.
    pub(super) fn position(&self) -> Position {
        self.cursor.position
    }

    /// What follows.
    pub(super) async fn next_page(
        &mut self,
        store: &dyn Store,
        slices: &Slices,
    ) -> Result<Page, WatchEnd> {
        let page = self.read(store, slices).await?;
        self.read_at = Instant::now();
        Ok(page)
    }

    async fn read(&mut self, store: &dyn Store, slices: &Slices) -> Result<Page, WatchEnd> {
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
            Stage::Changes => return self.changes(slices).await,
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
            messages.push(self.tell(WatchChange::User(Arc::new(seen))));
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
            messages.push(self.tell(WatchChange::Membership(Arc::new(seen))));
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

    async fn changes(&mut self, slices: &Slices) -> Result<Page, WatchEnd> {
        let behind = Behind {
            instance: self.instance.clone(),
            scope: self.cursor.scope,
            position: self.cursor.position,
        };
        let slice = slices.read(behind, self.read_at).await?;
        let mut messages = Vec::with_capacity(slice.changes.len());
        for (position, change) in &slice.changes {
            self.cursor.position = *position;
            messages.push(self.tell(change.clone()));
        }
        self.cursor.position = slice.until;
        Ok(Page {
            messages,
            is_last: slice.is_last,
        })
    }
}
