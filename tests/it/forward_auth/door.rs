use std::path::Path;

use clerk_authz::emulator::TokenSpec;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use super::{Original, POLICY, ask, status};
use crate::{
    paths::corpus,
    policy::PolicyFile,
    support::{Fixture, get},
};

async fn start(from: &str) -> (Fixture, PolicyFile) {
    let file = PolicyFile::of(POLICY);
    let fixture = Fixture::start_with(&[
        ("CLERK_AUTHZ_POLICY", file.text()),
        ("CLERK_AUTHZ_FORWARD_AUTH_FROM", from),
    ])
    .await;
    (fixture, file)
}

fn bearer(fixture: &Fixture, spec: &TokenSpec) -> String {
    format!("Bearer {}", fixture.mint(spec))
}

#[tokio::test]
async fn every_outcome_has_its_status_headers_and_body() {
    let (fixture, _file) = start("127.0.0.0/8").await;
    let addr = fixture.service.http_addr();
    let admin = bearer(
        &fixture,
        &TokenSpec::session("user_alice").in_organization("acme"),
    );
    let mut alone = TokenSpec::session("user_alice");
    alone.factor_ages = Some([30, 30]);
    let alone = bearer(&fixture, &alone);
    let mut expired = TokenSpec::session("user_alice");
    expired.expired = true;
    let expired = bearer(&fixture, &expired);

    let allowed = ask(
        addr,
        &Original::get("/admin?a=b"),
        &[("authorization", &admin)],
    )
    .await;
    assert_eq!(allowed.status(), 200);
    let header = |name: &str| {
        let value = allowed.headers().get(name);
        value.map(|value| value.to_str().expect("ASCII").to_owned())
    };
    assert_eq!(header("x-clerk-user-id").as_deref(), Some("user_alice"));
    assert_eq!(header("x-clerk-org-id").as_deref(), Some("org_acme"));
    assert_eq!(header("x-clerk-org-role").as_deref(), Some("org:admin"));
    assert_eq!(header("cache-control").as_deref(), Some("no-store"));
    assert!(header("x-clerk-decision-id").is_some());

    let public = ask(addr, &Original::get("/public"), &[]).await;
    assert_eq!(public.status(), 200);
    assert!(
        public.headers().get("x-clerk-user-id").is_none(),
        "nobody is named"
    );

    let denials: &[(&str, Option<&str>, u16, &str)] = &[
        ("/mine", None, 401, "TOKEN_MISSING"),
        ("/mine", Some(&expired), 401, "TOKEN_EXPIRED"),
        ("/public", Some(&expired), 401, "TOKEN_EXPIRED"),
        ("/admin", Some(&alone), 403, "ORGANIZATION_MISSING"),
        ("/nothing", Some(&admin), 403, "ROUTE_UNMATCHED"),
        ("/posts", Some(&admin), 403, "ROUTE_UNMATCHED"),
        ("/mine/%2e%2e/admin", Some(&alone), 403, "PATH_AMBIGUOUS"),
        ("/payout", Some(&alone), 403, "REVERIFICATION_REQUIRED"),
        ("/o/org_other", Some(&alone), 503, "CLERK_UNAVAILABLE"),
    ];
    for (uri, authorization, code, reason) in denials {
        let with: Vec<_> = authorization
            .iter()
            .map(|value| ("authorization", *value))
            .collect();
        let answer = ask(addr, &Original::get(uri), &with).await;
        assert_eq!(answer.status().as_u16(), *code, "{uri}");
        let has = |name: &str| answer.headers().contains_key(name);
        assert_eq!(has("www-authenticate"), *code == 401, "{uri}");
        assert_eq!(has("retry-after"), *code == 503, "{uri}");
        assert!(!has("x-clerk-user-id"), "{uri}");
        let body = answer.text().await.expect("a body");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["reason"], *reason, "{uri}");
        let step_up = *reason == "REVERIFICATION_REQUIRED";
        assert_eq!(body["clerk_error"].is_object(), step_up, "{uri}");
    }

    let browser = [("accept", "text/html")];
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client");
    let mut request = client.get(format!("http://{addr}/forward-auth"));
    for (name, value) in Original::get("/page?x=1").headers().iter().chain(&browser) {
        request = request.header(*name, *value);
    }
    let redirect = request.send().await.expect("an answer");
    assert_eq!(redirect.status(), 302);
    assert_eq!(
        redirect.headers()["location"],
        "https://accounts.example.com/sign-in?redirect_url=https%3A%2F%2Fapp.example.com%2Fpage%3Fx%3D1"
    );

    let metrics = fixture.metrics().await;
    assert!(metrics.contains("\"ForwardAuth\""), "{metrics}");
    fixture.stop().await;
}

/// Advisory 14: no peer is trusted by default, and a forged header of one that is not has no effect.
#[tokio::test]
async fn what_an_untrusted_peer_says_of_a_request_has_no_effect() {
    for from in ["10.0.0.0/8,::1", ""] {
        let file = PolicyFile::of(POLICY);
        let mut variables = vec![("CLERK_AUTHZ_POLICY", file.text())];
        if !from.is_empty() {
            variables.push(("CLERK_AUTHZ_FORWARD_AUTH_FROM", from));
        }
        let fixture = Fixture::start_with(&variables).await;
        let addr = fixture.service.http_addr();
        let token = bearer(&fixture, &TokenSpec::session("user_alice"));
        for (uri, more) in [
            ("/public", vec![]),
            (
                "/public",
                vec![("x-forwarded-for", "10.0.0.1"), ("x-real-ip", "10.0.0.1")],
            ),
            (
                "/mine",
                vec![("authorization", &*token), ("forwarded", "for=10.0.0.1")],
            ),
        ] {
            let answer = ask(addr, &Original::get(uri), &more).await;
            assert_eq!(answer.status(), 403, "{from:?} {uri}");
            assert!(answer.headers().get("x-clerk-user-id").is_none());
            let body = answer.text().await.expect("a body");
            assert!(body.contains("CLERK_AUTHZ_FORWARD_AUTH_FROM"), "{body}");
        }
        fixture.stop().await;
    }
    let (fixture, _file) = start("10.0.0.0/8,127.0.0.1").await;
    let addr = fixture.service.http_addr();
    assert_eq!(
        status(addr, &Original::get("/public"), &[]).await,
        200,
        "the nearest allow"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_part_that_is_said_twice_or_not_at_all_is_ambiguous() {
    let (fixture, _file) = start("127.0.0.1").await;
    let addr = fixture.service.http_addr();
    let good = Original::get("/public");
    assert_eq!(status(addr, &good, &[]).await, 200);
    for (name, value) in good.headers() {
        let twice = ask(addr, &good, &[(name, value)]).await;
        assert_eq!(twice.status(), 403, "{name} twice");
        let body = twice.text().await.expect("a body");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["reason"], "PATH_AMBIGUOUS", "{name} twice");

        let client = crate::support::http_client();
        let mut request = client.get(format!("http://{addr}/forward-auth"));
        for (other, value) in good.headers().iter().filter(|(other, _)| *other != name) {
            request = request.header(*other, *value);
        }
        let without = request.send().await.expect("an answer");
        assert_eq!(without.status(), 403, "no {name}");
    }
    // Other names for the same say nothing.
    let more = [
        ("x-original-uri", "/admin"),
        ("x-forwarded-path", "/admin"),
        ("x-original-url", "/a"),
    ];
    assert_eq!(status(addr, &good, &more).await, 200);
    let (code, _) = get(addr, "/forward-auth/public").await;
    assert_eq!(code, 404);
    fixture.stop().await;
}

#[tokio::test]
async fn identity_headers_of_the_client_never_come_back() {
    let (fixture, _file) = start("127.0.0.1").await;
    let addr = fixture.service.http_addr();
    let token = bearer(&fixture, &TokenSpec::session("user_alice"));
    let spoofed = [
        ("authorization", &*token),
        ("x-clerk-user-id", "user_root"),
        ("X-Clerk-Org-Role", "org:admin"),
        ("x_clerk_org_id", "org_root"),
    ];
    let answer = ask(addr, &Original::get("/mine"), &spoofed).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-clerk-user-id"], "user_alice");
    let values = answer
        .headers()
        .values()
        .filter_map(|value| value.to_str().ok());
    let values: Vec<&str> = values.collect();
    assert!(
        !values
            .iter()
            .any(|value| value.contains("root") || value.contains("admin")),
        "{values:?}"
    );
    fixture.stop().await;
}

async fn over_socket(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).await.expect("connects");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    answer
}

#[tokio::test]
async fn a_socket_trusts_whoever_may_open_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("forward-auth.sock");
    // Left by a service that was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
    let file = PolicyFile::of(POLICY);
    let fixture = Fixture::start_with(&[
        ("CLERK_AUTHZ_POLICY", file.text()),
        (
            "CLERK_AUTHZ_FORWARD_AUTH_SOCKET",
            socket.to_str().expect("UTF-8"),
        ),
    ])
    .await;
    let mode = std::fs::metadata(&socket)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);

    let request = |uri: &str| {
        format!(
            "GET {uri} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-forwarded-method: GET\r\n\
             x-forwarded-host: app.example.com\r\nx-forwarded-uri: /public\r\n\
             x-forwarded-proto: https\r\n\r\n"
        )
    };
    let answer = over_socket(&socket, &request("/forward-auth")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let metrics = over_socket(&socket, &request("/metrics")).await;
    assert!(metrics.starts_with("HTTP/1.1 404"), "{metrics}");
    // Over TCP nobody is trusted.
    let addr = fixture.service.http_addr();
    assert_eq!(status(addr, &Original::get("/public"), &[]).await, 403);
    fixture.stop().await;
    assert!(!socket.exists(), "removed at the end");
}

/// As bytes, without a proxy between: each line of the corpus is answered as it says.
#[tokio::test]
async fn each_line_of_the_corpus_is_answered_as_it_says() {
    let file = PolicyFile::of(corpus::POLICY);
    let fixture = Fixture::start_with(&[
        ("CLERK_AUTHZ_POLICY", file.text()),
        ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
    ])
    .await;
    let (mut asked, mut answered) = (0, 0);
    for line in corpus::lines()
        .iter()
        .filter(|line| line.is_a_field_value())
    {
        let (uri, host) = line.target_and_host();
        let request = [
            b"GET /forward-auth HTTP/1.1\r\nhost: authz\r\nconnection: close\r\n",
            &b"x-forwarded-method: GET\r\nx-forwarded-proto: https\r\nx-forwarded-host: "[..],
            host,
            b"\r\nx-forwarded-uri: ",
            uri,
            b"\r\n\r\n",
        ];
        let stream = TcpStream::connect(fixture.service.http_addr()).await;
        let mut stream = stream.expect("connects");
        stream.write_all(&request.concat()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        let what = format!("corpus.txt:{}: {answer}", line.number);
        asked += 1;
        if answer.starts_with("HTTP/1.1 400") {
            // Bytes that HTTP knows in no field.
            assert_eq!(line.reason(), "PATH_AMBIGUOUS", "{what}");
            continue;
        }
        answered += 1;
        match line.reason() {
            "ROUTE_PUBLIC" => assert!(answer.starts_with("HTTP/1.1 200"), "{what}"),
            reason => {
                assert!(answer.starts_with("HTTP/1.1 403"), "{what}");
                assert!(
                    answer.contains(&format!("\"reason\":\"{reason}\"")),
                    "{what}"
                );
            }
        }
    }
    assert!(
        asked > 200 && answered + 20 > asked,
        "{answered} of {asked}"
    );
    fixture.stop().await;
}
