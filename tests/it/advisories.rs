//! Public advisories of this class and the test we owe for each: docs/advisories.md maps row to
//! test. Those that have no better place stand here.

use std::{collections::BTreeSet, fs, path::Path};

use clerk_authz::emulator::{Kind, TokenSpec};
use serde_json::json;

use crate::support::{
    Fixture, Reason, about, about_http, assert_denied, grpc_port, http_client, raw,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(&path).expect("text"));
        }
    }
}

#[test]
fn every_row_names_tests_that_exist() {
    let document = fs::read_to_string(root().join("docs/advisories.md")).expect("the document");
    let mut code = String::new();
    sources(&root().join("src"), &mut code);
    sources(&root().join("tests"), &mut code);
    let mut rows = BTreeSet::new();
    for line in document.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Ok(row) = cells[1].parse::<u32>() else {
            continue;
        };
        let tests: Vec<&str> = cells[3].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "row {row} names no test");
        for test in tests {
            let exists = [format!("fn {test}("), format!("fn {test}<")]
                .iter()
                .any(|f| code.contains(f));
            assert!(
                exists,
                "row {row} of docs/advisories.md names `{test}`, which does not exist"
            );
        }
        rows.insert(row);
    }
    let owed = BTreeSet::from([
        1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 20, 23, 24, 26, 27, 28, 29, 30, 31,
        32, 33, 34,
    ]);
    assert!(
        owed.is_subset(&rows),
        "docs/advisories.md lacks {:?}",
        owed.difference(&rows)
    );
}

/// Advisory 3: the key's own text as an HMAC secret, and no signature at all.
#[tokio::test]
async fn a_public_key_is_never_an_hmac_secret() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let fixture = Fixture::start().await;
    let pem = fixture.instance().public_key_pem();
    let good = fixture.mint(&TokenSpec::session("user_alice"));
    let payload = good.split('.').nth(1).expect("a payload");
    for alg in ["HS256", "none"] {
        let header = json!({"alg": alg, "kid": "ins_emulator", "typ": "JWT"}).to_string();
        let input = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(header));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, pem.as_bytes());
        let tag = aws_lc_rs::hmac::sign(&key, input.as_bytes());
        for signature in [URL_SAFE_NO_PAD.encode(tag.as_ref()), String::new()] {
            let token = format!("{input}.{signature}");
            assert_denied(
                fixture.verify(&token).await,
                Reason::AlgorithmNotAllowed,
                alg,
            );
        }
    }
    for (name, value) in [
        ("jwk", json!({"kty": "oct", "k": "AAAA"})),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
    ] {
        let mut spec = TokenSpec::session("user_alice").with_header(name, value);
        assert!(
            fixture.verify(&fixture.mint(&spec)).await.is_ok(),
            "{name} is ignored"
        );
        spec.forged = true;
        assert_denied(
            fixture.verify(&fixture.mint(&spec)).await,
            Reason::SignatureInvalid,
            name,
        );
    }
    fixture.stop().await;
}

/// Advisory 10: class of token × way to ask.
#[tokio::test]
async fn only_session_tokens_pass_at_every_door() {
    use clerk_authz::door::grpc::proto::{self, batch_verify_session_result::Result as Of};
    let fixture = Fixture::start().await;
    for kind in [
        Kind::Session,
        Kind::SessionV1,
        Kind::Template,
        Kind::M2m,
        Kind::Oauth,
        Kind::Handshake,
    ] {
        let mut spec = TokenSpec::session("user_alice");
        spec.kind = kind;
        let iss = json!(fixture.instance().issuer().as_str());
        let token = fixture.mint(&spec.with_claim("iss", iss));
        let (bearer, cookie) = (format!("Bearer {token}"), fixture.instance().cookie(&token));
        let passes = matches!(kind, Kind::Session | Kind::SessionV1);
        for request in [
            about(&token),
            about_http(&[&bearer], &[]),
            about_http(&[], &[&cookie]),
        ] {
            let single = fixture.ask(request.clone()).await;
            let batch = proto::BatchVerifySessionRequest {
                requests: vec![request.clone()],
            };
            let batch = fixture
                .client
                .clone()
                .batch_verify_session(batch)
                .await
                .expect("answered");
            let in_batch = &batch.into_inner().results[0].result;
            assert_eq!(
                matches!(in_batch, Some(Of::Response(_))),
                passes,
                "{kind:?} in a batch"
            );
            let decision = proto::explain_decision_request::Decision::VerifySession(request);
            let explain = proto::ExplainDecisionRequest {
                decision: Some(decision),
            };
            let explained = fixture
                .client
                .clone()
                .explain_decision(explain)
                .await
                .expect("answered");
            let accepted = explained.into_inner().outcome() == proto::DecisionOutcome::Accepted;
            assert_eq!(accepted, passes, "{kind:?} explained");
            if passes {
                assert!(single.is_ok(), "{kind:?}: {single:?}");
            } else {
                assert_denied(single, Reason::TokenTypeNotAccepted, &format!("{kind:?}"));
            }
        }
    }
    fixture.stop().await;
}

/// Advisory 11: one to two hundred permissions, exact.
#[tokio::test]
async fn permissions_of_any_number_are_exact() {
    use clerk_authz::emulator::World;
    let mut world = World::default_world();
    let organization = &mut world.instances[0].organizations[0];
    for count in 1..=200_usize {
        let names: Vec<String> = (0..count).map(|n| format!("org:invoices:p{n}")).collect();
        organization.roles.insert(format!("r{count}"), names);
    }
    let clerk = crate::support::offline_clerk_of(world).await;
    let settings = crate::support::settings_for(&clerk, &[]);
    let fixture = Fixture::start_on(clerk, &settings).await;
    for count in [1, 2, 31, 32, 33, 53, 54, 63, 64, 65, 127, 128, 129, 200] {
        let all: Vec<String> = (0..count).map(|n| format!("p{n}")).collect();
        let mask: num_bigint::BigUint = (num_bigint::BigUint::from(1_u8) << count) - 1_u8;
        let o = json!({
            "id": "org_acme", "rol": "r", "per": all.join(","), "fpm": mask.to_string(),
        });
        let spec = TokenSpec::session("user_alice")
            .with_claim("fea", json!("o:invoices"))
            .with_claim("o", o);
        let session = fixture
            .verify(&fixture.mint(&spec))
            .await
            .expect("accepted");
        let permissions = session.organization.expect("active").permissions;
        let expected: Vec<String> = all
            .iter()
            .map(|name| format!("org:invoices:{name}"))
            .collect();
        assert_eq!(permissions, expected, "{count}");
    }
    fixture.stop().await;
}

/// Advisory 20: of several values none is chosen.
#[tokio::test]
async fn several_credentials_are_ambiguous() {
    let fixture = Fixture::start().await;
    let (a, b) = (
        fixture.mint(&TokenSpec::session("user_alice")),
        fixture.mint(&TokenSpec::session("user_bob")),
    );
    let (header_a, header_b) = (format!("Bearer {a}"), format!("Bearer {b}"));
    let joined = format!("{header_a}, {header_b}");
    let twice = format!("__session={a}; __client_uat=1; __session={b}");
    let split = [
        format!("__session={a}; __client_uat=1"),
        format!("__session={b}"),
    ];
    for (what, request) in [
        ("two headers", about_http(&[&header_a, &header_b], &[])),
        (
            "the same header twice",
            about_http(&[&header_a, &header_a], &[]),
        ),
        ("joined by a proxy", about_http(&[&joined], &[])),
        (
            "joined without a space",
            about_http(&[&format!("{header_a},{b}")], &[]),
        ),
        ("one cookie twice", about_http(&[], &[&twice])),
        (
            "one cookie in two headers",
            about_http(&[], &[&split[0], &split[1]]),
        ),
        (
            "a header and a cookie",
            about_http(&[&header_b], &[&fixture.instance().cookie(&a)]),
        ),
    ] {
        assert_denied(
            fixture.ask(request).await,
            Reason::CredentialsAmbiguous,
            what,
        );
    }
    let one = about_http(
        &[],
        &[&format!("__session={a}; __client_uat=1; __session={a}")],
    );
    assert!(
        fixture.ask(one).await.is_ok(),
        "the same value twice is one"
    );
    fixture.stop().await;
}

/// Advisory 23: a bad token is not the same as no token, and nothing else is looked at in its place.
#[tokio::test]
async fn a_bad_token_is_never_taken_for_none() {
    let fixture = Fixture::start().await;
    let good = fixture.mint(&TokenSpec::session("user_alice"));
    let cookie = fixture.instance().cookie(&good);
    let wrong_issuer =
        TokenSpec::session("user_alice").with_claim("iss", json!("https://x.example"));
    let wrong_issuer = fixture.mint(&wrong_issuer.with_claim("sid", json!(null)));
    for (token, reason) in [
        ("junk", Reason::TokenMalformed),
        (&*wrong_issuer, Reason::IssuerMismatch),
    ] {
        let header = format!("Bearer {token}");
        for cookies in [&[][..], &[cookie.as_str()]] {
            let answer = fixture.ask(about_http(&[&header], cookies)).await;
            assert_denied(answer, reason, token);
        }
    }
    assert_denied(
        fixture.ask(about_http(&[], &[])).await,
        Reason::TokenMissing,
        "no token",
    );
    fixture.stop().await;
}

/// Advisory 29: nor does a user's credential open, or close, anything at the HTTP port, and no RPC is
/// answered there.
#[tokio::test]
async fn a_users_token_or_cookie_changes_nothing_at_the_http_port() {
    let fixture = Fixture::start().await;
    let token = fixture.mint(&TokenSpec::session("user_alice"));
    let base = format!("http://{}", fixture.service.http_addr());
    let client = http_client();
    for path in ["/livez", "/readyz", "/metrics", "/", "/admin", "/users"] {
        let plain = client.get(format!("{base}{path}")).send().await;
        let plain = plain.expect("an answer").status();
        for credential in [token.as_str(), "junk"] {
            let asked = client
                .get(format!("{base}{path}"))
                .bearer_auth(credential)
                .header("cookie", format!("__session={credential}"))
                .send()
                .await
                .expect("an answer");
            assert_eq!(asked.status(), plain, "{path}");
            let text = asked.text().await.expect("text");
            assert!(!text.contains(&token[..40]), "{path} says the token");
        }
    }
    for rpc in ["VerifySession", "GetUser", "SyncUser", "CheckOrgPermission"] {
        let asked = client
            .post(format!("{base}/clerkauthz.v1.AuthzService/{rpc}"))
            .bearer_auth(&token)
            .header("content-type", "application/grpc")
            .body(vec![0; 5])
            .send()
            .await
            .expect("an answer");
        assert_eq!(asked.status(), 404, "{rpc}");
    }
    assert!(fixture.verify(&token).await.is_ok(), "the token is good");
    fixture.stop().await;
}

/// Advisory 33 (RUSTSEC-2023-0071): the crate `rsa` is not in the tree.
#[test]
fn the_rsa_crate_is_not_in_the_tree() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("the lock file");
    assert!(
        lock.contains("name = \"aws-lc-rs\""),
        "the lock file is read"
    );
    for banned in ["rsa", "openssl"] {
        assert!(
            !lock.contains(&format!("name = \"{banned}\"\n")),
            "{banned} is in the tree"
        );
    }
}

/// CVE-2026-33186: a `:path` without a slash passed by rules that begin with one. No client of HTTP/2
/// sends it, so its frames are written out.
#[tokio::test]
async fn a_path_without_a_slash_is_no_way_to_a_method() {
    let fixture = Fixture::start().await;
    let answered = async || {
        let metrics = fixture.metrics().await;
        let counted = r#"clerk_authz_answers_total{rpc="VerifySession",outcome="TOKEN_MISSING"} "#;
        let line = metrics.lines().find_map(|line| line.strip_prefix(counted));
        line.expect("counted").to_owned()
    };
    let method = "clerkauthz.v1.AuthzService/VerifySession";

    for path in [
        method.to_owned(),
        format!("http://{method}"),
        "*".to_owned(),
    ] {
        call_of(&fixture, &path).await;
        assert_eq!(answered().await, "0.0", "{path}");
    }
    call_of(&fixture, &format!("/{method}")).await;
    assert_eq!(answered().await, "1.0", "the same with a slash");

    fixture.stop().await;
}

/// Sends an empty token to a path as it is, and waits until the stream ends, in whatever way.
async fn call_of(fixture: &Fixture, path: &str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }
    // Literals without indexing and without Huffman's code (RFC 7541, 6.2.2).
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        for text in [name, value] {
            if text == name {
                headers.push(0);
            }
            headers.push(u8::try_from(text.len()).expect("below 127"));
            headers.extend(text.as_bytes());
        }
    }
    let message = raw::framed(&prost::Message::encode_to_vec(&about("")));
    let mut stream = tokio::net::TcpStream::connect(grpc_port(&fixture.service))
        .await
        .expect("connects");
    let sent = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &headers),
        frame(DATA, END_STREAM, 1, &message),
    ];
    stream.write_all(&sent.concat()).await.expect("sent");
    let ended = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            if stream.read_exact(&mut payload).await.is_err() {
                return;
            }
            let (kind, flags, of) = (head[3], head[4], &head[5..9]);
            let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
            // RST_STREAM of it, or the whole connection goes.
            if of == [0, 0, 0, 1] && (ends || kind == 3) || kind == 7 {
                return;
            }
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, ended)
        .await
        .expect("an end");
}

/// Advisory 31: what is for operators is not at the door for callers.
#[tokio::test]
async fn the_grpc_port_answers_its_rpcs_alone() {
    const UNIMPLEMENTED: &str = "12";
    const UNAUTHENTICATED: &str = "16";
    let fixture = Fixture::start().await;
    let (metrics, _) = crate::support::get(fixture.service.http_addr(), "/metrics").await;
    assert_eq!(metrics, 200, "it is where it belongs");
    for (path, expected) in [
        ("/metrics", UNIMPLEMENTED),
        ("/debug/pprof/", UNIMPLEMENTED),
        ("/livez", UNIMPLEMENTED),
        ("/readyz", UNIMPLEMENTED),
        ("/forward-auth", UNIMPLEMENTED),
        ("/webhooks/clerk", UNIMPLEMENTED),
        ("/clerkauthz.v1.AuthzService/Nothing", UNIMPLEMENTED),
        ("/clerkauthz.v1.AuthzService/VerifySession", UNAUTHENTICATED),
    ] {
        let about_junk = raw::framed(&[0x0a, 1, b'x']);
        let status = raw::raw(&fixture, path, &[], about_junk).await;
        assert_eq!(status, expected, "{path}");
    }
    fixture.stop().await;
}
