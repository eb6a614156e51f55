//! The address of a page that a browser asks for, as it may be sent back to.

use std::{borrow::Cow, fmt, sync::Arc};

use url::{Url, form_urlencoded};

pub(super) const NONCE: &str = "__clerk_handshake_nonce";
pub(super) const HANDSHAKE: &str = "__clerk_handshake";
pub(super) const DEV_BROWSER: &str = "__clerk_db_jwt";
const HELP: &str = "__clerk_help";
const LEGACY_DEV_BROWSER: &str = "__dev_session";

/// The longest address in bytes; servers take about 8 KiB.
pub const MAX_PAGE_BYTES: usize = 8 * 1024;

/// The public address of a page: its origin is one that the settings name.
#[derive(Clone, PartialEq, Eq)]
pub struct Page(Url);

/// `Debug` shows the origin: what follows may hold what Clerk sent a browser back with.
impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page({})", self.0.origin().ascii_serialization())
    }
}

impl Page {
    /// The page that was asked for. `None` where its origin is not exactly one of `origins`, or its
    /// address is not one that every reader takes for the same: a browser is never sent to what a request
    /// alone says.
    pub fn read(
        is_https: bool,
        authority: &[u8],
        target: &[u8],
        origins: &[Arc<str>],
    ) -> Option<Self> {
        let scheme = if is_https { "https" } else { "http" };
        let origin = format!("{scheme}://{}", std::str::from_utf8(authority).ok()?);
        if !origins.iter().any(|known| **known == *origin) {
            return None;
        }
        // A backslash is a slash to browsers and none to others, a fragment is never sent.
        let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#');
        let is_plain = target.first() == Some(&b'/') && target.iter().all(is_plain);
        if !is_plain || target.len() > MAX_PAGE_BYTES {
            return None;
        }
        let target = std::str::from_utf8(target).ok()?;
        let url = Url::parse(&format!("{origin}{target}")).ok()?;
        // An allowed origin that is written otherwise than browsers write it names no page.
        (url.origin().ascii_serialization() == origin).then_some(Self(url))
    }

    /// Its origin, as it stands in the settings.
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// A parameter's first value; `None` for an empty one.
    pub(super) fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut pairs = self.0.query_pairs();
        let found = pairs.find(|(known, _)| known == name);
        found
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.query_pairs().any(|(known, _)| known == name)
    }

    /// The address for Clerk to send the browser back to: what names a browser of a development instance
    /// is no part of it, nor what was brought from Clerk before, which would count before what is brought
    /// next.
    pub(super) fn to_come_back_to(&self) -> String {
        self.without(&[DEV_BROWSER, LEGACY_DEV_BROWSER, HANDSHAKE, HELP, NONCE])
    }

    /// The address as it was before Clerk was asked.
    pub fn cleaned(&self) -> String {
        self.without(&[HANDSHAKE, HELP, DEV_BROWSER, NONCE])
    }

    /// The query is written anew, as `URLSearchParams` writes it.
    fn without(&self, names: &[&str]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in self.0.query_pairs() {
            if !names.contains(&&*name) {
                query.append_pair(&name, &value);
            }
        }
        let query = query.finish();
        let mut url = self.0.clone();
        url.set_query(Some(&*query).filter(|query| !query.is_empty()));
        url.into()
    }
}
