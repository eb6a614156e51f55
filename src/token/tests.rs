//! Form, header and claims, without keys: signatures are the business of `authz`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::identity::{MachineType, Scope, SessionStatus, Timestamp};

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

const M2M_HEADER: &str = r#"{"alg":"RS256","kid":"ins_1","typ":"JWT","cat":"cl_B7d4PD333AAA"}"#;
const OAUTH_HEADER: &str = r#"{"alg":"RS256","kid":"ins_1","typ":"at+jwt"}"#;

/// The claims of a good machine's token, with `changes` on top; `null` removes a claim.
fn machine_payload(changes: Value) -> String {
    let mut claims = json!({
        "iss": "https://clerk.example.com", "sub": "mch_1", "jti": "mt_1", "scopes": "mch_2 mch_3",
        "iat": 1_800_000_000, "nbf": 1_799_999_990, "exp": 1_800_000_060,
    });
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => claims.as_object_mut().expect("an object").remove(name),
            value => claims
                .as_object_mut()
                .expect("an object")
                .insert(name.clone(), value.clone()),
        };
    }
    claims.to_string()
}

fn said(header: &str, payload: &str, accepted: TokenTypes) -> Result<Said, Reason> {
    parse(&text(header, payload), &mut Steps::off())?.into_said(accepted, &mut Steps::off())
}

fn all_types() -> TokenTypes {
    TokenType::ALL.into_iter().collect()
}

fn machine(header: &str, payload: &str) -> Machine {
    match said(header, payload, all_types()) {
        Ok(Said::Machine(machine)) => machine,
        other => panic!("{other:?}"),
    }
}

/// The table of the types: each mark of a machine's token, alone and beside another's.
#[test]
fn a_machines_token_has_the_marks_of_one_type_and_of_no_other() {
    let machines = [
        TokenType::Machine(MachineType::M2m),
        TokenType::Machine(MachineType::Oauth),
    ];
    let [m2m, oauth] = machines;
    let user = || machine_payload(json!({"sub": "user_1"}));
    let mch = || machine_payload(json!({}));
    for (what, header, payload, is) in [
        ("M2M", M2M_HEADER.into(), mch(), Some(m2m)),
        (
            "M2M without cat",
            M2M_HEADER.replace(r#","cat":"cl_B7d4PD333AAA""#, ""),
            mch(),
            Some(m2m),
        ),
        (
            "M2M without typ",
            M2M_HEADER.replace(r#","typ":"JWT""#, ""),
            mch(),
            Some(m2m),
        ),
        (
            "M2M of an instance",
            M2M_HEADER.replace("B7d4PD333AAA", "I7d4PD111III"),
            mch(),
            None,
        ),
        (
            "M2M of a session",
            M2M_HEADER.replace("333", "111"),
            mch(),
            None,
        ),
        (
            "M2M of a template",
            M2M_HEADER.replace("333", "222"),
            mch(),
            None,
        ),
        (
            "M2M whose cat is a number",
            M2M_HEADER.replace(r#""cl_B7d4PD333AAA""#, "1"),
            mch(),
            None,
        ),
        ("M2M of a user", M2M_HEADER.into(), user(), None),
        (
            "M2M with a session",
            M2M_HEADER.into(),
            payload(json!({})),
            None,
        ),
        ("OAuth", OAUTH_HEADER.into(), user(), Some(oauth)),
        (
            "OAuth, in full",
            OAUTH_HEADER.replace("at+jwt", "application/at+jwt"),
            user(),
            Some(oauth),
        ),
        (
            "OAuth with a session",
            OAUTH_HEADER.into(),
            payload(json!({})),
            Some(oauth),
        ),
        ("OAuth of a machine", OAUTH_HEADER.into(), mch(), None),
        (
            "session",
            HEADER.into(),
            payload(json!({})),
            Some(TokenType::Session),
        ),
    ] {
        for token_type in TokenType::ALL {
            let accepted = TokenTypes::NONE.with(token_type);
            let said = said(&header, &payload, accepted);
            if is == Some(token_type) {
                assert!(said.is_ok(), "{what} as {token_type:?}: {said:?}");
            } else {
                assert_eq!(
                    said,
                    Err(Reason::TokenTypeNotAccepted),
                    "{what} as {token_type:?}"
                );
            }
        }
    }
    for (text, is) in [
        ("mt_a", Some(MachineType::M2m)),
        ("m2m_a", Some(MachineType::M2m)),
        ("oat_a", Some(MachineType::Oauth)),
        ("ak_a/=", Some(MachineType::ApiKey)),
        ("MT_a", None),
        ("mta", None),
        (" ak_a", None),
        ("sk_test_a", None),
        ("eyJhbGciOiJSUzI1NiJ9.e30.AA", None),
    ] {
        assert_eq!(opaque_type(text), is, "{text}");
    }
}

#[test]
fn a_machines_token_is_read_whole_and_its_claims_are_the_applications() {
    let texts = |texts: &crate::identity::Texts| -> Vec<String> {
        texts.iter().map(str::to_owned).collect()
    };
    // What Clerk gives a meaning in a session's token is anybody's here, and may have any type.
    let own = json!({"team": "ops", "org_id": 7, "sid": [1], "fva": "x", "azp": {"a": 1}});
    let found = machine(M2M_HEADER, &machine_payload(own.clone()));
    assert_eq!(found.machine_type, MachineType::M2m);
    assert_eq!(found.subject.as_str(), "mch_1");
    assert_eq!(found.token_id.as_deref(), Some("mt_1"));
    assert_eq!(texts(&found.scopes), ["mch_2", "mch_3"]);
    assert_eq!(
        found.expires_at,
        Some(Timestamp::from_unix_seconds(1_800_000_060))
    );
    let claims: Value =
        serde_json::from_str(found.claims.expect("claims").as_json()).expect("JSON");
    assert_eq!(claims, own);

    // Clerk's SDK takes `aud` where there are no scopes.
    let by_audience = json!({"scopes": null, "aud": ["mch_4"]});
    let found = machine(M2M_HEADER, &machine_payload(by_audience));
    assert_eq!(
        (texts(&found.scopes), texts(&found.audiences)),
        (vec!["mch_4".into()], vec!["mch_4".into()])
    );
    assert_eq!(found.claims, None);

    let oauth = |changes: Value| {
        let mut all =
            json!({"sub": "user_1", "jti": "oat_1", "client_id": "client_1", "scopes": null});
        all.as_object_mut()
            .expect("an object")
            .extend(changes.as_object().expect("an object").clone());
        machine(OAUTH_HEADER, &machine_payload(all))
    };
    let found = oauth(json!({"scp": ["profile"], "scope": "email x"}));
    assert_eq!(texts(&found.scopes), ["profile"]);
    assert_eq!(found.client_id.as_deref(), Some("client_1"));
    assert_eq!(
        texts(&oauth(json!({"scope": "email  x"})).scopes),
        ["email", "x"]
    );
    assert!(oauth(json!({})).scopes.is_empty());
}

/// Advisory 1, for the claims of machines.
#[test]
fn a_machines_claim_of_a_wrong_type_is_never_an_absent_one() {
    let invalid = |header: &str, changes: Value| {
        let said = said(header, &machine_payload(changes.clone()), all_types());
        assert_eq!(said, Err(Reason::ClaimInvalid), "{changes}");
    };
    for (name, values) in [
        (
            "exp",
            vec![json!("1"), json!(true), json!(-1), json!(1.5), json!([])],
        ),
        ("nbf", vec![json!("1"), json!(false)]),
        ("iat", vec![json!({}), json!(1e300)]),
        ("iss", vec![json!("https://a/b")]),
        ("jti", vec![json!(1)]),
        ("aud", vec![json!(1), json!([1])]),
        ("sub", vec![json!("mch_"), json!("mch_a/b")]),
        ("scopes", vec![json!(["mch_1"]), json!(1)]),
    ] {
        for value in values {
            invalid(M2M_HEADER, json!({ name: value }));
        }
    }
    invalid(M2M_HEADER, json!({"exp": null}));
    let oauth = |name: &str, value: Value| {
        invalid(OAUTH_HEADER, json!({"sub": "user_1", name: value}));
    };
    oauth("scp", json!("profile"));
    oauth("scp", json!(["profile", 1]));
    oauth("scope", json!(["profile"]));
    oauth("client_id", json!(1));
    invalid(OAUTH_HEADER, json!({"sub": "org_1"}));

    for twice in [
        machine_payload(json!({})).replacen('{', r#"{"jti":"mt_2","#, 1),
        machine_payload(json!({})).replacen('{', r#"{"own":{"a":1,"a":2},"#, 1),
        machine_payload(json!({})).replacen('{', r#"{"sid":{"a":1,"a":2},"#, 1),
    ] {
        let said = said(M2M_HEADER, &twice, all_types());
        assert_eq!(said, Err(Reason::ClaimInvalid), "{twice}");
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
    assert_eq!(hint.issued_at_seconds, Some(5));
    assert!(hint.is_session);
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
