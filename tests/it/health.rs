//! Health, readiness, reflection, metrics, and the end.

use std::time::Duration;

use clerk_authz::{
    emulator::{Fault, Faults, TokenSpec},
    server,
    telemetry::metrics::CATALOGUE,
};
use tokio_stream::StreamExt;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::{
    Fixture, channel, database::Place, eventually, get, grpc_port, offline_clerk, reason_of,
    settings_for,
};

const NAMES: [&str; 3] = ["", "clerkauthz.v1.AuthzService", "liveness"];

async fn health(fixture: &Fixture) -> HealthClient<tonic::transport::Channel> {
    HealthClient::new(channel(fixture.service.grpc_addr()).await)
}

async fn status(fixture: &Fixture, name: &str) -> ServingStatus {
    let request = HealthCheckRequest {
        service: name.to_owned(),
    };
    health(fixture)
        .await
        .check(request)
        .await
        .expect("answered")
        .into_inner()
        .status()
}

#[tokio::test]
async fn every_name_serves_once_there_are_keys() {
    let fixture = Fixture::start().await;
    for name in NAMES {
        assert_eq!(
            status(&fixture, name).await,
            ServingStatus::Serving,
            "{name:?}"
        );
    }
    let unknown = HealthCheckRequest {
        service: "nobody".into(),
    };
    let answer = health(&fixture)
        .await
        .check(unknown)
        .await
        .expect_err("unknown");
    assert_eq!(answer.code(), tonic::Code::NotFound);
    assert_eq!(get(fixture.service.http_addr(), "/livez").await.0, 200);
    assert_eq!(get(fixture.service.http_addr(), "/readyz").await.0, 200);
    fixture.stop().await;
}

/// Advisory 34: not ready before there are keys, and nobody is called invalid meanwhile.
#[tokio::test]
async fn a_start_with_the_jwks_down_is_not_serving_and_cannot_tell() {
    let clerk = offline_clerk().await;
    clerk.instances()[0].set_faults(Faults::always(Fault::ServerError));
    let settings = settings_for(&clerk, &[]);
    let fixture = Fixture::start_on(clerk, &settings).await;
    let token = fixture.mint(&TokenSpec::session("user_alice"));

    assert_eq!(status(&fixture, "").await, ServingStatus::NotServing);
    assert_eq!(status(&fixture, NAMES[1]).await, ServingStatus::NotServing);
    assert_eq!(status(&fixture, "liveness").await, ServingStatus::Serving);
    let (code, body) = get(fixture.service.http_addr(), "/readyz").await;
    assert_eq!(code, 503);
    assert!(
        body.contains("\"waiting_for_keys\":[\"default\"]"),
        "{body}"
    );
    let refused = fixture.verify(&token).await.expect_err("cannot tell");
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
    assert_eq!(reason_of(&refused), "KEYS_UNAVAILABLE");
    let details = tonic_types::StatusExt::get_error_details(&refused);
    assert!(
        details
            .retry_info()
            .is_some_and(|info| info.retry_delay.is_some())
    );

    let mut watch = health(&fixture)
        .await
        .watch(HealthCheckRequest {
            service: NAMES[1].into(),
        })
        .await
        .expect("watched")
        .into_inner();
    let first = watch
        .next()
        .await
        .expect("a status")
        .expect("good")
        .status();
    assert_eq!(first, ServingStatus::NotServing);
    fixture.instance().set_faults(Faults::default());
    let second = tokio::time::timeout(crate::support::PATIENCE, watch.next()).await;
    assert_eq!(
        second
            .expect("in time")
            .expect("one")
            .expect("good")
            .status(),
        ServingStatus::Serving
    );
    assert!(fixture.verify(&token).await.is_ok());
    drop(watch);
    fixture.stop().await;
}

#[tokio::test]
async fn keys_survive_a_restart_while_clerk_is_down() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().to_str().expect("UTF-8");
    let clerk = offline_clerk().await;
    let settings = settings_for(&clerk, &[("CLERK_AUTHZ_STATE_DIR", state)]);
    let first = Fixture::start_on(clerk, &settings).await;
    let snapshot = directory.path().join("keys-default.json");
    eventually("a snapshot", async || snapshot.exists()).await;
    first.service.stop().await;
    let clerk = first.clerk;
    clerk.instances()[0].set_faults(Faults::always(Fault::Down));

    let second = Fixture::start_on(clerk, &settings).await;

    assert_eq!(status(&second, "").await, ServingStatus::Serving);
    let token = second.mint(&TokenSpec::session("user_alice"));
    assert!(second.verify(&token).await.is_ok());
    second.stop().await;
}

/// With nothing but a database the keys survive a restart in it, on either engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_survive_a_restart_in_the_database_while_clerk_is_down() {
    for place in [Place::sqlite(), Place::postgres().await] {
        let clerk = offline_clerk().await;
        let settings = settings_for(&clerk, &[("CLERK_AUTHZ_DATABASE_URL", &place.url())]);
        let first = Fixture::start_on(clerk, &settings).await;
        let kept = "SELECT COUNT(*) FROM key_snapshots WHERE instance = 'default'";
        eventually("a snapshot", async || place.number(kept).await == 1).await;
        first.service.stop().await;
        let clerk = first.clerk;
        clerk.instances()[0].set_faults(Faults::always(Fault::Down));

        let second = Fixture::start_on(clerk, &settings).await;

        assert_eq!(status(&second, "").await, ServingStatus::Serving);
        let token = second.mint(&TokenSpec::session("user_alice"));
        assert!(second.verify(&token).await.is_ok());
        second.stop().await;
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_an_error_at_start() {
    let clerk = offline_clerk().await;
    let url = "postgres://someone:hushhush@127.0.0.1:1/none";
    let settings = settings_for(&clerk, &[("CLERK_AUTHZ_DATABASE_URL", url)]);

    let error = server::start(&settings, server::system_clock()).await;

    let error = error.err().expect("it does not start").to_string();
    let expected = "CLERK_AUTHZ_DATABASE_URL is \"postgres://someone:…@127.0.0.1:1/none\"; \
                    the database is unavailable: ";
    assert!(error.starts_with(expected), "{error}");
    assert!(!error.contains("hushhush"), "{error}");
    clerk.stop().await;
}

#[tokio::test]
async fn reflection_lists_the_service_in_both_versions() {
    let fixture = Fixture::start().await;
    let channel = channel(fixture.service.grpc_addr()).await;
    let ask = || {
        tokio_stream::once(v1::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
                String::new(),
            )),
        })
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let answer = client
        .server_reflection_info(ask())
        .await
        .expect("answered");
    let text = format!("{:?}", answer.into_inner().next().await);
    assert!(text.contains("clerkauthz.v1.AuthzService"), "{text}");

    let ask = tokio_stream::once(v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "clerkauthz.v1.AuthzService".into(),
            ),
        ),
    });
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let answer = client.server_reflection_info(ask).await.expect("answered");
    let text = format!("{:?}", answer.into_inner().next().await);
    assert!(text.contains("FileDescriptorResponse"), "{text}");
    fixture.stop().await;
}

#[tokio::test]
async fn metrics_count_what_happened_and_are_those_of_the_catalogue() {
    let fixture = Fixture::start().await;
    let token = fixture.mint(&TokenSpec::session("user_alice"));
    for _ in 0..3 {
        fixture.verify(&token).await.expect("accepted");
    }
    fixture.verify("junk").await.expect_err("denied");

    let text = fixture.metrics().await;

    for line in [
        "clerk_authz_answers_total{rpc=\"VerifySession\",outcome=\"ACCEPTED\"} 3",
        "clerk_authz_answers_total{rpc=\"VerifySession\",outcome=\"TOKEN_MALFORMED\"} 1",
        "clerk_authz_token_cache_hits_total{} 2",
        "clerk_authz_signatures_total{} 1",
        "clerk_authz_keys_fetches_total{instance=\"default\",outcome=\"success\"} 1",
        "clerk_authz_keys_usable{instance=\"default\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let described: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let catalogue: Vec<&str> = CATALOGUE.iter().map(|metric| metric.name).collect();
    for name in &described {
        assert!(catalogue.contains(name), "{name} is not in the catalogue");
    }
    assert_eq!(
        described.len(),
        catalogue.len(),
        "the catalogue has metrics that are never written"
    );
    assert!(!text.contains(&token[..40]), "a token in the metrics");
    fixture.stop().await;
}

/// docs/metrics.md and the catalogue are one list.
#[test]
fn the_document_has_every_metric() {
    let document = include_str!("../../docs/metrics.md");
    for metric in CATALOGUE {
        assert!(
            document.contains(&format!("| `{}", metric.name)),
            "docs/metrics.md lacks {}",
            metric.name
        );
    }
    let rows = document
        .lines()
        .filter(|line| line.starts_with("| `clerk_authz_"))
        .count();
    assert_eq!(
        rows,
        CATALOGUE.len(),
        "docs/metrics.md has a metric that is none"
    );
}

#[tokio::test]
async fn the_end_finishes_what_is_in_flight_and_takes_nothing_new() {
    let fixture = Fixture::start().await;
    let (grpc, http) = (grpc_port(&fixture.service), fixture.service.http_addr());
    let token = fixture.mint(&TokenSpec::session("user_alice"));
    fixture.verify(&token).await.expect("accepted");
    let mut watch = health(&fixture)
        .await
        .watch(HealthCheckRequest {
            service: String::new(),
        })
        .await
        .expect("watched")
        .into_inner();
    watch.next().await.expect("a status").expect("good");

    let Fixture {
        clerk,
        service,
        client,
    } = fixture;
    drop(client);
    let stopped = tokio::spawn(service.stop());
    // The last that a watcher hears is that it ends.
    let last = tokio::time::timeout(Duration::from_secs(5), watch.next()).await;
    if let Ok(Some(Ok(last))) = last {
        assert_eq!(last.status(), ServingStatus::NotServing);
    }
    drop(watch);
    tokio::time::timeout(Duration::from_secs(15), stopped)
        .await
        .expect("in time")
        .expect("ended");
    for addr in [grpc, http] {
        assert!(
            tokio::net::TcpStream::connect(addr).await.is_err(),
            "{addr} still accepts"
        );
    }
    clerk.stop().await;
}
