//! Nothing that lets anybody in is in anything that we say: log lines at their most verbose, metrics,
//! the decision log, spans, errors and answers, after a walk through every door.

use std::{fs, process::Stdio};

use base64::{Engine, engine::general_purpose::STANDARD};
use clerk_authz::{
    door::grpc::proto::{
        self, CheckOrgPermissionRequest, check_org_permission_request::Subject,
        sync_user_request::Subject as Synced, verify_session_request::Credential,
    },
    emulator::TokenSpec,
    upstream_assertion::AssertionKeyStore,
};
use tokio::process::Command;
use tonic::Request;

use super::collector::Collector;
use crate::{
    envoy::{asking, check_at, http},
    forward_auth::{self, Original, POLICY},
    policy::PolicyFile,
    support::{
        about, about_http, client,
        database::{Database, on_each_engine},
        eventually, get, offline_clerk,
        process::Service,
        webhook::{Message, NEXT_SECRET, SECRET, user_data},
    },
};

/// Parts of a secret that are long enough to be no chance.
fn parts(secret: &str) -> Vec<String> {
    let parts = secret
        .split(['.', '_', ' '])
        .filter(|part| part.len() >= 20);
    parts
        .flat_map(|part| [&part[..20], &part[part.len() - 20..]])
        .map(str::to_owned)
        .collect()
}

/// With the form that a Debug of bytes would give it.
fn is_in(text: &str, part: &str) -> bool {
    let numbers: Vec<String> = part.bytes().map(|byte| byte.to_string()).collect();
    text.contains(part) || text.contains(&numbers.join(", "))
}

on_each_engine! {
    async fn no_token_key_or_secret_is_in_anything_that_is_said(database: Database) {
        let clerk = offline_clerk().await;
        let instance = &clerk.instances()[0];
        let (issuer, secret_key) = (instance.issuer().to_string(), instance.secret_key());
        let (collector, collector_addr) = Collector::start().await;
        let endpoint = format!("http://{collector_addr}");
        let mine = "path: /mine/**, access: signed_in";
        let policy = PolicyFile::of(&POLICY.replace(mine, &format!("{mine}, upstream: orders")));
        let folder = tempfile::tempdir().expect("a folder");
        let decisions = folder.path().join("decisions.jsonl");
        let url = database.place.url();
        let (headers, credential) = (folder.path().join("headers"), "hushforthecollectoralone987654321");
        fs::write(&headers, format!("authorization=Bearer%20{credential}\n")).expect("written");
        let variables = [
            ("CLERK_PUBLISHABLE_KEY", instance.publishable_key().as_str()),
            ("CLERK_AUTHZ_ISSUER", &*issuer),
            ("CLERK_AUTHORIZED_PARTIES", "http://localhost:3000"),
            ("CLERK_SECRET_KEY", &*secret_key),
            ("CLERK_API_URL", &*issuer),
            ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
            ("CLERK_AUTHZ_DATABASE_URL", &*url),
            ("CLERK_AUTHZ_POLICY", policy.text()),
            ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
            ("CLERK_AUTHZ_DECISION_LOG", decisions.to_str().expect("text")),
            ("CLERK_AUTHZ_LOG", "trace"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_EXPORTER_OTLP_HEADERS_FILE", headers.to_str().expect("text")),
            ("OTEL_TRACES_SAMPLER", "always_on"),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "50"),
        ];
        let service = Service::start(&variables).await;
        eventually("it is ready", async || get(service.http_addr, "/readyz").await.0 == 200).await;
        let mint = |spec: TokenSpec| instance.mint(&spec).expect("a token");
        let good = mint(TokenSpec::session("user_alice").in_organization("acme"));
        let alone = mint(TokenSpec::session("user_bob"));
        let expired = mint(TokenSpec { issued_in_seconds: -600, ..TokenSpec::session("user_alice") });
        let (head, _) = good.rsplit_once('.').expect("a signature");
        let forged = format!("{head}.{}", "hushsignature".repeat(26));
        let tokens = [&good, &alone, &expired, &forged];
        let opaque = "hushopaquecredential0123456789abcdef";
        let mut said = String::new();

        let mut client = client(service.grpc_addr).await;
        for token in tokens {
            let bearer = format!("Bearer {token}");
            let cookie = format!("__session={token}");
            for request in [about(token), about_http(&[&bearer], &[]), about_http(&[], &[&cookie])] {
                said.push_str(&format!("{:?}\n", client.verify_session(request).await.err()));
            }
            let asked = CheckOrgPermissionRequest {
                subject: Some(Subject::Token(token.clone())),
                permission: Some("org:sys_memberships:read".to_owned()),
                ..CheckOrgPermissionRequest::default()
            };
            said.push_str(&format!("{:?}\n", client.check_org_permission(asked).await));
            let asked = proto::SyncUserRequest { subject: Some(Synced::Token(token.clone())), ..Default::default() };
            said.push_str(&format!("{:?}\n", client.sync_user(asked).await.err()));
            for path in ["/admin", "/mine/a", "/o/org_acme"] {
                let request = http(&format!("{path}?token={token}"), &bearer);
                said.push_str(&format!("{:?}\n", check_at(service.grpc_addr, asking(Some(request), &[])).await));
                let uri = format!("{path}?token={token}");
                let more = [("authorization", &*bearer), ("cookie", &*cookie)];
                let answer = forward_auth::ask(service.http_addr, &Original::get(&uri), &more).await;
                said.push_str(&format!("{:?}\n", answer.headers()));
                said.push_str(&answer.text().await.expect("text"));
            }
        }
        // What vouches for somebody to an upstream is in the answers alone.
        let bearer = format!("Bearer {good}");
        let vouched = forward_auth::ask(service.http_addr, &Original::get("/mine/b"), &[("authorization", &bearer)]).await;
        let assertion = vouched.headers()["x-clerk-authz-assertion"].to_str().expect("ASCII").to_owned();
        said.push_str(&get(service.http_addr, "/.well-known/jwks.json").await.1);
        let private_keys = database.replica().await.keys().await.expect("read");
        let private_key = private_keys.first().expect("one").material.expose().to_vec();
        // What stands where it does not belong.
        let mut astray = Request::new(about(opaque));
        astray.metadata_mut().insert("x-request-id", opaque.parse().expect("a value"));
        astray.metadata_mut().insert("traceparent", opaque.parse().expect("a value"));
        let told = client.verify_session(astray).await.expect_err("denied");
        assert!(!told.message().contains(opaque), "{told}");
        for bad in [
            CheckOrgPermissionRequest { organization_id: opaque.to_owned(), ..Default::default() },
            CheckOrgPermissionRequest {
                subject: Some(Subject::Token(good.clone())),
                permission: Some(good.clone()),
                ..Default::default()
            },
        ] {
            said.push_str(&format!("{:?}\n", client.check_org_permission(bad).await));
        }
        let nothing = proto::VerifySessionRequest { credential: Some(Credential::Token(String::new())), ..Default::default() };
        client.verify_session(nothing).await.expect_err("denied");
        for message in [
            Message::new("msg_1", "user.created", &user_data("user_1", "Hush", 5)),
            Message::new("msg_2", "user.created", &user_data("user_2", "Hush", 5)).signed_with(NEXT_SECRET),
        ] {
            message.status(service.http_addr).await;
        }
        for path in ["/metrics", "/readyz", &format!("/{good}")] {
            said.push_str(&get(service.http_addr, path).await.1);
        }
        eventually("spans and lines are there", async || {
            let is_there = |name: &str| collector.spans().iter().any(|span| span.name.contains(name));
            is_there("/Check") && is_there("forward_auth") && is_there("webhooks")
                && is_there("clerk.request") && collector.lines().len() > 20
        })
        .await;
        let records = || fs::read_to_string(&decisions).expect("text");
        eventually("decisions are there", async || records().lines().count() > 30).await;
        let config = Command::new(env!("CARGO_BIN_EXE_clerk-authz"))
            .args(["serve", "--print-config"])
            .env_clear()
            .envs(variables)
            .stderr(Stdio::piped())
            .output()
            .await
            .expect("it runs");
        let shown = Some(format!("Bearer {credential}"));
        assert_eq!(collector.credentials(), [shown.clone(), shown], "spans and lines are shown with it");
        let collected = format!("{:?}\n{:?}", collector.spans(), collector.lines());
        let log = service.end().await;

        assert!(log.contains("TRACE") && log.contains("denied"), "{log}");
        let places = [
            ("the log", log),
            ("the decision log", records()),
            ("the collector", collected),
            ("answers and metrics", said),
            ("the configuration", String::from_utf8_lossy(&[config.stdout, config.stderr].concat()).into_owned()),
        ];
        let mut secrets: Vec<&str> = tokens.iter().map(|token| token.as_str()).collect();
        secrets.extend([&*secret_key, credential, SECRET, NEXT_SECRET, "hushsignaturehushsignature"]);
        for (place, text) in &places {
            assert!(!text.is_empty(), "{place} is empty");
            for part in secrets.iter().flat_map(|secret| parts(secret)) {
                // The head of a token says its algorithm and its key, and is no secret.
                if good.starts_with(&part) {
                    continue;
                }
                let line = text.lines().find(|line| is_in(line, &part));
                assert_eq!(line, None, "{part} is in {place}");
            }
            let numbers: Vec<String> = private_key.iter().map(u8::to_string).collect();
            for form in [STANDARD.encode(&private_key)[60..90].to_owned(), numbers[60..90].join(", ")] {
                assert!(!text.contains(&form), "a private key is in {place}");
            }
            let (_, signature) = assertion.rsplit_once('.').expect("a signature");
            assert!(*place == "answers and metrics" || !is_in(text, signature), "an assertion is in {place}");
        }
    }
}

/// With one that can be read it starts: see above.
#[tokio::test]
async fn a_credential_that_cannot_be_read_is_an_error_at_the_start() {
    let started = Command::new(env!("CARGO_BIN_EXE_clerk-authz"))
        .arg("serve")
        .env_clear()
        .env("CLERK_PUBLISHABLE_KEY", "pk_test_Y2xlcmsuY2xlcmsuZGV2JA")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
        .env("OTEL_EXPORTER_OTLP_HEADERS_FILE", "/nowhere/headers")
        .output()
        .await
        .expect("it runs");
    assert_eq!(started.status.code(), Some(2));
    let said = String::from_utf8_lossy(&started.stderr);
    let expected =
        "OTEL_EXPORTER_OTLP_HEADERS_FILE is \"/nowhere/headers\"; the file cannot be read";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let secret = "sk_test_abcdefghijklmnopqrstuvwxyz";
    let parts = parts(secret);
    assert_eq!(parts, ["abcdefghijklmnopqrst", "ghijklmnopqrstuvwxyz"]);
    assert!(is_in("key=sk_test_abcdefghijklmnopqrstu…", &parts[0]));
    assert!(is_in(
        &format!("{:?}", b"abcdefghijklmnopqrstuvw"),
        &parts[0]
    ));
    assert!(!is_in("key=sk_test_…", &parts[0]));
}
