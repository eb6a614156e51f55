//! Through the real Envoy: a client, Envoy, this service, and an upstream that says what it received.

mod bytes;
mod check;
mod corpus;
mod grpc;
mod meshes;
pub mod proxy;

use clerk_authz::{
    authz::Verifier,
    emulator::{Endpoint, Fault, Faults, TokenSpec},
    server,
};

pub use self::check::{asking, check, check_at, http};
use self::proxy::{Answer, Envoy, SetUp, request};
use crate::support::{Fixture, grpc_port, offline_clerk, settings_for, upstream::Upstream};

const POLICY: &str = r#"
version: 1
sign_in: {url: "https://accounts.example/sign-in", return_to: ["http://localhost"]}
routes:
  - {name: home, path: /, access: public}
  - {name: assets, path: /assets/**, access: public, credentials: ignored}
  - {name: me, path: /me/**, access: signed_in}
  - {name: admin, path: /admin/**, access: {role: admin}}
  - {name: transfer, path: /transfer, access: {reverification: strict}}
  - {name: page, path: /page/**, access: signed_in, browser: sign_in}
"#;

/// The service with a policy, whose file must live as long.
async fn service(policy: &str) -> (Fixture, tempfile::NamedTempFile) {
    service_with(policy, Faults::default()).await
}

async fn service_with(policy: &str, of_jwks: Faults) -> (Fixture, tempfile::NamedTempFile) {
    service_set(policy, of_jwks, &[]).await
}

async fn service_set(
    policy: &str,
    of_jwks: Faults,
    more: &[(&str, &str)],
) -> (Fixture, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), policy).expect("written");
    let clerk = offline_clerk().await;
    clerk.instances()[0].set_faults_for(Endpoint::Jwks, of_jwks);
    let path = file.path().to_str().expect("text");
    let settings = [&[("CLERK_AUTHZ_POLICY", path)], more].concat();
    let settings = settings_for(&clerk, &settings);
    (Fixture::start_on(clerk, &settings).await, file)
}

/// A token from after the memberships of the offline Clerk, which were made this very second.
fn bearer(fixture: &Fixture, spec: TokenSpec) -> String {
    let spec = TokenSpec {
        issued_in_seconds: 2,
        ..spec
    };
    format!("Bearer {}", fixture.mint(&spec))
}

/// A client's way through Envoy to the upstream.
struct Gate {
    fixture: Fixture,
    envoy: Envoy,
    upstream: Upstream,
    _policy: tempfile::NamedTempFile,
}

impl Gate {
    async fn start(set_up: SetUp) -> Self {
        Self::start_with(set_up, Faults::default()).await
    }

    async fn start_with(set_up: SetUp, of_jwks: Faults) -> Self {
        let (fixture, policy) = service_with(POLICY, of_jwks).await;
        let upstream = Upstream::start().await;
        let envoy = Envoy::start(set_up, fixture.service.grpc_addr(), upstream.addr).await;
        Self {
            fixture,
            envoy,
            upstream,
            _policy: policy,
        }
    }

    /// Of an admin of an organization.
    fn alice(&self) -> String {
        let spec = TokenSpec::session("user_alice").in_organization("acme");
        bearer(&self.fixture, spec)
    }

    async fn stop(self) {
        drop(self.envoy);
        self.fixture.stop().await;
    }
}

/// That an answer is a denial for this reason, which names its decision.
fn assert_denied(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(
        (answer.status, &*answer.reason()),
        (status, reason),
        "{answer:?}"
    );
    let json = answer.json();
    assert_eq!(json["decision_id"].as_str().map(str::len), Some(16));
    assert!(
        json["message"]
            .as_str()
            .is_some_and(|message| !message.is_empty())
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn the_upstream_hears_who_asks_and_from_nobody_else() {
    let spoofed: Vec<(String, &str)> = [
        "x-clerk-user-id",
        "X-Clerk-Org-Role",
        "x-clerk-decision-id",
        "x-clerk-anything",
        "x_clerk_user_id",
        "X_Clerk-Org_Id",
        "x-clerk_actor-id",
        "x.clerk.user.id",
    ]
    .map(|name| (name.to_owned(), "user_mallory"))
    .into();
    for set_up in [SetUp::Bare, SetUp::Shipped, SetUp::AllowedHeaders] {
        let gate = Gate::start(set_up).await;
        let alice = gate.alice();
        // As shipped Envoy refuses underscores before anybody is asked.
        let underscores = gate
            .envoy
            .ask(
                "/me",
                &[
                    ("authorization", &alice),
                    ("x_clerk_user_id", "user_mallory"),
                ],
            )
            .await;
        let expected = if set_up == SetUp::Bare { 200 } else { 400 };
        assert_eq!(underscores.status, expected, "{set_up:?}: {underscores:?}");

        let mut headers = vec![("authorization", &*alice), ("x-other", "stays")];
        let sent = spoofed
            .iter()
            .filter(|(name, _)| set_up == SetUp::Bare || !name.contains('_'));
        headers.extend(sent.map(|(name, value)| (&**name, *value)));
        let answer = gate.envoy.ask("/me/x?y=z", &headers).await;

        assert_eq!(answer.status, 200, "{set_up:?}: {answer:?}");
        assert!(!answer.body.contains("mallory"), "{set_up:?}: {answer:?}");
        for (name, value) in [
            ("x-clerk-user-id", "user_alice"),
            ("x-clerk-org-id", "org_acme"),
            ("x-clerk-org-slug", "acme"),
            ("x-clerk-org-role", "org:admin"),
            (
                "x-clerk-org-permissions",
                "org:invoices:read,org:invoices:create,org:reports:read",
            ),
            ("x-other", "stays"),
        ] {
            assert_eq!(
                answer.received(name),
                [value],
                "{set_up:?}: {name}: {answer:?}"
            );
        }
        assert_eq!(answer.received("x-clerk-decision-id")[0].len(), 16);
        assert!(answer.received("x-clerk-session-id")[0].starts_with("sess_"));
        assert_eq!(answer.received("x-clerk-actor-id"), [""; 0]);

        // Where nobody is signed in, nobody is named.
        let headers = [
            ("x-clerk-user-id", "user_mallory"),
            ("x.clerk.user.id", "user_mallory"),
        ];
        for target in ["/", "/assets/a.css"] {
            let answer = gate.envoy.ask(target, &headers).await;
            assert_eq!(answer.status, 200, "{set_up:?}: {answer:?}");
            assert!(!answer.body.contains("mallory"), "{set_up:?}: {answer:?}");
            let names = answer.received_names();
            let ours: Vec<_> = names.iter().filter(|name| name.contains("clerk")).collect();
            assert_eq!(ours, ["x-clerk-decision-id"], "{set_up:?}");
        }
        gate.stop().await;
    }
}

#[tokio::test]
async fn each_denial_says_why_and_never_reaches_the_upstream() {
    let gate = Gate::start(SetUp::Shipped).await;
    let expired = TokenSpec {
        expired: true,
        ..TokenSpec::session("user_alice")
    };
    let expired = format!("Bearer {}", gate.fixture.mint(&expired));
    let bob = bearer(
        &gate.fixture,
        TokenSpec::session("user_bob").in_organization("acme"),
    );

    let answer = gate.envoy.ask("/me", &[("authorization", &expired)]).await;
    assert_denied(&answer, 401, "TOKEN_EXPIRED");
    let challenge = answer.header("www-authenticate").expect("a challenge");
    assert!(
        challenge.starts_with("Bearer ") && challenge.contains("invalid_token"),
        "{challenge}"
    );
    let answer = gate.envoy.ask("/me", &[]).await;
    assert_denied(&answer, 401, "TOKEN_MISSING");
    let answer = gate.envoy.ask("/admin", &[("authorization", &bob)]).await;
    assert_denied(&answer, 403, "ROLE_MISMATCH");
    let answer = gate.envoy.ask("/nowhere", &[("authorization", &bob)]).await;
    assert_denied(&answer, 403, "ROUTE_UNMATCHED");
    // A bad token is not taken for none.
    let answer = gate.envoy.ask("/", &[("authorization", &expired)]).await;
    assert_denied(&answer, 401, "TOKEN_EXPIRED");

    let old = TokenSpec::session("user_alice").with_claim("fva", serde_json::json!([99, 99]));
    let old = bearer(&gate.fixture, old);
    let answer = gate
        .envoy
        .ask("/transfer", &[("authorization", &old)])
        .await;
    assert_denied(&answer, 403, "REVERIFICATION_REQUIRED");
    assert_eq!(
        answer.json()["clerk_error"]["metadata"]["reverification"],
        serde_json::json!({"level": "second_factor", "afterMinutes": 10})
    );

    let document = [("sec-fetch-dest", "document"), ("host", "localhost")];
    let answer = gate.envoy.ask("/page/a?b=c", &document).await;
    assert_eq!(answer.status, 302, "{answer:?}");
    assert_eq!(
        answer.header("location"),
        Some(
            "https://accounts.example/sign-in?redirect_url=http%3A%2F%2Flocalhost%2Fpage%2Fa%3Fb%3Dc"
        )
    );
    let elsewhere = [("sec-fetch-dest", "document"), ("host", "evil.example")];
    let answer = gate.envoy.ask("/page/a", &elsewhere).await;
    assert_denied(&answer, 401, "TOKEN_MISSING");

    assert_eq!(gate.upstream.served(), 0);
    let allowed = gate
        .envoy
        .ask("/admin", &[("authorization", &gate.alice())])
        .await;
    assert_eq!(allowed.status, 200, "{allowed:?}");
    assert_eq!(gate.upstream.served(), 1);
    let metrics = gate.fixture.metrics().await;
    let counted = r#"clerk_authz_answers_total{rpc="Check",outcome="ROLE_MISMATCH"} 1.0"#;
    assert!(metrics.contains(counted), "not counted");
    gate.stop().await;
}

#[tokio::test]
async fn a_route_of_envoys_asks_for_more_than_the_policy() {
    let gate = Gate::start(SetUp::Narrowed).await;
    let bob = bearer(
        &gate.fixture,
        TokenSpec::session("user_bob").in_organization("acme"),
    );

    let member = [("authorization", &*bob)];
    let answer = gate.envoy.ask("/me/reports/1", &member).await;
    assert_denied(&answer, 403, "ROLE_MISMATCH");
    assert_eq!(gate.upstream.served(), 0);
    assert_eq!(gate.envoy.ask("/me", &member).await.status, 200);
    let alice = gate.alice();
    let admin = [("authorization", &*alice)];
    assert_eq!(gate.envoy.ask("/me/reports/1", &admin).await.status, 200);
    gate.stop().await;
}

/// Neither read nor sent to the authorizer, whatever its length.
#[tokio::test]
async fn a_body_goes_to_the_upstream_alone() {
    let gate = Gate::start(SetUp::Shipped).await;
    let alice = gate.alice();
    for (target, length, expected) in [("/me", 64 << 10, 200), ("/nowhere", 10, 403)] {
        let mut request = format!(
            "POST {target} HTTP/1.1\r\nhost: app.example\r\nconnection: close\r\n\
             authorization: {alice}\r\ncontent-length: {length}\r\n\r\n"
        );
        request.push_str(&"x".repeat(length));
        let answer = gate.envoy.raw(request.as_bytes()).await;
        assert_eq!(answer.status, expected, "{target}: {answer:?}");
    }
    gate.stop().await;
}

#[tokio::test]
async fn what_cannot_be_told_is_unavailable_and_says_when() {
    let gate = Gate::start_with(SetUp::Shipped, Faults::always(Fault::Down)).await;
    let alice = gate.alice();

    let answer = gate.envoy.ask("/me", &[("authorization", &alice)]).await;

    assert_denied(&answer, 503, "KEYS_UNAVAILABLE");
    let seconds: u64 = answer
        .header("retry-after")
        .and_then(|it| it.parse().ok())
        .expect("seconds");
    assert!(seconds >= 1);
    assert_eq!(gate.upstream.served(), 0);
    let public = gate
        .envoy
        .ask("/assets/a", &[("authorization", &alice)])
        .await;
    assert_eq!(
        public.status, 200,
        "a route that looks at no credential: {public:?}"
    );
    gate.stop().await;
}

#[tokio::test]
async fn without_the_service_envoy_lets_nobody_through() {
    let gate = Gate::start(SetUp::Shipped).await;
    let alice = gate.alice();
    assert_eq!(
        gate.envoy
            .ask("/me", &[("authorization", &alice)])
            .await
            .status,
        200
    );

    let Gate {
        fixture,
        envoy,
        upstream,
        ..
    } = gate;
    fixture.stop().await;

    for target in ["/me", "/", "/assets/a"] {
        let answer = envoy.ask(target, &[("authorization", &alice)]).await;
        assert_eq!(answer.status, 503, "{target}: {answer:?}");
    }
    assert_eq!(upstream.served(), 1);
}

/// A service without a policy does not know the call.
#[tokio::test]
async fn a_policy_that_is_not_there_leaves_the_door_shut() {
    let clerk = offline_clerk().await;
    let settings = settings_for(&clerk, &[]);
    let service = server::start(&settings, server::system_clock())
        .await
        .expect("it starts");
    let upstream = Upstream::start().await;
    let envoy = Envoy::start(SetUp::Shipped, service.grpc_addr(), upstream.addr).await;

    let answer = envoy.ask("/", &[]).await;

    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(upstream.served(), 0);
    drop(envoy);
    service.stop().await;
    clerk.stop().await;
}

/// envoy#44397: where Envoy has no route for a request it does not ask. It has no upstream for it
/// either, as long as nothing behind the question chooses a route anew.
#[tokio::test]
async fn what_envoy_has_no_route_for_reaches_no_upstream() {
    let gate = Gate::start(SetUp::SomeRoutes).await;

    let answer = gate.envoy.ask("/assets/a", &[]).await;
    assert_eq!(answer.status, 404, "{answer:?}");
    // Not even by what would choose another route elsewhere.
    let forged = [("x-envoy-original-path", "/me"), ("x-original-url", "/me")];
    assert_eq!(gate.envoy.ask("/assets/a", &forged).await.status, 404);
    assert_eq!(gate.upstream.served(), 0);

    let asked = gate
        .envoy
        .ask("/me", &[("authorization", &gate.alice())])
        .await;
    assert_eq!(asked.status, 200, "{asked:?}");
    gate.stop().await;
}

/// With the file for replicas each token has one that knows it; a replica that goes is no denial.
#[tokio::test]
async fn each_token_is_asked_about_at_one_replica() {
    let (fixture, policy) = service(POLICY).await;
    let path = policy.path().to_str().expect("text");
    let settings = settings_for(&fixture.clerk, &[("CLERK_AUTHZ_POLICY", path)]);
    let second = server::start(&settings, server::system_clock()).await;
    let second = second.expect("it starts");
    let upstream = Upstream::start().await;
    let set_up = SetUp::Replicas(grpc_port(&second));
    let envoy = Envoy::start(set_up, fixture.service.grpc_addr(), upstream.addr).await;
    let signatures = || {
        let of = |verifier: &Verifier| verifier.stats().signatures;
        [of(fixture.service.verifier()), of(second.verifier())]
    };

    let mut both = [0, 0];
    for number in 0..20 {
        let before = signatures();
        let token = TokenSpec::session("user_alice").with_claim("number", number.into());
        let bearer = format!("Bearer {}", fixture.mint(&token));
        for _ in 0..4 {
            let answer = envoy.ask("/me", &[("authorization", &bearer)]).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.received("x-replica-by"), [""; 0]);
        }
        let after = signatures();
        let new = [after[0] - before[0], after[1] - before[1]];
        assert_eq!(new[0] + new[1], 1, "one signature at one replica: {new:?}");
        both = [both[0] + new[0], both[1] + new[1]];
    }
    assert!(both[0] > 0 && both[1] > 0, "both take part: {both:?}");
    drop(envoy);
    second.stop().await;
    fixture.stop().await;
}

/// In one pod, with the cluster's address of docs/envoy.md.
#[tokio::test]
async fn a_sidecar_is_asked_over_its_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = format!("unix:{}", folder.path().join("grpc.sock").display());
    let at_socket = [("CLERK_AUTHZ_GRPC_ADDR", &*socket)];
    let (fixture, _policy) = service_set(POLICY, Faults::default(), &at_socket).await;
    let upstream = Upstream::start().await;
    let authz = fixture.service.grpc_addr();
    let envoy = Envoy::start(SetUp::Shipped, authz, upstream.addr).await;
    let bearer = fixture.mint(&TokenSpec::session("user_bob").in_organization("acme"));
    let bearer = format!("Bearer {bearer}");

    let allowed = envoy.ask("/me", &[("authorization", &bearer)]).await;
    assert_eq!(allowed.status, 200, "{allowed:?}");
    assert_eq!(allowed.received("x-clerk-user-id"), ["user_bob"]);
    let denied = envoy.ask("/admin", &[("authorization", &bearer)]).await;
    assert_denied(&denied, 403, "ROLE_MISMATCH");
    // Its health checks take the same way.
    assert_eq!(envoy.health_of("clerk-authz").await, ["healthy"]);

    fixture.stop().await;
    let answer = envoy.ask("/me", &[("authorization", &bearer)]).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(upstream.served(), 1);
}
