//! `VerifySession`, `BatchVerifySession` and `ExplainDecision` through the gRPC door.

use clerk_authz::{
    door::grpc::proto::{self, verify_session_request::Credential},
    emulator::{Kind, TokenSpec},
    server::Limits,
};
use prost::Message;
use serde_json::json;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::support::{
    Fixture, Reason, about, about_http, assert_denied,
    directory::TestClock,
    offline_clerk,
    raw::{framed, raw},
    reason_of, settings_for,
};

#[tokio::test]
async fn a_good_token_is_answered_with_all_that_it_says() {
    let fixture = Fixture::start().await;
    let mut spec = TokenSpec::session("user_alice").in_organization("acme");
    spec.impersonated_by = Some("user_bob".into());
    spec.factor_ages = Some([3, -1]);
    spec.session = Some("sess_1".into());
    let token = fixture.mint(&spec.with_claim("tier", json!({"level": 3})));

    let session = fixture.verify(&token).await.expect("accepted");

    assert_eq!(session.user_id, "user_alice");
    assert_eq!(session.session_id, "sess_1");
    assert_eq!(session.token_type(), proto::TokenType::SessionToken);
    assert_eq!(session.token_version, 2);
    assert_eq!(session.issuer, fixture.instance().issuer().as_str());
    assert_eq!(session.authorized_party, "http://localhost:3000");
    assert_eq!(session.status(), proto::SessionStatus::Active);
    let life = session.expires_at.expect("set").seconds - session.issued_at.expect("set").seconds;
    assert_eq!(life, 60);
    let organization = session.organization.expect("active");
    assert_eq!(
        (&*organization.id, &*organization.slug),
        ("org_acme", "acme")
    );
    assert_eq!(organization.role, "org:admin");
    assert_eq!(
        organization.permissions,
        [
            "org:invoices:read",
            "org:invoices:create",
            "org:reports:read"
        ]
    );
    assert_eq!(session.actor.expect("impersonated").subject, "user_bob");
    let ages = session.factor_ages.expect("set");
    assert_eq!(
        (ages.first.map(|age| age.seconds), ages.second),
        (Some(180), None)
    );
    assert_eq!(session.features.len(), 3);
    assert!(
        session
            .custom_claims
            .expect("one")
            .fields
            .contains_key("tier")
    );
    fixture.stop().await;
}

#[tokio::test]
async fn each_denial_has_its_reason_and_its_nearest_allow() {
    let fixture = Fixture::start_with(&[("CLERK_AUDIENCES", "api")]).await;
    let good = TokenSpec::session("user_alice");
    assert!(fixture.verify(&fixture.mint(&good)).await.is_ok());
    let change = |change: fn(&mut TokenSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        fixture.mint(&spec)
    };
    let cases = [
        (Reason::TokenMissing, String::new()),
        (Reason::TokenMalformed, "a.b.c".into()),
        (Reason::TokenTooLarge, "a".repeat(16 * 1024 + 1)),
        (
            Reason::AlgorithmNotAllowed,
            change(|s| {
                s.header.insert("alg".into(), json!("none"));
            }),
        ),
        (
            Reason::TokenMalformed,
            change(|s| {
                s.header.insert("crit".into(), json!(["b64"]));
            }),
        ),
        (
            Reason::IssuerMismatch,
            change(|s| {
                s.claims
                    .insert("iss".into(), json!("https://clerk.other.com"));
            }),
        ),
        (
            Reason::KeyUnknown,
            change(|s| {
                s.header.insert("kid".into(), json!("ins_other"));
            }),
        ),
        (Reason::SignatureInvalid, change(|s| s.forged = true)),
        (
            Reason::TokenTypeNotAccepted,
            change(|s| s.kind = Kind::Template),
        ),
        (Reason::TokenTypeNotAccepted, change(|s| s.kind = Kind::M2m)),
        (
            Reason::TokenTypeNotAccepted,
            change(|s| s.kind = Kind::Oauth),
        ),
        (
            Reason::ClaimInvalid,
            change(|s| {
                s.claims.insert("exp".into(), json!("1800000000"));
            }),
        ),
        (
            Reason::AudienceMismatch,
            change(|s| s.audience = Some(json!("other"))),
        ),
        (
            Reason::AuthorizedPartyMismatch,
            change(|s| s.authorized_party = Some("https://evil.example".into())),
        ),
        (
            Reason::AuthorizedPartyMismatch,
            change(|s| s.authorized_party = Some(String::new())),
        ),
        (Reason::TokenExpired, change(|s| s.expired = true)),
        (Reason::TokenNotYetValid, change(|s| s.not_yet_valid = true)),
        (
            Reason::TokenIssuedInFuture,
            change(|s| s.issued_in_seconds = 3_600),
        ),
        (Reason::SessionPending, change(|s| s.pending = true)),
    ];
    for (reason, token) in cases {
        let what = format!(
            "{reason} of {}…",
            token.chars().take(20).collect::<String>()
        );
        // `nbf` is ten seconds before `iat`: of the two the token's future `nbf` is seen first.
        let reason = if reason == Reason::TokenIssuedInFuture {
            Reason::TokenNotYetValid
        } else {
            reason
        };
        assert_denied(fixture.verify(&token).await, reason, &what);
    }
    let mut future = good.clone();
    future.issued_in_seconds = 3_600;
    let future = fixture.mint(&future.with_claim("nbf", json!(0)));
    assert_denied(
        fixture.verify(&future).await,
        Reason::TokenIssuedInFuture,
        "iat in the future",
    );
    let audience = change(|s| s.audience = Some(json!(["other", "api"])));
    assert!(
        fixture.verify(&audience).await.is_ok(),
        "one of two audiences"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_request_narrows_and_never_widens_what_is_configured() {
    let fixture = Fixture::start().await;
    let own = fixture.mint(&TokenSpec::session("user_alice"));
    let mut foreign = TokenSpec::session("user_alice");
    foreign.authorized_party = Some("https://evil.example".into());
    let foreign = fixture.mint(&foreign);
    let narrowed = |token: &str, party: &str| proto::VerifySessionRequest {
        authorized_parties: vec![party.to_owned()],
        ..about(token)
    };

    assert!(
        fixture
            .ask(narrowed(&own, "http://localhost:3000"))
            .await
            .is_ok()
    );
    for (token, party) in [
        (&own, "https://evil.example"),
        (&foreign, "https://evil.example"),
        (&own, "http://localhost:3000/"),
    ] {
        let answer = fixture.ask(narrowed(token, party)).await;
        assert_denied(answer, Reason::AuthorizedPartyMismatch, party);
    }
    fixture.stop().await;
}

#[tokio::test]
async fn step_up_looks_at_the_factors() {
    use proto::reverification::Requirement;
    let fixture = Fixture::start().await;
    let mut spec = TokenSpec::session("user_alice");
    spec.factor_ages = Some([10, -1]);
    let token = fixture.mint(&spec);
    let ask = |requirement: Requirement| proto::VerifySessionRequest {
        reverification: Some(proto::Reverification {
            requirement: Some(requirement),
        }),
        ..about(&token)
    };
    let strict = Requirement::Preset(proto::ReverificationPreset::Strict.into());
    let moderate = Requirement::Preset(proto::ReverificationPreset::Moderate.into());

    assert_denied(
        fixture.ask(ask(strict)).await,
        Reason::ReverificationRequired,
        "strict",
    );
    assert!(fixture.ask(ask(moderate)).await.is_ok());
    fixture.stop().await;
}

#[tokio::test]
async fn tokens_are_found_in_headers_and_cookies() {
    let fixture = Fixture::start().await;
    let token = fixture.mint(&TokenSpec::session("user_alice"));
    let other = fixture.mint(&TokenSpec::session("user_bob"));
    let cookie = fixture.instance().cookie(&token);
    let bearer = format!("Bearer {token}");

    for request in [
        about_http(&[&bearer], &[]),
        about_http(&[], &[&cookie]),
        about_http(&[&bearer], &[&cookie]),
        about_http(&["Basic dXNlcjpwYXNz"], &[&cookie]),
    ] {
        assert_eq!(
            fixture.ask(request).await.expect("accepted").user_id,
            "user_alice"
        );
    }
    let foreign = format!("Bearer {other}");
    for (request, reason) in [
        (about_http(&[], &[]), Reason::TokenMissing),
        (
            about_http(&[&foreign], &[&cookie]),
            Reason::CredentialsAmbiguous,
        ),
        (
            about_http(&[&bearer, &bearer], &[]),
            Reason::CredentialsAmbiguous,
        ),
    ] {
        assert_denied(fixture.ask(request).await, reason, reason.name());
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_malformed_request_names_its_fields() {
    let fixture = Fixture::start().await;
    let request = proto::VerifySessionRequest {
        accepted_token_types: vec![9],
        ..Default::default()
    };

    let status = fixture.ask(request).await.expect_err("refused");

    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    let fields: Vec<_> = details
        .bad_request()
        .expect("set")
        .field_violations
        .iter()
        .map(|v| &*v.field)
        .collect();
    assert_eq!(fields, ["accepted_token_types", "credential"]);
    fixture.stop().await;
}

#[tokio::test]
async fn a_batch_answers_each_in_order_as_the_single_call_would() {
    use proto::batch_verify_session_result::Result as Of;
    let fixture = Fixture::start().await;
    let good = fixture.mint(&TokenSpec::session("user_alice"));
    let mut forged = TokenSpec::session("user_bob");
    forged.forged = true;
    let requests = vec![
        about(&good),
        about(&fixture.mint(&forged)),
        proto::VerifySessionRequest::default(),
        about(&good),
    ];

    let results = fixture
        .client
        .clone()
        .batch_verify_session(proto::BatchVerifySessionRequest { requests })
        .await
        .expect("answered")
        .into_inner()
        .results;

    assert_eq!(results.len(), 4);
    assert!(matches!(results[0].result, Some(Of::Response(_))));
    assert!(matches!(results[3].result, Some(Of::Response(_))));
    let Some(Of::Status(denied)) = &results[1].result else {
        panic!("denied")
    };
    assert_eq!(denied.code, Code::Unauthenticated as i32);
    let info = tonic_types::pb::ErrorInfo::default();
    assert!(
        denied.details.iter().any(|detail| {
            detail.type_url.ends_with("google.rpc.ErrorInfo")
                && String::from_utf8_lossy(&detail.value).contains("SIGNATURE_INVALID")
        }),
        "{denied:?} {info:?}"
    );
    let Some(Of::Status(malformed)) = &results[2].result else {
        panic!("malformed")
    };
    assert_eq!(malformed.code, Code::InvalidArgument as i32);
    fixture.stop().await;
}

#[tokio::test]
async fn a_batch_has_1_to_1000_requests() {
    let fixture = Fixture::start().await;
    let token = fixture.mint(&TokenSpec::session("user_alice"));
    for (count, good) in [(0, false), (1, true), (1_000, true), (1_001, false)] {
        let requests = vec![about(&token); count];
        let answer = fixture
            .client
            .clone()
            .batch_verify_session(proto::BatchVerifySessionRequest { requests })
            .await;
        match answer {
            Ok(response) => {
                assert!(good, "{count} were answered");
                assert_eq!(response.into_inner().results.len(), count);
            }
            Err(status) => {
                assert!(!good, "{count}: {status:?}");
                assert_eq!(status.code(), Code::InvalidArgument);
            }
        }
    }
    fixture.stop().await;
}

#[tokio::test]
async fn an_explanation_shows_every_rule_and_the_same_answer() {
    let fixture = Fixture::start().await;
    let explain = async |token: &str| {
        let decision = proto::explain_decision_request::Decision::VerifySession(about(token));
        let request = proto::ExplainDecisionRequest {
            decision: Some(decision),
        };
        fixture
            .client
            .clone()
            .explain_decision(request)
            .await
            .expect("explained")
            .into_inner()
    };
    let good = fixture.mint(&TokenSpec::session("user_alice"));
    let mut expired = TokenSpec::session("user_alice");
    expired.expired = true;

    let accepted = explain(&good).await;
    assert_eq!(accepted.outcome(), proto::DecisionOutcome::Accepted);
    assert_eq!(accepted.session.expect("set").user_id, "user_alice");
    assert!(
        accepted
            .steps
            .iter()
            .all(|step| step.outcome() != proto::StepOutcome::Failed)
    );

    let denied = explain(&fixture.mint(&expired)).await;
    assert_eq!(denied.outcome(), proto::DecisionOutcome::Denied);
    assert_eq!(denied.reason(), proto::Reason::TokenExpired);
    assert_eq!(denied.session, None);
    let failed: Vec<_> = denied
        .steps
        .iter()
        .filter(|s| s.outcome() == proto::StepOutcome::Failed)
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].rule, "expiry");
    assert!(
        failed[0].detail.contains("before now"),
        "{}",
        failed[0].detail
    );
    let rules: Vec<_> = clerk_authz::explain::Rule::OF_VERIFICATION
        .iter()
        .map(|rule| rule.name())
        .collect();
    assert_eq!(
        denied
            .steps
            .iter()
            .map(|step| &*step.rule)
            .collect::<Vec<_>>(),
        rules
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_request_id_goes_in_and_out() {
    let fixture = Fixture::start().await;
    let token = fixture.mint(&TokenSpec::session("user_alice"));
    let id_of = async |given: Option<&str>, token: &str| {
        let mut request = Request::new(about(token));
        if let Some(given) = given {
            request
                .metadata_mut()
                .insert("x-request-id", given.parse().expect("ASCII"));
        }
        let metadata = match fixture.client.clone().verify_session(request).await {
            Ok(response) => response.metadata().clone(),
            Err(status) => status.metadata().clone(),
        };
        let id = metadata.get("x-request-id");
        id.map(|id| id.to_str().expect("ASCII").to_owned())
    };
    let own = |id: &str| Some(id.to_owned());
    assert_eq!(id_of(Some("abc-1"), &token).await, own("abc-1"));
    assert_eq!(id_of(Some("abc-2"), "junk").await, own("abc-2"));
    assert_eq!(
        id_of(None, &token).await,
        None,
        "nothing is logged under it"
    );
    let (first, second) = (id_of(None, "junk").await, id_of(None, "junk").await);
    assert!(first.is_some(), "a denial is found in the log by it");
    assert_ne!(first, second);
    let long = "x".repeat(200);
    assert_eq!(id_of(Some(&long), &token).await, None);
    let denied = id_of(Some(&long), "junk").await;
    assert!(denied.is_some_and(|id| id != long));
    fixture.stop().await;
}

#[tokio::test]
async fn the_callers_deadline_ends_a_call_that_waits_for_keys() {
    let clock = TestClock::at_now();
    let clerk = offline_clerk().await;
    let settings = settings_for(&clerk, &[]);
    let fixture = Fixture::start_under(Limits::default(), clerk, &settings, &clock).await;
    fixture
        .instance()
        .set_faults(clerk_authz::emulator::Faults::slow(4_000));
    let unknown = TokenSpec::session("user_alice").with_header("kid", json!("ins_new"));
    // Past the cooldown of the first fetch, so that this one asks.
    clock.step(6);
    let request = framed(&about(&fixture.mint(&unknown)).encode_to_vec());

    // Raw: tonic's client would end the call itself.
    let path = "/clerkauthz.v1.AuthzService/VerifySession";
    let status = raw(&fixture, path, &[("grpc-timeout", "200m")], request).await;

    assert_eq!(status, "4", "the server ends it");
    let good = fixture.mint(&TokenSpec::session("user_alice"));
    assert!(
        fixture.verify(&good).await.is_ok(),
        "a known kid does not wait"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn tokens_keep_verifying_while_clerk_is_down() {
    let fixture = Fixture::start().await;
    fixture
        .instance()
        .set_faults(clerk_authz::emulator::Faults::always(
            clerk_authz::emulator::Fault::Down,
        ));
    let token = fixture.mint(&TokenSpec::session("user_alice"));
    assert!(fixture.verify(&token).await.is_ok());
    fixture.stop().await;
}

#[tokio::test]
async fn a_credential_must_be_set_but_may_be_empty() {
    let fixture = Fixture::start().await;
    let empty = proto::VerifySessionRequest {
        credential: Some(Credential::Token(String::new())),
        ..Default::default()
    };
    let status = fixture.ask(empty).await.expect_err("denied");
    assert_eq!(reason_of(&status), "TOKEN_MISSING");
    let unset = fixture
        .ask(proto::VerifySessionRequest::default())
        .await
        .expect_err("refused");
    assert_eq!(unset.code(), Code::InvalidArgument);
    fixture.stop().await;
}

/// The documents and the rules are one list, in one order.
#[test]
fn the_documents_have_every_rule_in_order() {
    use clerk_authz::explain::Rule;

    let documented = |document: &'static str| {
        let rows = document.lines().filter_map(|line| {
            let (rule, _) = line.strip_prefix("| `")?.split_once("` |")?;
            Some(rule)
        });
        rows.collect::<Vec<_>>()
    };
    let names = |rules: &[Rule]| rules.iter().map(|rule| rule.name()).collect::<Vec<_>>();

    let verification = documented(include_str!("../../docs/verification.md"));
    assert_eq!(verification, names(Rule::OF_VERIFICATION));
    // Of the decisions' own: what is not the verification's, and the step-up that both have.
    let own: Vec<Rule> = Rule::OF_CHECK
        .iter()
        .copied()
        .filter(|rule| *rule == Rule::Reverification || !Rule::OF_VERIFICATION.contains(rule))
        .collect();
    assert_eq!(
        documented(include_str!("../../docs/decisions.md")),
        names(&own)
    );
}
