//! An endpoint's signing secret, as Clerk's dashboard shows it.

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// A text that is no signing secret. Says nothing of what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected \"whsec_\", then a key that is not empty, in base64 with its padding")]
pub struct InvalidSecret;

/// The key of an endpoint: whoever has it can tell us anything. Parsed once.
pub struct SigningSecret {
    key: hmac::Key,
}

impl SigningSecret {
    /// From `whsec_…`.
    pub fn parse(secret: &SecretString) -> Result<Self, InvalidSecret> {
        let text = secret.expose_secret().strip_prefix("whsec_");
        let key = STANDARD
            .decode(text.ok_or(InvalidSecret)?)
            .map_err(|_| InvalidSecret)?;
        if key.is_empty() {
            return Err(InvalidSecret);
        }
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
        })
    }

    /// Tells it from others, and from itself nothing: of its key nothing can be found from it.
    pub fn fingerprint(&self) -> [u8; 8] {
        let tag = self.signature(&[b"clerk-authz fingerprint"]);
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&tag.as_ref()[..8]);
        bytes
    }

    /// The signature over `parts` as if they were one; the body is not copied for it.
    pub(super) fn signature(&self, parts: &[&[u8]]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(part);
        }
        context.sign()
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret")
    }
}
