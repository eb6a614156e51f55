//! The cookies that Clerk wants a browser to have.

use std::fmt;

use thiserror::Error;

/// The most cookies of one handshake; Clerk sets fewer than ten.
pub const MAX_DIRECTIVES: usize = 32;
/// The longest in bytes: browsers keep 4 KiB of name and value.
const MAX_DIRECTIVE_BYTES: usize = 8 * 1024;

/// Names of Clerk's cookies, each also with the instance's suffix.
const SUFFIXED: [&str; 5] = [
    "__session",
    "__client_uat",
    "__refresh",
    "__client",
    "__clerk_db_jwt",
];
/// What its other cookies begin with.
const OTHERS: &str = "__clerk_";
const ATTRIBUTES: [&str; 9] = [
    "domain",
    "expires",
    "httponly",
    "max-age",
    "partitioned",
    "path",
    "priority",
    "samesite",
    "secure",
];

/// The value of one `set-cookie` header: visible ASCII and spaces. `Debug` shows the name only.
#[derive(Clone, PartialEq, Eq)]
pub struct SetCookie(Box<str>);

impl SetCookie {
    /// The value of the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn counting(count: u32) -> Self {
        Self(format!("__clerk_redirect_count={count}; SameSite=Lax; HttpOnly; Max-Age=2").into())
    }

    /// Its name, and its value.
    fn pair(&self) -> (&str, &str) {
        let pair = self.0.split(';').next().unwrap_or_default();
        pair.split_once('=').unwrap_or((pair, ""))
    }

    fn read(text: &str, suffix: &str) -> Result<Self, InvalidDirectives> {
        let is_plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        if text.len() > MAX_DIRECTIVE_BYTES || !text.bytes().all(is_plain) {
            return Err(InvalidDirectives::Form);
        }
        let cookie = Self(text.into());
        let (name, value) = cookie.pair();
        if !text.contains('=') || value.contains([' ', '"', ',', '\\']) {
            return Err(InvalidDirectives::Form);
        }
        if !is_clerks(name, suffix) {
            return Err(InvalidDirectives::Name);
        }
        let attributes = text.split(';').skip(1).map(|attribute| {
            let name = attribute.split('=').next().unwrap_or_default();
            name.trim().to_ascii_lowercase()
        });
        for attribute in attributes {
            if !ATTRIBUTES.contains(&&*attribute) {
                return Err(InvalidDirectives::Attribute);
            }
        }
        Ok(cookie)
    }
}

impl fmt::Debug for SetCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetCookie({})", self.pair().0)
    }
}

fn is_clerks(name: &str, suffix: &str) -> bool {
    let of_instance = SUFFIXED.iter().any(|known| {
        let rest = name.strip_prefix(known);
        rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('_') == Some(suffix))
    });
    let other = name.strip_prefix(OTHERS).is_some_and(|rest| {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        !rest.is_empty() && rest.bytes().all(is_word)
    });
    // With the suffix of another instance.
    let of_another = SUFFIXED.iter().any(|known| {
        let rest = name.strip_prefix(known);
        rest.is_some_and(|rest| rest.starts_with('_'))
    });
    of_instance || (other && !of_another)
}

/// What is wrong with the cookies that something wants to be set. Nothing of them is believed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidDirectives {
    /// More than are looked at.
    #[error("there are more than {MAX_DIRECTIVES} cookies")]
    Many,
    /// No well-formed `set-cookie`: too long, a control character, no name and value.
    #[error("a cookie is not of the form of set-cookie")]
    Form,
    /// A name that is not Clerk's, or of another instance.
    #[error("a cookie is none of Clerk's, or of another instance")]
    Name,
    /// An attribute that no browser knows.
    #[error("a cookie has an attribute that is not known")]
    Attribute,
}

/// What Clerk answers to a handshake: cookies, and the session token among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives(Vec<SetCookie>);

impl Directives {
    /// Reads values of `set-cookie`, for the instance whose cookies have this suffix.
    pub fn read<T: AsRef<str>>(texts: &[T], suffix: &str) -> Result<Self, InvalidDirectives> {
        if texts.len() > MAX_DIRECTIVES {
            return Err(InvalidDirectives::Many);
        }
        let cookies = texts.iter();
        let cookies = cookies.map(|text| SetCookie::read(text.as_ref(), suffix));
        cookies.collect::<Result<_, _>>().map(Self)
    }

    /// The session token: that of the last cookie whose name begins as that of a session does. `None` where
    /// the browser is signed out.
    pub fn session(&self) -> Option<&str> {
        let mut pairs = self.0.iter().map(SetCookie::pair).rev();
        let session = pairs.find(|(name, _)| name.starts_with("__session"));
        session
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
    }

    /// All of them, in their order.
    pub fn into_cookies(self) -> Vec<SetCookie> {
        self.0
    }
}
