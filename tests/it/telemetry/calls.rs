//! Calls and requests, by how they ended and how long they took.

use clerk_authz::{door::grpc::proto, emulator::TokenSpec};

use crate::support::{
    Fixture,
    database::{Database, on_each_engine},
    eventually, get,
};

/// The value behind a name with its labels.
pub fn value(metrics: &str, name: &str) -> f64 {
    let lines = metrics.lines();
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = values
        .next()
        .unwrap_or_else(|| panic!("no {name}\n{metrics}"));
    value.parse().expect("a number")
}

#[tokio::test]
async fn calls_are_counted_by_rpc_and_code_with_their_duration() {
    let fixture = Fixture::start().await;
    let token = fixture.mint(&TokenSpec::session("user_alice"));

    fixture.verify(&token).await.expect("accepted");
    fixture.verify("junk").await.expect_err("denied");
    let mut client = fixture.client.clone();
    let empty = proto::BatchVerifySessionRequest::default();
    client.batch_verify_session(empty).await.expect_err("empty");

    let metrics = fixture.metrics().await;
    let calls = |rpc: &str, code: &str| {
        let name = format!("clerk_authz_grpc_calls_total{{rpc=\"{rpc}\",code=\"{code}\"}}");
        value(&metrics, &name) as u64
    };
    assert_eq!(calls("VerifySession", "OK"), 1);
    assert_eq!(calls("VerifySession", "UNAUTHENTICATED"), 1);
    assert_eq!(calls("BatchVerifySession", "INVALID_ARGUMENT"), 1);
    assert_eq!(calls("GetUser", "OK"), 0);
    let of = |rpc: &str| format!("clerk_authz_grpc_call_duration_seconds_count{{rpc=\"{rpc}\"}}");
    assert!((value(&metrics, &of("VerifySession")) - 2.0).abs() < f64::EPSILON);
    assert!((value(&metrics, &of("BatchVerifySession")) - 1.0).abs() < f64::EPSILON);
    let sum = "clerk_authz_grpc_call_duration_seconds_sum{rpc=\"VerifySession\"}";
    assert!(value(&metrics, sum) > 0.0);
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_no_rpc_or_path_of_ours_is_other() {
    let fixture = Fixture::start().await;
    let addr = fixture.service.http_addr();
    let (status, _) = get(addr, "/user_alice").await;
    assert_eq!(status, 404);
    get(addr, "/livez").await;
    get(addr, "/webhooks/clerk").await;

    eventually("they are counted", async || {
        let metrics = fixture.metrics().await;
        [
            "clerk_authz_http_requests_total{route=\"other\",status=\"404\"} 1",
            "clerk_authz_http_requests_total{route=\"livez\",status=\"200\"} 1",
            "clerk_authz_http_requests_total{route=\"webhooks\",status=\"405\"} 1",
            "clerk_authz_http_request_duration_seconds_count{route=\"other\"} 1",
        ]
        .iter()
        .all(|line| metrics.contains(line))
    })
    .await;
    assert!(!fixture.metrics().await.contains("user_alice"));
    fixture.stop().await;
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let fixture = Fixture::start().await;
    let url = format!("http://{}/metrics", fixture.service.http_addr());
    let ask = async |accept: &str| {
        let request = reqwest::Client::new().get(&url).header("accept", accept);
        let answer = request.send().await.expect("answered");
        let of = answer.headers()["content-type"]
            .to_str()
            .expect("text")
            .to_owned();
        (of, answer.text().await.expect("text"))
    };

    for accept in [
        "*/*",
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
    ] {
        let (of, text) = ask(accept).await;
        assert!(of.starts_with("application/openmetrics-text"), "{of}");
        assert!(text.ends_with("# EOF\n"));
        assert!(text.contains("# TYPE clerk_authz_grpc_calls counter"));
    }
    let (of, text) = ask("text/plain").await;
    assert!(of.starts_with("text/plain; version=0.0.4"), "{of}");
    assert!(!text.contains("# EOF"));
    assert!(text.contains("# TYPE clerk_authz_grpc_calls_total counter"));
    fixture.stop().await;
}

on_each_engine! {
    async fn connections_to_the_database_are_told(database: Database) {
        let url = database.place.url();
        let fixture = Fixture::start_with(&[("CLERK_AUTHZ_DATABASE_URL", &url)]).await;
        let name = if url.starts_with("sqlite") { "writing" } else { "shared" };

        // The keys are written there, and their connection is kept.
        eventually("a connection is open", async || {
            let metrics = fixture.metrics().await;
            let most = format!("clerk_authz_database_connections_max{{pool=\"{name}\"}}");
            let of = |state: &str| {
                let labels = format!("pool=\"{name}\",state=\"{state}\"");
                value(&metrics, &format!("clerk_authz_database_connections{{{labels}}}"))
            };
            let waits = "clerk_authz_database_wait_seconds_count{for=\"writing\"}";
            let open = of("used") + of("idle");
            assert!(open <= value(&metrics, &most), "{metrics}");
            open >= 1.0 && value(&metrics, waits) >= 1.0
        })
        .await;
        fixture.stop().await;
    }
}
