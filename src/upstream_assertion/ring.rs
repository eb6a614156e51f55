//! Which key signs, which are published, and when the next one is made. Pure.

use std::{sync::Arc, time::Duration};

use super::{KEYS_MAX_AGE, KeyMaterial, LIFE, SigningKey, UnusableKey, key::PublicJwk};
use crate::identity::Timestamp;

/// From when the next key is published, before it signs: every replica has read it by then, and
/// everybody who keeps what is published, some libraries for an hour.
pub(super) const PUBLISHED_BEFORE: Duration = Duration::from_secs(3_600);
/// For how long a key is still published that signs no more: until its last assertion has ended and
/// nobody keeps what was published before; and for a replica that could not read the next key in time.
pub(super) const PUBLISHED_AFTER: Duration = Duration::from_secs(3_600);

const _: () = assert!(PUBLISHED_AFTER.as_secs() > LIFE.as_secs() + KEYS_MAX_AGE.as_secs());

/// Which key it is: the first is 1, and each is one more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub i64);

/// A key as it is kept.
#[derive(Clone, Debug)]
pub struct AssertionKey {
    /// No two have the same.
    pub generation: Generation,
    /// It signs from here on, until the next one does.
    pub signs_from: Timestamp,
    /// The private key.
    pub material: KeyMaterial,
}

/// The next key to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) generation: Generation,
    pub(super) signs_from: Timestamp,
}

impl Next {
    /// The first of all signs at once: nobody knows another.
    pub(super) const fn first(now: Timestamp) -> Self {
        Self {
            generation: Generation(1),
            signs_from: now,
        }
    }

    pub(super) const fn with(self, material: KeyMaterial) -> AssertionKey {
        AssertionKey {
            generation: self.generation,
            signs_from: self.signs_from,
            material,
        }
    }
}

#[derive(Debug)]
struct Member {
    generation: Generation,
    signs_from: Timestamp,
    key: Arc<SigningKey>,
}

/// All keys that there are: at least one, the oldest first.
#[derive(Debug)]
pub(super) struct Ring(Vec<Member>);

impl Ring {
    /// `None` where there is no key yet.
    pub(super) fn of(keys: &[AssertionKey]) -> Result<Option<Self>, UnusableKey> {
        let mut members = keys
            .iter()
            .map(|kept| {
                Ok(Member {
                    generation: kept.generation,
                    signs_from: kept.signs_from,
                    key: Arc::new(SigningKey::read(&kept.material)?),
                })
            })
            .collect::<Result<Vec<_>, UnusableKey>>()?;
        members.sort_unstable_by_key(|member| member.generation);
        Ok((!members.is_empty()).then_some(Self(members)))
    }

    /// The newest whose time has come. Where the clock was set back behind all of them, the oldest.
    pub(super) fn signing(&self, now: Timestamp) -> &Arc<SigningKey> {
        &self.0[self.signing_index(now)].key
    }

    /// Since when it signs.
    pub(super) fn signs_since(&self, now: Timestamp) -> Timestamp {
        self.0[self.signing_index(now)].signs_from
    }

    fn signing_index(&self, now: Timestamp) -> usize {
        let come = self.0.iter().rposition(|member| member.signs_from <= now);
        come.unwrap_or(0)
    }

    /// The public halves of all but those that have ended.
    pub(super) fn published(&self, now: Timestamp) -> impl Iterator<Item = &PublicJwk> {
        let ended = self.ended(now);
        let members = self.0.iter();
        let published = members.filter(move |member| Some(member.generation) > ended);
        published.map(|member| member.key.public())
    }

    /// The newest of those that are published no more; it and all before it may be forgotten.
    pub(super) fn ended(&self, now: Timestamp) -> Option<Generation> {
        let with_next = self.0.iter().zip(self.0.iter().skip(1));
        let ended = with_next.filter(|(_, next)| next.signs_from.plus(PUBLISHED_AFTER) <= now);
        ended.map(|(member, _)| member.generation).next_back()
    }

    /// The key to be made now, where each signs for `rotation`.
    pub(super) fn next(&self, rotation: Duration, now: Timestamp) -> Option<Next> {
        let newest = self.0.last()?;
        let due = newest.signs_from.plus(rotation);
        if now < due.minus(PUBLISHED_BEFORE) {
            return None;
        }
        Some(Next {
            generation: Generation(newest.generation.0.saturating_add(1)),
            // Where it is made late it signs late, not unpublished.
            signs_from: due.max(now.plus(PUBLISHED_BEFORE)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const START: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn kept(next: Next) -> AssertionKey {
        next.with(KeyMaterial::generate().expect("a key"))
    }

    fn ring(keys: &[AssertionKey]) -> Ring {
        Ring::of(keys).expect("keys").expect("at least one")
    }

    fn kids(ring: &Ring, now: Timestamp) -> Vec<String> {
        ring.published(now).map(|jwk| jwk.kid.to_string()).collect()
    }

    #[test]
    fn the_next_key_is_published_before_it_signs_and_the_last_one_after() {
        let first = kept(Next::first(START));
        let alone = ring(std::slice::from_ref(&first));
        let due = START.plus(DAY);
        let made_at = due.minus(PUBLISHED_BEFORE);
        assert_eq!(alone.next(DAY, made_at.minus(SECOND)), None);
        let next = alone.next(DAY, made_at).expect("it is time");
        assert_eq!(
            next,
            Next {
                generation: Generation(2),
                signs_from: due
            }
        );

        let both = ring(&[kept(next), first]);
        let [old, new] = [0, 1].map(|index| both.0[index].key.kid().to_owned());
        assert_eq!(both.next(DAY, made_at), None, "one at a time");
        assert_eq!(kids(&both, made_at), [old.clone(), new.clone()]);
        assert_eq!(both.signing(due.minus(SECOND)).kid(), old);
        assert_eq!(both.signing(due).kid(), new);

        let last = due.plus(PUBLISHED_AFTER);
        assert_eq!(kids(&both, last.minus(SECOND)), [old, new.clone()]);
        assert_eq!(both.ended(last.minus(SECOND)), None);
        assert_eq!(kids(&both, last), [new]);
        assert_eq!(both.ended(last), Some(Generation(1)));
    }

    #[test]
    fn a_key_that_is_made_late_is_published_for_as_long_before_it_signs() {
        let alone = ring(&[kept(Next::first(START))]);
        let late = START.plus(30 * DAY);
        let next = alone.next(DAY, late).expect("it is time");
        assert_eq!(next.signs_from, late.plus(PUBLISHED_BEFORE));
    }

    #[test]
    fn a_clock_that_was_set_back_finds_a_key() {
        let alone = ring(&[kept(Next::first(START))]);
        let before = START.minus(DAY);
        assert_eq!(alone.signing(before).kid(), alone.signing(START).kid());
        assert_eq!(alone.next(DAY, before), None);
    }

    #[test]
    fn no_key_is_no_ring_and_what_is_none_is_refused() {
        assert!(Ring::of(&[]).expect("none").is_none());
        let broken = Next::first(START).with(KeyMaterial::of(vec![1, 2, 3]));
        assert_eq!(Ring::of(&[broken]).map(drop), Err(UnusableKey));
    }
}
