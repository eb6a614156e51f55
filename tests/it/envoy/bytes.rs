//! What clients put into requests to get past: bytes, headers of hops, paths of two meanings.

use super::{Gate, SetUp, assert_denied, request};

/// CVE-2023-27488, CVE-2024-23324: bytes that are no text made the question an error, which Envoy may
/// be told to take for a yes. The answer is a denial of ours, or Envoy's own 400.
#[tokio::test]
async fn bytes_that_are_no_text_are_denied_and_no_error() {
    for set_up in [SetUp::Bare, SetUp::Shipped] {
        let gate = Gate::start(set_up).await;
        let alice = gate.alice();
        let alice = alice.as_bytes();
        let torn = [alice, b"\xff"].concat();

        for (what, bytes) in [
            (
                "path",
                request(b"/me/\xff\xfe", &[("authorization", alice)]),
            ),
            ("cut", request(b"/me/\xc3", &[("authorization", alice)])),
            (
                "host",
                request(
                    b"/me",
                    &[("authorization", alice), ("host", b"app\xff.example")],
                ),
            ),
            ("token", request(b"/me", &[("authorization", &torn)])),
            (
                "cookie",
                request(b"/me", &[("cookie", b"__session=\xff\xfe")]),
            ),
        ] {
            let answer = gate.envoy.raw(&bytes).await;
            assert!(
                matches!(answer.status, 400 | 401 | 403),
                "{set_up:?}: {what}: {answer:?}"
            );
            if answer.status != 400 {
                assert!(
                    !answer.reason().is_empty(),
                    "{set_up:?}: {what}: {answer:?}"
                );
            }
        }
        assert_eq!(gate.upstream.served(), 0, "{set_up:?}");
        // Elsewhere such bytes are nobody's business.
        let other = request(
            b"/me",
            &[("authorization", alice), ("x-other", b"\xff\xfe")],
        );
        let answer = gate.envoy.raw(&other).await;
        assert_eq!(answer.status, 200, "{set_up:?}: {answer:?}");
        gate.stop().await;
    }
}

/// CVE-2021-32777: one of several values seen.
#[tokio::test]
async fn two_authorization_headers_through_envoy_are_ambiguous() {
    for set_up in [SetUp::Bare, SetUp::Shipped, SetUp::AllowedHeaders] {
        let gate = Gate::start(set_up).await;
        let alice = gate.alice();
        let joined = format!("{alice}, {alice}");

        let twice = [("authorization", &*alice), ("authorization", &*alice)];
        let answer = gate.envoy.ask("/me", &twice).await;
        assert_denied(&answer, 401, "CREDENTIALS_AMBIGUOUS");
        let answer = gate.envoy.ask("/me", &[("authorization", &joined)]).await;
        assert_denied(&answer, 401, "CREDENTIALS_AMBIGUOUS");
        assert_eq!(gate.upstream.served(), 0);

        gate.stop().await;
    }
}

/// CVE-2023-27487, GHSA-vhr5-ggp3-qq85, CVE-2026-40575, CVE-2026-34457: what a client says of hops and
/// of itself changes nothing.
#[tokio::test]
async fn forged_headers_of_hops_change_nothing() {
    for set_up in [SetUp::Bare, SetUp::Shipped] {
        let gate = Gate::start(set_up).await;
        for (name, value) in [
            ("x-envoy-original-path", "/assets/a"),
            ("x-envoy-original-host", "other.example"),
            ("x-envoy-auth-headers-to-remove", "authorization"),
            ("x-envoy-internal", "true"),
            ("x-forwarded-uri", "/assets/a"),
            ("x-forwarded-host", "other.example"),
            ("x-forwarded-method", "OPTIONS"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-original-url", "/assets/a"),
            ("x-rewrite-url", "/assets/a"),
            ("x-auth-request-redirect", "/assets/a"),
            ("user-agent", "kube-probe/1.30"),
            ("user-agent", "GoogleHC/1.0"),
            ("user-agent", "Envoy/HC"),
        ] {
            let answer = gate.envoy.ask("/admin", &[(name, value)]).await;
            assert_eq!(answer.status, 401, "{set_up:?}: {name}: {answer:?}");
            assert_eq!(answer.reason(), "TOKEN_MISSING", "{set_up:?}: {name}");
        }
        assert_eq!(gate.upstream.served(), 0, "{set_up:?}");
        assert_eq!(gate.envoy.ask("/assets/a", &[]).await.status, 200);
        gate.stop().await;
    }
}

/// GHSA-r8x2-fhmf-6mxp: Envoy's `path` holds the query too. Neither that nor a fragment decides.
#[tokio::test]
async fn a_path_is_matched_without_what_follows_it() {
    for set_up in [SetUp::Bare, SetUp::Shipped] {
        let gate = Gate::start(set_up).await;
        for (target, expected) in [
            ("/assets/a?/admin", 200),
            ("/?x=/admin", 200),
            ("/admin?/assets/a", 401),
            ("/admin?x=/../assets/a", 401),
        ] {
            let answer = gate.envoy.ask(target, &[]).await;
            assert_eq!(answer.status, expected, "{set_up:?}: {target}: {answer:?}");
        }
        let served = gate.upstream.served();
        for target in [
            "/assets/a#/../../admin",
            "/assets/%2e%2e/admin",
            "/assets/..%2fadmin",
            "/assets/..%5cadmin",
            "/assets/..;/admin",
            "//admin",
            "/assets/a%3f/admin",
            "/assets/%00",
        ] {
            let answer = gate.envoy.ask(target, &[]).await;
            let denied = matches!(answer.status, 400 | 401 | 403);
            assert!(denied, "{set_up:?}: {target}: {answer:?}");
        }
        assert_eq!(gate.upstream.served(), served, "{set_up:?}");
        // What Envoy mends it mends for both: the upstream serves what was decided about.
        let mended = gate.envoy.ask("/assets//../admin", &[]).await;
        match mended.status {
            200 => assert!(mended.body.contains("GET /assets/admin HTTP"), "{mended:?}"),
            status => assert_eq!(status, 403, "{set_up:?}: {mended:?}"),
        }
        gate.stop().await;
    }
}
