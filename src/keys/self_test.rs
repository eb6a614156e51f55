//! A known token, verified at start, so that a cryptography that was built wrongly never serves:
//! a library without its provider fails at its first use, which would be a request.

use thiserror::Error;

use super::VerifyingKey;

/// The cryptography does not work as it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the cryptography of this build is broken: {0}; do not use this binary, and report how it was \
     built"
)]
pub struct SelfTestFailed(&'static str);

// Of a key that was made for this and thrown away.
const PUBLIC_KEY: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAxrybEnZQBP6QnV6xsSIR\n\
9FNd/0tBglqQ8R/2xzV7GEcB+cxplwgqE78FDJqyyRiZqJA3RC1RjuWkuV3OKVvo\n\
W0tkDnM98TKviOV4C62hyZD0VzQx/Ztd1YeHs3/51lgI22ZMnD3f/HIcDJKB8X5N\n\
/cQuKubCGpuMQy9WjqyDebnAF0IyIavEYg9iv4PM3Yz1/TLWj/SQkiTyMNMzollx\n\
0qpw1vBfeTPuTHlkS2Br/cJBOhHVGh90+fOzzFTxfHrrXpddTXKP+k5JrqL1Cbe8\n\
DukPWJfwfzy4owH2h2775G6jKwxupd/nrHBOUWwTQgAJNw0fzVAUnmNGgi777plX\n\
fQIDAQAB\n\
-----END PUBLIC KEY-----\n";
const SIGNING_INPUT: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6Imluc19zZWxmdGVzdCIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ1c2VyX3NlbGZ0ZXN0In0";
const SIGNATURE: &str = "\
dTHSHkd1F5jmAB6oOqaSlTwwHK-w13yww1gOccF4vdLYJdhbsYOVD-hgcVFAsB-3dqbwVSmUJeGRBATc4JZdHjyWt-\
rNu9_eUradd8rJU-V4zo5lvF8yc7MOB1Pe-5lSWbxTAlcEG_aZxYYqMDRK2x8q4RG3DG7s4Ogcr9zlyrDugjv--eUI\
SKmp8xHXIfspSgxvc5-cVzTR4-NS63emj2hg7L_pQYlWSmf9FBPIP-TJQVapwdd9jznGPicCCvSvFLkbUlAqsyyTjE\
N2P1BsgruUx6Q6mN-ZVZRQ-p-qk5KmADmuZZhVS9KCZHKKvU2mNdkHp3Qhw_Scmw23a5nYwA";

/// Verifies a known signature, and refuses it with one bit changed.
pub fn self_test() -> Result<(), SelfTestFailed> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let key = VerifyingKey::from_pem(PUBLIC_KEY)
        .map_err(|_| SelfTestFailed("a known key cannot be read"))?;
    let mut signature = URL_SAFE_NO_PAD
        .decode(SIGNATURE)
        .map_err(|_| SelfTestFailed("a known signature cannot be decoded"))?;
    if !key.verify(SIGNING_INPUT.as_bytes(), &signature) {
        return Err(SelfTestFailed("a known signature does not verify"));
    }
    if let Some(byte) = signature.first_mut() {
        *byte ^= 1;
    }
    if key.verify(SIGNING_INPUT.as_bytes(), &signature) {
        return Err(SelfTestFailed("a wrong signature verifies"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Advisory 2: a library without its crypto provider panics at its first use.
    #[test]
    fn the_known_token_verifies_and_its_neighbour_does_not() {
        assert_eq!(self_test(), Ok(()));
    }
}
