//! Each rule with the assertion that breaks it and nothing else. Signatures are the business of `authz`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    explain::Outcome,
    identity::{SigningAlgorithms, Timestamp},
    mirror::{Person, PersonKey},
};

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://idp.example.com/tenant";

fn provider() -> Provider {
    Provider {
        name: "acme".parse().expect("a name"),
        issuer: ISSUER.into(),
        client_ids: vec!["client-1".into(), "client-2".into()],
        algorithms: SigningAlgorithm::ALL.into_iter().collect(),
        find_by: FindBy::VerifiedEmail(vec!["example.com".into(), "kiosk.example".into()]),
        second_factor: SecondFactor::Required,
        amr: vec!["mfa".into(), "hwk".into()],
        acr: vec!["urn:strong".into()],
        max_sign_in_age: Some(Duration::from_secs(3_600)),
        nonce: Nonce::Required,
        create_users: false,
    }
}

use std::time::Duration;

/// The claims of a good one, with `changes` on top; `null` removes a claim.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "sub": "subject-1", "aud": "client-1", "exp": NOW + 300, "iat": NOW - 5,
        "auth_time": NOW - 60, "nonce": "n-0", "amr": ["pwd", "mfa"], "jti": "one",
        "email": "Alice@Example.com", "email_verified": true,
    });
    for (name, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            claims.as_object_mut().expect("an object").remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn text(header: &str, payload: &str) -> String {
    let encode = |part: &str| URL_SAFE_NO_PAD.encode(part);
    format!("{}.{}.{}", encode(header), encode(payload), encode("sig"))
}

const HEADER: &str = r#"{"alg":"RS256","kid":"k1","typ":"JWT"}"#;

/// Everything but the signature, up to whom it means.
fn believed(provider: &Provider, text: &str, nonce: &str) -> Result<(PersonKey, bool), Denial> {
    let mut steps = Steps::on(Rule::OF_EXCHANGE);
    let answer = believe(provider, text, nonce, &mut steps);
    let failed: Vec<Rule> = steps
        .finish()
        .iter()
        .filter(|step| step.outcome == Outcome::Failed)
        .map(|step| step.rule)
        .collect();
    let expected: Vec<Rule> = answer
        .as_ref()
        .err()
        .map(|denial| denial.rule)
        .into_iter()
        .collect();
    assert_eq!(failed, expected, "the explanation names the rule");
    answer
}

fn believe(
    provider: &Provider,
    text: &str,
    nonce: &str,
    steps: &mut Steps,
) -> Result<(PersonKey, bool), Denial> {
    let unverified = parse(text, provider, steps)?;
    let assertion = unverified.into_assertion(text, steps)?;
    let expectations = Expectations {
        nonce,
        clock_skew: Duration::from_secs(5),
        now: Timestamp::from_unix_seconds(NOW),
    };
    judge(&assertion, provider, &expectations, steps)?;
    let is_settled = second_factor(&assertion, provider, None, steps)?;
    Ok((whom(&assertion, provider, steps)?, is_settled))
}

fn denial(changes: Value) -> Option<Denial> {
    let text = text(HEADER, &claims(&changes).to_string());
    believed(&provider(), &text, "n-0").err()
}

#[test]
fn a_good_assertion_is_believed_and_means_its_address() {
    let text = text(HEADER, &claims(&json!({})).to_string());
    let (key, is_settled) = believed(&provider(), &text, "n-0").expect("good");
    assert!(key == PersonKey::Email("Alice@Example.com".into()));
    assert!(is_settled);
}

#[test]
fn each_hostile_claim_breaks_its_rule_and_its_neighbour_does_not() {
    let invalid = |rule| Some(Denial::invalid(rule));
    let unmatched = Some(Denial {
        reason: Reason::UserUnmatched,
        rule: Rule::User,
    });
    let mfa = Some(Denial {
        reason: Reason::MfaRequired,
        rule: Rule::SecondFactor,
    });
    for (what, changes, expected) in [
        (
            "another issuer",
            json!({"iss": "https://idp.example.com"}),
            invalid(Rule::Issuer),
        ),
        (
            "a slash more",
            json!({"iss": format!("{ISSUER}/")}),
            invalid(Rule::Issuer),
        ),
        ("no issuer", json!({"iss": null}), invalid(Rule::Issuer)),
        (
            "a list of issuers",
            json!({"iss": [ISSUER]}),
            invalid(Rule::Issuer),
        ),
        ("no subject", json!({"sub": null}), invalid(Rule::Claims)),
        (
            "an empty subject",
            json!({"sub": ""}),
            invalid(Rule::Claims),
        ),
        (
            "a long subject",
            json!({"sub": "s".repeat(256)}),
            invalid(Rule::Claims),
        ),
        ("the longest subject", json!({"sub": "s".repeat(255)}), None),
        (
            "a numeric subject",
            json!({"sub": 1}),
            invalid(Rule::Claims),
        ),
        (
            "another audience",
            json!({"aud": "client-3"}),
            invalid(Rule::Audience),
        ),
        (
            "an audience in another case",
            json!({"aud": "Client-1"}),
            invalid(Rule::Audience),
        ),
        ("no audience", json!({"aud": null}), invalid(Rule::Claims)),
        (
            "an empty audience",
            json!({"aud": ""}),
            invalid(Rule::Audience),
        ),
        ("an empty list", json!({"aud": []}), invalid(Rule::Audience)),
        (
            "an audience as an object",
            json!({"aud": {"client-1": true}}),
            invalid(Rule::Claims),
        ),
        (
            "a list with a number",
            json!({"aud": ["client-1", 1]}),
            invalid(Rule::Claims),
        ),
        ("a list of one", json!({"aud": ["client-2"]}), None),
        (
            "two audiences without azp",
            json!({"aud": ["client-1", "x"]}),
            invalid(Rule::AuthorizedParty),
        ),
        (
            "two audiences, azp another",
            json!({"aud": ["client-1", "x"], "azp": "x"}),
            invalid(Rule::AuthorizedParty),
        ),
        (
            "two audiences, azp ours",
            json!({"aud": ["client-1", "x"], "azp": "client-1"}),
            None,
        ),
        (
            "one audience, azp another",
            json!({"azp": "x"}),
            invalid(Rule::AuthorizedParty),
        ),
        (
            "azp a list",
            json!({"azp": ["client-1"]}),
            invalid(Rule::Claims),
        ),
        ("no exp", json!({"exp": null}), invalid(Rule::Claims)),
        (
            "exp as text",
            json!({"exp": "1800000300"}),
            invalid(Rule::Claims),
        ),
        ("expired", json!({"exp": NOW - 5}), invalid(Rule::Expiry)),
        ("expired within the skew", json!({"exp": NOW - 4}), None),
        ("not yet", json!({"nbf": NOW + 6}), invalid(Rule::NotBefore)),
        ("not yet within the skew", json!({"nbf": NOW + 5}), None),
        ("no iat", json!({"iat": null}), invalid(Rule::Claims)),
        (
            "from the future",
            json!({"iat": NOW + 6}),
            invalid(Rule::IssuedAt),
        ),
        (
            "from the future within the skew",
            json!({"iat": NOW + 5}),
            None,
        ),
        ("old", json!({"iat": NOW - 605}), invalid(Rule::IssuedAt)),
        ("almost old", json!({"iat": NOW - 604}), None),
        ("no nonce", json!({"nonce": null}), invalid(Rule::Nonce)),
        (
            "another nonce",
            json!({"nonce": "n-1"}),
            invalid(Rule::Nonce),
        ),
        (
            "a longer nonce",
            json!({"nonce": "n-00"}),
            invalid(Rule::Nonce),
        ),
        (
            "a numeric nonce",
            json!({"nonce": 0}),
            invalid(Rule::Claims),
        ),
        (
            "no auth_time",
            json!({"auth_time": null}),
            invalid(Rule::SignInAge),
        ),
        (
            "an old sign-in",
            json!({"auth_time": NOW - 3_606}),
            invalid(Rule::SignInAge),
        ),
        (
            "almost an old sign-in",
            json!({"auth_time": NOW - 3_605}),
            None,
        ),
        (
            "a sign-in to come",
            json!({"auth_time": NOW + 6}),
            invalid(Rule::SignInAge),
        ),
        ("no second factor", json!({"amr": ["pwd"]}), mfa),
        ("no amr", json!({"amr": null}), mfa),
        (
            "amr forged as text",
            json!({"amr": "mfa"}),
            invalid(Rule::Claims),
        ),
        (
            "amr as an object",
            json!({"amr": {"mfa": true}}),
            invalid(Rule::Claims),
        ),
        (
            "amr with a list in it",
            json!({"amr": [["mfa"]]}),
            invalid(Rule::Claims),
        ),
        ("amr in another case", json!({"amr": ["MFA"]}), mfa),
        ("another method that counts", json!({"amr": ["hwk"]}), None),
        (
            "a class that counts",
            json!({"amr": ["pwd"], "acr": "urn:strong"}),
            None,
        ),
        (
            "a class that does not",
            json!({"amr": ["pwd"], "acr": "urn:weak"}),
            mfa,
        ),
        (
            "a class as a list",
            json!({"acr": ["urn:strong"]}),
            invalid(Rule::Claims),
        ),
        ("no address", json!({"email": null}), unmatched),
        (
            "an address that is not verified",
            json!({"email_verified": false}),
            unmatched,
        ),
        (
            "an address of which nothing is said",
            json!({"email_verified": null}),
            unmatched,
        ),
        (
            "verified as text",
            json!({"email_verified": "true"}),
            invalid(Rule::Claims),
        ),
        (
            "verified as a number",
            json!({"email_verified": 1}),
            invalid(Rule::Claims),
        ),
        (
            "another domain",
            json!({"email": "alice@example.org"}),
            unmatched,
        ),
        (
            "a domain below",
            json!({"email": "alice@a.example.com"}),
            unmatched,
        ),
        (
            "a domain that ends alike",
            json!({"email": "alice@evilexample.com"}),
            unmatched,
        ),
        (
            "two signs",
            json!({"email": "alice@evil.com@example.com"}),
            unmatched,
        ),
        ("no local part", json!({"email": "@example.com"}), unmatched),
        (
            "a line break",
            json!({"email": "alice\n@example.com"}),
            unmatched,
        ),
        (
            "a KELVIN SIGN for a k",
            json!({"email": "\u{212A}ate@example.com"}),
            unmatched,
        ),
        (
            "a KELVIN SIGN in the domain",
            json!({"email": "x@\u{212A}iosk.example"}),
            unmatched,
        ),
        ("a k", json!({"email": "kate@KIOSK.example"}), None),
        (
            "a logout token",
            json!({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
            invalid(Rule::Claims),
        ),
        (
            "events that are none",
            json!({"events": []}),
            invalid(Rule::Claims),
        ),
        ("jti as a number", json!({"jti": 1}), invalid(Rule::Claims)),
        ("no jti", json!({"jti": null}), None),
    ] {
        assert_eq!(denial(changes), expected, "{what}");
    }
    let twice = claims(&json!({}))
        .to_string()
        .replacen('{', r#"{"amr":["x"],"#, 1);
    let twice = believed(&provider(), &text(HEADER, &twice), "n-0");
    assert_eq!(
        twice.err(),
        invalid(Rule::Claims),
        "a claim that stands twice"
    );
}

#[test]
fn each_hostile_header_breaks_its_rule() {
    let payload = claims(&json!({})).to_string();
    let with = |header: Value| {
        let text = text(&header.to_string(), &payload);
        believed(&provider(), &text, "n-0")
            .err()
            .map(|denial| denial.rule)
    };
    for (what, header, expected) in [
        ("none", json!({"alg": "none"}), Some(Rule::Algorithm)),
        ("no algorithm", json!({"kid": "k1"}), Some(Rule::Algorithm)),
        ("HMAC", json!({"alg": "HS256"}), Some(Rule::Algorithm)),
        (
            "another RSA",
            json!({"alg": "PS256"}),
            Some(Rule::Algorithm),
        ),
        (
            "another case",
            json!({"alg": "rs256"}),
            Some(Rule::Algorithm),
        ),
        ("a list", json!({"alg": ["RS256"]}), Some(Rule::Algorithm)),
        (
            "crit",
            json!({"alg": "RS256", "crit": []}),
            Some(Rule::Header),
        ),
        (
            "an access token",
            json!({"alg": "RS256", "typ": "at+jwt"}),
            Some(Rule::Header),
        ),
        (
            "a logout",
            json!({"alg": "RS256", "typ": "logout+jwt"}),
            Some(Rule::Header),
        ),
        (
            "typ a number",
            json!({"alg": "RS256", "typ": 1}),
            Some(Rule::Header),
        ),
        ("ES256", json!({"alg": "ES256"}), None),
        (
            "keys of its own",
            json!({"alg": "RS256", "jwk": {}, "jku": "https://evil"}),
            None,
        ),
    ] {
        assert_eq!(with(header), expected, "{what}");
    }
    let only_rsa = Provider {
        algorithms: SigningAlgorithms::CLERKS,
        ..provider()
    };
    let es256 = text(r#"{"alg":"ES256"}"#, &payload);
    assert_eq!(
        believed(&only_rsa, &es256, "n-0").err(),
        Some(Denial::invalid(Rule::Algorithm))
    );
}

#[test]
fn what_is_no_assertion_breaks_its_form_or_size() {
    let good = text(HEADER, &claims(&json!({})).to_string());
    for (what, text, rule) in [
        ("nothing", String::new(), Rule::Form),
        (
            "two parts",
            good.rsplit_once('.').expect("parts").0.to_owned(),
            Rule::Form,
        ),
        ("four parts", format!("{good}.x"), Rule::Form),
        ("padding", format!("{good}="), Rule::Form),
        ("a payload that is a list", text(HEADER, "[]"), Rule::Form),
        (
            "something behind the payload",
            text(HEADER, "{} {}"),
            Rule::Form,
        ),
        (
            "a header parameter twice",
            text(r#"{"alg":"RS256","alg":"RS256"}"#, "{}"),
            Rule::Form,
        ),
        ("too long", "a".repeat(MAX_ASSERTION_BYTES + 1), Rule::Size),
        (
            "as long as may be",
            "a".repeat(MAX_ASSERTION_BYTES),
            Rule::Form,
        ),
    ] {
        let found = believed(&provider(), &text, "n-0").err();
        assert_eq!(found, Some(Denial::invalid(rule)), "{what}");
    }
}

#[test]
fn a_nonce_that_only_one_side_has_is_denied_even_where_none_is_required() {
    let optional = Provider {
        nonce: Nonce::Optional,
        ..provider()
    };
    let text = |changes: Value| text(HEADER, &claims(&changes).to_string());
    let (with, without) = (text(json!({})), text(json!({"nonce": null})));
    for (what, provider, text, sent, good) in [
        ("both", &provider(), &with, "n-0", true),
        ("both, optional", &optional, &with, "n-0", true),
        ("neither", &provider(), &without, "", false),
        ("neither, optional", &optional, &without, "", true),
        ("the assertion only", &optional, &with, "", false),
        ("the call only", &optional, &without, "n-0", false),
        ("another, optional", &optional, &with, "n-1", false),
    ] {
        let rule = believed(provider, text, sent)
            .err()
            .map(|denial| denial.rule);
        assert_eq!(rule, (!good).then_some(Rule::Nonce), "{what}");
    }
}

#[test]
fn if_enrolled_asks_of_whom_has_a_second_factor_at_clerk() {
    let provider = Provider {
        second_factor: SecondFactor::IfEnrolled,
        ..provider()
    };
    let assertion = |changes: Value| {
        let text = text(HEADER, &claims(&changes).to_string());
        let unverified = parse(&text, &provider, &mut Steps::off()).expect("parsed");
        unverified
            .into_assertion(&text, &mut Steps::off())
            .expect("read")
    };
    let judged = |changes: Value, enrolled| {
        second_factor(&assertion(changes), &provider, enrolled, &mut Steps::off())
            .map_err(|denial| denial.reason)
    };
    let weak = || json!({"amr": ["pwd"]});
    assert_eq!(judged(weak(), None), Ok(false), "it has to be known");
    assert_eq!(judged(weak(), Some(false)), Ok(true));
    assert_eq!(judged(weak(), Some(true)), Err(Reason::MfaRequired));
    assert_eq!(judged(json!({}), Some(true)), Ok(true));
    assert_eq!(judged(json!({}), None), Ok(true), "nobody has to be asked");
}

#[test]
fn off_asks_for_no_second_factor_and_still_refuses_a_wrong_type() {
    let off = Provider {
        second_factor: SecondFactor::Off,
        ..provider()
    };
    let with = |changes: Value| {
        let text = text(HEADER, &claims(&changes).to_string());
        believed(&off, &text, "n-0").err().map(|denial| denial.rule)
    };
    assert_eq!(with(json!({"amr": null})), None);
    assert_eq!(with(json!({"amr": "mfa"})), Some(Rule::Claims));
}

#[test]
fn an_assertion_is_the_same_whoever_signed_it_again() {
    let once = |text: &str| {
        let unverified = parse(text, &provider(), &mut Steps::off()).expect("parsed");
        once(&unverified, text)
    };
    let text = |changes: Value, signature: &str| {
        let whole = text(HEADER, &claims(&changes).to_string());
        let (input, _) = whole.rsplit_once('.').expect("parts");
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let nameless = || json!({"jti": null});
    assert_eq!(once(&text(nameless(), "a")), once(&text(nameless(), "b")));
    let (a, b) = (
        json!({"jti": null, "sub": "a"}),
        json!({"jti": null, "sub": "b"}),
    );
    assert_ne!(once(&text(a, "a")), once(&text(b, "a")));
    // By its jti, whatever else is in it.
    let (a, b) = (json!({"sub": "a"}), json!({"sub": "b"}));
    assert_eq!(once(&text(a, "a")), once(&text(b, "a")));
    let other = json!({"jti": "two"});
    assert_ne!(once(&text(json!({}), "a")), once(&text(other, "a")));
}

#[test]
fn a_use_is_remembered_until_no_clock_takes_the_assertion_any_more() {
    let until = |changes: Value| {
        let text = text(HEADER, &claims(&changes).to_string());
        let unverified = parse(&text, &provider(), &mut Steps::off()).expect("parsed");
        let assertion = unverified
            .into_assertion(&text, &mut Steps::off())
            .expect("read");
        used_until(&assertion, Duration::from_secs(5)).unix_seconds()
    };
    assert_eq!(until(json!({})), NOW + 305);
    // However long it says that it is good.
    assert_eq!(until(json!({"exp": NOW + 86_400})), NOW - 5 + 605);
}

#[test]
fn only_one_who_may_sign_in_is_let_in() {
    let person = |change: fn(&mut Person)| {
        let mut person = Person {
            id: "user_1".parse().expect("an id"),
            banned: false,
            locked: false,
            deprovisioned: false,
            second_factor: false,
        };
        change(&mut person);
        person
    };
    for (change, expected) in [
        ((|_| {}) as fn(&mut Person), None),
        (|it| it.banned = true, Some(Reason::UserBanned)),
        (
            |it| it.deprovisioned = true,
            Some(Reason::UserDeprovisioned),
        ),
        (|it| it.locked = true, Some(Reason::UserLocked)),
    ] {
        let found = standing(&person(change), &mut Steps::off());
        assert_eq!(found.err().map(|denial| denial.reason), expected);
    }
    let one = || person(|_| {});
    let found = |people| one_of(people, &mut Steps::off()).map_err(|denial| denial.reason);
    assert_eq!(found(vec![]), Ok(None));
    assert_eq!(found(vec![one()]), Ok(Some(one())));
    assert_eq!(found(vec![one(), one()]), Err(Reason::UserUnmatched));
}

#[test]
fn nothing_of_an_assertion_is_printed() {
    let text = text(HEADER, &claims(&json!({})).to_string());
    let unverified = parse(&text, &provider(), &mut Steps::off()).expect("parsed");
    let mut printed = format!("{unverified:?}");
    let assertion = unverified
        .into_assertion(&text, &mut Steps::off())
        .expect("read");
    printed += &format!("{assertion:?}");
    printed += &format!("{:?}", whom(&assertion, &provider(), &mut Steps::off()));
    for secret in ["n-0", "lice@", "subject-1", &text[..20]] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

proptest! {
    #[test]
    fn whatever_comes_it_is_read_or_denied(text in ".{0,200}", header in ".{0,60}", payload in ".{0,200}") {
        let _ = believed(&provider(), &text, "n-0");
        let _ = believed(&provider(), &self::text(&header, &payload), "n-0");
        let _ = believed(&provider(), &self::text(HEADER, &payload), "n-0");
    }
}
