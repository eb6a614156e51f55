//! A map that is read without a lock, and small: a name is kept as 64 bits.

use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use papaya::HashMap;

use crate::identity::Timestamp;

/// What is forgotten in time.
pub(super) trait Dated: Copy + Send + Sync {
    /// When it was written down.
    fn recorded_at(&self) -> Timestamp;
}

/// Of one or two parts.
#[derive(Clone, Copy, Hash)]
pub(super) struct Name<'a>(pub(super) &'a str, pub(super) &'a str);

impl<'a> From<&'a str> for Name<'a> {
    fn from(name: &'a str) -> Self {
        Self(name, "")
    }
}

/// Entries by name.
///
/// A name is SipHash under a key that is made at the start. Two names that are one by chance would
/// deny a token that is good, never allow one: with a million entries it happens to one of 10^13
/// names.
pub(super) struct Map<V> {
    entries: HashMap<u64, V, BuildHasherDefault<AsItIs>>,
    names: RandomState,
}

impl<V> Default for Map<V> {
    fn default() -> Self {
        Self {
            entries: HashMap::default(),
            names: RandomState::new(),
        }
    }
}

impl<V: Dated> Map<V> {
    fn key<'a>(&self, name: impl Into<Name<'a>>) -> u64 {
        self.names.hash_one(name.into())
    }

    pub(super) fn get<'a>(&self, name: impl Into<Name<'a>>) -> Option<V> {
        // Mostly there is nothing, and then nothing is hashed.
        if self.entries.is_empty() {
            return None;
        }
        self.entries.pin().get(&self.key(name)).copied()
    }

    pub(super) fn has<'a>(&self, name: impl Into<Name<'a>>) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn put<'a>(&self, name: impl Into<Name<'a>>, value: V) {
        self.entries.pin().insert(self.key(name), value);
    }

    /// Puts what two become.
    pub(super) fn merge<'a>(&self, name: impl Into<Name<'a>>, value: V, both: impl Fn(V, V) -> V) {
        let old = |old: &V| both(*old, value);
        self.entries
            .pin()
            .update_or_insert(self.key(name), old, value);
    }

    /// Changes what is there.
    pub(super) fn update<'a>(&self, name: impl Into<Name<'a>>, change: impl Fn(V) -> V) {
        self.entries
            .pin()
            .update(self.key(name), |old| change(*old));
    }

    pub(super) fn remove<'a>(&self, name: impl Into<Name<'a>>) {
        self.entries.pin().remove(&self.key(name));
    }

    pub(super) fn forget(&self, before: Timestamp) {
        self.entries
            .pin()
            .retain(|_, value| value.recorded_at() >= before);
    }

    pub(super) fn len(&self) -> u64 {
        u64::try_from(self.entries.len()).unwrap_or(u64::MAX)
    }
}

/// A fingerprint is its own hash.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
