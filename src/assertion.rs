//! What an identity provider says of a user who signed in there (OpenID Connect Core 1.0 §2): text →
//! assertion, and whether it may be believed here, now, and once.
//!
//! Called by `authz`, which brings the key, the clock and what Clerk knows. May not touch keys' storage,
//! Clerk, the store, or a clock. The order is: size → form → header → issuer → (key: the caller's) →
//! signature → claims → rules → second factor → whom it means.

mod claims;
mod provider;
mod rules;

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{Context, SHA256};

pub use self::claims::Assertion;
use self::claims::Claims;
pub use self::provider::{FindBy, Nonce, Provider, SecondFactor};
pub use self::rules::{
    Expectations, MAX_AGE, judge, one_of, second_factor, standing, used_until, whom,
};
use crate::{
    explain::{Rule, Steps},
    identity::SigningAlgorithm,
    reason::Reason,
    token::{Claim, Header, Parts, SignatureParts, parts, quoted},
};

/// The longest assertion in bytes, as of a token.
pub const MAX_ASSERTION_BYTES: usize = 16 * 1024;

/// Why an assertion is not exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The reason.
    pub reason: Reason,
    /// The rule that does not hold.
    pub rule: Rule,
}

impl Denial {
    /// The assertion breaks this rule.
    pub const fn invalid(rule: Rule) -> Self {
        Self {
            reason: Reason::AssertionInvalid,
            rule,
        }
    }
}

/// An assertion that was decoded and whose header was judged; nothing of it has been verified.
///
/// `Debug` prints nothing of it.
pub struct Unverified {
    header: Header,
    algorithm: SigningAlgorithm,
    claims: Claims,
    signature: Vec<u8>,
    signing_input_bytes: usize,
}

impl fmt::Debug for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unverified({} bytes)", self.signing_input_bytes)
    }
}

/// Decodes an assertion and judges what may be judged before its signature: size, form, header, and
/// that it names the provider as its issuer.
pub fn parse(text: &str, provider: &Provider, steps: &mut Steps) -> Result<Unverified, Denial> {
    if text.len() > MAX_ASSERTION_BYTES {
        steps.failed(Rule::Size, || {
            format!("{} bytes; at most {MAX_ASSERTION_BYTES}", text.len())
        });
        return Err(Denial::invalid(Rule::Size));
    }
    steps.passed(Rule::Size, || format!("{} bytes", text.len()));
    let Parts {
        header,
        claims,
        signature,
        signing_input_bytes,
        payload: _,
    } = match parts(text, Claims::decode) {
        Ok(parts) => parts,
        Err(malformed) => {
            steps.failed(Rule::Form, || malformed.detail());
            return Err(Denial::invalid(Rule::Form));
        }
    };
    steps.passed(
        Rule::Form,
        || "three parts, header and payload are JSON objects",
    );
    let algorithm = judge_header(&header, provider, steps)?;
    match claims.iss.as_present() {
        Some(issuer) if **issuer == *provider.issuer => {
            steps.passed(Rule::Issuer, || format!("iss is {}", quoted(issuer)));
        }
        found => {
            steps.failed(Rule::Issuer, || {
                let found = found.map_or("absent or not a string".into(), |found| quoted(found));
                let expected = quoted(&provider.issuer);
                format!("iss is {found}; expected {expected}")
            });
            return Err(Denial::invalid(Rule::Issuer));
        }
    }
    Ok(Unverified {
        header,
        algorithm,
        claims,
        signature,
        signing_input_bytes,
    })
}

/// `alg` is one of the provider's, whatever its key would allow; no extension that would have to be
/// understood. `jwk`, `jku`, `x5u` and `x5c` are not looked at, and never followed.
fn judge_header(
    header: &Header,
    provider: &Provider,
    steps: &mut Steps,
) -> Result<SigningAlgorithm, Denial> {
    let found = header.alg.as_present();
    let algorithm = found.and_then(|name| SigningAlgorithm::named(name));
    let allowed = algorithm.filter(|each| provider.algorithms.has(*each));
    let Some(algorithm) = allowed else {
        steps.failed(Rule::Algorithm, || {
            let found = found.map_or("absent or not a string".into(), |found| quoted(found));
            format!("alg is {found}; expected {}", provider.algorithms)
        });
        return Err(Denial::invalid(Rule::Algorithm));
    };
    steps.passed(Rule::Algorithm, || algorithm.name());
    if header.crit {
        steps.failed(
            Rule::Header,
            || "crit is present; no extension is understood",
        );
        return Err(Denial::invalid(Rule::Header));
    }
    match &header.typ {
        Claim::Absent => {}
        Claim::Present(typ) if typ.eq_ignore_ascii_case("JWT") => {}
        // An access token or a token about a logout is signed by the same key.
        Claim::Present(typ) => {
            steps.failed(Rule::Header, || {
                format!("typ is {}; expected JWT", quoted(typ))
            });
            return Err(Denial::invalid(Rule::Header));
        }
        Claim::Invalid => {
            steps.failed(Rule::Header, || "typ is not a string");
            return Err(Denial::invalid(Rule::Header));
        }
    }
    steps.passed(Rule::Header, || "typ is absent or JWT, no crit");
    Ok(algorithm)
}

impl Unverified {
    /// The `kid`; `None` when it is absent or not a string.
    pub fn key_id(&self) -> Option<&str> {
        self.header.kid.as_present().map(AsRef::as_ref)
    }

    /// With what it says to be signed; one of the provider's.
    pub const fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// What to verify. `text` is the text that was parsed.
    pub fn signature_parts<'a>(&'a self, text: &'a str) -> SignatureParts<'a> {
        SignatureParts {
            signing_input: &text.as_bytes()[..self.signing_input_bytes],
            signature: &self.signature,
        }
    }

    /// Reads the claims. To be called only after the signature was verified: nothing about claims but
    /// the issuer is told before.
    pub fn into_assertion(self, text: &str, steps: &mut Steps) -> Result<Assertion, Denial> {
        let once = once(&self, text);
        match self.claims.into_assertion(once) {
            Ok(assertion) => {
                steps.passed(Rule::Claims, || {
                    format!("of subject {}", quoted(&assertion.subject))
                });
                Ok(assertion)
            }
            Err(invalid) => {
                steps.failed(Rule::Claims, || invalid.to_string());
                Err(Denial::invalid(Rule::Claims))
            }
        }
    }
}

/// By what it is known that an assertion was used: its `jti`, which is its issuer's own; where it has
/// none, all of it but the signature, of which ECDSA lets anybody make a second one that verifies.
fn once(unverified: &Unverified, text: &str) -> Arc<str> {
    let claims = &unverified.claims;
    let mut context = Context::new(&SHA256);
    match claims.jti.as_present().filter(|jti| !jti.is_empty()) {
        Some(jti) => {
            let issuer = claims.iss.as_present().map_or("", |issuer| issuer);
            context.update(b"jti\0");
            context.update(&(issuer.len() as u64).to_le_bytes());
            context.update(issuer.as_bytes());
            context.update(jti.as_bytes());
        }
        None => {
            context.update(b"whole\0");
            context.update(unverified.signature_parts(text).signing_input);
        }
    }
    let digest = context.finish();
    let mut hex = String::with_capacity(2 * digest.as_ref().len());
    for byte in digest.as_ref() {
        hex.push_str(&format!("{byte:02x}"));
    }
    hex.into()
}

#[cfg(test)]
mod tests;
