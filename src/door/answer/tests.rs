use super::*;

fn authorization(reason: Reason, outcome: Outcome) -> Authorization {
    Authorization {
        reason,
        route: Some("invoices".into()),
        policy_version: "0123456789ab".into(),
        outcome,
        upstream: crate::policy::Upstream::Default,
        refused: None,
        browser: None,
    }
}

fn refusal(reason: Reason, outcome: Outcome) -> Refusal {
    match answer(&authorization(reason, outcome), Some("a.b.c"), "d1") {
        Answer::Refuse(refusal) => refusal,
        forwarded @ Answer::Forward(_) => panic!("{forwarded:?}"),
    }
}

fn header(refusal: &Refusal, name: HeaderName) -> Option<&str> {
    let found = refusal.headers.iter().find(|(known, _)| *known == name)?;
    found.1.to_str().ok()
}

#[test]
fn who_is_not_signed_in_hears_why_and_nobody_keeps_the_answer() {
    let expired = refusal(
        Reason::TokenExpired,
        Outcome::Unauthenticated { sign_in: None },
    );

    assert_eq!(expired.status, 401);
    assert_eq!(header(&expired, CACHE_CONTROL), Some("no-store"));
    assert_eq!(
        header(&expired, WWW_AUTHENTICATE),
        Some(
            "Bearer realm=\"clerk-authz\", error=\"invalid_token\", \
             error_description=\"TOKEN_EXPIRED: the token has expired\""
        )
    );
    assert_eq!(
        expired.body,
        r#"{"reason":"TOKEN_EXPIRED","decision_id":"d1","message":"the token has expired"}"#
    );

    let missing = refusal(
        Reason::TokenMissing,
        Outcome::Unauthenticated { sign_in: None },
    );
    assert_eq!(
        header(&missing, WWW_AUTHENTICATE),
        Some("Bearer realm=\"clerk-authz\"")
    );
}

#[test]
fn a_document_is_sent_to_the_sign_in_page() {
    let page = "https://app.example/sign-in?redirect_url=https%3A%2F%2Fapp.example%2F";
    let sign_in = Some(Box::new(page.parse().expect("an address")));

    let redirect = refusal(Reason::TokenMissing, Outcome::Unauthenticated { sign_in });

    assert_eq!(redirect.status, 302);
    assert_eq!(header(&redirect, LOCATION), Some(page));
    assert_eq!(header(&redirect, CACHE_CONTROL), Some("no-store"));
    assert_eq!(redirect.body, "");
}

#[test]
fn a_step_up_is_asked_for_in_the_shape_that_clerks_front_end_knows() {
    let asked: Reverification = "strict_mfa".parse().expect("a reverification");
    let step_up = Some(asked);

    let forbidden = refusal(
        Reason::ReverificationRequired,
        Outcome::Forbidden { step_up },
    );

    assert_eq!(forbidden.status, 403);
    let body: serde_json::Value = serde_json::from_str(&forbidden.body).expect("JSON");
    assert_eq!(
        body["clerk_error"],
        serde_json::json!({
            "type": "forbidden",
            "reason": "reverification-error",
            "metadata": { "reverification": { "level": "multi_factor", "afterMinutes": 10 } },
        })
    );
    let plain = refusal(Reason::RoleMismatch, Outcome::Forbidden { step_up: None });
    assert!(!plain.body.contains("clerk_error"), "{}", plain.body);
}

#[test]
fn what_cannot_be_told_says_when_to_ask_again() {
    for (milliseconds, seconds) in [(0, "1"), (100, "1"), (1_000, "1"), (1_001, "2")] {
        let retry_after = Duration::from_millis(milliseconds);
        let unavailable = refusal(
            Reason::KeysUnavailable,
            Outcome::Unavailable { retry_after },
        );
        assert_eq!(unavailable.status, 503);
        assert_eq!(header(&unavailable, RETRY_AFTER), Some(seconds));
    }
}

#[test]
fn every_reason_fits_into_a_challenge() {
    for reason in Reason::ALL {
        let description = reason.description();
        assert!(!description.contains(['"', '\\']), "{description}");
        assert!(
            HeaderValue::from_str(&challenge(*reason)).is_ok(),
            "{reason}"
        );
    }
}

#[test]
fn every_spelling_of_a_name_of_ours_is_removed() {
    for spelled in [
        "x-clerk-user-id",
        "X-Clerk-User-Id",
        "x_clerk_user_id",
        "x-clerk_user-id",
        "X_CLERK-anything",
        "x.clerk.user.id",
        "x-clerk-",
    ] {
        assert!(is_identity_header(spelled), "{spelled}");
    }
    for other in [
        "x-clerk",
        "clerk-user-id",
        "x-clerkuser-id",
        "xx-clerk-user-id",
        "authorization",
    ] {
        assert!(!is_identity_header(other), "{other}");
    }
}

#[test]
fn what_is_set_is_not_removed_again() {
    let public = authorization(Reason::RoutePublic, Outcome::Allowed { identity: None });
    let Answer::Forward(headers) = answer(&public, None, "d1") else {
        panic!("an allow");
    };
    assert_eq!(headers.set().count(), 1);

    let request = [
        "X-Clerk-Decision-Id",
        "x_clerk_decision_id",
        "X-Clerk-User-Id",
        "X-Clerk-Authz_Assertion",
        "x-other",
    ];
    let removed = headers.to_remove(request.into_iter());

    assert!(
        !removed.iter().any(|name| name == "x-clerk-decision-id"),
        "{removed:?}"
    );
    assert!(
        removed.iter().any(|name| name == "x_clerk_decision_id"),
        "{removed:?}"
    );
    assert!(
        removed.iter().any(|name| name == "x-clerk-user-id"),
        "{removed:?}"
    );
    for assertion in ["x-clerk-authz-assertion", "x-clerk-authz_assertion"] {
        assert!(removed.iter().any(|name| name == assertion), "{removed:?}");
    }
    assert_eq!(
        removed.len(),
        IDENTITY_HEADERS.len() + 1,
        "all names but one, and two spellings"
    );
}

#[test]
fn an_assertion_goes_on_with_a_request_and_with_no_refusal() {
    let allowed = authorization(Reason::Allowed, Outcome::Allowed { identity: None });
    let Answer::Forward(headers) = answer(&allowed, Some("a.b.c"), "d1") else {
        panic!("an allow");
    };
    let set: Vec<_> = headers
        .set()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    let expected = [
        ("x-clerk-authz-assertion", "a.b.c"),
        ("x-clerk-decision-id", "d1"),
    ];
    assert_eq!(set, expected);
    let removed = headers.to_remove(std::iter::empty());
    assert!(
        !removed.iter().any(|name| name == "x-clerk-authz-assertion"),
        "{removed:?}"
    );

    let denied = refusal(Reason::RoleMismatch, Outcome::Forbidden { step_up: None });
    let said = format!("{denied:?}");
    assert!(!said.contains("a.b.c"), "{said}");
}

/// A name as servers read it that fold signs into one: WSGI and CGI `-` and `_`, PHP all of them.
fn folded(name: &str) -> String {
    let folded = name.chars().map(|sign| match sign.is_ascii_alphanumeric() {
        true => sign.to_ascii_lowercase(),
        false => '_',
    });
    folded.collect()
}

proptest::proptest! {
    #[test]
    fn after_the_removal_no_server_reads_a_name_of_ours_that_is_not_ours(
        names in proptest::collection::vec(
            "[xX][-_.~!#$%&'*+^`|]?[cC][lL][eE][rR][kK][-_.~!#$%&'*+^`|]?[a-zA-Z_-]{0,12}|[a-z_.-]{1,12}",
            0..12,
        ),
    ) {
        let authorization =
            authorization(Reason::RoutePublic, Outcome::Allowed { identity: None });
        let Answer::Forward(headers) = answer(&authorization, None, "d1") else {
            panic!("an allow");
        };
        let removed = headers.to_remove(names.iter().map(String::as_str));
        let left = names.iter().map(|name| name.to_ascii_lowercase()).filter(|name| {
            !removed.iter().any(|removed| removed == name)
                && !headers.set().any(|(set, _)| set == name.as_str())
        });
        for name in left {
            proptest::prop_assert!(!folded(&name).starts_with("x_clerk_"), "{name} is left");
        }
    }
}
