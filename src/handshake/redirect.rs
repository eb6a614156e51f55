//! To where a browser is sent, and how often.

use url::Url;

use super::{Cause, Page, SetCookie};
use crate::{
    credential::BrowserCookies,
    identity::{
        Environment::{self, Development},
        Issuer, PublishableKey,
    },
};

/// The version of the Frontend API that is asked, as the SDK asks it.
const API_VERSION: &str = "2026-05-12";

/// How often a browser is sent to Clerk in a row: after that it is told why it is not signed in.
pub const MAX_ATTEMPTS: u32 = 3;

/// The longest address that is redirected to, in bytes: with a session token of 4 KiB and the address of
/// the page in it. Browsers and servers take about 16 KiB.
const MAX_LOCATION_BYTES: usize = 16 * 1024;

/// The address of the instance's Frontend API. `None` where its host makes none.
pub fn frontend_api(key: &PublishableKey, issuer: &Issuer) -> Option<Url> {
    // An issuer without TLS is only ever one on this machine: the offline Clerk.
    let plain = format!("http://{}", key.frontend_api_host());
    match issuer.as_str() == plain {
        true => Url::parse(&plain).ok(),
        false => Url::parse(&format!("https://{}", key.frontend_api_host())).ok(),
    }
}

/// One more time that a browser is sent to Clerk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt(u32);

impl Attempt {
    /// The next of a browser with these cookies; `None` where it was sent often enough.
    pub fn next(cookies: &BrowserCookies<'_>) -> Option<Self> {
        let before = cookies.redirect_count.unwrap_or_default();
        (before < MAX_ATTEMPTS).then(|| Self(before + 1))
    }

    /// The cookie that counts it. It lives for two seconds: so long a loop takes, and nobody else.
    pub fn cookie(self) -> SetCookie {
        let Self(count) = self;
        SetCookie::counting(count)
    }

    /// Where the browser is sent; `None` where that would be too long to be followed.
    pub fn location(
        self,
        frontend_api: &Url,
        page: &Page,
        cookies: &BrowserCookies<'_>,
        cause: Cause,
        environment: Environment,
    ) -> Option<String> {
        let mut url = frontend_api.join("/v1/client/handshake").ok()?;
        let mut query = url.query_pairs_mut();
        query
            .append_pair("redirect_url", &page.to_come_back_to())
            .append_pair("__clerk_api_version", API_VERSION)
            .append_pair(
                "suffixed_cookies",
                if cookies.suffixed { "true" } else { "false" },
            )
            .append_pair("__clerk_hs_reason", cause.name())
            .append_pair("format", "nonce");
        if let Some(session) = &cookies.session {
            query.append_pair("__session", session);
        }
        if environment == Development {
            let named = page.parameter(super::page::DEV_BROWSER);
            if let Some(dev_browser) = named.or_else(|| cookies.dev_browser.clone()) {
                query.append_pair("__clerk_db_jwt", &dev_browser);
            }
        }
        drop(query);
        let location = String::from(url);
        (location.len() <= MAX_LOCATION_BYTES).then_some(location)
    }
}
