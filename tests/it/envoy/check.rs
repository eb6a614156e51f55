//! `Check` as Envoy's own messages ask it, without Envoy between.

use std::collections::HashMap;

use clerk_authz::{emulator::TokenSpec, settings::ListenAddr};
use envoy_types::{
    ext_authz::v3::pb::{CheckRequest, CheckResponse, HeaderValue, HttpResponse},
    pb::{
        envoy::{
            config::core::v3::HeaderMap,
            service::auth::v3::{
                AttributeContext,
                attribute_context::{HttpRequest, Request},
                authorization_client::AuthorizationClient,
            },
        },
        google::protobuf::value::Kind,
    },
};
use tonic::{Code, Status};

use super::{POLICY, service};
use crate::support::{Fixture, channel};

pub fn http(path: &str, authorization: &str) -> HttpRequest {
    HttpRequest {
        method: "GET".to_owned(),
        host: "app.example".to_owned(),
        path: path.to_owned(),
        scheme: "https".to_owned(),
        headers: [("authorization".to_owned(), authorization.to_owned())].into(),
        ..HttpRequest::default()
    }
}

pub async fn check(
    fixture: &Fixture,
    http: Option<HttpRequest>,
    context: &[(&str, &str)],
) -> Result<CheckResponse, Status> {
    check_at(fixture.service.grpc_addr(), asking(http, context)).await
}

/// The message that asks.
pub fn asking(http: Option<HttpRequest>, context: &[(&str, &str)]) -> CheckRequest {
    let pairs = context.iter();
    let context_extensions: HashMap<_, _> = pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let attributes = AttributeContext {
        request: http.map(|http| Request {
            http: Some(http),
            time: None,
        }),
        context_extensions,
        ..AttributeContext::default()
    };
    CheckRequest {
        attributes: Some(attributes),
    }
}

pub async fn check_at(
    addr: impl Into<ListenAddr>,
    request: CheckRequest,
) -> Result<CheckResponse, Status> {
    let mut client = AuthorizationClient::new(channel(addr).await);
    Ok(client.check(request).await?.into_inner())
}

/// The code of the answer and the reason in it; that both parts of it say the same.
fn said(answer: &CheckResponse) -> (Code, &str) {
    let status = answer.status.as_ref().expect("a status");
    let code = Code::from(status.code);
    match answer.http_response.as_ref().expect("an answer in HTTP") {
        HttpResponse::OkResponse(_) => assert_eq!(code, Code::Ok),
        HttpResponse::DeniedResponse(denied) => {
            assert_ne!(code, Code::Ok);
            assert!(denied.body.contains(&status.message), "{denied:?}");
        }
        HttpResponse::ErrorResponse(error) => panic!("Envoy may take it for a yes: {error:?}"),
    }
    (code, &status.message)
}

#[tokio::test]
async fn a_check_without_a_request_is_denied() {
    let (fixture, _policy) = service(POLICY).await;
    for http in [None, Some(HttpRequest::default())] {
        let answer = check(&fixture, http, &[]).await.expect("an answer");
        assert_eq!(said(&answer), (Code::PermissionDenied, "PATH_AMBIGUOUS"));
    }
    fixture.stop().await;
}

#[tokio::test]
async fn the_proxys_own_rules_only_narrow() {
    let (fixture, _policy) = service(POLICY).await;
    let bob = fixture.mint(&TokenSpec::session("user_bob"));
    let bob = format!("Bearer {bob}");
    let me = || Some(http("/me", &bob));

    for (context, expected) in [
        (&[][..], (Code::Ok, "ALLOWED")),
        (&[("access", "signed_in")], (Code::Ok, "ALLOWED")),
        (
            &[("access", "denied")],
            (Code::PermissionDenied, "ROUTE_DENIED"),
        ),
        (
            &[("role", "admin")],
            (Code::PermissionDenied, "ORGANIZATION_MISSING"),
        ),
        // What cannot be read lets nobody through.
        (
            &[("access", "public")],
            (Code::PermissionDenied, "ROUTE_DENIED"),
        ),
        (
            &[("permision", "a:b")],
            (Code::PermissionDenied, "ROUTE_DENIED"),
        ),
        (
            &[("reverification", "")],
            (Code::PermissionDenied, "ROUTE_DENIED"),
        ),
    ] {
        let answer = check(&fixture, me(), context).await.expect("an answer");
        assert_eq!(said(&answer), expected, "{context:?}");
    }
    let public = Some(http("/assets/a", "junk"));
    let answer = check(&fixture, public, &[("access", "signed_in")]).await;
    let answer = answer.expect("an answer");
    assert_eq!(said(&answer), (Code::Unauthenticated, "TOKEN_MALFORMED"));
    fixture.stop().await;
}

/// Envoy sends either form; who sends both says the same in both.
#[tokio::test]
async fn both_forms_of_headers_are_read() {
    let (fixture, _policy) = service(POLICY).await;
    let (alice, bob) = ("user_alice", "user_bob");
    let bearer = |user| format!("Bearer {}", fixture.mint(&TokenSpec::session(user)));
    let (alice, bob) = (bearer(alice), bearer(bob));
    let raw = |values: &[&str]| {
        let headers = values.iter().map(|value| HeaderValue {
            key: "Authorization".to_owned(),
            raw_value: value.as_bytes().to_vec(),
            ..HeaderValue::default()
        });
        let headers = headers.collect();
        Some(HeaderMap { headers })
    };
    let ambiguous = (Code::Unauthenticated, "CREDENTIALS_AMBIGUOUS");

    for (what, plain, header_map, expected) in [
        ("raw alone", None, raw(&[&alice]), (Code::Ok, "ALLOWED")),
        ("both", Some(&alice), raw(&[&alice]), (Code::Ok, "ALLOWED")),
        ("two raw", None, raw(&[&alice, &alice]), ambiguous),
        ("different", Some(&bob), raw(&[&alice]), ambiguous),
        (
            "none",
            None,
            raw(&[]),
            (Code::Unauthenticated, "TOKEN_MISSING"),
        ),
    ] {
        let mut http = http("/me", plain.map_or("", String::as_str));
        if plain.is_none() {
            http.headers.clear();
        }
        http.header_map = header_map;
        let answer = check(&fixture, Some(http), &[]).await.expect("an answer");
        assert_eq!(said(&answer), expected, "{what}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn logs_and_limits_of_envoy_are_told_of_the_decision() {
    let (fixture, _policy) = service(POLICY).await;
    let alice = fixture.mint(&TokenSpec::session("user_alice").in_organization("acme"));
    let asked = Some(http("/me", &format!("Bearer {alice}")));

    let answer = check(&fixture, asked, &[]).await.expect("an answer");

    let metadata = answer.dynamic_metadata.expect("metadata");
    let Some(Kind::StructValue(decision)) = &metadata.fields["clerk_authz"].kind else {
        panic!("{metadata:?}");
    };
    let text = |name: &str| match decision.fields.get(name).and_then(|it| it.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.clone(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(text("reason"), "ALLOWED");
    assert_eq!(text("route"), "me");
    assert_eq!(text("user_id"), "user_alice");
    assert_eq!(text("organization_id"), "org_acme");
    assert_eq!(text("policy_version").len(), 12);
    assert_eq!(text("decision_id").len(), 16);
    fixture.stop().await;
}

/// Ten megabytes are refused before they are read, many small headers are read in a moment.
#[tokio::test]
async fn large_header_maps_end_no_service() {
    let (fixture, _policy) = service(POLICY).await;
    let alice = format!("Bearer {}", fixture.mint(&TokenSpec::session("user_alice")));
    let with = |count: usize, value: String| {
        let mut http = http("/me", &alice);
        let headers = (0..count).map(|index| HeaderValue {
            key: format!("x-clerk-{index}"),
            value: value.clone(),
            ..HeaderValue::default()
        });
        let headers = headers.collect();
        http.header_map = Some(HeaderMap { headers });
        Some(http)
    };

    let refused = check(&fixture, with(100, "x".repeat(100_000)), &[]).await;
    assert_eq!(refused.expect_err("refused").code(), Code::OutOfRange);
    let many = check(&fixture, with(50_000, String::new()), &[]).await;
    assert_eq!(said(&many.expect("an answer")), (Code::Ok, "ALLOWED"));
    fixture.stop().await;
}
