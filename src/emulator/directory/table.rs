//! Rows of one kind, and the only three ways in which they change. Each change is remembered until
//! it is taken, for whoever tells others about it.

use std::collections::BTreeMap;

/// When a row was made and last changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds; grows with each change, even within one millisecond.
    pub updated_at: i64,
    /// Orders rows that were made within one millisecond.
    pub(in crate::emulator) sequence: u64,
}

/// What a table holds.
pub(in crate::emulator) trait Row: Clone {
    fn key(&self) -> String;
    fn stamp(&self) -> Stamp;
    fn stamp_mut(&mut self) -> &mut Stamp;
}

/// What has become of a row.
pub(in crate::emulator) enum Change<R> {
    Made(R),
    Changed { before: R, after: R },
    Removed(R),
}

/// Rows by key.
pub(in crate::emulator) struct Table<R> {
    rows: BTreeMap<String, R>,
    made: u64,
    changes: Vec<Change<R>>,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            made: 0,
            changes: Vec::new(),
        }
    }
}

impl<R: Row> Table<R> {
    pub(in crate::emulator) fn get(&self, key: &str) -> Option<&R> {
        self.rows.get(key)
    }

    pub(in crate::emulator) fn iter(&self) -> impl Iterator<Item = &R> {
        self.rows.values()
    }

    /// In the order in which they were made.
    pub(in crate::emulator) fn in_order(&self) -> Vec<&R> {
        let mut rows: Vec<&R> = self.iter().collect();
        rows.sort_by_key(|row| row.stamp().sequence);
        rows
    }

    /// Those whose key starts like this.
    pub(in crate::emulator) fn starting_with<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a R> {
        self.rows
            .range::<str, _>((
                std::ops::Bound::Included(prefix),
                std::ops::Bound::Unbounded,
            ))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(_, row)| row)
    }

    /// A new row, made now; a `created_at` of the past stays.
    pub(super) fn insert(&mut self, mut row: R, now: i64) -> R {
        self.made += 1;
        let stamp = row.stamp_mut();
        if stamp.created_at == 0 {
            stamp.created_at = now;
        }
        stamp.updated_at = now;
        stamp.sequence = self.made;
        self.rows.insert(row.key(), row.clone());
        self.changes.push(Change::Made(row.clone()));
        row
    }

    /// Changes a row and returns it as it is then. `change` leaves the key as it is.
    pub(super) fn update(&mut self, key: &str, now: i64, change: impl FnOnce(&mut R)) -> Option<R> {
        let row = self.rows.get_mut(key)?;
        let before = row.clone();
        change(row);
        let stamp = row.stamp_mut();
        stamp.updated_at = now.max(stamp.updated_at + 1);
        let after = row.clone();
        self.changes.push(Change::Changed {
            before,
            after: after.clone(),
        });
        Some(after)
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<R> {
        let removed = self.rows.remove(key)?;
        self.changes.push(Change::Removed(removed.clone()));
        Some(removed)
    }

    /// What has changed since this was last asked, in its order.
    pub(super) fn take_changes(&mut self) -> Vec<Change<R>> {
        std::mem::take(&mut self.changes)
    }
}
