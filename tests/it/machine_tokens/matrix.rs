//! Type of token × form × carrier × accepted types × door.

use clerk_authz::emulator::{Kind, TokenSpec};
use envoy_types::ext_authz::v3::pb::HttpResponse;
use serde_json::json;
use tonic::Code;

use super::{
    API_KEY, M2M, OAUTH, SESSION, Verified, accepting, ask, assert_said, machine, proto, start,
};
use crate::{
    envoy::{check, http},
    forward_auth::{self, Original},
    policy::PolicyFile,
    support::{Fixture, about_http, database::Place, offline_clerk, reason_of, settings_on},
};

const POLICY: &str = r#"version: 1
routes:
  - {name: session_token, path: /session_token, access: signed_in}
  - {name: m2m_token, path: /m2m_token, access: signed_in, accept: [m2m_token]}
  - {name: oauth_token, path: /oauth_token, access: signed_in, accept: [oauth_token]}
  - {name: api_key, path: /api_key, access: signed_in, accept: [api_key]}
  - {name: any, path: /any, access: signed_in, accept: [session_token, m2m_token, oauth_token, api_key]}
  - {name: billing, path: /billing, access: signed_in, accept: [m2m_token, api_key], scopes: [billing, "read:all"]}
  - {name: open, path: /open, access: public, accept: [session_token, m2m_token]}
"#;

const TYPES: [(proto::TokenType, &str); 4] = [
    (SESSION, "session_token"),
    (M2M, "m2m_token"),
    (OAUTH, "oauth_token"),
    (API_KEY, "api_key"),
];

/// A token of each type in each form; `None` is never accepted.
fn tokens() -> Vec<(&'static str, TokenSpec, Option<proto::TokenType>)> {
    let both = |kind| [TokenSpec::of(kind), TokenSpec::of(kind).as_opaque()];
    let [m2m, opaque_m2m] = both(Kind::M2m);
    let [oauth, opaque_oauth] = both(Kind::Oauth);
    vec![
        ("session", TokenSpec::of(Kind::Session), Some(SESSION)),
        ("session v1", TokenSpec::of(Kind::SessionV1), Some(SESSION)),
        ("M2M JWT", m2m.clone(), Some(M2M)),
        ("opaque M2M", opaque_m2m, Some(M2M)),
        ("OAuth JWT", oauth.clone(), Some(OAUTH)),
        ("opaque OAuth", opaque_oauth, Some(OAUTH)),
        ("API key", TokenSpec::of(Kind::ApiKey), Some(API_KEY)),
        ("template", TokenSpec::of(Kind::Template), None),
        (
            "M2M stamped by the instance",
            m2m.clone().with_header("cat", json!("cl_I7d4PD111III")),
            None,
        ),
        (
            "M2M stamped as a session",
            m2m.clone().with_header("cat", json!("cl_B7d4PD111AAA")),
            None,
        ),
        (
            "M2M with the marks of OAuth",
            m2m.with_header("typ", json!("at+jwt")),
            None,
        ),
        (
            "session stamped as M2M",
            TokenSpec::of(Kind::Session).with_header("cat", json!("cl_B7d4PD333AAA")),
            None,
        ),
    ]
}

/// Advisory 10, with every type that there is.
#[tokio::test]
async fn only_the_named_type_passes_over_grpc() {
    use proto::batch_verify_session_result::Result as Of;
    let fixture = start(&[]).await;
    let mut seen = 0;
    for (what, spec, is) in tokens() {
        let token = fixture.mint(&spec);
        let (bearer, cookie) = (format!("Bearer {token}"), fixture.instance().cookie(&token));
        for accepted in 0..16_usize {
            let bits = (0..4_usize).filter(|bit| accepted & (1 << bit) != 0);
            let types: Vec<_> = bits.map(|bit| TYPES[bit].0).collect();
            // None is session tokens alone.
            let accepts = |is: proto::TokenType| match &types[..] {
                [] => is == SESSION,
                types => types.contains(&is),
            };
            for (carrier, request) in [
                ("field", accepting(&token, &types)),
                ("header", about_http(&[&bearer], &[])),
                ("cookie", about_http(&[], &[&cookie])),
            ] {
                let request = proto::VerifySessionRequest {
                    accepted_token_types: types.iter().map(|each| (*each).into()).collect(),
                    ..request
                };
                let what = format!("{what} from {carrier} where {types:?}");
                let passes =
                    is.is_some_and(|is| accepts(is) && (is == SESSION || carrier != "cookie"));
                seen += 1;

                let single = ask(&fixture, request.clone()).await;
                match (&single, is) {
                    (Ok(Verified::Session(_)), Some(SESSION)) if passes => {}
                    (Ok(Verified::Machine(machine)), Some(is)) if passes => {
                        assert_eq!(machine.token_type(), is, "{what}");
                    }
                    (Err(_), _) if !passes => {}
                    other => panic!("{what}: {other:?}"),
                }
                if let Err(status) = single {
                    assert_eq!(status.code(), Code::Unauthenticated, "{what}");
                    assert_eq!(reason_of(&status), "TOKEN_TYPE_NOT_ACCEPTED", "{what}");
                }

                let batch = proto::BatchVerifySessionRequest {
                    requests: vec![request.clone()],
                };
                let batch = fixture.client.clone().batch_verify_session(batch).await;
                let batch = batch.expect("answered").into_inner();
                let in_batch = matches!(batch.results[0].result, Some(Of::Response(_)));
                assert_eq!(in_batch, passes, "{what} in a batch");

                let decision = proto::explain_decision_request::Decision::VerifySession(request);
                let explain = proto::ExplainDecisionRequest {
                    decision: Some(decision),
                };
                let explained = fixture.client.clone().explain_decision(explain).await;
                let explained = explained.expect("answered").into_inner();
                let accepted = explained.outcome() == proto::DecisionOutcome::Accepted;
                assert_eq!(accepted, passes, "{what} explained");
                let names = (explained.session.is_some(), explained.machine.is_some());
                let is_session = is == Some(SESSION);
                assert_eq!(
                    names,
                    (passes && is_session, passes && !is_session),
                    "{what}"
                );
                let mut rules: Vec<_> = explained.steps.iter().map(|step| &step.rule).collect();
                rules.dedup();
                assert_eq!(rules.len(), explained.steps.len(), "{what}: a rule twice");
            }
        }
    }
    println!("machine tokens over gRPC: {seen} cases");
    fixture.stop().await;
}

async fn start_with_policy() -> (Fixture, PolicyFile) {
    let file = PolicyFile::of(POLICY);
    let fixture = start(&[
        ("CLERK_AUTHZ_POLICY", file.text()),
        ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.0/8"),
    ])
    .await;
    (fixture, file)
}

#[tokio::test]
async fn only_the_named_type_passes_at_the_proxy_doors() {
    let (fixture, _file) = start_with_policy().await;
    let addr = fixture.service.http_addr();
    let mut seen = 0;
    for (what, spec, is) in tokens() {
        let token = fixture.mint(&spec);
        let (bearer, cookie) = (format!("Bearer {token}"), fixture.instance().cookie(&token));
        for (route, name) in TYPES
            .map(|(each, name)| (Some(each), name))
            .into_iter()
            .chain([(None, "any")])
        {
            for (carrier, value) in [("authorization", &bearer), ("cookie", &cookie)] {
                let passes = is.is_some_and(|is| {
                    route.is_none_or(|route| route == is) && (is == SESSION || carrier != "cookie")
                });
                let what = format!("{what} from {carrier} at {name}");
                seen += 1;
                let path = format!("/{name}");

                let original = Original::get(&path);
                let answer = forward_auth::ask(addr, &original, &[(carrier, value)]).await;
                let code = answer.status().as_u16();
                assert_eq!(code, if passes { 200 } else { 401 }, "{what}, forward-auth");
                if !passes {
                    let body = answer.text().await.expect("a body");
                    assert!(body.contains("TOKEN_TYPE_NOT_ACCEPTED"), "{what}: {body}");
                }

                let mut asked = http(&path, "");
                asked.headers = [(carrier.to_owned(), value.clone())].into();
                let answer = check(&fixture, Some(asked), &[]).await.expect("an answer");
                let code = Code::from(answer.status.expect("a status").code);
                let expected = if passes {
                    Code::Ok
                } else {
                    Code::Unauthenticated
                };
                assert_eq!(code, expected, "{what}, Envoy");
            }
        }
    }
    println!("machine tokens at the proxy doors: {seen} cases, each at two doors");
    fixture.stop().await;
}

#[tokio::test]
async fn the_upstream_is_told_which_machine_it_is_and_nothing_of_a_person() {
    let (fixture, _file) = start_with_policy().await;
    let addr = fixture.service.http_addr();
    let m2m = TokenSpec::of(Kind::M2m).with_scopes(&["mch_a", "b c,d"]);
    let key = TokenSpec {
        subject: Some("org_acme".into()),
        ..TokenSpec::of(Kind::ApiKey).with_scopes(&["billing"])
    };
    for (spec, path, expected) in [
        (
            m2m.as_opaque(),
            "/m2m_token",
            &[
                ("x-clerk-machine-id", "mch_2EmulatorMachine00000000000"),
                ("x-clerk-scopes", "mch_a,b%20c%2Cd"),
            ][..],
        ),
        (
            TokenSpec::of(Kind::Oauth),
            "/oauth_token",
            &[
                ("x-clerk-client-id", "client_2EmulatorClient000000000000"),
                ("x-clerk-scopes", "profile,email"),
                ("x-clerk-user-id", "user_alice"),
            ],
        ),
        (
            key,
            "/any",
            &[
                ("x-clerk-org-id", "org_acme"),
                ("x-clerk-scopes", "billing"),
            ],
        ),
    ] {
        let bearer = format!("Bearer {}", fixture.mint(&spec));
        let with = [("authorization", &*bearer)];
        let answer = forward_auth::ask(addr, &Original::get(path), &with).await;
        assert_eq!(answer.status(), 200, "{path}");
        let mut told: Vec<(String, String)> = answer
            .headers()
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("x-clerk-"))
            .filter(|(name, _)| *name != "x-clerk-decision-id")
            .map(|(name, value)| (name.to_string(), value.to_str().expect("ASCII").to_owned()))
            .collect();
        told.sort();
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        assert_eq!(told, expected.iter().map(own).collect::<Vec<_>>(), "{path}");

        // What a client says of itself is removed, where it is not replaced.
        let mut asked = http(path, &bearer);
        for name in ["x-clerk-scopes", "x_clerk_machine_id", "x-clerk-session-id"] {
            asked.headers.insert(name.to_owned(), "forged".to_owned());
        }
        let answer = check(&fixture, Some(asked), &[]).await.expect("an answer");
        let Some(HttpResponse::OkResponse(ok)) = answer.http_response else {
            panic!("an allow");
        };
        for name in ["x_clerk_machine_id", "x-clerk-session-id"] {
            assert!(
                ok.headers_to_remove.iter().any(|it| it == name),
                "{path}: {name}"
            );
        }
        let set = ok
            .headers
            .iter()
            .filter_map(|option| option.header.as_ref());
        let scopes: Vec<_> = set.filter(|it| it.key == "x-clerk-scopes").collect();
        assert_eq!(scopes.len(), 1, "{path}");
        assert_ne!(scopes[0].value, "forged");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_route_asks_for_every_scope_and_a_machine_has_no_permission() {
    let (fixture, _file) = start_with_policy().await;
    let addr = fixture.service.http_addr();
    for (scopes, code, reason) in [
        (&["billing", "read:all"][..], 200, ""),
        (&["read:all", "more", "billing"], 200, ""),
        (&["billing"], 403, "PERMISSION_MISSING"),
        (&["billing", "read"], 403, "PERMISSION_MISSING"),
        (&["billing read:all"], 403, "PERMISSION_MISSING"),
        (&[], 403, "PERMISSION_MISSING"),
    ] {
        let spec = TokenSpec::of(Kind::ApiKey).with_scopes(scopes);
        let bearer = format!("Bearer {}", fixture.mint(&spec));
        let with = [("authorization", &*bearer)];
        let answer = forward_auth::ask(addr, &Original::get("/billing"), &with).await;
        assert_eq!(answer.status(), code, "{scopes:?}");
        let body = answer.text().await.expect("a body");
        assert!(body.contains(reason), "{scopes:?}: {body}");
    }

    // What the proxy's own configuration asks of people no machine meets.
    let bearer = format!("Bearer {}", fixture.mint(&TokenSpec::of(Kind::M2m)));
    for (context, expected) in [
        (&[][..], "ALLOWED"),
        (&[("access", "signed_in")], "ALLOWED"),
        (&[("role", "admin")], "NOT_A_MEMBER"),
    ] {
        let asked = Some(http("/m2m_token", &bearer));
        let answer = check(&fixture, asked, context).await.expect("an answer");
        assert_eq!(
            answer.status.expect("a status").message,
            expected,
            "{context:?}"
        );
    }
    // Where nobody need be named, a token that is there must be good all the same.
    for (value, code) in [("", 200), (&*bearer, 200), ("Bearer ak_unknown", 401)] {
        let with = [("authorization", value)];
        let answer = forward_auth::ask(addr, &Original::get("/open"), &with).await;
        assert_eq!(answer.status(), code, "{value:.10}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn the_opaque_and_the_jwt_form_say_the_same() {
    let fixture = start(&[]).await;
    for (kind, token_type) in [(Kind::M2m, M2M), (Kind::Oauth, OAUTH)] {
        let spec = TokenSpec::of(kind).with_scopes(&["mch_a", "mch_b"]);
        let spec = match kind {
            Kind::M2m => spec.with_claim("team", json!({"name": "ops", "n": 1, "sid": null})),
            _ => spec,
        };
        let mut jwt = machine(&fixture, &fixture.mint(&spec), token_type).await;
        let opaque = machine(&fixture, &fixture.mint(&spec.as_opaque()), token_type).await;
        assert!(!jwt.token_id.is_empty() && !opaque.token_id.is_empty());
        assert_ne!(jwt.token_id, opaque.token_id);
        jwt.token_id.clone_from(&opaque.token_id);
        // They were made one after the other.
        let apart = |a: &Option<prost_types::Timestamp>, b: &Option<prost_types::Timestamp>| {
            let seconds =
                |time: &Option<prost_types::Timestamp>| time.as_ref().map(|it| it.seconds);
            (seconds(a).expect("a time") - seconds(b).expect("a time")).abs()
        };
        assert!(apart(&jwt.issued_at, &opaque.issued_at) <= 1);
        assert!(apart(&jwt.expires_at, &opaque.expires_at) <= 1);
        jwt.issued_at = opaque.issued_at;
        jwt.expires_at = opaque.expires_at;
        assert_eq!(jwt, opaque, "{kind:?}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_jwt_is_verified_without_asking_anybody_and_by_its_own_rules() {
    // No secret key: Clerk's API cannot be asked. Parties are configured, and no machine has an azp.
    let fixture = Fixture::start_with(&[("CLERK_AUDIENCES", "https://api.example")]).await;
    let m2m = || TokenSpec::of(Kind::M2m);
    let with_aud = |audience: &str| TokenSpec {
        audience: Some(json!([audience])),
        ..m2m()
    };
    for (what, spec, expected) in [
        ("good", m2m(), None),
        ("for this audience", with_aud("https://api.example"), None),
        (
            "for another",
            with_aud("https://x.example"),
            Some("AUDIENCE_MISMATCH"),
        ),
        (
            "forged",
            TokenSpec {
                forged: true,
                ..m2m()
            },
            Some("SIGNATURE_INVALID"),
        ),
        (
            "expired",
            TokenSpec {
                expired: true,
                ..m2m()
            },
            Some("TOKEN_EXPIRED"),
        ),
        (
            "early",
            TokenSpec {
                not_yet_valid: true,
                ..m2m()
            },
            Some("TOKEN_NOT_YET_VALID"),
        ),
        (
            "scopes of a wrong type",
            m2m().with_claim("scopes", json!(["a"])),
            Some("CLAIM_INVALID"),
        ),
        (
            "without exp",
            m2m().with_claim("exp", json!(null)),
            Some("CLAIM_INVALID"),
        ),
        (
            "of another issuer",
            m2m().with_claim("iss", json!("https://x.example")),
            Some("ISSUER_MISMATCH"),
        ),
    ] {
        let token = fixture.mint(&spec);
        // Once from the signature, once from the cache.
        for _ in 0..2 {
            let answer = ask(&fixture, accepting(&token, &[M2M])).await;
            match expected {
                None => assert!(
                    matches!(answer, Ok(Verified::Machine(_))),
                    "{what}: {answer:?}"
                ),
                Some(reason) => assert_said(answer, (Code::Unauthenticated, reason), what),
            }
        }
    }
    let token = fixture.mint(&m2m());
    machine(&fixture, &token, M2M).await;
    let signatures = fixture.service.verifier().stats().signatures;
    machine(&fixture, &token, M2M).await;
    assert_eq!(
        fixture.service.verifier().stats().signatures,
        signatures,
        "cached"
    );
    // The cache holds what a token is, and not that it is accepted.
    assert_said(
        ask(&fixture, accepting(&token, &[OAUTH])).await,
        (Code::Unauthenticated, "TOKEN_TYPE_NOT_ACCEPTED"),
        "cached as another type",
    );
    let step_up = proto::VerifySessionRequest {
        reverification: Some(proto::Reverification {
            requirement: Some(proto::reverification::Requirement::Preset(4)),
        }),
        ..accepting(&token, &[M2M])
    };
    assert_said(
        ask(&fixture, step_up).await,
        (Code::Unauthenticated, "REVERIFICATION_REQUIRED"),
        "no machine has verified a factor",
    );
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_asked_of_people_takes_no_machines_token() {
    let clerk = offline_clerk().await;
    let database = Place::sqlite();
    let settings = settings_on(&clerk, &database.url(), &[]);
    let fixture = Fixture::start_on(clerk, &settings).await;
    for (what, spec, is) in tokens() {
        let token = fixture.mint(&spec);
        let question = proto::CheckOrgPermissionRequest {
            subject: Some(proto::check_org_permission_request::Subject::Token(
                token.clone(),
            )),
            organization_id: "org_acme".into(),
            role: Some("admin".into()),
            ..Default::default()
        };
        let checked = fixture.client.clone().check_org_permission(question).await;
        let sync = proto::SyncUserRequest {
            subject: Some(proto::sync_user_request::Subject::Token(token)),
            ..Default::default()
        };
        let synced = fixture.client.clone().sync_user(sync).await;
        let answers = [("checked", checked.map(drop)), ("synced", synced.map(drop))];
        for (how, answer) in answers {
            if is == Some(SESSION) {
                assert!(answer.is_ok(), "{what} {how}: {answer:?}");
                continue;
            }
            let status = answer.expect_err(what);
            assert_eq!(status.code(), Code::Unauthenticated, "{what} {how}");
            assert_eq!(
                reason_of(&status),
                "TOKEN_TYPE_NOT_ACCEPTED",
                "{what} {how}"
            );
        }
    }
    fixture.stop().await;
}
