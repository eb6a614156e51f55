//! A request's trace from the real Envoy through us to Clerk and the database.

use clerk_authz::emulator::TokenSpec;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};

use super::{
    collector::{Collector, attribute},
    traces::{CALLER, Scene, TRACE, hex},
};
use crate::{
    envoy::{
        asking, check_at, http,
        proxy::{Answer, Envoy, SetUp},
    },
    support::{eventually, upstream::Upstream},
};

/// Asks as one who wishes to be followed in a trace of its own choice. No token says whether Alice is an
/// admin there.
async fn asked_through(envoy: &Envoy, scene: &Scene) -> Answer {
    let token = scene.clerk.instances()[0].mint(&TokenSpec::session("user_alice"));
    let bearer = format!("Bearer {}", token.expect("a token"));
    let own = format!("00-{TRACE}-{CALLER}-01");
    let headers = [
        ("authorization", &*bearer),
        ("traceparent", &own),
        ("tracestate", "client=1"),
    ];
    let answer = envoy.ask("/of/org_acme", &headers).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

#[tokio::test]
async fn one_trace_leads_from_envoy_through_us_to_clerk_and_the_database() {
    let (collector, addr) = Collector::start().await;
    let scene = Scene::start(addr, &[("OTEL_TRACES_SAMPLER", "parentbased_always_off")]).await;
    let upstream = Upstream::start().await;
    let set_up = SetUp::Traced(addr, 100);
    let envoy = Envoy::start(set_up, scene.service.grpc_addr, upstream.addr).await;

    let answer = asked_through(&envoy, &scene).await;

    eventually("Envoy's spans and ours are there", async || {
        let spans = collector.spans();
        let is_there = |name: &str| spans.iter().any(|span| span.name == name);
        is_there("ingress") && is_there("envoy.service.auth.v3.Authorization/Check")
    })
    .await;
    let spans = collector.spans();
    let only = |name: &str| -> &Span {
        let mut of_it = spans.iter().filter(|span| span.name == name);
        let span = of_it.next().unwrap_or_else(|| panic!("{name}: {spans:?}"));
        assert!(of_it.next().is_none(), "{name}: {spans:?}");
        span
    };
    let way = [
        ("ingress", SpanKind::Server),
        (
            "async envoy.service.auth.v3.Authorization.Check egress",
            SpanKind::Client,
        ),
        (
            "envoy.service.auth.v3.Authorization/Check",
            SpanKind::Server,
        ),
        ("authorize", SpanKind::Internal),
    ];
    let [ingress, ..] = way.map(|(name, _)| only(name));
    let trace = hex(&ingress.trace_id);
    // Not as its client wished.
    assert_ne!(trace, TRACE);
    let mut parent = String::new();
    for (name, kind) in way {
        let span = only(name);
        assert_eq!(hex(&span.trace_id), trace, "{span:?}");
        assert_eq!(hex(&span.parent_span_id), parent, "{span:?}");
        assert_eq!(span.kind(), kind, "{span:?}");
        parent = hex(&span.span_id);
    }
    for (name, attributed, value) in [
        ("store.find_membership", "db.system.name", "sqlite"),
        (
            "clerk.request",
            "clerk_authz.endpoint",
            "organization_memberships",
        ),
    ] {
        let span = only(name);
        assert_eq!(hex(&span.trace_id), trace, "{span:?}");
        assert_eq!(hex(&span.parent_span_id), parent, "{span:?}");
        let found = attribute(&span.attributes, attributed);
        assert_eq!(found.as_deref(), Some(value), "{span:?}");
    }
    assert_eq!(spans.len(), way.len() + 2, "{spans:?}");
    // Clerk and the upstream are told of the same trace.
    let of_clerk = format!("00-{trace}-{}-01", hex(&only("clerk.request").span_id));
    assert_eq!(*scene.told.lock().expect("not poisoned"), [of_clerk]);
    let of_envoy = format!("00-{trace}-{}-01", hex(&ingress.span_id));
    assert_eq!(answer.received("traceparent"), [of_envoy]);
    assert_eq!(answer.received("tracestate"), [""]);
    let url = attribute(&ingress.attributes, "http.url").expect("the address");
    assert!(url.ends_with("/of/org_acme"), "{url}");
    scene.service.kill().await;
}

#[tokio::test]
async fn what_envoy_does_not_follow_is_not_followed_here() {
    let (collector, addr) = Collector::start().await;
    let scene = Scene::start(addr, &[("OTEL_TRACES_SAMPLER", "parentbased_always_on")]).await;
    let upstream = Upstream::start().await;
    let set_up = SetUp::Traced(addr, 0);
    let envoy = Envoy::start(set_up, scene.service.grpc_addr, upstream.addr).await;

    asked_through(&envoy, &scene).await;
    // Who says nothing of a trace is followed.
    check_at(
        scene.service.grpc_addr,
        asking(Some(http("/me", "Bearer junk")), &[]),
    )
    .await
    .expect("answered");

    let of_check = |spans: &[Span]| -> Vec<Option<String>> {
        let checks = spans.iter().filter(|span| span.name.ends_with("/Check"));
        let reason = |span: &Span| attribute(&span.attributes, "clerk_authz.reason");
        checks.map(reason).collect()
    };
    eventually("the other's span is there", async || {
        !of_check(&collector.spans()).is_empty()
    })
    .await;
    // The queue keeps the order: what came before it would be there.
    let expected = [Some("TOKEN_MALFORMED".to_owned())];
    assert_eq!(of_check(&collector.spans()), expected);
    assert!(scene.told.lock().expect("not poisoned").is_empty());
    scene.service.kill().await;
}
