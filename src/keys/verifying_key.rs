use std::fmt;

use aws_lc_rs::{
    digest,
    rsa::PublicEncryptingKey,
    signature::{
        ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
        RsaPublicKeyComponents,
    },
};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use thiserror::Error;

use crate::identity::SigningAlgorithm;

/// The smallest and the largest modulus in bits.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A key that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidKey {
    /// Not a PEM of an RSA public key.
    #[error(
        "expected an RSA public key of 2048 to 8192 bits in PEM form (-----BEGIN PUBLIC KEY-----), \
         its lines separated by line feeds"
    )]
    Pem,
    /// A modulus out of bounds.
    #[error("an RSA key of {0} bits; expected 2048 to 8192")]
    Size(usize),
    /// The numbers are no key.
    #[error("not a public key")]
    Numbers,
}

/// Bytes of a coordinate of P-256.
const COORDINATE_BYTES: usize = 32;
/// Before the coordinates of a point that is not compressed (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;

/// A public key, parsed once. It verifies signatures of its one algorithm.
#[derive(Clone)]
pub struct VerifyingKey {
    key: ParsedPublicKey,
    algorithm: SigningAlgorithm,
    /// SHA-256 of the key's canonical encoding: the same key, the same fingerprint.
    fingerprint: [u8; 32],
}

impl VerifyingKey {
    /// From the big-endian modulus and exponent.
    pub(super) fn from_components(n: &[u8], e: &[u8]) -> Result<Self, InvalidKey> {
        check_size(n)?;
        RsaPublicKeyComponents {
            n: without_zeros(n),
            e: without_zeros(e),
        }
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
        .map(|key| Self::from_parsed(key, SigningAlgorithm::Rs256))
        .map_err(|_| InvalidKey::Numbers)
    }

    /// From the coordinates of a point of P-256, each of its full length (RFC 7518 §6.2.1).
    pub(super) fn from_point(x: &[u8], y: &[u8]) -> Result<Self, InvalidKey> {
        if x.len() != COORDINATE_BYTES || y.len() != COORDINATE_BYTES {
            return Err(InvalidKey::Numbers);
        }
        let point = [&[UNCOMPRESSED], x, y].concat();
        // Refuses what is not on the curve.
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point)
            .map(|key| Self::from_parsed(key, SigningAlgorithm::Es256))
            .map_err(|_| InvalidKey::Numbers)
    }

    /// From a PEM, as Clerk's dashboard shows it (`CLERK_JWT_KEY`). The base64 body without the PEM
    /// lines is taken too, as Clerk's SDK does.
    pub fn from_pem(text: &str) -> Result<Self, InvalidKey> {
        let text = text.trim();
        let wrapped;
        let pem = if text.starts_with("-----") {
            text
        } else {
            let lines: Vec<&str> = text.split_whitespace().collect();
            wrapped = format!(
                "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
                lines.join("\n")
            );
            &wrapped
        };
        let der =
            SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| InvalidKey::Pem)?;
        // Refuses what is not RSA, and a modulus out of bounds.
        PublicEncryptingKey::from_der(&der).map_err(|_| InvalidKey::Pem)?;
        let key =
            ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &der).map_err(|_| InvalidKey::Pem)?;
        Ok(Self::from_parsed(key, SigningAlgorithm::Rs256))
    }

    fn from_parsed(key: ParsedPublicKey, algorithm: SigningAlgorithm) -> Self {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, key.as_ref()).as_ref());
        Self {
            key,
            algorithm,
            fingerprint,
        }
    }

    /// Whose signatures it verifies.
    pub const fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// Whether `signature` is this key's signature of `signing_input`, by its algorithm.
    pub fn verify(&self, signing_input: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(signing_input, signature).is_ok()
    }

    /// Whether both are the same key, whatever their names.
    pub fn is_same(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "VerifyingKey({:02x}{:02x}…)",
            self.fingerprint[0], self.fingerprint[1]
        )
    }
}

fn check_size(modulus: &[u8]) -> Result<(), InvalidKey> {
    let bits = bit_length(modulus);
    if MODULUS_BITS.contains(&bits) {
        Ok(())
    } else {
        Err(InvalidKey::Size(bits))
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    &number[zeros..]
}

fn bit_length(number: &[u8]) -> usize {
    let digits = without_zeros(number);
    digits
        .first()
        .map_or(0, |first| digits.len() * 8 - first.leading_zeros() as usize)
}
