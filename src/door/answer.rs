//! What a proxy is told about a request: from an [`Authorization`] to headers, a status and a body.
//!
//! Pure. Called by the doors that stand behind proxies; it decides nothing.

mod identity;
mod vouching;

use std::time::Duration;

use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE},
};
use serde::Serialize;

pub use self::identity::{IDENTITY_HEADERS, IdentityHeaders, is_identity_header};
pub use self::vouching::Vouching;
use crate::{
    authz::{Authorization, BrowserAnswer, HandshakeOutcome, Outcome},
    decision::Reverification,
    handshake::SetCookie,
    reason::Reason,
};

/// What becomes of a request, in HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is read where it was made; a box would be an allocation for each allow"
)]
pub enum Answer<'a> {
    /// It goes on to its upstream, with these headers.
    Forward(IdentityHeaders<'a>),
    /// It is answered here.
    Refuse(Refusal),
}

/// The answer to a request that does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 302, 307, 401, 403 or 503.
    pub status: StatusCode,
    /// Of the answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// JSON; empty for a redirect.
    pub body: String,
}

/// What Clerk's SDK says in an answer of how it came to be, in headers that it names so.
const AUTH_STATUS: HeaderName = HeaderName::from_static("x-clerk-auth-status");
const AUTH_REASON: HeaderName = HeaderName::from_static("x-clerk-auth-reason");
const AUTH_MESSAGE: HeaderName = HeaderName::from_static("x-clerk-auth-message");

/// The cookies that a browser gets on the way back, where its request goes on.
pub fn cookies_on_the_way_back(authorization: &Authorization) -> &[SetCookie] {
    let browser = authorization.browser.as_deref();
    browser.map_or(&[], |browser| &browser.cookies)
}

/// The answer for what was decided under this id; `assertion` vouches for whoever sends the request,
/// where it goes on.
pub fn answer<'a>(
    authorization: &'a Authorization,
    assertion: Option<&'a str>,
    decision_id: &'a str,
) -> Answer<'a> {
    let reason = authorization.reason;
    let browser = authorization.browser.as_deref();
    if let Some((browser, location)) = browser.and_then(|it| Some((it, it.location.as_deref()?))) {
        // As the SDK does it: the method stays what it is.
        let mut refusal = Refusal::empty(StatusCode::TEMPORARY_REDIRECT);
        refusal.set(LOCATION, location);
        refusal.tell(browser);
        return Answer::Refuse(refusal);
    }
    let mut refusal = match &authorization.outcome {
        Outcome::Allowed { identity } => {
            return Answer::Forward(IdentityHeaders::of(
                identity.as_ref(),
                assertion,
                decision_id,
            ));
        }
        Outcome::Unauthenticated {
            sign_in: Some(page),
        } => {
            let mut refusal = Refusal::empty(StatusCode::FOUND);
            refusal.set(LOCATION, page.as_str());
            refusal
        }
        Outcome::Unauthenticated { sign_in: None } => {
            let mut refusal = Refusal::json(StatusCode::UNAUTHORIZED, reason, decision_id, None);
            refusal.set(WWW_AUTHENTICATE, &challenge(reason));
            refusal
        }
        Outcome::Forbidden { step_up } => {
            Refusal::json(StatusCode::FORBIDDEN, reason, decision_id, *step_up)
        }
        Outcome::Unavailable { retry_after } => {
            let mut refusal =
                Refusal::json(StatusCode::SERVICE_UNAVAILABLE, reason, decision_id, None);
            refusal.set(RETRY_AFTER, &whole_seconds(*retry_after).to_string());
            refusal
        }
    };
    if let Some(browser) = browser {
        refusal.tell(browser);
    }
    Answer::Refuse(refusal)
}

impl Refusal {
    /// Nobody in between may keep it.
    fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: vec![(CACHE_CONTROL, HeaderValue::from_static("no-store"))],
            body: String::new(),
        }
    }

    fn json(
        status: StatusCode,
        reason: Reason,
        decision_id: &str,
        step_up: Option<Reverification>,
    ) -> Self {
        let mut refusal = Self::empty(status);
        refusal.set(CONTENT_TYPE, "application/json");
        let body = Body {
            clerk_error: step_up.map(ClerkError::reverification),
            reason: reason.name(),
            decision_id,
            message: reason.description(),
        };
        // Text and numbers alone: it cannot fail.
        refusal.body = serde_json::to_string(&body).unwrap_or_default();
        refusal
    }

    /// What a browser is told of a handshake.
    fn tell(&mut self, browser: &BrowserAnswer) {
        let status = match browser.handshake {
            HandshakeOutcome::Sent => "handshake",
            HandshakeOutcome::Resolved if browser.location.is_some() => "handshake",
            HandshakeOutcome::Resolved
            | HandshakeOutcome::Stopped
            | HandshakeOutcome::Failed
            | HandshakeOutcome::Untold => "signed-out",
        };
        self.set(AUTH_STATUS, status);
        self.set(AUTH_REASON, browser.why);
        if !browser.message.is_empty() {
            self.set(AUTH_MESSAGE, browser.message);
        }
        for cookie in &browser.cookies {
            self.set(SET_COOKIE, cookie.as_str());
        }
    }

    fn set(&mut self, name: HeaderName, value: &str) {
        // An address that was parsed, a name, a number: each is visible ASCII.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    clerk_error: Option<ClerkError>,
    reason: &'a str,
    decision_id: &'a str,
    message: &'a str,
}

/// What Clerk's front end takes for the wish to verify a factor again, and then does it
/// (`@clerk/shared`, `authorization-errors.ts`).
#[derive(Serialize)]
struct ClerkError {
    r#type: &'static str,
    reason: &'static str,
    metadata: Metadata,
}

#[derive(Serialize)]
struct Metadata {
    reverification: Config,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    level: &'static str,
    after_minutes: u64,
}

impl ClerkError {
    fn reverification(asked: Reverification) -> Self {
        Self {
            r#type: "forbidden",
            reason: "reverification-error",
            metadata: Metadata {
                reverification: Config {
                    level: asked.level().name(),
                    after_minutes: asked.max_age().as_secs().div_ceil(60),
                },
            },
        }
    }
}

/// RFC 6750, 3.1: where there was no credential, nothing is said of an error.
fn challenge(reason: Reason) -> String {
    const CHALLENGE: &str = "Bearer realm=\"clerk-authz\"";
    match reason {
        Reason::TokenMissing => CHALLENGE.to_owned(),
        // The descriptions have no quotes, as a test sees to.
        _ => format!(
            "{CHALLENGE}, error=\"invalid_token\", error_description=\"{reason}: {}\"",
            reason.description()
        ),
    }
}

/// At least one: with zero a client would ask again at once.
fn whole_seconds(duration: Duration) -> u64 {
    let rounded_up = u64::from(duration.subsec_nanos() > 0);
    (duration.as_secs() + rounded_up).max(1)
}

#[cfg(test)]
mod tests;
