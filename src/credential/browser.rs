//! All that a browser's cookies say of one instance, for whoever has to send it to Clerk.

use std::{borrow::Cow, fmt};

use percent_encoding::percent_decode_str;

use super::{
    CookieNames, MAX_TOKEN_BYTES,
    cookie::{Found, MAX_COOKIES},
};
use crate::{identity::Timestamp, token::Hint};

const DEV_BROWSER: &str = "__clerk_db_jwt";
const REFRESH: &str = "__refresh";
const HANDSHAKE: &str = "__clerk_handshake";
const HANDSHAKE_NONCE: &str = "__clerk_handshake_nonce";
const REDIRECT_COUNT: &str = "__clerk_redirect_count";

/// What a browser's cookies say of one instance; nothing of it has been verified.
pub struct BrowserCookies<'a> {
    /// The session token; not empty.
    pub session: Option<Cow<'a, str>>,
    /// What that says of itself, where it can be read.
    pub hint: Option<Hint>,
    /// When the browser's sign-in state last changed; `None` is signed out.
    pub client_changed_at: Option<Timestamp>,
    /// Whether those with the instance's suffix count.
    pub suffixed: bool,
    /// What tells Clerk's development instances one browser from another.
    pub dev_browser: Option<Cow<'a, str>>,
    /// Whether there is a refresh token.
    pub has_refresh: bool,
    /// The result of a handshake as a signed token.
    pub handshake: Option<Cow<'a, str>>,
    /// Under which Clerk keeps the result of a handshake.
    pub handshake_nonce: Option<Cow<'a, str>>,
    /// How often the browser was sent to Clerk; `None` is not once, and `u32::MAX` something that is no
    /// number. The largest of several: whoever plants one cannot keep a browser going round.
    pub redirect_count: Option<u32>,
}

/// `Debug` shows which there are.
impl fmt::Debug for BrowserCookies<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrowserCookies")
            .field("has_session", &self.session.is_some())
            .field("client_changed_at", &self.client_changed_at)
            .field("suffixed", &self.suffixed)
            .field("redirect_count", &self.redirect_count)
            .finish_non_exhaustive()
    }
}

impl<'a> BrowserCookies<'a> {
    /// Reads the values of `cookie`. `None` where they are ambiguous: nobody knows which of two the
    /// browser was given.
    pub fn read(
        values: &'a [String],
        names: &CookieNames,
        hint: impl Fn(&str) -> Option<Hint>,
        now: Timestamp,
    ) -> Option<Self> {
        // What is too long is not even decoded.
        let hint = |token: &str| match token.len() <= MAX_TOKEN_BYTES {
            true => hint(token),
            false => None,
        };
        let chosen = Found::in_values(values, names)
            .ok()?
            .chosen(names, hint, now);
        let suffix = names.suffix();
        let dev_browser = match chosen.suffixed {
            true => first(values, &format!("{DEV_BROWSER}_{suffix}")),
            false => first(values, DEV_BROWSER),
        };
        let counts = all(values, REDIRECT_COUNT).filter(|value| !value.is_empty());
        let counts = counts.map(|value| value.parse().unwrap_or(u32::MAX));
        Some(Self {
            hint: chosen.session.as_deref().and_then(hint),
            session: chosen.session,
            client_changed_at: chosen.client_changed_at,
            suffixed: chosen.suffixed,
            dev_browser,
            has_refresh: first(values, &format!("{REFRESH}_{suffix}")).is_some(),
            handshake: first(values, HANDSHAKE),
            handshake_nonce: first(values, HANDSHAKE_NONCE),
            redirect_count: counts.max(),
        })
    }
}

fn all<'a>(values: &'a [String], name: &str) -> impl Iterator<Item = Cow<'a, str>> {
    let pairs = values.iter().flat_map(|value| value.split(';'));
    let pairs = pairs.take(MAX_COOKIES).filter_map(move |pair| {
        let (known, value) = pair.split_once('=')?;
        (known.trim() == name).then_some(value)
    });
    pairs.map(|value| percent_decode_str(value.trim()).decode_utf8_lossy())
}

/// The first counts, as in the SDK, and an empty one as absent.
fn first<'a>(values: &'a [String], name: &str) -> Option<Cow<'a, str>> {
    all(values, name).next().filter(|value| !value.is_empty())
}
