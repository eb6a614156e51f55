//! Keys for the tests of this room.

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

/// A key pair with a name.
pub(crate) struct TestKey {
    key_id: String,
    pair: KeyPair,
}

impl TestKey {
    pub(crate) fn generate(key_id: &str) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        Self {
            key_id: key_id.to_owned(),
            pair,
        }
    }

    pub(crate) fn jwk(&self) -> Value {
        let public = PublicKeyComponents::<Vec<u8>>::from(self.pair.public_key());
        json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.key_id,
            "n": URL_SAFE_NO_PAD.encode(public.n), "e": URL_SAFE_NO_PAD.encode(public.e),
        })
    }

    pub(crate) fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = self.pair.public_key().as_der().expect("encodes");
        let body = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = body
            .as_bytes()
            .chunks(64)
            .map(|l| std::str::from_utf8(l).expect("ASCII"))
            .collect();
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            lines.join("\n")
        )
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = SystemRandom::new();
        self.pair
            .sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
            .expect("signs");
        signature
    }

    /// A document with these keys.
    pub(crate) fn document(keys: &[&Self]) -> Vec<u8> {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        json!({ "keys": keys }).to_string().into_bytes()
    }
}
