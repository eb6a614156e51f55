//! Where a token may stand in a request, which one counts, and when that is ambiguous.
//!
//! Called by `authz` with what a door received. May not verify anything: where a choice depends on
//! what tokens say of themselves, the caller brings the reader.

mod authorization;
mod browser;
mod cookie;

use std::{borrow::Cow, fmt};

use self::authorization::Authorization;
pub use self::browser::BrowserCookies;
pub use self::cookie::CookieNames;
use crate::{
    explain::{Rule, Steps},
    identity::{Timestamp, TokenTypes},
    reason::Reason,
    token::Hint,
};

/// The longest token in bytes. Browsers keep cookies of at most 4 KiB; a header may be longer.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A request's credential, as received. `Debug` shows its kind and length only.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// The token itself.
    Token(&'a str),
    /// Header values.
    Http {
        /// The values of `authorization`.
        authorization: &'a [String],
        /// The values of `cookie`; HTTP/2 may split one header into several.
        cookie: &'a [String],
    },
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |values: &[String]| values.iter().map(String::len).sum::<usize>();
        match self {
            Self::Token(token) => write!(f, "Token({} bytes)", token.len()),
            Self::Http {
                authorization,
                cookie,
            } => write!(
                f,
                "Http(authorization {} bytes, cookie {} bytes)",
                bytes(authorization),
                bytes(cookie)
            ),
        }
    }
}

/// The token that counts. `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct Selected<'a> {
    /// Its text, at most [`MAX_TOKEN_BYTES`], not empty.
    pub token: Cow<'a, str>,
    /// For a cookie, and for nothing else: when the browser's sign-in state last changed
    /// (`__client_uat`).
    pub client_changed_at: Option<Timestamp>,
}

impl Selected<'_> {
    /// Of what is accepted, what is accepted from there: browsers keep sessions in cookies, and
    /// nothing of a machine (Clerk's SDK reads machines' tokens from the header only).
    pub fn accepted(&self, asked: TokenTypes) -> TokenTypes {
        match self.client_changed_at {
            Some(_) => asked.and(TokenTypes::SESSION),
            None => asked,
        }
    }
}

impl fmt::Debug for Selected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selected")
            .field("token_bytes", &self.token.len())
            .field("client_changed_at", &self.client_changed_at)
            .finish()
    }
}

/// Whether and how cookies are read.
pub enum Cookies<'a> {
    /// Not at all: no instance has both a publishable key and authorized parties. Without authorized
    /// parties a cookie that a sibling subdomain planted could not be told from a good one.
    Off,
    /// For these instances.
    Of(&'a [CookieNames]),
}

/// Chooses the token that counts.
///
/// `hint` reads a token without verifying it; `now` is for the choice between cookies only.
pub fn select<'a>(
    credential: Credential<'a>,
    cookies: &Cookies<'_>,
    hint: impl Fn(&str) -> Option<Hint>,
    now: Timestamp,
    steps: &mut Steps,
) -> Result<Selected<'a>, Reason> {
    // What is too long is not even decoded.
    let hint = |token: &str| {
        (token.len() <= MAX_TOKEN_BYTES)
            .then(|| hint(token))
            .flatten()
    };
    match credential {
        Credential::Token("") => missing(steps, "the token is empty"),
        Credential::Token(token) => {
            steps.passed(Rule::Credential, || "token field");
            sized(
                Selected {
                    token: token.into(),
                    client_changed_at: None,
                },
                steps,
            )
        }
        Credential::Http {
            authorization,
            cookie,
        } => {
            let from_header = match authorization::read(authorization) {
                Authorization::Token(token) => Some(token),
                Authorization::None => None,
                Authorization::Empty => {
                    return missing(steps, "the authorization header holds no token");
                }
                Authorization::Ambiguous => {
                    steps.failed(Rule::Credential, || "more than one authorization value");
                    return Err(Reason::CredentialsAmbiguous);
                }
                Authorization::Malformed => {
                    steps.failed(
                        Rule::Credential,
                        || "the authorization header holds more than a scheme and a token",
                    );
                    return Err(Reason::TokenMalformed);
                }
            };
            if from_header.is_some_and(|token| token.len() > MAX_TOKEN_BYTES) {
                return too_large(steps, from_header.map_or(0, str::len));
            }
            let from_cookie = cookie::read(cookie, cookies, hint, now);
            match (from_header, from_cookie) {
                (Some(token), from_cookie) => {
                    if let Ok(Some(other)) = &from_cookie
                        && name_different_sessions(token, &other.token, hint)
                    {
                        steps.failed(
                            Rule::Credential,
                            || "the authorization header and the cookie name different sessions",
                        );
                        return Err(Reason::CredentialsAmbiguous);
                    }
                    steps.passed(Rule::Credential, || "authorization header");
                    sized(
                        Selected {
                            token: token.into(),
                            client_changed_at: None,
                        },
                        steps,
                    )
                }
                (None, Ok(Some(selected))) => {
                    steps.passed(Rule::Credential, || "session cookie");
                    sized(selected, steps)
                }
                (None, Ok(None)) => {
                    let why = match (cookies, cookie) {
                        (_, []) => "no authorization header with a token, and no cookie",
                        (Cookies::Off, _) => {
                            "no authorization header with a token; cookies are read only where a \
                             publishable key and authorized parties are configured"
                        }
                        (Cookies::Of(_), _) => {
                            "no authorization header with a token, and no session cookie of a \
                             browser that is signed in"
                        }
                    };
                    missing(steps, why)
                }
                (None, Err(ambiguous)) => {
                    steps.failed(Rule::Credential, || ambiguous.to_string());
                    Err(Reason::CredentialsAmbiguous)
                }
            }
        }
    }
}

/// Whether `authorization` holds a token, or may hold one: whoever sends it is no browser on its way from
/// page to page.
pub fn is_in_header(authorization: &[String]) -> bool {
    !matches!(authorization::read(authorization), Authorization::None)
}

fn name_different_sessions(a: &str, b: &str, hint: impl Fn(&str) -> Option<Hint>) -> bool {
    let session = |token: &str| hint(token).and_then(|hint| hint.session_id);
    matches!((session(a), session(b)), (Some(a), Some(b)) if a != b)
}

fn missing<T>(steps: &mut Steps, why: &'static str) -> Result<T, Reason> {
    steps.failed(Rule::Credential, || why);
    Err(Reason::TokenMissing)
}

fn too_large<T>(steps: &mut Steps, bytes: usize) -> Result<T, Reason> {
    steps.failed(Rule::Size, || {
        format!("{bytes} bytes; at most {MAX_TOKEN_BYTES}")
    });
    Err(Reason::TokenTooLarge)
}

fn sized<'a>(selected: Selected<'a>, steps: &mut Steps) -> Result<Selected<'a>, Reason> {
    let bytes = selected.token.len();
    if bytes > MAX_TOKEN_BYTES {
        return too_large(steps, bytes);
    }
    steps.passed(Rule::Size, || {
        format!("{bytes} bytes; at most {MAX_TOKEN_BYTES}")
    });
    Ok(selected)
}

#[cfg(test)]
mod tests;
