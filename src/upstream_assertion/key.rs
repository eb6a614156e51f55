//! A key that signs assertions: ES256, held parsed.

use std::fmt;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretSlice};
use serde::Serialize;
use thiserror::Error;

use super::TYPE;

/// Bytes of one coordinate of a point on P-256.
const COORDINATE_BYTES: usize = 32;
/// Before a point that is not compressed.
const UNCOMPRESSED: u8 = 4;

/// A private key as it is kept: PKCS #8. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct KeyMaterial(SecretSlice<u8>);

impl KeyMaterial {
    /// What a database holds.
    pub fn of(pkcs8: Vec<u8>) -> Self {
        Self(pkcs8.into())
    }

    /// For whoever keeps it.
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// Of a new key.
    pub(super) fn generate() -> Result<Self, UnusableKey> {
        let made =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let made = made.map_err(|_| UnusableKey)?;
        Ok(Self::of(made.as_ref().to_vec()))
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMaterial")
    }
}

/// What is kept is no P-256 key, or none can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it is no private key of P-256 in PKCS #8")]
pub struct UnusableKey;

/// A key that signs.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicJwk,
    /// Header and dot, encoded: the same before every payload.
    header: Box<str>,
}

/// RFC 7517 and 7518, 6.2: the public half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct PublicJwk {
    kty: &'static str,
    crv: &'static str,
    x: Box<str>,
    y: Box<str>,
    #[serde(rename = "use")]
    usage: &'static str,
    alg: &'static str,
    pub(super) kid: Box<str>,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    kid: &'a str,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid())
            .finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads what was kept.
    pub fn read(material: &KeyMaterial) -> Result<Self, UnusableKey> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, material.expose())
            .map_err(|_| UnusableKey)?;
        let point = pair.public_key().as_ref();
        let Some((&UNCOMPRESSED, coordinates)) = point.split_first() else {
            return Err(UnusableKey);
        };
        if coordinates.len() != 2 * COORDINATE_BYTES {
            return Err(UnusableKey);
        }
        let (x, y) = coordinates.split_at(COORDINATE_BYTES);
        let [x, y] = [x, y].map(|bytes| URL_SAFE_NO_PAD.encode(bytes).into_boxed_str());
        let kid = thumbprint(&x, &y);
        let header = Header {
            alg: "ES256",
            typ: TYPE,
            kid: &kid,
        };
        // Three texts: it cannot fail.
        let header = serde_json::to_vec(&header).unwrap_or_default();
        let mut encoded = URL_SAFE_NO_PAD.encode(header);
        encoded.push('.');
        Ok(Self {
            header: encoded.into(),
            public: PublicJwk {
                kty: "EC",
                crv: "P-256",
                x,
                y,
                usage: "sig",
                alg: "ES256",
                kid,
            },
            pair,
        })
    }

    /// Its name: its thumbprint (RFC 7638), so that two keys never share one.
    pub fn kid(&self) -> &str {
        &self.public.kid
    }

    pub(super) const fn public(&self) -> &PublicJwk {
        &self.public
    }

    /// The compact JWS of a payload; `None` where there is no randomness.
    pub fn sign(&self, payload: &[u8]) -> Option<String> {
        const SIGNATURE_CHARACTERS: usize = 86;
        let length = self.header.len() + payload.len().div_ceil(3) * 4 + 1 + SIGNATURE_CHARACTERS;
        let mut text = String::with_capacity(length);
        text.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(payload, &mut text);
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes()).ok()?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        Some(text)
    }
}

/// RFC 7638: the required members in the order of their names.
fn thumbprint(x: &str, y: &str) -> Box<str> {
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD
        .encode(digest(&SHA256, members.as_bytes()))
        .into()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    fn key() -> SigningKey {
        SigningKey::read(&KeyMaterial::generate().expect("a key")).expect("a key")
    }

    #[test]
    fn what_is_signed_verifies_with_the_published_half_and_with_no_other() {
        let key = key();
        let text = key.sign(br#"{"sub":"user_alice"}"#).expect("signed");

        let (signed, signature) = text.rsplit_once('.').expect("a signature");
        let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64url");
        let verifies = |jwk: &PublicJwk| {
            let point = [&[UNCOMPRESSED][..], &decoded(&jwk.x), &decoded(&jwk.y)].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(signed.as_bytes(), &decoded(signature))
                .is_ok()
        };
        assert!(verifies(key.public()));
        assert!(!verifies(self::key().public()));

        let (header, payload) = signed.split_once('.').expect("two parts");
        let header: serde_json::Value = serde_json::from_slice(&decoded(header)).expect("a header");
        let expected = serde_json::json!({"alg": "ES256", "typ": TYPE, "kid": key.kid()});
        assert_eq!(header, expected);
        assert_eq!(decoded(payload), br#"{"sub":"user_alice"}"#);
    }

    #[test]
    fn a_kept_key_is_the_same_key_again_and_what_is_none_is_refused() {
        let material = KeyMaterial::generate().expect("a key");
        let [first, second] = [(); 2].map(|()| SigningKey::read(&material).expect("a key"));
        assert_eq!(first.public(), second.public());
        assert_eq!(
            SigningKey::read(&KeyMaterial::of(b"no key".to_vec())).map(drop),
            Err(UnusableKey)
        );
    }

    /// RFC 7638 has no example with a curve; this one is of RFC 7517's key in appendix A.1.
    #[test]
    fn a_thumbprint_is_that_of_rfc_7638() {
        let x = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
        let y = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";
        assert_eq!(
            &*thumbprint(x, y),
            "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"
        );
    }

    #[test]
    fn nothing_of_a_private_key_is_shown() {
        let material = KeyMaterial::generate().expect("a key");
        assert_eq!(format!("{material:?}"), "KeyMaterial");
        let key = SigningKey::read(&material).expect("a key");
        assert_eq!(
            format!("{key:?}"),
            format!("SigningKey {{ kid: {:?}, .. }}", key.kid())
        );
    }
}
