//! Form, header and claims, without keys: signatures are the business of `authz`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::identity::{Scope, SessionStatus, Timestamp};

const HEADER: &str = r#"{"alg":"RS256","kid":"ins_1","typ":"JWT","cat":"cl_B7d4PD111AAA"}"#;

fn text(header: &str, payload: &str) -> String {
    let encode = |part: &str| URL_SAFE_NO_PAD.encode(part);
    format!(
        "{}.{}.{}",
        encode(header),
        encode(payload),
        encode("signature")
    )
}

/// The claims of a good version-2 session token, with `changes` on top; `null` removes a claim.
fn payload(changes: Value) -> String {
    let mut claims = json!({
        "azp": "https://app.example.com", "exp": 1_800_000_060, "iat": 1_800_000_000,
        "nbf": 1_799_999_990, "iss": "https://clerk.example.com", "jti": "abc", "v": 2,
        "sid": "sess_1", "sub": "user_1", "sts": "active", "fva": [3, -1],
        "fea": "o:invoices,u:beta", "pla": "o:gold",
        "o": {"id": "org_1", "slg": "acme", "rol": "admin", "per": "read,write", "fpm": "3"},
    });
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims.to_string()
}

fn claimed(header: &str, payload: &str) -> Result<Claimed, Reason> {
    parse(&text(header, payload), &mut Steps::off())?.into_claimed(&mut Steps::off())
}

fn reason(header: &str, payload: &str) -> Option<Reason> {
    claimed(header, payload).err()
}

#[test]
fn a_version_2_token_is_read_whole() {
    let session = claimed(HEADER, &payload(json!({"tier": {"level": 3}})))
        .expect("good")
        .session;

    assert_eq!(session.user_id.as_str(), "user_1");
    assert_eq!(session.session_id.as_str(), "sess_1");
    assert_eq!(session.token_id.as_deref(), Some("abc"));
    assert_eq!(session.token_version, 2);
    assert_eq!(
        session.issued_at,
        Some(Timestamp::from_unix_seconds(1_800_000_000))
    );
    assert_eq!(
        session.expires_at,
        Timestamp::from_unix_seconds(1_800_000_060)
    );
    assert_eq!(session.status, SessionStatus::Active);
    let organization = session.organization.expect("active");
    assert_eq!(organization.id.as_str(), "org_1");
    assert_eq!(organization.role.as_deref(), Some("org:admin"));
    assert_eq!(
        organization.permissions.iter().collect::<Vec<_>>(),
        ["org:invoices:read", "org:invoices:write"]
    );
    assert_eq!(
        session.features.iter().nth(1).expect("two").scope,
        Scope::User
    );
    let ages = session.factor_ages.expect("present");
    assert_eq!(
        (ages.first.map(|age| age.minutes()), ages.second),
        (Some(3.0), None)
    );
    assert_eq!(
        session.custom_claims.expect("one").as_json(),
        r#"{"tier":{"level":3}}"#
    );
}

#[test]
fn a_version_1_token_is_read_whole() {
    let mut claims: Value = serde_json::from_str(&payload(json!({}))).expect("JSON");
    let claims = claims.as_object_mut().expect("an object");
    for name in ["v", "o", "fea", "pla"] {
        claims.remove(name);
    }
    claims.insert("org_id".into(), json!("org_2"));
    claims.insert("org_role".into(), json!("org:member"));
    claims.insert("org_permissions".into(), json!(["org:a:b"]));

    let session = claimed(HEADER, &Value::Object(claims.clone()).to_string())
        .expect("good")
        .session;

    assert_eq!(session.token_version, 1);
    let organization = session.organization.expect("active");
    assert_eq!(organization.id.as_str(), "org_2");
    assert_eq!(organization.role.as_deref(), Some("org:member"));
    assert!(organization.permissions.iter().eq(["org:a:b"]));
}

#[test]
fn a_version_2_token_without_o_has_no_organization() {
    let changes = json!({"org_id": "org_9", "org_role": "org:admin"});
    let without_o = payload(changes).replace(r#""o":{"#, r#""_o":{"#);
    assert_eq!(
        claimed(HEADER, &without_o)
            .expect("good")
            .session
            .organization,
        None
    );
}

/// Advisory 1 (CVE-2026-25537): a wrongly typed time is not an absent one.
#[test]
fn times_of_a_wrong_type_are_denied() {
    for name in ["exp", "nbf", "iat"] {
        for wrong in [
            "\"1800000060\"",
            "null",
            "true",
            "1800000060.5",
            "-1",
            "9223372036854775808",
            "1e20",
            "[]",
            "{}",
            "\"\"",
        ] {
            let good = payload(json!({}));
            let value: Value = serde_json::from_str(&good).expect("JSON");
            let text = good.replace(
                &format!("\"{name}\":{}", value[name]),
                &format!("\"{name}\":{wrong}"),
            );
            assert_ne!(text, good, "{name} was replaced");
            assert_eq!(
                reason(HEADER, &text),
                Some(Reason::ClaimInvalid),
                "{name}: {wrong}"
            );

            let text = text.replace(&format!("\"{name}\":{wrong}"), &format!("\"{name}\":1e400"));
            assert_eq!(
                reason(HEADER, &text),
                Some(Reason::TokenMalformed),
                "{name}: 1e400"
            );
        }
    }
    // The nearest allow: a whole number written as a float.
    let float = payload(json!({})).replace("1800000060", "1800000060.0");
    assert_eq!(reason(HEADER, &float), None);
}

#[test]
fn claims_of_a_wrong_type_are_denied() {
    for (name, wrong) in [
        ("iss", json!(1)),
        ("jti", json!(1)),
        ("azp", json!(["https://app.example.com"])),
        ("aud", json!(1)),
        ("aud", json!({})),
        ("aud", json!(["a", 1])),
        ("v", json!("2")),
        ("sts", json!(1)),
        ("sts", json!("sleeping")),
        ("fva", json!("0,0")),
        ("fva", json!([1])),
        ("fva", json!([1, 2, 3])),
        ("fva", json!([1, -2])),
        ("fva", json!([1, "2"])),
        ("act", json!("user_2")),
        ("act", json!({})),
        ("act", json!({"sub": 1})),
        ("act", json!({"sub": "user_2", "iss": 1})),
        ("o", json!("org_1")),
        ("o", json!({})),
        ("o", json!({"id": 1})),
        ("o", json!({"id": "org_1", "rol": 1})),
        ("o", json!({"id": "org_1", "per": ["a"]})),
        ("o", json!({"id": "org_1", "fpm": 3})),
        ("o", json!({"id": "acme"})),
        ("fea", json!(["o:a"])),
        ("fea", json!("invoices")),
        ("pla", json!("o:gold,")),
        ("org_id", json!(1)),
        ("org_role", json!(1)),
        ("org_permissions", json!("org:a:b")),
        ("org_slug", json!(false)),
        ("sub", json!(1)),
        ("sub", json!("")),
        ("sub", json!("alice")),
        ("sid", json!("")),
        ("sid", json!("1")),
    ] {
        assert_eq!(
            reason(HEADER, &payload(json!({name: wrong}))),
            Some(Reason::ClaimInvalid),
            "{name}: {wrong}"
        );
        assert_eq!(
            reason(HEADER, &payload(json!({name: null}))),
            Some(if name == "sid" {
                Reason::TokenTypeNotAccepted
            } else {
                Reason::ClaimInvalid
            }),
            "{name}: null"
        );
    }
    assert_eq!(reason(HEADER, &payload(json!({}))), None);
}

#[test]
fn a_member_that_stands_twice_is_denied() {
    let good = payload(json!({"custom": {"a": [{"b": 1}]}}));
    for twice in [
        good.replace(r#""sub":"user_1""#, r#""sub":"user_1","sub":"user_2""#),
        good.replace(r#""sub":"user_1""#, r#""sub":"user_1","s\u0075b":"user_2""#),
        good.replace(r#""rol":"admin""#, r#""rol":"admin","rol":"member""#),
        good.replace(r#"{"b":1}"#, r#"{"b":1,"b":1}"#),
        good.replace(r#""custom":"#, r#""custom":1,"custom":"#),
    ] {
        assert_ne!(twice, good);
        assert_eq!(
            reason(HEADER, &twice),
            Some(Reason::ClaimInvalid),
            "{twice}"
        );
    }
    let header = HEADER.replace("{", r#"{"kid":"ins_2","#);
    assert_eq!(reason(&header, &good), Some(Reason::TokenMalformed));
    assert_eq!(reason(HEADER, &good), None);
}

/// Advisory 10: Clerk signs tokens of all types with one key.
#[test]
fn tokens_of_other_types_are_not_session_tokens() {
    let with_category = |cat: &str| HEADER.replace("cl_B7d4PD111AAA", cat);
    let without = |name: &str| {
        let mut claims: Value = serde_json::from_str(&payload(json!({}))).expect("JSON");
        claims.as_object_mut().expect("an object").remove(name);
        claims.to_string()
    };
    for (what, header, payload) in [
        (
            "template",
            with_category("cl_B7d4PD222AAA"),
            payload(json!({})),
        ),
        (
            "template without a category",
            HEADER.replace(r#","cat":"cl_B7d4PD111AAA""#, ""),
            without("sid"),
        ),
        (
            "machine",
            with_category("cl_B7d4PD333AAA"),
            payload(json!({})),
        ),
        (
            "machine by subject",
            with_category("cl_I7d4PD111III"),
            payload(json!({"sub": "mch_1"})),
        ),
        (
            "unknown category",
            with_category("cl_x"),
            payload(json!({})),
        ),
        (
            "category of a wrong type",
            HEADER.replace(r#""cl_B7d4PD111AAA""#, "1"),
            payload(json!({})),
        ),
        (
            "OAuth",
            HEADER.replace(r#""typ":"JWT""#, r#""typ":"at+jwt""#),
            payload(json!({})),
        ),
        ("handshake", HEADER.into(), r#"{"handshake":[]}"#.into()),
        ("no subject", HEADER.into(), without("sub")),
        (
            "sid of a wrong type",
            HEADER.into(),
            payload(json!({"sid": 1})),
        ),
    ] {
        assert_eq!(
            reason(&header, &payload),
            Some(Reason::TokenTypeNotAccepted),
            "{what}"
        );
    }
    for good in [
        with_category("cl_I7d4PD111III"),
        HEADER.replace(r#","cat":"cl_B7d4PD111AAA""#, ""),
    ] {
        assert_eq!(reason(&good, &payload(json!({}))), None, "{good}");
    }
}

/// Advisory 3: the header never chooses how it is verified.
#[test]
fn only_rs256_and_nothing_that_the_header_brings() {
    let payload = payload(json!({}));
    for alg in [
        "none", "HS256", "RS384", "RS512", "PS256", "ES256", "rs256", "RS256 ", "",
    ] {
        let header = HEADER.replace("RS256", alg);
        assert_eq!(
            reason(&header, &payload),
            Some(Reason::AlgorithmNotAllowed),
            "{alg}"
        );
    }
    for header in [
        HEADER.replace(r#""RS256""#, "null"),
        HEADER.replace(r#""alg":"RS256","#, ""),
    ] {
        assert_eq!(
            reason(&header, &payload),
            Some(Reason::AlgorithmNotAllowed),
            "{header}"
        );
    }
    for member in [
        r#""crit":["b64"],"b64":false"#,
        r#""crit":null"#,
        r#""typ":"jwt""#,
        r#""typ":1"#,
    ] {
        let header = HEADER.replace(r#","typ":"JWT""#, &format!(",{member}"));
        assert_eq!(
            reason(&header, &payload),
            Some(Reason::TokenMalformed),
            "{member}"
        );
    }
    for ignored in ["jwk", "jku", "x5u", "x5c", "oiat", "b64"] {
        let header = HEADER.replace('{', &format!(r#"{{"{ignored}":{{"a":1}},"#));
        assert_eq!(reason(&header, &payload), None, "{ignored}");
    }
}

#[test]
fn what_is_not_a_compact_jws_is_malformed() {
    let good = text(HEADER, &payload(json!({})));
    assert!(parse(&good, &mut Steps::off()).is_ok());
    let [header, body, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("three")
    };
    for bad in [
        String::new(),
        "a.b".into(),
        "...".into(),
        format!("{good}."),
        format!(".{body}.{signature}"),
        format!("{header}=.{body}.{signature}"),
        format!("{header}.{body}.{signature}="),
        format!("{header}.{body} .{signature}"),
        format!("{header}.{body}.{signature}\n"),
        format!("{header}.{body}.é"),
        text("[]", "{}"),
        text(HEADER, "[]"),
        text(HEADER, "\"x\""),
        text(HEADER, "{} {}"),
        text(HEADER, "\u{feff}{}"),
        text(HEADER, r#"{"a":"\ud800"}"#),
        text(HEADER, r#"{"a":1e400}"#),
        text(
            HEADER,
            &format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200)),
        ),
        format!(
            "{header}.{}.{signature}",
            URL_SAFE_NO_PAD.encode(b"{\"a\":\"\xff\"}")
        ),
    ] {
        assert_eq!(
            parse(&bad, &mut Steps::off()).err(),
            Some(Reason::TokenMalformed),
            "{bad}"
        );
    }
}

#[test]
fn a_hint_is_what_the_token_says_unverified() {
    let hint = hint(&text(HEADER, &payload(json!({"iat": 5.5})))).expect("decodable");
    assert_eq!(hint.issuer.as_deref(), Some("https://clerk.example.com"));
    assert_eq!(hint.session_id.as_deref(), Some("sess_1"));
    assert_eq!(hint.issued_at_seconds, 5);
    assert_eq!(super::hint("x.y.z"), None);
}

proptest! {
    #[test]
    fn parsing_never_panics(token in ".{0,300}") {
        let _ = parse(&token, &mut Steps::on(Rule::OF_VERIFICATION)).map(|token| token.into_claimed(&mut Steps::on(Rule::OF_VERIFICATION)));
    }

    #[test]
    fn claims_never_panic_on_any_bytes(
        header in prop::collection::vec(any::<u8>(), 0..200),
        payload in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let token = format!("{}.{}.AA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(&payload));
        let _ = parse(&token, &mut Steps::on(Rule::OF_VERIFICATION));
        let token = format!("{}.{}.AA", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(payload));
        let _ = parse(&token, &mut Steps::on(Rule::OF_VERIFICATION)).map(|token| token.into_claimed(&mut Steps::on(Rule::OF_VERIFICATION)));
    }

    /// Whatever stands in any claim: it is accepted only with its type.
    #[test]
    fn a_claim_of_any_json_type_is_denied_or_right(
        name in prop::sample::select(vec![
            "sub", "sid", "iss", "exp", "iat", "nbf", "jti", "azp", "aud", "v", "sts", "fva", "act",
            "o", "org_id", "org_slug", "org_role", "org_permissions", "fea", "pla",
        ]),
        value in prop::sample::select(vec![
            json!(null), json!(true), json!(1), json!(-1), json!(1.5), json!("x"), json!(""),
            json!([]), json!([1]), json!(["x"]), json!([1, 2]), json!({}), json!({"id": "org_1"}),
            json!({"sub": "user_1"}), json!("user_1"), json!("sess_1"), json!("https://a.example"),
        ]),
    ) {
        let accepted = claimed(HEADER, &payload(json!({name: value}))).is_ok();
        let right = match name {
            "sub" => value == json!("user_1"),
            "sid" => value == json!("sess_1"),
            "iss" => value == json!("https://a.example"),
            "exp" | "iat" | "nbf" => value == json!(1),
            "v" => value.is_number(),
            "jti" | "azp" | "org_slug" | "org_role" => value.is_string(),
            "org_id" => value == json!(""),
            "sts" => false,
            "aud" => value.is_string() || value == json!([]) || value == json!(["x"]),
            "org_permissions" => value == json!([]) || value == json!(["x"]),
            "fva" => value == json!([1, 2]),
            "act" => value == json!({"sub": "user_1"}),
            "o" => value == json!({"id": "org_1"}),
            "fea" | "pla" => value == json!("") || value == json!("https://a.example"),
            _ => unreachable!("every name is listed"),
        };
        prop_assert_eq!(accepted, right, "{}: {}", name, value);
    }
}
