//! The form and the header of a compact JWS (RFC 7515 §3.1, §4.1).

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::de::{MapAccess, Visitor};

use super::{
    claims::{Claim, Claims, Name, Names, StrictValue, decode_object},
    quoted,
};
use crate::{
    explain::{Rule, Steps},
    reason::Reason,
};

/// A token that was decoded and whose header was judged; nothing of it has been verified.
///
/// `Debug` prints no token material.
pub struct Unverified {
    pub(super) header: Header,
    pub(super) claims: Claims,
    /// The payload's JSON.
    pub(super) payload: Vec<u8>,
    signature: Vec<u8>,
    signing_input_bytes: usize,
}

/// What a signature is verified over and with.
#[derive(Clone, Copy)]
pub struct SignatureParts<'a> {
    /// The text `header.payload`, as received.
    pub signing_input: &'a [u8],
    /// The decoded signature.
    pub signature: &'a [u8],
}

impl fmt::Debug for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unverified({} bytes)", self.signing_input_bytes)
    }
}

impl Unverified {
    /// The `kid`; `None` when it is absent or not a string.
    pub fn key_id(&self) -> Option<&str> {
        self.header.kid.as_present().map(AsRef::as_ref)
    }

    /// The unverified `iss`, which chooses the instance and nothing else; `None` when it is absent
    /// or not a string.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.iss.as_present().map(AsRef::as_ref)
    }

    /// What to verify. `text` is the text that was parsed.
    pub fn signature_parts<'a>(&'a self, text: &'a str) -> SignatureParts<'a> {
        SignatureParts {
            signing_input: &text.as_bytes()[..self.signing_input_bytes],
            signature: &self.signature,
        }
    }
}

/// The header parameters that are read. All others are ignored: `jwk`, `jku`, `x5u` and `x5c` in
/// particular are never followed.
#[derive(Default)]
pub(crate) struct Header {
    pub(crate) alg: Claim<Box<str>>,
    pub(crate) kid: Claim<Box<str>>,
    pub(crate) typ: Claim<Box<str>>,
    pub(super) cat: Claim<Box<str>>,
    pub(crate) crit: bool,
}

/// Why a text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    Parts,
    HeaderEncoding,
    HeaderJson,
    HeaderDuplicate,
    PayloadEncoding,
    PayloadJson,
    SignatureEncoding,
}

impl Malformed {
    pub(crate) const fn detail(self) -> &'static str {
        match self {
            Self::Parts => "expected three parts separated by dots",
            Self::HeaderEncoding => "the header is not base64url without padding",
            Self::HeaderJson => "the header is not a JSON object in UTF-8",
            Self::HeaderDuplicate => "a header parameter stands twice",
            Self::PayloadEncoding => "the payload is not base64url without padding",
            Self::PayloadJson => "the payload is not a JSON object in UTF-8",
            Self::SignatureEncoding => "the signature is not base64url without padding",
        }
    }
}

/// Decodes a token and judges its header: form, algorithm, `typ`, `crit`. Its size is the caller's
/// business.
pub fn parse(text: &str, steps: &mut Steps) -> Result<Unverified, Reason> {
    let token = match decode(text) {
        Ok(token) => token,
        Err(malformed) => {
            steps.failed(Rule::Form, || malformed.detail());
            return Err(Reason::TokenMalformed);
        }
    };
    steps.passed(
        Rule::Form,
        || "three parts, header and payload are JSON objects",
    );
    judge_header(&token.header, steps)?;
    Ok(token)
}

/// A JWS in its compact form, taken apart.
pub(crate) struct Parts<C> {
    pub(crate) header: Header,
    pub(crate) claims: C,
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) signing_input_bytes: usize,
}

/// Takes a text apart, and judges nothing but its form; `claims` reads the payload.
pub(crate) fn parts<C>(
    text: &str,
    claims: impl FnOnce(&[u8]) -> Option<C>,
) -> Result<Parts<C>, Malformed> {
    let (signing_input, signature) = text.rsplit_once('.').ok_or(Malformed::Parts)?;
    let (header, payload) = signing_input.split_once('.').ok_or(Malformed::Parts)?;
    if payload.contains('.') {
        return Err(Malformed::Parts);
    }
    let header = base64url(header).ok_or(Malformed::HeaderEncoding)?;
    let header = decode_header(&header)?;
    let payload = base64url(payload).ok_or(Malformed::PayloadEncoding)?;
    let claims = claims(&payload).ok_or(Malformed::PayloadJson)?;
    let signature = base64url(signature).ok_or(Malformed::SignatureEncoding)?;
    Ok(Parts {
        header,
        claims,
        payload,
        signature,
        signing_input_bytes: signing_input.len(),
    })
}

/// Decodes a token without judging anything but its form.
pub(super) fn decode(text: &str) -> Result<Unverified, Malformed> {
    let Parts {
        header,
        claims,
        payload,
        signature,
        signing_input_bytes,
    } = parts(text, Claims::decode)?;
    Ok(Unverified {
        header,
        claims,
        payload,
        signature,
        signing_input_bytes,
    })
}

/// RFC 7515 §2: no padding, no line breaks, no leftover bits.
fn base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Members that stand twice are refused; all but those that are read are checked and left aside.
fn decode_header(bytes: &[u8]) -> Result<Header, Malformed> {
    let (header, duplicate) = decode_object(bytes, HeaderVisitor).ok_or(Malformed::HeaderJson)?;
    if duplicate {
        Err(Malformed::HeaderDuplicate)
    } else {
        Ok(header)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = (Header, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut header = Header::default();
        let mut names = Names::default();
        let mut duplicate = false;
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                "alg" => header.alg = map.next_value()?,
                "kid" => header.kid = map.next_value()?,
                "typ" => header.typ = map.next_value()?,
                "cat" => header.cat = map.next_value()?,
                other => {
                    header.crit |= other == "crit";
                    duplicate |= map.next_value::<StrictValue>()?.has_duplicate;
                }
            }
            names.push(name);
        }
        Ok((header, duplicate || names.has_duplicate()))
    }
}

/// RFC 7515 §4.1: `alg` RS256 only, whatever the key would allow; `typ` absent, `JWT`, or what RFC
/// 9068 gives an access token (refused later, by its type); no extension that we would have to
/// understand.
fn judge_header(header: &Header, steps: &mut Steps) -> Result<(), Reason> {
    match &header.alg {
        Claim::Present(alg) if **alg == *"RS256" => steps.passed(Rule::Algorithm, || "RS256"),
        Claim::Present(alg) => {
            steps.failed(Rule::Algorithm, || {
                format!("alg is {}; expected RS256", quoted(alg))
            });
            return Err(Reason::AlgorithmNotAllowed);
        }
        Claim::Absent | Claim::Invalid => {
            steps.failed(
                Rule::Algorithm,
                || "alg is absent or not a string; expected RS256",
            );
            return Err(Reason::AlgorithmNotAllowed);
        }
    }
    if header.crit {
        steps.failed(
            Rule::Header,
            || "crit is present; no extension is understood",
        );
        return Err(Reason::TokenMalformed);
    }
    match &header.typ {
        Claim::Absent => steps.passed(Rule::Header, || "no typ, no crit"),
        Claim::Present(typ) if matches!(&**typ, "JWT" | "at+jwt" | "application/at+jwt") => {
            steps.passed(Rule::Header, || format!("typ is {typ}, no crit"));
        }
        Claim::Present(typ) => {
            steps.failed(Rule::Header, || {
                format!("typ is {}; expected JWT", quoted(typ))
            });
            return Err(Reason::TokenMalformed);
        }
        Claim::Invalid => {
            steps.failed(Rule::Header, || "typ is not a string");
            return Err(Reason::TokenMalformed);
        }
    }
    Ok(())
}
