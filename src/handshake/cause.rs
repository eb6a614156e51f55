//! Why a browser is sent to Clerk.

use super::{Page, page};
use crate::{
    credential::BrowserCookies,
    identity::Environment::{self, Development},
    reason::Reason,
};

/// Why a browser is sent to Clerk. The names are the SDK's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Development: the address names the browser.
    DevBrowserSync,
    /// Development: nothing names the browser.
    DevBrowserMissing,
    /// There is a session token, and nothing says that the browser is signed in.
    SessionTokenButNoClientUat,
    /// The browser is signed in, and there is no session token.
    ClientUatButNoSessionToken,
    /// The session token is older than the browser's last change of its sign-in state.
    IatBeforeClientUat,
    /// The session token has expired.
    Expired {
        /// Whether the SDK could have tried a refresh token first. Here nothing does.
        has_refresh: bool,
    },
    /// The session token is not valid yet.
    NotYetValid,
    /// The session token was issued in the future.
    IssuedInFuture,
}

impl Cause {
    /// For `__clerk_hs_reason` and `x-clerk-auth-reason`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DevBrowserSync => "dev-browser-sync",
            Self::DevBrowserMissing => "dev-browser-missing",
            Self::SessionTokenButNoClientUat => "session-token-but-no-client-uat",
            Self::ClientUatButNoSessionToken => "client-uat-but-no-session-token",
            Self::IatBeforeClientUat => "session-token-iat-before-client-uat",
            Self::Expired { has_refresh: false } => {
                "session-token-expired-refresh-non-eligible-no-refresh-cookie"
            }
            Self::Expired { has_refresh: true } => {
                "session-token-expired-refresh-missing-api-client"
            }
            Self::NotYetValid => "session-token-nbf",
            Self::IssuedInFuture => "session-token-iat-in-the-future",
        }
    }
}

/// Whether a browser asks for a page, by Clerk's rule: it says so itself, or, where it says nothing, it
/// would rather have HTML than anything else.
pub fn is_document(method: &str, destinations: &[&str], accepts: &[&str]) -> bool {
    if method != "GET" {
        return false;
    }
    match destinations {
        [destination] if !destination.is_empty() => matches!(*destination, "document" | "iframe"),
        [_] | [] => accepts
            .first()
            .is_some_and(|first| first.starts_with("text/html")),
        [..] => false,
    }
}

/// Why the browser that asks for this page, and was refused for this reason, is sent to Clerk; `None`
/// where it is not. The first row that matches counts.
pub fn cause(
    page: &Page,
    cookies: &BrowserCookies<'_>,
    refused: Reason,
    environment: Environment,
) -> Option<Cause> {
    // Of two cookies nobody knows which Clerk would be told about.
    if refused == Reason::CredentialsAmbiguous {
        return None;
    }
    if environment == Development {
        if page.has(page::DEV_BROWSER) {
            return Some(Cause::DevBrowserSync);
        }
        if cookies.dev_browser.is_none() {
            return Some(Cause::DevBrowserMissing);
        }
    }
    let changed_at = match (cookies.client_changed_at, &cookies.session) {
        (None, None) => return None,
        (None, Some(_)) => return Some(Cause::SessionTokenButNoClientUat),
        (Some(_), None) => return Some(Cause::ClientUatButNoSessionToken),
        (Some(changed_at), Some(_)) => changed_at,
    };
    let hint = cookies.hint.as_ref().filter(|hint| hint.is_session)?;
    if hint
        .issued_at_seconds
        .is_some_and(|issued_at| issued_at < changed_at.unix_seconds())
    {
        return Some(Cause::IatBeforeClientUat);
    }
    match refused {
        Reason::TokenExpired => Some(Cause::Expired {
            has_refresh: cookies.has_refresh,
        }),
        Reason::TokenNotYetValid => Some(Cause::NotYetValid),
        Reason::TokenIssuedInFuture => Some(Cause::IssuedInFuture),
        _ => None,
    }
}
