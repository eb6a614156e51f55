//! A call from its caller through us to Clerk and the database, as a collector sees it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request as HttpRequest, http::Response};
use clerk_authz::{
    door::grpc::proto::{self, GetUserRequest, get_user_request::Key, sync_user_request::Subject},
    emulator::{Emulator, TokenSpec},
    settings::{EnvironmentVariables, Settings, SettingsArgs},
};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use tokio::net::TcpListener;
use tonic::{Code, Request};

use super::{
    calls::value,
    collector::{Collector, attribute},
};
use crate::{
    envoy::{asking, check_at, http},
    policy::PolicyFile,
    support::{
        about, client, eventually, get, http_client, loopback, offline_clerk, process::Service,
    },
};

pub(super) const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
pub(super) const CALLER: &str = "b7ad6b7169203331";
/// What the second asks no token answers that is of another organization.
const ROUTES: &str = "
- {path: /me, access: signed_in}
- {path: '/of/{organization}', organization: '{organization}', access: {role: admin}}
";
/// A call that takes longer has waited for the collector.
pub(super) const AT_ONCE: Duration = Duration::from_secs(2);

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What stands between us and Clerk and keeps the `traceparent` of each request.
async fn between(clerk: String) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let listener = TcpListener::bind(loopback()).await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let keep = Arc::clone(&seen);
    let router = Router::new().fallback(async move |request: HttpRequest| {
        if let Some(told) = request.headers().get("traceparent") {
            let told = told.to_str().expect("text").to_owned();
            keep.lock().expect("not poisoned").push(told);
        }
        let mut onward = http_client().get(format!("{clerk}{}", request.uri()));
        for name in ["authorization", "clerk-api-version"] {
            if let Some(value) = request.headers().get(name) {
                onward = onward.header(name, value);
            }
        }
        let answer = onward.send().await.expect("answered");
        Response::builder()
            .status(answer.status())
            .header("content-type", "application/json")
            .body(Body::from(answer.bytes().await.expect("bytes")))
            .expect("an answer")
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (addr, seen)
}

pub(super) struct Scene {
    pub(super) clerk: Emulator,
    pub(super) service: Service,
    /// `traceparent` of requests to Clerk.
    pub(super) told: Arc<Mutex<Vec<String>>>,
    _files: (PolicyFile, tempfile::TempDir),
}

impl Scene {
    pub(super) async fn start(collector: SocketAddr, more: &[(&str, &str)]) -> Self {
        let clerk = offline_clerk().await;
        let instance = &clerk.instances()[0];
        let (issuer, secret_key) = (instance.issuer().to_string(), instance.secret_key());
        let (between, told) = between(issuer.clone()).await;
        let api = format!("http://{between}");
        let policy = PolicyFile::routes(ROUTES);
        let folder = tempfile::tempdir().expect("a folder");
        let database = format!("sqlite://{}", folder.path().join("mirror.db").display());
        let endpoint = format!("http://{collector}");
        let mut variables = vec![
            ("CLERK_PUBLISHABLE_KEY", instance.publishable_key().as_str()),
            ("CLERK_AUTHZ_ISSUER", &*issuer),
            ("CLERK_AUTHORIZED_PARTIES", "http://localhost:3000"),
            ("CLERK_SECRET_KEY", &*secret_key),
            ("CLERK_API_URL", &*api),
            ("CLERK_AUTHZ_DATABASE_URL", &*database),
            ("CLERK_AUTHZ_POLICY", policy.text()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "50"),
        ];
        variables.extend(more);
        let service = Service::start(&variables).await;
        eventually("it is ready", async || {
            get(service.http_addr, "/readyz").await.0 == 200
        })
        .await;
        Self {
            service,
            told,
            _files: (policy, folder),
            clerk,
        }
    }

    async fn sync(&self, traceparent: Option<&str>) {
        let mut request = Request::new(proto::SyncUserRequest {
            subject: Some(Subject::UserId("user_alice".to_owned())),
            ..Default::default()
        });
        if let Some(traceparent) = traceparent {
            let value = traceparent.parse().expect("a value");
            request.metadata_mut().insert("traceparent", value);
        }
        let mut client = client(self.service.grpc_addr).await;
        client.sync_user(request).await.expect("synced");
    }
}

#[tokio::test]
async fn one_trace_leads_from_the_caller_through_us_to_clerk_and_the_database() {
    let (collector, addr) = Collector::start().await;
    let more = [
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=test",
        ),
    ];
    let scene = Scene::start(addr, &more).await;

    scene.sync(Some(&format!("00-{TRACE}-{CALLER}-01"))).await;

    eventually("the call's span is there", async || {
        collector
            .spans()
            .iter()
            .any(|span| span.name.ends_with("/SyncUser"))
    })
    .await;
    let spans = collector.spans();
    let by_id: HashMap<String, &Span> = spans
        .iter()
        .map(|span| (hex(&span.span_id), span))
        .collect();
    let of = |name: &str| -> Vec<&Span> { spans.iter().filter(|span| span.name == name).collect() };
    let [call] = of("clerkauthz.v1.AuthzService/SyncUser")[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(call.kind(), SpanKind::Server);
    assert_eq!(
        attribute(&call.attributes, "rpc.grpc.status_code").as_deref(),
        Some("0")
    );
    for span in &spans {
        assert_eq!(hex(&span.trace_id), TRACE, "{span:?}");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        let mut parent = hex(&span.parent_span_id);
        while let Some(above) = by_id.get(&parent) {
            parent = hex(&above.parent_span_id);
        }
        assert_eq!(parent, CALLER, "{span:?}");
    }
    let asked = of("clerk.request");
    assert!(!asked.is_empty(), "{spans:?}");
    let endpoints: Vec<Option<String>> = asked
        .iter()
        .map(|span| attribute(&span.attributes, "clerk_authz.endpoint"))
        .collect();
    assert!(
        endpoints.contains(&Some("user".to_owned())),
        "{endpoints:?}"
    );
    let [stored] = of("store.apply")[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(
        attribute(&stored.attributes, "db.system.name").as_deref(),
        Some("sqlite")
    );
    // Clerk is told of the very span that asks it.
    let told = scene.told.lock().expect("not poisoned").clone();
    assert_eq!(told.len(), asked.len());
    for span in &asked {
        let parent = format!("00-{TRACE}-{}-01", hex(&span.span_id));
        assert!(told.contains(&parent), "{told:?}");
    }
    // A panel of durations leads to it.
    let metrics = get(scene.service.http_addr, "/metrics").await.1;
    let shown = metrics
        .lines()
        .filter(|line| line.contains(&format!(" # {{trace_id=\"{TRACE}\"}} ")));
    let shown: Vec<&str> = shown.collect();
    assert!(
        matches!(shown[..], [line] if line.contains("rpc=\"SyncUser\"")),
        "{shown:?}"
    );
    let resource = collector.resource();
    assert_eq!(
        attribute(&resource, "service.name").as_deref(),
        Some("clerk-authz")
    );
    assert_eq!(
        attribute(&resource, "deployment.environment.name").as_deref(),
        Some("test")
    );
    scene.service.kill().await;
}

#[tokio::test]
async fn who_does_not_want_to_be_followed_is_not_and_chance_follows_the_others() {
    let (collector, addr) = Collector::start().await;
    let more = [
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "1"),
    ];
    let scene = Scene::start(addr, &more).await;

    scene.sync(Some(&format!("00-{TRACE}-{CALLER}-00"))).await;
    scene.sync(Some("00-nonsense-01")).await;
    scene.sync(None).await;

    eventually("two calls are there", async || {
        let spans = collector.spans();
        spans
            .iter()
            .filter(|span| span.name.ends_with("/SyncUser"))
            .count()
            == 2
    })
    .await;
    for span in collector.spans() {
        assert_ne!(hex(&span.trace_id), TRACE, "{span:?}");
    }
    let told = scene.told.lock().expect("not poisoned").clone();
    assert!(told.iter().all(|told| !told.contains(TRACE)), "{told:?}");
    scene.service.kill().await;
}

#[tokio::test]
async fn a_proxied_request_is_followed_and_its_denial_is_in_the_logs_of_the_same_trace() {
    let (collector, addr) = Collector::start().await;
    let scene = Scene::start(addr, &[("OTEL_TRACES_SAMPLER", "parentbased_always_off")]).await;
    let token = scene.clerk.instances()[0]
        .mint(&TokenSpec::session("user_alice"))
        .expect("a token");
    let mut asked = http("/me", "Bearer junk");
    let parent = format!("00-{TRACE}-{CALLER}-01");
    asked
        .headers
        .insert("traceparent".to_owned(), parent.clone());

    check_at(scene.service.grpc_addr, asking(Some(asked), &[]))
        .await
        .expect("answered");
    let mut verified = Request::new(about(&token));
    verified
        .metadata_mut()
        .insert("traceparent", parent.parse().expect("a value"));
    let mut client = client(scene.service.grpc_addr).await;
    client.verify_session(verified).await.expect("accepted");
    // Not followed.
    client
        .verify_session(about(&token))
        .await
        .expect("accepted");
    let get = GetUserRequest {
        key: Some(Key::UserId("user_nobody".to_owned())),
        ..GetUserRequest::default()
    };
    let unknown = client.get_user(get).await.expect_err("nobody");
    assert_eq!(unknown.code(), Code::NotFound);

    eventually("all is there", async || {
        collector.spans().len() >= 4
            && collector
                .lines()
                .iter()
                .any(|line| !line.trace_id.is_empty())
    })
    .await;
    let spans = collector.spans();
    let mut names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "authorize",
            "clerkauthz.v1.AuthzService/VerifySession",
            "envoy.service.auth.v3.Authorization/Check",
            "verify_session",
        ]
    );
    let check = spans
        .iter()
        .find(|span| span.name.ends_with("/Check"))
        .expect("there");
    assert_eq!(
        attribute(&check.attributes, "clerk_authz.reason").as_deref(),
        Some("TOKEN_MALFORMED")
    );
    let denied = collector.lines();
    let denied = denied
        .iter()
        .find(|line| !line.trace_id.is_empty())
        .expect("there");
    assert_eq!(hex(&denied.trace_id), TRACE);
    assert_eq!(denied.span_id, check.span_id);
    assert_eq!(
        attribute(&denied.attributes, "reason").as_deref(),
        Some("TOKEN_MALFORMED")
    );
    scene.service.kill().await;
}

#[tokio::test]
async fn a_collector_that_is_down_hurts_nothing_and_is_said_once() {
    let nobody = {
        let listener = TcpListener::bind(loopback()).await.expect("a port");
        listener.local_addr().expect("an address")
    };
    let more = [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "200"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
    ];
    let scene = Scene::start(nobody, &more).await;
    let token = scene.clerk.instances()[0]
        .mint(&TokenSpec::session("user_alice"))
        .expect("a token");
    let mut client = client(scene.service.grpc_addr).await;

    let failed = "clerk_authz_otlp_items_total{signal=\"traces\",outcome=\"failed\"}";
    let queued = "clerk_authz_otlp_items_total{signal=\"traces\",outcome=\"queued\"}";
    for round in 1..=3_u32 {
        for _ in 0..200 {
            let mut request = Request::new(about(&token));
            request.set_timeout(AT_ONCE);
            client.verify_session(request).await.expect("accepted");
        }
        let least = f64::from(round);
        eventually("spans are lost", async || {
            value(&get(scene.service.http_addr, "/metrics").await.1, failed) >= least
        })
        .await;
    }

    let metrics = get(scene.service.http_addr, "/metrics").await.1;
    // Each call has two spans; what the queue had no place for was dropped.
    assert!(
        (value(&metrics, queued) - 1_200.0).abs() < f64::EPSILON,
        "{metrics}"
    );
    assert!(value(&metrics, failed) < 1_200.0, "{metrics}");

    let (collector, _) = Collector::start_at(nobody).await;
    eventually("it gets what comes now", async || {
        let answer = client.clone().verify_session(about(&token)).await;
        answer.expect("accepted");
        !collector.spans().is_empty()
    })
    .await;
    let log = scene.service.end().await;
    let said = log
        .lines()
        .filter(|line| line.contains("collector does not take"))
        .count();
    // Of spans and of lines.
    assert!((1..=2).contains(&said), "{log}");
}

#[test]
fn what_is_wrong_in_the_standards_names_is_said() {
    let problems = |variables: &[(&str, &str)]| {
        let clerk = ("CLERK_AUTHZ_ISSUER", "https://clerk.example.com");
        let environment: EnvironmentVariables = [clerk]
            .iter()
            .chain(variables)
            .map(|(name, value)| ((*name).to_owned(), value.into()))
            .collect();
        match Settings::load(&SettingsArgs::default(), &environment) {
            Ok(settings) => format!("{:?}", settings.otlp),
            Err(problems) => problems.to_string(),
        }
    };
    assert_eq!(problems(&[]), "None");
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
    let read = problems(&[endpoint]);
    assert!(read.contains("heeds_parent: true, ratio: 1.0"), "{read}");
    assert_eq!(problems(&[endpoint, ("OTEL_SDK_DISABLED", "true")]), "None");
    for (name, bad) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4317"),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://user:hush@127.0.0.1:4317",
        ),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_SDK_DISABLED", "yes"),
    ] {
        let said = problems(&[(name, bad)]);
        assert!(
            said.contains(name) && said.contains("expected"),
            "{bad}: {said}"
        );
        assert!(!said.contains("hush"), "{said}");
    }
    let ratio = [
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "10"),
    ];
    assert!(problems(&ratio).contains("from 0 to 1"));
}
