//! Text → session: everything that a token says by itself, in the order of verification.
//!
//! Called by `authz`, which brings the key and the clock. May not touch keys' storage, caches, any
//! transport, or a clock. The order is: form → header → (issuer and key: the caller's) → signature →
//! type → claims → rules.

mod claims;
mod jws;
mod kind;
mod permissions;
mod rules;

use std::borrow::Cow;

pub use self::jws::{SignatureParts, Unverified, parse};
pub use self::kind::Kind;
pub use self::rules::{Allowed, Expectations, judge};
use crate::{
    explain::{Rule, Steps},
    identity::Session,
    reason::Reason,
};

/// What a token holds once its signature has been verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// The session.
    pub session: Session,
    /// Whether a user's feature stands before an organization's in `fea`, where Clerk's
    /// documentation and SDK read the permission masks differently (docs/differences.md).
    pub features_out_of_order: bool,
}

impl Unverified {
    /// Decides the type and reads the claims. To be called only after the signature was verified:
    /// nothing about claims is told before.
    pub fn into_claimed(self, steps: &mut Steps) -> Result<Claimed, Reason> {
        let kind = kind::of(&self.header, &self.claims);
        if kind != Kind::Session {
            steps.failed(Rule::TokenType, || {
                format!("{kind}; expected a session token")
            });
            return Err(Reason::TokenTypeNotAccepted);
        }
        steps.passed(Rule::TokenType, || "session token");
        match self.claims.into_session() {
            Ok(claimed) => {
                steps.passed(Rule::Claims, || {
                    format!(
                        "version {}, {} in {}",
                        claimed.session.token_version,
                        claimed.session.user_id,
                        claimed.session.session_id
                    )
                });
                Ok(claimed)
            }
            Err(invalid) => {
                steps.failed(Rule::Claims, || invalid.to_string());
                Err(Reason::ClaimInvalid)
            }
        }
    }
}

/// What an unverified token says about itself: good for choosing between cookies and instances, and
/// for nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// `iss`, where it is a string.
    pub issuer: Option<Box<str>>,
    /// `sid`, where it is a string.
    pub session_id: Option<Box<str>>,
    /// `iat` in Unix seconds; 0 where it cannot be read.
    pub issued_at_seconds: i64,
    /// `exp` in Unix seconds, where it can be read.
    pub expires_at_seconds: Option<i64>,
}

/// Reads a token without verifying it; `None` when it cannot be decoded.
pub fn hint(text: &str) -> Option<Hint> {
    let token = jws::decode(text).ok()?;
    let claims = token.claims;
    Some(Hint {
        issuer: claims.iss.present(),
        session_id: claims.sid.present(),
        issued_at_seconds: claims.iat.present().map_or(0, |seconds| seconds as i64),
        expires_at_seconds: claims.exp.present().map(|seconds| seconds as i64),
    })
}

/// A text from outside, shortened and without control characters, for explanations.
pub(crate) fn quoted(text: &str) -> Cow<'static, str> {
    const LONGEST: usize = 80;
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}").into()
}

#[cfg(test)]
mod tests;
