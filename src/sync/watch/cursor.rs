//! Where a watch stands, and the token that says so.
//!
//! A token is base64url of a version, a checksum and fields between dots. It is no secret and no
//! permission: whoever may watch may stand anywhere. The checksum tells what was cut or mixed up from
//! what was given out.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use thiserror::Error;

use crate::{
    identity::{InstanceName, Timestamp, UserId},
    mirror::{FEED_ID_CHECKPOINT, MembershipKey, Position, Store, StoreError},
};

/// The form of our tokens.
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
/// The longest token in bytes; the longest that is given out has two ids of 255.
const MAX_TOKEN_BYTES: usize = 1_024;
/// Letters and digits of a feed's name.
const FEED_ID_LENGTH: usize = 12;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchScope {
    /// Users alone.
    Users,
    /// Users and memberships.
    UsersAndMemberships,
}

impl WatchScope {
    const fn letter(self) -> &'static str {
        match self {
            Self::Users => "u",
            Self::UsersAndMemberships => "m",
        }
    }

    fn of_letter(letter: &str) -> Option<Self> {
        [Self::Users, Self::UsersAndMemberships]
            .into_iter()
            .find(|scope| scope.letter() == letter)
    }
}

/// A text that is no token for this watch.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidToken {
    /// It is not one of ours, or it was changed.
    #[error(
        "is not a resume token as it was given out; send the last message's, or none to begin anew"
    )]
    Unreadable,
    /// It is of another instance.
    #[error("is of instance \"{found}\"; expected one of \"{expected}\"")]
    OtherInstance {
        /// The token's.
        found: InstanceName,
        /// The watch's.
        expected: InstanceName,
    },
    /// It is of a watch with memberships, and this one is without, or the other way.
    #[error("is of a watch whose with_memberships was different; ask as then, or begin anew")]
    OtherScope,
}

/// A token that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// A fault of the caller.
    Invalid(InvalidToken),
    /// A good token, but of another database or of another version of the service.
    Expired,
}

impl From<InvalidToken> for Unusable {
    fn from(invalid: InvalidToken) -> Self {
        Self::Invalid(invalid)
    }
}

/// Where a watch stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The name of the feed that `position` is of.
    feed: Box<str>,
    pub(super) scope: WatchScope,
    /// In a snapshot, where the feed was at its beginning; behind it, what was told of.
    pub(super) position: Position,
    pub(super) stage: Stage,
}

/// What is told now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The snapshot's users behind this one.
    Users(Option<UserId>),
    /// The snapshot's memberships behind this one.
    Memberships(Option<MembershipKey>),
    /// Changes.
    Changes,
}

impl Cursor {
    /// At the beginning of a snapshot.
    pub(super) fn before_all(feed: Box<str>, scope: WatchScope, newest: Position) -> Self {
        Self {
            feed,
            scope,
            position: newest,
            stage: Stage::Users(None),
        }
    }

    pub(super) fn token(&self, instance: &InstanceName) -> String {
        let (stage, first, second) = match &self.stage {
            Stage::Users(after) => ("u", after.as_ref().map_or("", UserId::as_str), ""),
            Stage::Memberships(None) => ("m", "", ""),
            Stage::Memberships(Some((organization, user))) => {
                ("m", organization.as_str(), user.as_str())
            }
            Stage::Changes => ("c", "", ""),
        };
        let (feed, scope) = (&self.feed, self.scope.letter());
        let position = self.position.number();
        let text = format!("{instance}.{feed}.{scope}.{position}.{stage}.{first}.{second}");
        let mut bytes = vec![VERSION];
        bytes.extend(checksum(text.as_bytes()));
        bytes.extend(text.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The token's, if it is one of a watch like this.
    pub(super) fn parse(
        token: &str,
        instance: &InstanceName,
        feed: &str,
        scope: WatchScope,
    ) -> Result<Self, Unusable> {
        let unreadable = || Unusable::Invalid(InvalidToken::Unreadable);
        if token.len() > MAX_TOKEN_BYTES {
            return Err(unreadable());
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| unreadable())?;
        let (&version, rest) = bytes.split_first().ok_or_else(unreadable)?;
        let (sum, text) = rest
            .split_at_checked(CHECKSUM_BYTES)
            .ok_or_else(unreadable)?;
        if checksum(text) != sum {
            return Err(unreadable());
        }
        // Another version of the service gave it out.
        if version != VERSION {
            return Err(Unusable::Expired);
        }
        let text = str::from_utf8(text).map_err(|_| unreadable())?;
        let fields: Vec<&str> = text.split('.').collect();
        let [
            its_instance,
            its_feed,
            its_scope,
            position,
            stage,
            first,
            second,
        ] = fields[..]
        else {
            return Err(unreadable());
        };
        let its_instance: InstanceName = its_instance.parse().map_err(|_| unreadable())?;
        if its_instance != *instance {
            return Err(Unusable::Invalid(InvalidToken::OtherInstance {
                found: its_instance,
                expected: instance.clone(),
            }));
        }
        if WatchScope::of_letter(its_scope).ok_or_else(unreadable)? != scope {
            return Err(InvalidToken::OtherScope.into());
        }
        if its_feed != feed {
            return Err(Unusable::Expired);
        }
        let position: i64 = position.parse().map_err(|_| unreadable())?;
        let user = |text: &str| text.parse().map_err(|_| unreadable());
        let stage = match (stage, first, second) {
            ("c", "", "") => Stage::Changes,
            ("u", "", "") => Stage::Users(None),
            ("u", id, "") => Stage::Users(Some(user(id)?)),
            ("m", "", "") => Stage::Memberships(None),
            ("m", organization, id) => {
                let organization = organization.parse().map_err(|_| unreadable())?;
                Stage::Memberships(Some((organization, user(id)?)))
            }
            _ => return Err(unreadable()),
        };
        Ok(Self {
            feed: feed.into(),
            scope,
            position: Position::new(position),
            stage,
        })
    }
}

fn checksum(text: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = digest(&SHA256, text);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&digest.as_ref()[..CHECKSUM_BYTES]);
    sum
}

/// The name of an instance's feed in this database; made up where there is none yet. Positions of
/// another database mean something else.
pub(super) async fn feed_id(
    store: &dyn Store,
    instance: &InstanceName,
    now: Timestamp,
) -> Result<Box<str>, StoreError> {
    if let Some(known) = store.checkpoint(instance, FEED_ID_CHECKPOINT).await? {
        return Ok(known.value.into());
    }
    let new: String = std::iter::repeat_with(fastrand::alphanumeric)
        .take(FEED_ID_LENGTH)
        .collect();
    // Of two replicas that come at once, one's is not kept: the tokens that it gave out meanwhile
    // are refused, once in the life of a database.
    store
        .set_checkpoint(instance, FEED_ID_CHECKPOINT, &new, now)
        .await?;
    Ok(new.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEED: &str = "feed00000001";

    fn name(name: &str) -> InstanceName {
        name.parse().expect("a name")
    }

    fn at(stage: Stage) -> Cursor {
        Cursor {
            feed: FEED.into(),
            scope: WatchScope::UsersAndMemberships,
            position: Position::new(42),
            stage,
        }
    }

    fn parse(token: &str) -> Result<Cursor, Unusable> {
        let scope = WatchScope::UsersAndMemberships;
        Cursor::parse(token, &name("default"), FEED, scope)
    }

    #[test]
    fn a_token_says_where_a_watch_stands() {
        let user: UserId = format!("user_{}", "a".repeat(250)).parse().expect("an id");
        let organization = format!("org_{}", "b".repeat(251)).parse().expect("an id");
        let longest = name(&"x".repeat(63));
        for stage in [
            Stage::Users(None),
            Stage::Users(Some(user.clone())),
            Stage::Memberships(None),
            Stage::Memberships(Some((organization, user))),
            Stage::Changes,
        ] {
            let cursor = at(stage);
            assert_eq!(parse(&cursor.token(&name("default"))), Ok(cursor.clone()));
            let token = cursor.token(&longest);
            assert!(token.len() <= MAX_TOKEN_BYTES, "{} bytes", token.len());
        }
    }

    #[test]
    fn a_token_that_was_cut_or_changed_is_none() {
        let token = at(Stage::Changes).token(&name("default"));
        for length in 0..token.len() {
            let cut = parse(&token[..length]);
            assert_eq!(cut, Err(InvalidToken::Unreadable.into()), "{length}");
        }
        for place in 2..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'Q' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(
                parse(&changed),
                Err(InvalidToken::Unreadable.into()),
                "{place}"
            );
        }
        for garbage in ["x", "é", "e30", &"A".repeat(5_000), "../..", "null"] {
            assert_eq!(
                parse(garbage),
                Err(InvalidToken::Unreadable.into()),
                "{garbage:?}"
            );
        }
    }

    #[test]
    fn a_good_token_of_something_else_says_of_what() {
        let cursor = at(Stage::Changes);
        let other = parse(&cursor.token(&name("other")));
        let other_instance = InvalidToken::OtherInstance {
            found: name("other"),
            expected: name("default"),
        };
        assert_eq!(other, Err(other_instance.into()));

        let scope = WatchScope::Users;
        let token = Cursor {
            scope,
            ..at(Stage::Changes)
        }
        .token(&name("default"));
        assert_eq!(parse(&token), Err(InvalidToken::OtherScope.into()));

        let feed = "feed00000002".into();
        let token = Cursor {
            feed,
            ..at(Stage::Changes)
        }
        .token(&name("default"));
        assert_eq!(parse(&token), Err(Unusable::Expired));

        let mut bytes = URL_SAFE_NO_PAD
            .decode(cursor.token(&name("default")))
            .expect("base64");
        bytes[0] = VERSION + 1;
        assert_eq!(
            parse(&URL_SAFE_NO_PAD.encode(bytes)),
            Err(Unusable::Expired)
        );
    }
}
