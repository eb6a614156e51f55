//! A JWKS document (RFC 7517 §5), reduced to the keys that may verify tokens of the algorithms that
//! are asked for.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use serde::Deserialize;
use thiserror::Error;

use super::{MAX_DOCUMENT_BYTES, VerifyingKey};
use crate::identity::{KeyId, SigningAlgorithm, SigningAlgorithms};

/// The most keys in a document; Clerk's have one or two.
const MAX_KEYS: usize = 100;

/// Why a key of a document is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoredBecause {
    /// It is of a kind that is not asked for; a symmetric key in particular is never loaded.
    NotRsa,
    /// It is for encryption, or for an algorithm that is not asked for.
    NotForRs256,
    /// It has no name that could be asked for.
    NoKeyId,
    /// Two keys have its name, so that neither can be told from the other.
    AmbiguousKeyId,
    /// Its modulus is shorter than 2048 bits or longer than 8192.
    Size,
    /// It cannot be read.
    Unreadable,
}

impl IgnoredBecause {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::NotRsa,
        Self::NotForRs256,
        Self::NoKeyId,
        Self::AmbiguousKeyId,
        Self::Size,
        Self::Unreadable,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotRsa => "not_rsa",
            Self::NotForRs256 => "not_for_rs256",
            Self::NoKeyId => "no_key_id",
            Self::AmbiguousKeyId => "ambiguous_key_id",
            Self::Size => "size",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Why a document is not a key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidKeySet {
    /// Too large.
    #[error("more than {MAX_DOCUMENT_BYTES} bytes")]
    TooLarge,
    /// Not a JSON object with a list of `keys`.
    #[error("not a JSON object with a list of keys")]
    Form,
    /// More keys than are looked at.
    #[error("more than {MAX_KEYS} keys")]
    TooMany,
    /// No key that could verify a token.
    #[error("no RSA signing key of at least 2048 bits")]
    Empty,
    /// The same where others are asked for, too.
    #[error("no signing key for {0}")]
    NoneFor(SigningAlgorithms),
}

/// The usable keys of an instance.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: HashMap<KeyId, Arc<VerifyingKey>>,
    ignored: [u64; IgnoredBecause::ALL.len()],
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// Reads a document of Clerk's: [`Self::parse_for`] its algorithm.
    pub fn parse(document: &[u8]) -> Result<Self, InvalidKeySet> {
        Self::parse_for(SigningAlgorithms::CLERKS, document)
    }

    /// Reads a document for keys of these algorithms. Others, and such as cannot be used, are left out
    /// and counted; a document without a usable key is an error, so that it never replaces a good set.
    pub fn parse_for(
        algorithms: SigningAlgorithms,
        document: &[u8],
    ) -> Result<Self, InvalidKeySet> {
        if document.len() > MAX_DOCUMENT_BYTES {
            return Err(InvalidKeySet::TooLarge);
        }
        let document: Document =
            serde_json::from_slice(document).map_err(|_| InvalidKeySet::Form)?;
        if document.keys.len() > MAX_KEYS {
            return Err(InvalidKeySet::TooMany);
        }
        let mut ignored = [0; IgnoredBecause::ALL.len()];
        let mut named: HashMap<KeyId, Vec<VerifyingKey>> = HashMap::new();
        for jwk in document.keys {
            match read(jwk, algorithms) {
                Ok((name, key)) => named.entry(name).or_default().push(key),
                Err(because) => ignored[because as usize] += 1,
            }
        }
        let mut keys = HashMap::with_capacity(named.len());
        for (name, mut same_name) in named {
            match (same_name.pop(), same_name.is_empty()) {
                (Some(key), true) => {
                    keys.insert(name, Arc::new(key));
                }
                (_, _) => {
                    ignored[IgnoredBecause::AmbiguousKeyId as usize] += same_name.len() as u64 + 1;
                }
            }
        }
        if keys.is_empty() {
            Err(match algorithms == SigningAlgorithms::CLERKS {
                true => InvalidKeySet::Empty,
                false => InvalidKeySet::NoneFor(algorithms),
            })
        } else {
            Ok(Self { keys, ignored })
        }
    }

    /// The key with this name.
    pub fn get(&self, key_id: &str) -> Option<&Arc<VerifyingKey>> {
        self.keys.get(key_id)
    }

    /// Whether this very key is in the set, under whatever name.
    pub fn holds(&self, key: &Arc<VerifyingKey>) -> bool {
        self.keys
            .values()
            .any(|held| Arc::ptr_eq(held, key) || held.is_same(key))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Always false: a set without keys is not made.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys of the document are not used, by cause.
    pub fn ignored(&self) -> impl Iterator<Item = (IgnoredBecause, u64)> {
        IgnoredBecause::ALL.into_iter().zip(self.ignored)
    }
}

fn read(
    jwk: serde_json::Value,
    algorithms: SigningAlgorithms,
) -> Result<(KeyId, VerifyingKey), IgnoredBecause> {
    // Judged before it is read, so that another kind of key is not called unreadable.
    let algorithm = match jwk.get("kty").and_then(|kty| kty.as_str()) {
        Some("RSA") => SigningAlgorithm::Rs256,
        Some("EC") => SigningAlgorithm::Es256,
        _ => return Err(IgnoredBecause::NotRsa),
    };
    if !algorithms.has(algorithm) {
        return Err(IgnoredBecause::NotRsa);
    }
    let jwk: Jwk = serde_json::from_value(jwk).map_err(|_| IgnoredBecause::Unreadable)?;
    let signs = matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    let is_for_it = match (algorithm, jwk.common.key_algorithm) {
        (_, None)
        | (SigningAlgorithm::Rs256, Some(KeyAlgorithm::RS256))
        | (SigningAlgorithm::Es256, Some(KeyAlgorithm::ES256)) => true,
        (_, Some(_)) => false,
    };
    if !signs || !is_for_it {
        return Err(IgnoredBecause::NotForRs256);
    }
    let name = jwk
        .common
        .key_id
        .as_deref()
        .and_then(|name| name.parse().ok());
    let name: KeyId = name.ok_or(IgnoredBecause::NoKeyId)?;
    let number = |text: &str| {
        URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|_| IgnoredBecause::Unreadable)
    };
    let key = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            VerifyingKey::from_components(&number(&rsa.n)?, &number(&rsa.e)?)
        }
        AlgorithmParameters::EllipticCurve(point) if point.curve == EllipticCurve::P256 => {
            VerifyingKey::from_point(&number(&point.x)?, &number(&point.y)?)
        }
        AlgorithmParameters::EllipticCurve(_) => return Err(IgnoredBecause::NotForRs256),
        _ => return Err(IgnoredBecause::NotRsa),
    };
    let key = key.map_err(|error| match error {
        super::InvalidKey::Size(_) => IgnoredBecause::Size,
        super::InvalidKey::Pem | super::InvalidKey::Numbers => IgnoredBecause::Unreadable,
    })?;
    Ok((name, key))
}

#[cfg(test)]
mod tests;
