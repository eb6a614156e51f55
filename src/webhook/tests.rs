use proptest::prelude::*;

use super::*;

const A: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const B: &str = "whsec_YW5vdGhlci1zZWNyZXQtb2YtMzItYnl0ZXMtbG9uZyE=";
const CLOCK: i64 = 1_800_000_000;

/// A message as it came, with the signature of secret `A`.
#[derive(Clone, Debug)]
struct Message {
    id: &'static str,
    timestamp: &'static str,
    signature: String,
    body: Vec<u8>,
}

/// Signatures that HMAC gives, and Svix's own library too.
fn vectors() -> [(Message, &'static str); 3] {
    let vector = |id, timestamp, body: &str, a: &str, b| {
        let message = Message {
            id,
            timestamp,
            signature: a.to_owned(),
            body: body.as_bytes().to_vec(),
        };
        (message, b)
    };
    [
        vector(
            "msg_2hFirst",
            "1800000000",
            r#"{"data":{"id":"user_1","object":"user","updated_at":1799999999000},"object":"event","type":"user.updated","timestamp":1799999999123,"instance_id":"ins_1"}"#,
            "v1,y6y6Y1EzAWnzoAmuQmVLebo0tJLiMFHcxG2qxVXeXBw=",
            "v1,D6zHQuSSnFyJa2JzIz7KUfXJF1t3cBqn/MSFPSvzmoI=",
        ),
        vector(
            "msg_2hSpaces",
            "1800000001",
            "{ \"type\" : \"user.deleted\",\n  \"data\": {\"deleted\": true, \"id\": \"user_é\", \"object\": \"user\"} }",
            "v1,KPoaIttc8SwAJzn9S/pSKY29/ZaKn5poJXAwsR8beWA=",
            "v1,yAUahBsKkJC5zC3VfiFsth+ox5E2zt1hFfKk7pE/oFE=",
        ),
        vector(
            "msg_2hEmptyData",
            "1800000002",
            "{}",
            "v1,7LQabHnFM2tvjF79rPOvI5Lxv1Dee+R/AUL2mUMpxq0=",
            "v1,qCFY+t3LmtzGRf9c2xLVv0svIKg0l+OIr+ad1zmTwpE=",
        ),
    ]
}

fn first() -> Message {
    let [(message, _), ..] = vectors();
    message
}

fn secret(text: &str) -> SigningSecret {
    SigningSecret::parse(&text.into()).expect("a secret")
}

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(CLOCK)
}

impl Message {
    fn verify(&self, secrets: &[&str]) -> Result<Delivery, Refused> {
        self.verify_at(secrets, now())
    }

    fn verify_at(&self, secrets: &[&str], now: Timestamp) -> Result<Delivery, Refused> {
        let secrets: Vec<SigningSecret> = secrets.iter().map(|text| secret(text)).collect();
        let headers = [
            ("svix-id", self.id.as_bytes()),
            ("svix-timestamp", self.timestamp.as_bytes()),
            ("svix-signature", self.signature.as_bytes()),
        ];
        verify(&secrets, headers, &self.body, now)
    }

    fn signed_as(&self, signature: impl Into<String>) -> Self {
        Self {
            signature: signature.into(),
            ..self.clone()
        }
    }

    /// With a right signature over what it is now.
    fn signed(mut self) -> Self {
        let parts = [
            self.id.as_bytes(),
            b".",
            self.timestamp.as_bytes(),
            b".",
            &self.body,
        ];
        let tag = secret(A).signature(&parts);
        self.signature = format!("v1,{}", STANDARD.encode(tag.as_ref()));
        self
    }
}

/// A signed message with this body.
fn saying(body: impl Into<Vec<u8>>) -> Message {
    Message {
        body: body.into(),
        ..first()
    }
    .signed()
}

#[test]
fn the_vectors_hold_with_their_secret_and_with_no_other() {
    for (message, with_b) in vectors() {
        let said = message.verify(&[A]).map(|_| ());
        let expected = match message.id {
            "msg_2hEmptyData" => Err(Refused::Envelope(InvalidEnvelope::Member(
                "type",
                "1 to 255 visible ASCII characters",
            ))),
            _ => Ok(()),
        };
        assert_eq!(said, expected, "{}", message.id);
        let other = message.signed_as(with_b);
        assert_eq!(
            other.verify(&[B]).map(|_| ()),
            expected,
            "{} with B",
            message.id
        );
        assert_eq!(
            message.verify(&[B]).err(),
            Some(Refused::WrongSignature),
            "{}",
            message.id
        );
        assert_eq!(other.verify(&[A]).err(), Some(Refused::WrongSignature));
        assert_eq!(message.verify(&[]).err(), Some(Refused::WrongSignature));
    }
}

#[test]
fn a_delivery_says_who_what_when_and_where() {
    let delivery = first().verify(&[B, A]).expect("accepted");
    assert_eq!(delivery.message_id.as_str(), "msg_2hFirst");
    assert_eq!(delivery.attempted_at, now());
    assert_eq!(delivery.secret, 1, "the second of two secrets");

    let envelope = &delivery.envelope;
    assert_eq!(envelope.event_type, EventType::UserUpdated);
    let time = envelope.time.expect("a time");
    assert_eq!(
        time.earliest(),
        Timestamp::from_unix_millis(1_799_999_999_123)
    );
    assert_eq!(time.latest(), time.earliest());
    assert_eq!(
        envelope.instance_id.as_ref().map(|id| id.as_str()),
        Some("ins_1")
    );
    let data = envelope.data.as_ref().expect("data");
    assert_eq!(
        data.get(),
        r#"{"id":"user_1","object":"user","updated_at":1799999999000}"#
    );
}

/// Advisory 4: of an empty signature every character was right.
#[test]
fn an_empty_or_broken_signature_is_never_right() {
    let message = first();
    let right = message.signature.clone();
    let value = right.strip_prefix("v1,").expect("v1").to_owned();
    for wrong in [
        String::new(),
        " ".to_owned(),
        "v1".to_owned(),
        "v1,".to_owned(),
        "v1, v1,".to_owned(),
        ",".to_owned(),
        value.clone(),
        format!(",{value}"),
        format!("v1{value}"),
        format!("v1;{value}"),
        format!("V1,{value}"),
        format!("v2,{value}"),
        format!("v1a,{value}"),
        format!("v1,v1,{value}"),
        format!("v1,{}", &value[..20]),
        format!("v1,{}", &value[..43]),
        format!("v1,{}", &value[..1]),
        format!("v1,{value}="),
        format!("v1,{value}A"),
        format!("v1,{value}{value}"),
        format!("v1,{},", value),
        format!("v1,{}", value.to_lowercase()),
        format!("v1,{}", value.replace('=', "")),
        // The same bytes with other bits behind them.
        format!("v1,{}", value.replace("w=", "x=")),
        "v1,!!!!".to_owned(),
        "v1,AAAA".to_owned(),
        format!("v1,{}", "A".repeat(43) + "="),
        vec!["v1,AAAA"; 2_000].join(" "),
    ] {
        let said = message.signed_as(&*wrong).verify(&[A]);
        assert_eq!(said.err(), Some(Refused::WrongSignature), "{wrong:?}");
    }

    for good in [
        right.clone(),
        format!("v1,AAAA v1a,xx {right}"),
        format!("{right} v1,AAAA"),
        format!(" {right}  v1,"),
        format!("v1,D6zHQuSSnFyJa2JzIz7KUfXJF1t3cBqn/MSFPSvzmoI= {right}"),
    ] {
        assert!(
            message.signed_as(&*good).verify(&[A]).is_ok(),
            "{good:?} is accepted"
        );
    }
}

/// Advisory 5: what was verified were not the bytes that came.
#[test]
fn the_signature_is_over_the_raw_bytes_and_all_of_them() {
    let message = first();
    assert!(message.verify(&[A]).is_ok());

    let body = |body: Vec<u8>| Message {
        body,
        ..message.clone()
    };
    let parsed: serde_json::Value = serde_json::from_slice(&message.body).expect("JSON");
    let again = serde_json::to_vec(&parsed).expect("JSON");
    assert_ne!(again, message.body, "written anew it has another order");
    let mut changed = vec![
        body(again),
        body([&message.body[..], b"\n"].concat()),
        body([b" ", &message.body[..]].concat()),
        body(message.body[..message.body.len() - 1].to_vec()),
        body(Vec::new()),
        Message {
            id: "msg_2hFirsu",
            ..message.clone()
        },
        Message {
            timestamp: "1800000001",
            ..message.clone()
        },
        // The parts moved across their dots.
        Message {
            id: "msg_2hFirst.1800000000",
            ..message.clone()
        },
    ];
    for position in 0..message.body.len() * 8 {
        let mut bytes = message.body.clone();
        bytes[position / 8] ^= 1 << (position % 8);
        changed.push(body(bytes));
    }
    for wrong in changed {
        assert_eq!(
            wrong.verify(&[A]).err(),
            Some(Refused::WrongSignature),
            "{wrong:?}"
        );
    }
}

#[test]
fn an_attempt_is_five_minutes_old_or_ahead_and_no_more() {
    let message = first();
    for (seconds, expected) in [
        (-301, Err(Refused::Time(OutOfTolerance::TooNew))),
        (-300, Ok(())),
        (0, Ok(())),
        (300, Ok(())),
        (301, Err(Refused::Time(OutOfTolerance::TooOld))),
    ] {
        let said = message.verify_at(&[A], Timestamp::from_unix_seconds(CLOCK + seconds));
        assert_eq!(said.map(|_| ()), expected, "{seconds} s later");
    }
    let within_the_second = Timestamp::from_unix_millis((CLOCK + 300) * 1_000 + 999);
    assert!(message.verify_at(&[A], within_the_second).is_ok());
    for far in [i64::MIN, i64::MAX] {
        let said = message.verify_at(&[A], Timestamp::from_unix_millis(far));
        assert!(matches!(said, Err(Refused::Time(_))), "{far}");
    }
}

#[test]
fn a_timestamp_is_digits_and_nothing_else() {
    for wrong in [
        "",
        "0",
        "01800000000",
        "+1800000000",
        "-1800000000",
        "1800000000.0",
        "1.8e9",
        "1800000000 ",
        "0x6b49d200",
        "１８００００００００",
        "9223372036854775808",
        "99999999999999999999999999",
    ] {
        let message = Message {
            timestamp: wrong,
            ..first()
        };
        let expected = Refused::Header(InvalidHeader::Malformed(SignatureHeader::Timestamp));
        assert_eq!(
            message.signed().verify(&[A]).err(),
            Some(expected),
            "{wrong:?}"
        );
    }
    // Milliseconds are a time far ahead.
    for far in ["1800000000000", "9223372036854775807", "1"] {
        let message = Message {
            timestamp: far,
            ..first()
        };
        let said = message.signed().verify(&[A]);
        assert!(matches!(said, Err(Refused::Time(_))), "{far}");
    }
}

#[test]
fn each_header_is_there_once_under_either_name() {
    let message = first();
    let id: (&str, &[u8]) = ("svix-id", message.id.as_bytes());
    let time: (&str, &[u8]) = ("svix-timestamp", message.timestamp.as_bytes());
    let signature: (&str, &[u8]) = ("svix-signature", message.signature.as_bytes());
    let ask = |headers: &[(&str, &[u8])]| {
        let headers = headers.iter().copied();
        verify(&[secret(A)], headers, &message.body, now()).map(|_| ())
    };
    let missing = |header| Err(Refused::Header(InvalidHeader::Missing(header)));
    let repeated = |header| Err(Refused::Header(InvalidHeader::Repeated(header)));
    let malformed = |header| Err(Refused::Header(InvalidHeader::Malformed(header)));

    assert_eq!(ask(&[id, time, signature]), Ok(()));
    assert_eq!(ask(&[]), missing(SignatureHeader::Id));
    assert_eq!(ask(&[time, signature]), missing(SignatureHeader::Id));
    assert_eq!(ask(&[id, signature]), missing(SignatureHeader::Timestamp));
    assert_eq!(ask(&[id, time]), missing(SignatureHeader::Signature));
    assert_eq!(
        ask(&[id, id, time, signature]),
        repeated(SignatureHeader::Id)
    );
    assert_eq!(
        ask(&[id, time, ("SVIX-TIMESTAMP", b"1"), signature]),
        repeated(SignatureHeader::Timestamp)
    );
    assert_eq!(
        ask(&[id, time, signature, ("svix-signature", b"v1,")]),
        repeated(SignatureHeader::Signature)
    );

    let unbranded = |(name, value): (&'static str, _)| {
        let name = match name {
            "svix-id" => "Webhook-Id",
            "svix-timestamp" => "webhook-timestamp",
            _ => "webhook-signature",
        };
        (name, value)
    };
    assert_eq!(
        ask(&[
            unbranded(("svix-id", id.1)),
            unbranded(("svix-timestamp", time.1)),
            unbranded(("svix-signature", signature.1)),
        ]),
        Ok(())
    );
    assert_eq!(
        ask(&[id, unbranded(("svix-timestamp", time.1)), signature]),
        Ok(()),
        "header by header"
    );
    assert_eq!(
        ask(&[id, time, signature, ("webhook-id", b"msg_other")]),
        Ok(()),
        "Svix's name counts first"
    );
    assert_eq!(
        ask(&[
            ("svix-id", b"msg_other"),
            unbranded(("svix-id", id.1)),
            time,
            signature
        ]),
        Err(Refused::WrongSignature),
        "Svix's name counts first, right or wrong"
    );

    for bad in [&b""[..], b"msg 1", b"msg_\xc3\xa9", b"msg_\n", &[b'm'; 256]] {
        let expected = malformed(SignatureHeader::Id);
        assert_eq!(
            ask(&[("svix-id", bad), time, signature]),
            expected,
            "{bad:?}"
        );
    }
    for bad in [&b"v1,\xff"[..], b"v1,\t", b"v1,\0"] {
        let expected = malformed(SignatureHeader::Signature);
        assert_eq!(
            ask(&[id, time, ("svix-signature", bad)]),
            expected,
            "{bad:?}"
        );
    }
}

#[test]
fn the_largest_body_passes_and_one_byte_more_does_not() {
    let mut body = br#"{"type":"user.updated","data":{"id":"user_1"}}"#.to_vec();
    body.resize(MAX_BODY_BYTES, b' ');
    assert!(saying(body.clone()).verify(&[A]).is_ok());
    body.push(b' ');
    let said = saying(body).verify(&[A]);
    assert_eq!(said.err(), Some(Refused::TooLarge));
}

#[test]
fn a_body_is_an_object_with_a_type_and_data_once_each() {
    for (good, name) in [
        (r#"{"type":"user.updated","data":{}}"#, "user.updated"),
        (
            r#" {"data":{"a":[{}]},"x":[1,{"y":null}],"type":"user.\u0075pdated"} "#,
            "user.updated",
        ),
        (r#"{"type":"moon.landed","data":{}}"#, "moon.landed"),
    ] {
        let delivery = saying(good).verify(&[A]).expect(good);
        assert_eq!(delivery.envelope.event_type.name(), name);
        assert_eq!(delivery.envelope.time, None);
        assert_eq!(delivery.envelope.instance_id, None);
    }

    let rest = r#""type":"user.updated","data":{}"#;
    for bad in [
        "",
        " ",
        "null",
        "1",
        "\"text\"",
        "[]",
        "{",
        r#"["user.updated",1,"ins_1",{}]"#,
        "{\"type\":\"user.updated\",\"data\":{}} x",
        "\u{feff}{\"type\":\"user.updated\",\"data\":{}}",
        "{'type':'user.updated','data':{}}",
        r#"{"data":{}}"#,
        r#"{"type":"user.updated"}"#,
        r#"{"type":null,"data":{}}"#,
        r#"{"type":7,"data":{}}"#,
        r#"{"type":["user.updated"],"data":{}}"#,
        r#"{"type":"","data":{}}"#,
        r#"{"type":"user updated","data":{}}"#,
        r#"{"type":"user.updated\u0000","data":{}}"#,
        r#"{"type":"user.updated","data":null}"#,
        r#"{"type":"user.updated","data":[]}"#,
        r#"{"type":"user.updated","data":"{}"}"#,
        r#"{"type":"user.updated","data":{"a":1,}}"#,
        r#"{"type":"user.updated","data":{},"data":{"banned":false}}"#,
        r#"{"type":"user.updated","type":"user.deleted","data":{}}"#,
    ] {
        let said = saying(bad).verify(&[A]);
        assert!(
            matches!(said, Err(Refused::Envelope(_))),
            "{bad:?}: {said:?}"
        );
    }
    for (member, bad) in [
        ("timestamp", "null"),
        ("timestamp", "-1"),
        ("timestamp", "\"1716883200\""),
        ("timestamp", "1716883200.5"),
        ("timestamp", "1716883200.0"),
        ("timestamp", "1e9"),
        ("timestamp", "253402300800000"),
        ("timestamp", "9223372036854775807"),
        ("timestamp", "18446744073709551616"),
        ("timestamp", "{}"),
        ("instance_id", "null"),
        ("instance_id", "1"),
        ("instance_id", "\"\""),
        ("instance_id", "\"ins é\""),
    ] {
        let body = format!("{{{rest},\"{member}\":{bad}}}");
        let said = saying(&*body).verify(&[A]);
        let is_of_it = matches!(
            said,
            Err(Refused::Envelope(InvalidEnvelope::Member(name, _))) if name == member
        );
        assert!(is_of_it, "{body}: {said:?}");
    }
    assert!(matches!(
        saying(b"{\"type\":\"user.updated\",\"data\":{\"name\":\"\xff\"}}".to_vec()).verify(&[A]),
        Err(Refused::Envelope(InvalidEnvelope::NotAnObject))
    ));
    let deep = format!(
        r#"{{"type":"user.updated","data":{{"a":{}{}}}}}"#,
        "[".repeat(400_000),
        "]".repeat(400_000)
    );
    assert!(
        saying(deep).verify(&[A]).is_ok(),
        "deep data costs no stack"
    );
}

#[test]
fn a_time_in_seconds_is_the_whole_second() {
    let time = |number: i64| {
        let body = format!(r#"{{"type":"user.deleted","data":{{}},"timestamp":{number}}}"#);
        let delivery = saying(body).verify(&[A]).expect("accepted");
        let time = delivery.envelope.time.expect("a time");
        (time.earliest().unix_millis(), time.latest().unix_millis())
    };
    assert_eq!(time(1_716_883_200), (1_716_883_200_000, 1_716_883_200_999));
    assert_eq!(
        time(1_716_883_200_123),
        (1_716_883_200_123, 1_716_883_200_123)
    );
    assert_eq!(time(0), (0, 999));
    assert_eq!(time(99_999_999_999).0, 99_999_999_999_000);
    assert_eq!(
        time(100_000_000_000),
        (100_000_000_000, 100_000_000_000),
        "from here on milliseconds"
    );
}

#[test]
fn the_body_of_a_message_with_codes_is_kept_nowhere() {
    for name in ["email.created", "sms.created", "email.sent"] {
        let body =
            format!(r#"{{"type":"{name}","timestamp":1,"data":{{"body":"your code is 123456"}}}}"#);
        let delivery = saying(body).verify(&[A]).expect("accepted");
        assert_eq!(delivery.envelope.event_type.name(), name);
        assert!(delivery.envelope.data.is_none(), "{name}");
        assert!(!format!("{delivery:?}").contains("123456"), "{name}");
    }
    let kept = saying(r#"{"type":"user.created","data":{"password_digest":"123456"}}"#);
    let kept = kept.verify(&[A]).expect("accepted");
    assert!(kept.envelope.data.is_some());
    assert!(!format!("{kept:?}").contains("123456"), "data is in no log");
}

#[test]
fn no_refusal_says_what_was_in_the_body_or_in_a_header() {
    for body in [
        r#"{"type":"user.updated","data":"123456"}"#,
        r#"{"type":123456,"data":{}}"#,
        r#"{"type":"user.updated","data":{},"timestamp":"123456"}"#,
        r#"{"type":"user.updated","data":{},"123456"#,
    ] {
        let refused = saying(body).verify(&[A]).expect_err(body);
        assert!(
            !format!("{refused} {refused:?}").contains("123456"),
            "{body}"
        );
    }
    let message = Message {
        timestamp: "123456x",
        ..first()
    };
    let refused = message.verify(&[A]).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "the header svix-timestamp is not as it should be; expected Unix seconds in digits, \
         without a zero before them"
    );
}

#[test]
fn a_secret_is_whsec_and_base64_and_never_shown() {
    for bad in [
        "",
        "whsec_",
        "whsec_=",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
        "WHSEC_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
        "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRY",
        "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX ",
        "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFR-_",
        "sk_test_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
    ] {
        let error = SigningSecret::parse(&bad.into()).expect_err(bad);
        let text = error.to_string();
        assert!(
            text.contains("\"whsec_\"") && text.contains("base64"),
            "{text}"
        );
        assert!(!text.contains("AAEC"), "{text}");
    }
    assert_eq!(format!("{:?}", secret(A)), "SigningSecret");
}

#[test]
fn every_type_has_its_name() {
    assert_eq!(EventType::KNOWN.len(), 45);
    for known in EventType::KNOWN {
        assert_eq!(
            EventType::from_text(known.name().to_owned()).as_ref(),
            Some(known)
        );
    }
    assert_eq!(
        EventType::from_text("User.Updated".to_owned()),
        Some(EventType::Unknown("User.Updated".to_owned())),
        "names are compared exactly"
    );
    for no_name in [String::new(), "a b".to_owned(), "a".repeat(256)] {
        assert_eq!(EventType::from_text(no_name), None);
    }
}

fn ask(id: &[u8], time: &[u8], signature: &[u8], body: &[u8]) -> Result<Delivery, Refused> {
    let headers = [
        ("svix-id", id),
        ("svix-timestamp", time),
        ("svix-signature", signature),
    ];
    verify(&[secret(A)], headers, body, now())
}

proptest! {
    #[test]
    fn one_flipped_bit_anywhere_is_refused(
        body in r#"\{"type":"user\.updated","data":\{"id":"[a-z0-9é]{0,40}"\}\}"#,
        place in any::<prop::sample::Index>(),
    ) {
        let message = saying(body);
        prop_assert!(message.verify(&[A]).is_ok());

        let mut parts = [
            message.id.as_bytes().to_vec(),
            message.timestamp.as_bytes().to_vec(),
            message.signature.as_bytes().to_vec(),
            message.body.clone(),
        ];
        let lengths = parts.iter().map(|part| part.len() * 8);
        let mut bit = place.index(lengths.sum());
        for part in &mut parts {
            if bit < part.len() * 8 {
                part[bit / 8] ^= 1 << (bit % 8);
                break;
            }
            bit -= part.len() * 8;
        }
        let [id, time, signature, body] = &parts;
        let said = ask(id, time, signature, body);
        prop_assert!(
            matches!(said, Err(Refused::WrongSignature | Refused::Header(_) | Refused::Time(_))),
            "{said:?}"
        );
    }

    #[test]
    fn parsing_of_messages_never_panics(
        headers in prop::collection::vec(
            (
                "(svix|webhook)-(id|timestamp|signature)",
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..80),
                    "(v1,[A-Za-z0-9+/=]{0,60} ?){0,4}".prop_map(String::into_bytes),
                    "[0-9]{0,22}".prop_map(String::into_bytes),
                ],
            ),
            0..7,
        ),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            r#"\{("(type|data|timestamp|instance_id)":("[a-z.\\"]{0,9}"|\{\}|-?[0-9]{0,20}|null),?){0,5}\}"#
                .prop_map(String::into_bytes),
        ],
    ) {
        let headers = headers.iter().map(|(name, value)| (&**name, &**value));
        prop_assert!(verify(&[secret(A), secret(B)], headers, &body, now()).is_err());
        if let Ok(envelope) = Envelope::parse(&body) {
            prop_assert!(!envelope.event_type.name().is_empty());
        }
    }
}
