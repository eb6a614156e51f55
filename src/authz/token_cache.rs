//! Tokens that were verified: signature, type and claims. Bounded in bytes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use moka::{Expiry, notification::RemovalCause, sync::Cache};

use super::{machine_lookups, verify_session::Remembered};
use crate::identity::{Session, Timestamp};

/// What an entry costs beside the token's own strings: moka's bookkeeping and the allocator's.
const ENTRY_OVERHEAD_BYTES: usize = 350;

/// Verified tokens by a keyed hash of their text.
///
/// The text decides everything that a verification depends on: it holds the issuer, which chooses
/// the instance, and the `kid`, which chooses the key. Whether that instance and that key still
/// stand is the reader's to check, as are time and whatever the request asks: an entry says only
/// "this was signed by that key and holds these claims".
#[derive(Debug)]
pub struct TokenCache {
    entries: Option<Cache<TokenKey, Entry>>,
    /// Where there are entries.
    hash: Option<TokenHash>,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
struct Entry {
    verified: Remembered,
    bytes: u32,
    lifetime_seconds: u32,
}

/// Counters of a [`TokenCache`] since the start, and its size now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCacheStats {
    /// Look-ups that found an entry.
    pub hits: u64,
    /// Look-ups that found none.
    pub misses: u64,
    /// Entries that were removed to make room.
    pub evictions: u64,
    /// Entries now.
    pub entries: u64,
    /// Their size in bytes, as it is bounded.
    pub bytes: u64,
}

/// The name of a token in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenKey([u8; TOKEN_KEY_BYTES]);

const TOKEN_KEY_BYTES: usize = 16;

/// Whoever finds two tokens with one name passes as somebody else, so that the hash must be one for
/// which nobody can find them: GMAC under a key that is made at the start and that nobody knows. It is
/// a universal hash behind a mask: with names that never leave the process, the chance that two texts
/// of 16 KiB share one is below 2^-117, whatever they are (NIST SP 800-38D, appendix C; docs/adr/0002).
/// It costs a fifth of SHA-256, which was the greater part of a hit.
#[derive(Debug)]
struct TokenHash(LessSafeKey);

impl TokenHash {
    /// With a key of its own; `None` when the machine has no random numbers or no such cipher.
    fn new() -> Option<Self> {
        let mut key = [0; 16];
        rand::fill(&mut key).ok()?;
        let key = UnboundKey::new(&AES_128_GCM, &key).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }

    fn of(&self, token: &str) -> Option<TokenKey> {
        // Always the same nonce: it would give the key away to who saw the tags, and nobody does.
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let aad = Aad::from(token.as_bytes());
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, aad, &mut [])
            .ok()?;
        tag.as_ref().try_into().ok().map(TokenKey)
    }
}

impl TokenCache {
    /// Holds up to `max_bytes`; 0 switches the cache off.
    pub fn new(max_bytes: u64) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&evictions);
        let hash = (max_bytes > 0).then(TokenHash::new).flatten();
        let entries = hash.is_some().then(|| {
            Cache::builder()
                .max_capacity(max_bytes)
                .weigher(|_, entry: &Entry| entry.bytes)
                .expire_after(UntilExpiry)
                .eviction_listener(move |_, _, cause| {
                    if cause == RemovalCause::Size {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                })
                .build()
        });
        Self {
            entries,
            hash,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions,
        }
    }

    /// The token's name; `None` when the cache is off, so that nothing is hashed in vain.
    pub(super) fn key(&self, token: &str) -> Option<TokenKey> {
        self.hash.as_ref()?.of(token)
    }

    pub(super) fn get(&self, key: TokenKey) -> Option<Remembered> {
        let found = self.entries.as_ref()?.get(&key);
        let counter = if found.is_some() {
            &self.hits
        } else {
            &self.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
        found.map(|entry| entry.verified)
    }

    /// Remembers a token until `dies_at`. A token that is already dead is not remembered.
    pub(super) fn insert(
        &self,
        key: TokenKey,
        verified: &Remembered,
        dies_at: Timestamp,
        now: Timestamp,
    ) {
        let lifetime = dies_at.since(now);
        if let Some(entries) = &self.entries
            && !lifetime.is_zero()
        {
            let bytes = match verified {
                Remembered::Session(verified) => size_of(&verified.session),
                Remembered::Machine(verified) => {
                    ENTRY_OVERHEAD_BYTES + machine_lookups::size_of(&verified.machine)
                }
            };
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            let entry = Entry {
                verified: verified.clone(),
                bytes,
                lifetime_seconds: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
            };
            entries.insert(key, entry);
        }
    }

    pub(super) fn remove(&self, key: TokenKey) {
        if let Some(entries) = &self.entries {
            entries.invalidate(&key);
        }
    }

    /// Counters and size. Settles moka's pending bookkeeping, so not for the hot path.
    pub fn stats(&self) -> TokenCacheStats {
        let (entries, bytes) = self.entries.as_ref().map_or((0, 0), |entries| {
            entries.run_pending_tasks();
            (entries.entry_count(), entries.weighted_size())
        });
        TokenCacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            entries,
            bytes,
        }
    }
}

/// An entry dies with its token. Only housekeeping: each hit checks the time by the caller's clock.
struct UntilExpiry;

impl Expiry<TokenKey, Entry> for UntilExpiry {
    fn expire_after_create(&self, _: &TokenKey, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(Duration::from_secs(u64::from(entry.lifetime_seconds) + 1))
    }
}

/// What an entry for the session costs, in bytes. The issuer is shared; so is the authorized party
/// where it is a configured one, but it need not be.
fn size_of(session: &Session) -> usize {
    // The allocator hands out multiples of 16 with 8 of its own.
    let text = |text: &str| text.len().next_multiple_of(16) + 16;
    let maybe = |value: &Option<Box<str>>| value.as_deref().map_or(0, text);
    let list = |heap_bytes: usize| match heap_bytes {
        0 => 0,
        bytes => bytes + 16,
    };
    ENTRY_OVERHEAD_BYTES
        + std::mem::size_of::<super::Verified>()
        + text(session.user_id.as_str())
        + text(session.session_id.as_str())
        + maybe(&session.token_id)
        + session.authorized_party.as_deref().map_or(0, text)
        + list(session.audiences.heap_bytes())
        + list(session.features.heap_bytes())
        + list(session.plans.heap_bytes())
        + session.organization.as_ref().map_or(0, |organization| {
            std::mem::size_of_val(&**organization)
                + text(organization.id.as_str())
                + maybe(&organization.slug)
                + maybe(&organization.role)
                + list(organization.permissions.heap_bytes())
        })
        + session.actor.as_ref().map_or(0, |actor| {
            std::mem::size_of_val(&**actor)
                + text(&actor.subject)
                + maybe(&actor.issuer)
                + maybe(&actor.session_id)
                + maybe(&actor.kind)
        })
        + session
            .custom_claims
            .as_ref()
            .map_or(0, |claims| text(claims.as_json()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_has_one_name_and_every_other_another() {
        let hash = TokenHash::new().expect("a key");
        let token = "a".repeat(1_000);
        let name = hash.of(&token).expect("a name");
        assert_eq!(hash.of(&token), Some(name));
        for position in 0..token.len() {
            let mut other = token.clone();
            other.replace_range(position..=position, "b");
            assert_ne!(hash.of(&other), Some(name), "{position}");
        }
        assert_ne!(hash.of(&token[1..]), Some(name));
        assert_ne!(hash.of(""), Some(name));
    }

    #[test]
    fn names_are_of_one_process_alone() {
        let [a, b] = [(); 2].map(|()| TokenHash::new().expect("a key"));
        assert_ne!(a.of("token"), b.of("token"));
    }
}
