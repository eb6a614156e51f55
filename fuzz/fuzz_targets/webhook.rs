//! Any bytes as a webhook: its three headers and its body, first as they are, then signed rightly.
//! The parts of the input stand in lines of their own, the body last.
#![no_main]

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use clerk_authz::{
    identity::Timestamp,
    webhook::{Envelope, Refused, SigningSecret, verify},
};
use libfuzzer_sys::fuzz_target;

const KEY: [u8; 24] = [7; 24];
const NOW: &[u8] = b"1800000000";

fuzz_target!(|message: &[u8]| {
    let mut parts = message.splitn(4, |&byte| byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (id, time, signature, body) = (part(), part(), part(), part());
    let text = format!("whsec_{}", STANDARD.encode(KEY));
    let secrets = [SigningSecret::parse(&text.into()).expect("a secret")];
    let ask = |id, time, signature| {
        let headers = [("svix-id", id), ("svix-timestamp", time), ("svix-signature", signature)];
        verify(&secrets, headers, body, Timestamp::from_unix_seconds(1_800_000_000))
    };

    // Nobody finds a signature by trying.
    assert!(ask(id, time, signature).is_err());

    let sign = |id: &[u8], time: &[u8], body: &[u8]| {
        let signed = [id, b".", time, b".", body].concat();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &KEY), &signed);
        format!("v1,{}", STANDARD.encode(tag.as_ref()))
    };
    let right = sign(id, time, body);
    // Signed by us and strange: whatever is refused, it is not for the signature.
    assert_ne!(ask(id, time, right.as_bytes()).err(), Some(Refused::WrongSignature));

    let right = sign(b"msg_1", NOW, body);
    match (ask(b"msg_1", NOW, right.as_bytes()), Envelope::parse(body)) {
        (Ok(delivery), Ok(envelope)) => {
            assert_eq!(delivery.envelope.event_type, envelope.event_type);
            assert!((1..=255).contains(&envelope.event_type.name().len()));
            if let Some(time) = envelope.time {
                assert!(time.earliest() <= time.latest());
                assert!(time.latest().unix_seconds() <= 253_402_300_799);
            }
            if let Some(data) = envelope.data {
                assert!(envelope.event_type.keeps_data() && data.get().starts_with('{'));
            }
        }
        (Err(Refused::Envelope(of_both)), Err(invalid)) => assert_eq!(of_both, invalid),
        (said, read) => panic!("{said:?} and {read:?}"),
    }
});
