use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::keys::{VerifyingKey, tests::TestKey};

fn ignored(set: &KeySet, because: IgnoredBecause) -> u64 {
    set.ignored()
        .find(|(cause, _)| *cause == because)
        .map_or(0, |(_, count)| count)
}

fn parse(keys: Vec<Value>) -> Result<KeySet, InvalidKeySet> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

#[test]
fn only_rsa_signing_keys_of_2048_bits_are_kept_and_the_rest_is_counted() {
    let good = TestKey::generate("ins_good").jwk();
    let with = |name: &str, value: Value| {
        let mut jwk = TestKey::generate("ins_other").jwk();
        jwk[name] = value;
        jwk
    };
    let mut nameless = with("kid", json!("x"));
    nameless.as_object_mut().expect("an object").remove("kid");
    // 1024 bits: refused by size, whatever else.
    let mut short = with("kid", json!("ins_short"));
    short["n"] = json!(URL_SAFE_NO_PAD.encode([0xff; 128]));

    let set = parse(vec![
        good,
        json!({"kty": "oct", "kid": "ins_oct", "k": "AAAA"}),
        json!({"kty": "EC", "kid": "ins_ec", "crv": "P-256", "x": "AA", "y": "AA"}),
        with("use", json!("enc")),
        with("alg", json!("RS512")),
        with("alg", json!("HS256")),
        nameless,
        with("kid", json!("")),
        short,
        with("n", json!("***")),
        json!("not an object"),
    ])
    .expect("one good key");

    assert_eq!(set.len(), 1);
    assert!(set.get("ins_good").is_some());
    assert_eq!(ignored(&set, IgnoredBecause::NotRsa), 3);
    assert_eq!(ignored(&set, IgnoredBecause::NotForRs256), 3);
    assert_eq!(ignored(&set, IgnoredBecause::NoKeyId), 2);
    assert_eq!(ignored(&set, IgnoredBecause::Size), 1);
    assert_eq!(ignored(&set, IgnoredBecause::Unreadable), 1);
}

#[test]
fn two_keys_of_one_name_are_both_left_out() {
    let set = parse(vec![
        TestKey::generate("ins_twice").jwk(),
        TestKey::generate("ins_once").jwk(),
        TestKey::generate("ins_twice").jwk(),
    ])
    .expect("one is left");
    assert!(set.get("ins_twice").is_none());
    assert!(set.get("ins_once").is_some());
    assert_eq!(ignored(&set, IgnoredBecause::AmbiguousKeyId), 2);
}

#[test]
fn a_document_without_a_usable_key_is_not_a_set() {
    assert_eq!(parse(vec![]).err(), Some(InvalidKeySet::Empty));
    assert_eq!(
        parse(vec![json!({"kty": "oct"})]).err(),
        Some(InvalidKeySet::Empty)
    );
    assert_eq!(
        parse(vec![json!({}); 101]).err(),
        Some(InvalidKeySet::TooMany)
    );
    assert_eq!(KeySet::parse(b"{}").err(), Some(InvalidKeySet::Form));
    assert_eq!(KeySet::parse(b"").err(), Some(InvalidKeySet::Form));
    let large = vec![b' '; MAX_DOCUMENT_BYTES + 1];
    assert_eq!(KeySet::parse(&large).err(), Some(InvalidKeySet::TooLarge));
}

#[test]
fn a_pem_is_read_with_and_without_its_lines() {
    let key = TestKey::generate("ins_1");
    let pem = key.pem();
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    for text in [&*pem, &body, &format!("  {pem}\n\n")] {
        let read = VerifyingKey::from_pem(text).expect("a key");
        assert!(read.verify(b"message", &key.sign(b"message")));
        assert!(!read.verify(b"other", &key.sign(b"message")));
    }
    for bad in [
        "",
        "-----BEGIN PUBLIC KEY-----",
        "AAAA",
        &pem.replace('\n', "\\n"),
    ] {
        assert!(VerifyingKey::from_pem(bad).is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(document in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = KeySet::parse(&document);
    }

    #[test]
    fn parsing_json_of_any_shape_never_panics(
        kty in ".{0,5}", n in ".{0,20}", e in ".{0,5}", kid in ".{0,5}",
    ) {
        let _ = parse(vec![json!({"kty": kty, "n": n, "e": e, "kid": kid})]);
        let _ = parse(vec![json!({"kty": "RSA", "n": n, "e": e, "kid": kid})]);
    }
}

#[test]
fn keys_of_p256_are_kept_where_they_are_asked_for() {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
    };
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let point = pair.public_key().as_ref();
    let jwk = |change: fn(&mut Value)| {
        let mut jwk = json!({
            "kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "use": "sig",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
        });
        change(&mut jwk);
        jwk
    };
    let rsa = TestKey::generate("rsa");
    let both = SigningAlgorithm::ALL.into_iter().collect();
    let es256 = SigningAlgorithms::only(SigningAlgorithm::Es256);
    let parse_for = |algorithms, change| {
        let document = json!({ "keys": [rsa.jwk(), jwk(change)] }).to_string();
        KeySet::parse_for(algorithms, document.as_bytes())
    };
    let has = |algorithms, change: fn(&mut Value), name: &str| {
        parse_for(algorithms, change).is_ok_and(|set| set.get(name).is_some())
    };

    let set = parse_for(both, |_| {}).expect("two keys");
    let key = set.get("ec").expect("there");
    assert_eq!(key.algorithm(), SigningAlgorithm::Es256);
    let signature = pair.sign(&SystemRandom::new(), b"message").expect("signs");
    assert!(key.verify(b"message", signature.as_ref()));
    assert!(!key.verify(b"another", signature.as_ref()));
    assert!(!key.verify(b"message", &rsa.sign(b"message")));
    assert_eq!(
        set.get("rsa").expect("there").algorithm(),
        SigningAlgorithm::Rs256
    );

    assert!(has(es256, |_| {}, "ec"));
    assert!(!has(es256, |_| {}, "rsa"));
    assert!(!has(SigningAlgorithms::CLERKS, |_| {}, "ec"));
    for (what, change) in [
        (
            "another curve",
            (|jwk| jwk["crv"] = json!("P-384")) as fn(&mut Value),
        ),
        ("another algorithm", |jwk| jwk["alg"] = json!("ES384")),
        ("for encryption", |jwk| jwk["use"] = json!("enc")),
        ("not on the curve", |jwk| jwk["x"] = jwk["y"].clone()),
        ("half a coordinate", |jwk| jwk["x"] = json!("AAAA")),
        ("no name", |jwk| jwk["kid"] = json!("")),
    ] {
        assert!(!has(both, change, "ec"), "{what}");
        assert_eq!(
            parse_for(es256, change).err(),
            Some(InvalidKeySet::NoneFor(es256)),
            "{what}"
        );
    }
}
