use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;

/// The longest id in bytes.
const MAX_ID_BYTES: usize = 255;

/// A text that is not the id that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected {expected}, at most {MAX_ID_BYTES} bytes")]
pub struct InvalidId {
    expected: &'static str,
}

/// Whether `text` is `prefix` followed by one or more base62 characters, at most 255 bytes.
pub fn is_clerk_id(text: &str, prefix: &str) -> bool {
    text.len() <= MAX_ID_BYTES
        && text
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident($storage:ty), $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($storage);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            fn check(text: &str) -> Result<(), InvalidId> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(()) } else { Err(InvalidId { expected: $expected }) }
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::check(text).map(|()| Self(text.into()))
            }
        }

        impl TryFrom<Box<str>> for $name {
            type Error = InvalidId;

            fn try_from(text: Box<str>) -> Result<Self, InvalidId> {
                Self::check(&text).map(|()| Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_type!(
    /// A Clerk user id, `user_` followed by base62; never empty, at most 255 bytes.
    UserId(Box<str>), "\"user_\" followed by letters and digits", |text| is_clerk_id(text, "user_")
);
text_type!(
    /// A Clerk session id, `sess_` followed by base62; never empty, at most 255 bytes.
    SessionId(Box<str>), "\"sess_\" followed by letters and digits", |text| is_clerk_id(text, "sess_")
);
text_type!(
    /// A Clerk organization id, `org_` followed by base62; never empty, at most 255 bytes.
    OrganizationId(Box<str>), "\"org_\" followed by letters and digits", |text| is_clerk_id(text, "org_")
);
text_type!(
    /// An organization's slug: lower-case letters, digits, `-` and `_`; 1 to 255 bytes. It can change
    /// and be reused, so it is never a key.
    OrganizationSlug(Box<str>), "lower-case letters, digits, \"-\" and \"_\"",
    |text| (1..=MAX_ID_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
);
text_type!(
    /// The name of a signing key (`kid`): what Clerk writes there is its instance's id. Visible
    /// ASCII, 1 to 255 bytes. It names a key within one instance only.
    KeyId(Box<str>), "visible ASCII characters", |text| is_visible_ascii(text)
);
text_type!(
    /// The id that Clerk gives to an instance, `ins_…`: visible ASCII, 1 to 255 bytes. Clerk writes
    /// it as the `kid` of the instance's tokens too.
    InstanceId(Box<str>), "visible ASCII characters", |text| is_visible_ascii(text)
);
text_type!(
    /// A webhook message, `msg_…`: visible ASCII, 1 to 255 bytes. The same for each attempt to
    /// deliver it, and for each replay.
    MessageId(Box<str>), "visible ASCII characters", |text| is_visible_ascii(text)
);
text_type!(
    /// The name under which a Clerk instance is configured: lower-case letters, digits, `-` and
    /// `_`; 1 to 63 bytes.
    InstanceName(Box<str>), "lower-case letters, digits, \"-\" and \"_\", at most 63",
    |text| (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
);
text_type!(
    /// The name under which an identity provider of an instance is configured: lower-case letters,
    /// digits, `-` and `_`; 1 to 63 bytes.
    ProviderName(Box<str>), "lower-case letters, digits, \"-\" and \"_\", at most 63",
    |text| (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
);
text_type!(
    /// A Clerk instance's issuer: `https://` (or `http://`, for a Clerk on this machine) and a
    /// host, without a path and without a slash at the end. Compared as text, exactly. Shared by all
    /// that was signed under it.
    Issuer(Arc<str>), "an origin such as \"https://clerk.example.com\", without a path or a slash at the end",
    |text| is_origin(text)
);

fn is_visible_ascii(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn is_origin(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    is_visible_ascii(text)
        && host.is_some_and(|host| {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b))
        })
}

impl Issuer {
    /// The host, with the port where there is one.
    pub fn host(&self) -> &str {
        self.0.split_once("://").map_or("", |(_, host)| host)
    }
}

impl InstanceName {
    /// The one instance that is configured by variables.
    pub fn default_instance() -> Self {
        Self("default".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_their_prefix_and_base62() {
        assert!("user_2abcXYZ".parse::<UserId>().is_ok());

        for bad in [
            "",
            "user_",
            "sess_1",
            "user_a-b",
            "user_a/../b",
            "user_é",
            " user_1",
        ] {
            assert!(bad.parse::<UserId>().is_err(), "{bad:?}");
        }
        assert!(
            format!("user_{}", "a".repeat(250))
                .parse::<UserId>()
                .is_ok()
        );
        assert!(
            format!("user_{}", "a".repeat(251))
                .parse::<UserId>()
                .is_err()
        );
    }

    #[test]
    fn issuers_are_origins() {
        for good in ["https://clerk.example.com", "http://127.0.0.1:5050"] {
            assert!(good.parse::<Issuer>().is_ok(), "{good}");
        }
        for bad in [
            "clerk.example.com",
            "https://",
            "https://a/",
            "https://a/b",
            "https://a b",
        ] {
            assert!(bad.parse::<Issuer>().is_err(), "{bad}");
        }
    }
}
