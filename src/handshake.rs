//! Clerk's browser handshake: when a browser whose session cookie has expired, or is unsettled, is sent
//! to Clerk's Frontend API, to which address, and what of its answer is believed.
//!
//! Called by `authz`, which verifies tokens and asks Clerk. May not touch any of that: it reads cookies
//! and addresses, and makes addresses and cookies. The rules are those of `@clerk/backend`
//! (`tokens/request.ts`, `tokens/handshake.ts`); docs/handshake.md has them in words.

mod cause;
mod directives;
mod page;
mod redirect;

pub use self::cause::{Cause, cause, is_document};
pub use self::directives::{Directives, InvalidDirectives, MAX_DIRECTIVES, SetCookie};
pub use self::page::{MAX_PAGE_BYTES, Page};
pub use self::redirect::{Attempt, MAX_ATTEMPTS, frontend_api};

use crate::{credential::BrowserCookies, identity::Environment};

/// The longest nonce in bytes.
const MAX_NONCE_BYTES: usize = 512;

/// What Clerk sent a browser back with.
#[derive(Clone, PartialEq, Eq)]
pub enum Carried {
    /// Under which Clerk keeps the cookies.
    Nonce(Box<str>),
    /// A signed token that holds them.
    Token(Box<str>),
    /// Something in the place of one of them that is none.
    Malformed,
}

/// `Debug` shows no text.
impl std::fmt::Debug for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nonce(_) => "Nonce",
            Self::Token(_) => "Token",
            Self::Malformed => "Malformed",
        })
    }
}

/// What a browser brings back from Clerk, if it comes from there. The nonce counts before the token, and
/// the address before the cookie. A token stands where Clerk puts it: in the address in development,
/// where its cookies are of another site, else in a cookie.
pub fn carried(
    page: &Page,
    cookies: &BrowserCookies<'_>,
    environment: Environment,
) -> Option<Carried> {
    let nonce = page.parameter(page::NONCE);
    let nonce = nonce.or_else(|| cookies.handshake_nonce.clone());
    if let Some(nonce) = nonce {
        let is_nonce = nonce.len() <= MAX_NONCE_BYTES
            && nonce
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        return Some(match is_nonce {
            true => Carried::Nonce(nonce.into()),
            false => Carried::Malformed,
        });
    }
    let token = match environment {
        Environment::Development => page.parameter(page::HANDSHAKE),
        Environment::Production => cookies.handshake.clone(),
    };
    token.map(|token| Carried::Token(token.into()))
}

#[cfg(test)]
mod tests;
