//! What is written of exchanges: each one, and neither a ticket, nor an assertion, nor a nonce.

use clerk_authz::emulator::AssertionSpec;
use tokio::{io::AsyncReadExt, net::TcpListener};

use super::{BY_EMAIL, NONCE, exchanging, instances_file};
use crate::support::{client, database::Place, eventually, get, offline_clerk, process::Service};

#[tokio::test]
async fn no_ticket_assertion_or_nonce_is_written_at_the_most_verbose() {
    let clerk = offline_clerk().await;
    let instance = &clerk.instances()[0];
    let folder = tempfile::tempdir().expect("a folder");
    let file = instances_file(&clerk, &folder, BY_EMAIL);
    let decisions = folder.path().join("decisions.jsonl");
    let (place, decisions) = (Place::sqlite(), decisions.to_str().expect("text"));
    let service = Service::start(&[
        ("CLERK_AUTHZ_INSTANCES", &file),
        ("CLERK_AUTHZ_DATABASE_URL", &place.url()),
        ("CLERK_AUTHZ_DECISION_LOG", decisions),
        ("CLERK_AUTHZ_LOG", "trace"),
    ])
    .await;
    eventually("it is ready", async || {
        get(service.http_addr, "/readyz").await.0 == 200
    })
    .await;
    let mint = |amr: &[&str]| {
        let spec = AssertionSpec {
            nonce: Some(NONCE.to_owned()),
            amr: Some(amr.iter().map(|&each| each.to_owned()).collect()),
            ..AssertionSpec::of("user_alice")
        };
        instance.assertion(&spec).expect("made")
    };
    let (good, weak) = (mint(&["mfa"]), mint(&["pwd"]));
    let mut client = client(service.grpc_addr).await;
    let answer = client.exchange_assertion(exchanging(&good)).await;
    let ticket = answer.expect("a ticket").into_inner().ticket;
    let mut unknown = exchanging(&weak);
    unknown.provider = "not-configured".to_owned();
    let denied = client.exchange_assertion(unknown).await;
    denied.expect_err("no such provider");
    let status = client.exchange_assertion(exchanging(&weak)).await;
    let status = format!("{:?}", status.expect_err("denied"));
    let metrics = get(service.http_addr, "/metrics").await.1;
    let log = service.end().await;
    let records = std::fs::read_to_string(decisions).expect("text");

    let record = |reason: &str| {
        records.lines().any(|line| {
            line.contains("\"rpc\":\"ExchangeAssertion\"")
                && line.contains(reason)
                && line.contains("\"instance\":\"default\"")
                && line.contains("\"provider\":\"acme\"")
        })
    };
    assert!(record("\"reason\":\"ALLOWED\""), "{records}");
    assert!(record("\"reason\":\"MFA_REQUIRED\""), "{records}");
    assert!(records.contains("\"user_id\":\"user_alice\""), "{records}");
    let count =
        "clerk_authz_answers_total{rpc=\"ExchangeAssertion\",outcome=\"MFA_REQUIRED\"} 1.0\n";
    assert!(metrics.contains(count), "{metrics}");
    let unknown = records
        .lines()
        .find(|line| line.contains("PROVIDER_UNKNOWN"));
    let unknown = unknown.expect("a record");
    assert!(!unknown.contains("not-configured"), "{unknown}");
    assert!(log.contains("TRACE"), "{log}");
    let (_, signature) = good.rsplit_once('.').expect("a signature");
    let payload = good.split('.').nth(1).expect("a payload");
    let secrets = [
        &*ticket,
        &ticket[ticket.len() - 20..],
        &signature[..20],
        &signature[signature.len() - 20..],
        &payload[payload.len() - 20..],
        NONCE,
        "alice@example.com",
    ];
    for (name, text) in [
        ("log", &log),
        ("records", &records),
        ("metrics", &metrics),
        ("status", &status),
    ] {
        for secret in secrets {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret} is in the {name}");
        }
    }
    clerk.stop().await;
}

#[tokio::test]
async fn an_exchange_whose_caller_hangs_up_is_on_record() {
    let clerk = offline_clerk().await;
    let instance = &clerk.instances()[0];
    let folder = tempfile::tempdir().expect("a folder");
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let file = instances_file(&clerk, &folder, BY_EMAIL);
    let text = std::fs::read_to_string(&file).expect("text");
    let here = format!("api_url = \"{}\"", instance.issuer());
    let there = format!(
        "api_url = \"http://{}\"",
        silent.local_addr().expect("bound")
    );
    assert!(text.contains(&here), "{text}");
    std::fs::write(&file, text.replace(&here, &there)).expect("written");
    let decisions = folder.path().join("decisions.jsonl");
    let (place, decisions) = (Place::sqlite(), decisions.to_str().expect("text"));
    let service = Service::start(&[
        ("CLERK_AUTHZ_INSTANCES", &file),
        ("CLERK_AUTHZ_DATABASE_URL", &place.url()),
        ("CLERK_AUTHZ_DECISION_LOG", decisions),
    ])
    .await;
    let spec = AssertionSpec {
        nonce: Some(NONCE.to_owned()),
        amr: Some(vec!["mfa".to_owned()]),
        ..AssertionSpec::of("user_alice")
    };
    let assertion = instance.assertion(&spec).expect("made");
    let mut client = client(service.grpc_addr).await;
    let call = tokio::spawn(async move { client.exchange_assertion(exchanging(&assertion)).await });
    // Others ask there, too.
    let mut held = Vec::new();
    loop {
        let (mut stream, _) = silent.accept().await.expect("a connection");
        let mut head = [0; 4_096];
        let length = stream.read(&mut head).await.expect("a request");
        held.push(stream);
        if head[..length].starts_with(b"GET /v1/users?") {
            break;
        }
    }
    call.abort();
    drop(call.await);

    let recorded = || std::fs::read_to_string(decisions).unwrap_or_default();
    eventually("it is on record", async || {
        recorded().contains("\"rpc\":\"ExchangeAssertion\"")
    })
    .await;
    let record = recorded();
    for part in [
        "\"outcome\":\"cannot_tell\"",
        "\"reason\":\"CLERK_UNAVAILABLE\"",
        "\"provider\":\"acme\"",
    ] {
        assert!(record.contains(part), "{record}");
    }
    service.end().await;
}
