//! RSA keys that sign tokens of the offline Clerk.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize, PublicKeyComponents},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

pub(super) struct SigningKey {
    key_id: String,
    pair: Arc<KeyPair>,
}

impl SigningKey {
    pub(super) fn generate(key_id: &str) -> Option<Self> {
        Some(Self {
            key_id: key_id.to_owned(),
            pair: pair()?,
        })
    }

    /// What is to be forged is signed with one that is of nobody's set, whatever its name is. There is one
    /// for all, made when it is first asked for: making one takes a tenth of a second.
    pub(super) fn of_a_stranger(key_id: &str) -> Option<Self> {
        static STRANGER: OnceLock<Option<Arc<KeyPair>>> = OnceLock::new();
        Some(Self {
            key_id: key_id.to_owned(),
            pair: STRANGER.get_or_init(pair).clone()?,
        })
    }

    pub(super) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The text of a compact JWS with an RS256 signature, whatever `alg` the header claims.
    pub(super) fn sign(&self, header: &Value, payload: &Value) -> Option<String> {
        let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let input = format!("{}.{}", encode(header), encode(payload));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = SystemRandom::new();
        self.pair
            .sign(&RSA_PKCS1_SHA256, &random, input.as_bytes(), &mut signature)
            .ok()?;
        Some(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    pub(super) fn jwk(&self) -> Value {
        let PublicKeyComponents { n, e } =
            PublicKeyComponents::<Vec<u8>>::from(self.pair.public_key());
        json!({
            "use": "sig", "kty": "RSA", "kid": self.key_id, "alg": "RS256",
            "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e),
        })
    }

    pub(super) fn public_pem(&self) -> String {
        let der: Option<PublicKeyX509Der<'_>> = self.pair.public_key().as_der().ok();
        let text = STANDARD.encode(der.as_ref().map_or(&[][..], |der| der.as_ref()));
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for start in (0..text.len()).step_by(64) {
            pem.push_str(&text[start..text.len().min(start + 64)]);
            pem.push('\n');
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        pem
    }
}

fn pair() -> Option<Arc<KeyPair>> {
    KeyPair::generate(KeySize::Rsa2048).ok().map(Arc::new)
}
