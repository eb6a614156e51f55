//! Text → session: everything that a token says by itself, in the order of verification.
//!
//! Called by `authz`, which brings the key and the clock. May not touch keys' storage, caches, any
//! transport, or a clock. The order is: form → header → (issuer and key: the caller's) → signature →
//! type → claims → rules.

mod claims;
mod jws;
mod kind;
mod machine;
mod permissions;
mod rules;

use std::{borrow::Cow, fmt};

pub(crate) use self::claims::{
    Claim, InvalidClaim, List, Name, Names, OneOrMany, StrictValue, decode_object, time,
};
pub(crate) use self::jws::{Header, Parts, parts};
pub use self::jws::{SignatureParts, Unverified, parse};
pub use self::kind::{Kind, opaque_type};
pub use self::rules::{Allowed, Expectations, judge, judge_machine};
use crate::{
    explain::{Rule, Steps},
    identity::{Machine, Session, TokenType, TokenTypes},
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

/// What a token of one of several types holds, once its signature has been verified.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// One of a session.
    Session(Claimed),
    /// One of a machine, an OAuth client.
    Machine(Machine),
}

impl Unverified {
    /// The same as [`Self::into_said`], where session tokens alone are accepted.
    pub fn into_claimed(self, steps: &mut Steps) -> Result<Claimed, Reason> {
        match self.into_said(TokenTypes::SESSION, steps)? {
            Said::Session(claimed) => Ok(claimed),
            Said::Machine(_) => Err(Reason::TokenTypeNotAccepted),
        }
    }

    /// Decides the type and reads the claims. To be called only after the signature was verified:
    /// nothing about claims is told before.
    pub fn into_said(self, accepted: TokenTypes, steps: &mut Steps) -> Result<Said, Reason> {
        let kind = kind::of(&self.header, &self.claims);
        let token_type = match kind.token_type() {
            Some(token_type) if accepted.has(token_type) => token_type,
            _ => {
                steps.failed(Rule::TokenType, || not_accepted(&kind, accepted));
                return Err(Reason::TokenTypeNotAccepted);
            }
        };
        steps.passed(Rule::TokenType, || kind.to_string());
        let read = match token_type {
            TokenType::Session => self.claims.into_session().map(Said::Session),
            TokenType::Machine(machine_type) => {
                machine::read(machine_type, self.claims, &self.payload).map(Said::Machine)
            }
        };
        match read {
            Ok(said) => {
                steps.passed(Rule::Claims, || match &said {
                    Said::Session(Claimed { session, .. }) => format!(
                        "version {}, {} in {}",
                        session.token_version, session.user_id, session.session_id
                    ),
                    Said::Machine(machine) => machine_claims(machine),
                });
                Ok(said)
            }
            Err(invalid) => {
                steps.failed(Rule::Claims, || invalid.to_string());
                Err(Reason::ClaimInvalid)
            }
        }
    }
}

impl Unverified {
    /// The cookies of a handshake's token. To be called only after the signature was verified. It has no
    /// times; where it names an issuer the caller has seen to it.
    pub fn into_handshake(self) -> Result<Vec<Box<str>>, Reason> {
        #[derive(serde::Deserialize)]
        struct Payload {
            handshake: Vec<Box<str>>,
        }
        if kind::of(&self.header, &self.claims) != Kind::Handshake {
            return Err(Reason::TokenTypeNotAccepted);
        }
        if self.claims.duplicate {
            return Err(Reason::ClaimInvalid);
        }
        let payload: Payload =
            serde_json::from_slice(&self.payload).map_err(|_| Reason::ClaimInvalid)?;
        Ok(payload.handshake)
    }
}

/// Why a token of this type is not accepted, for explanations.
pub fn not_accepted(found: &dyn fmt::Display, accepted: TokenTypes) -> String {
    format!("{found}; expected {accepted}")
}

/// Of whom a machine's token is, for explanations.
pub fn machine_claims(machine: &Machine) -> String {
    let scopes: Vec<&str> = machine.scopes.iter().collect();
    let scopes = match &scopes[..] {
        [] => "no scopes".to_owned(),
        scopes => format!("scopes {}", quoted(&scopes.join(" "))),
    };
    format!("of {}, {scopes}", machine.subject.as_str())
}

/// What an unverified token says about itself: good for choosing between cookies and instances, and
/// for nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// `iss`, where it is a string.
    pub issuer: Option<Box<str>>,
    /// `sid`, where it is a string.
    pub session_id: Option<Box<str>>,
    /// `iat` in Unix seconds, where it can be read.
    pub issued_at_seconds: Option<i64>,
    /// `exp` in Unix seconds, where it can be read.
    pub expires_at_seconds: Option<i64>,
    /// Whether it looks like a session's, by header and claims.
    pub is_session: bool,
}

/// Reads a token without verifying it; `None` when it cannot be decoded.
pub fn hint(text: &str) -> Option<Hint> {
    let token = jws::decode(text).ok()?;
    let is_session = kind::of(&token.header, &token.claims) == Kind::Session;
    let claims = token.claims;
    Some(Hint {
        issuer: claims.iss.present(),
        session_id: claims.sid.present(),
        issued_at_seconds: claims.iat.present().map(|seconds| seconds as i64),
        expires_at_seconds: claims.exp.present().map(|seconds| seconds as i64),
        is_session,
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
