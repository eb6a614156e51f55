//! The payload in one typed pass, as of Clerk's tokens: what is wrongly typed is never taken for absent.

use std::{fmt, sync::Arc};

use serde::de::{MapAccess, Visitor};

use crate::{
    identity::{Texts, Timestamp},
    token::{Claim, InvalidClaim, List, Name, Names, OneOrMany, StrictValue, decode_object, time},
};

const TEXT: &str = "a string";
const TEXTS: &str = "a list of strings";
/// The longest `sub` in bytes (OpenID Connect Core §2).
const MAX_SUBJECT_BYTES: usize = 255;

/// What an identity provider says. Addresses and nonces stay out of logs: `Debug` prints neither.
pub struct Assertion {
    /// Who signed in, by the provider's own id.
    pub subject: Box<str>,
    /// For whom it was made; at least one.
    pub(super) audiences: Texts,
    pub(super) authorized_party: Option<Box<str>>,
    /// When it was made.
    pub issued_at: Timestamp,
    /// Until when it is good.
    pub expires_at: Timestamp,
    pub(super) not_before: Option<Timestamp>,
    pub(super) signed_in_at: Option<Timestamp>,
    pub(super) nonce: Option<Box<str>>,
    pub(super) amr: Texts,
    pub(super) acr: Option<Box<str>>,
    pub(super) email: Option<Box<str>>,
    pub(super) email_verified: bool,
    /// By what it is known that it was used; no secret.
    pub once: Arc<str>,
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertion")
            .field("issued_at", &self.issued_at)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
pub(super) struct Claims {
    pub(super) iss: Claim<Box<str>>,
    sub: Claim<Box<str>>,
    aud: Claim<OneOrMany>,
    azp: Claim<Box<str>>,
    exp: Claim<f64>,
    iat: Claim<f64>,
    nbf: Claim<f64>,
    auth_time: Claim<f64>,
    pub(super) jti: Claim<Box<str>>,
    nonce: Claim<Box<str>>,
    amr: Claim<List>,
    acr: Claim<Box<str>>,
    email: Claim<Box<str>>,
    email_verified: Claim<bool>,
    /// It tells of something that happened: a logout, and no sign-in.
    has_events: bool,
    duplicate: bool,
}

impl Claims {
    /// `None` when the bytes are not a JSON object in UTF-8.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        decode_object(bytes, ClaimsVisitor)
    }

    pub(super) fn into_assertion(self, once: Arc<str>) -> Result<Assertion, InvalidClaim> {
        if self.duplicate {
            return Err(InvalidClaim::Duplicate);
        }
        // An ID token has none (OpenID Connect Back-Channel Logout 1.0 §2.4).
        if self.has_events {
            return Err(InvalidClaim::Value {
                name: "events",
                expected: "an ID token, which has none",
            });
        }
        let subject = self.sub.required("sub", TEXT)?;
        if !(1..=MAX_SUBJECT_BYTES).contains(&subject.len()) {
            return Err(InvalidClaim::Value {
                name: "sub",
                expected: "a string of 1 to 255 bytes",
            });
        }
        let OneOrMany(audiences) = self.aud.required("aud", "a string or a list of strings")?;
        let at = |claim, name| time(claim, name)?.ok_or(InvalidClaim::Absent { name });
        Ok(Assertion {
            subject,
            audiences,
            authorized_party: self.azp.optional("azp", TEXT)?,
            issued_at: at(self.iat, "iat")?,
            expires_at: at(self.exp, "exp")?,
            not_before: time(self.nbf, "nbf")?,
            signed_in_at: time(self.auth_time, "auth_time")?,
            nonce: self.nonce.optional("nonce", TEXT)?,
            amr: self
                .amr
                .optional("amr", TEXTS)?
                .map(|List(texts)| texts)
                .unwrap_or_default(),
            acr: self.acr.optional("acr", TEXT)?,
            email: self.email.optional("email", TEXT)?,
            email_verified: self
                .email_verified
                .optional("email_verified", "true or false")?
                .unwrap_or(false),
            once: {
                // It is what tells it from others: looked at whatever it is used for.
                self.jti.optional("jti", TEXT)?;
                once
            },
        })
    }
}

struct ClaimsVisitor;

impl<'de> Visitor<'de> for ClaimsVisitor {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
        let mut claims = Claims::default();
        let mut names = Names::default();
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                "iss" => claims.iss = map.next_value()?,
                "sub" => claims.sub = map.next_value()?,
                "aud" => claims.aud = map.next_value()?,
                "azp" => claims.azp = map.next_value()?,
                "exp" => claims.exp = map.next_value()?,
                "iat" => claims.iat = map.next_value()?,
                "nbf" => claims.nbf = map.next_value()?,
                "auth_time" => claims.auth_time = map.next_value()?,
                "jti" => claims.jti = map.next_value()?,
                "nonce" => claims.nonce = map.next_value()?,
                "amr" => claims.amr = map.next_value()?,
                "acr" => claims.acr = map.next_value()?,
                "email" => claims.email = map.next_value()?,
                "email_verified" => claims.email_verified = map.next_value()?,
                "events" => {
                    claims.has_events = true;
                    claims.duplicate |= map.next_value::<StrictValue>()?.has_duplicate;
                }
                _ => claims.duplicate |= map.next_value::<StrictValue>()?.has_duplicate,
            }
            names.push(name);
        }
        claims.duplicate |= names.has_duplicate();
        Ok(claims)
    }
}
