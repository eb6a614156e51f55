//! A gRPC upstream through Envoy, called from Python and from Go: each kind of denial is a status of
//! gRPC's, with its reason.

use std::path::Path;

use clerk_authz::emulator::{Fault, Faults, TokenSpec};
use serde_json::json;
use tokio::{net::TcpListener, process::Command};
use tokio_stream::wrappers::TcpListenerStream;

use super::{SetUp, bearer, proxy::Envoy, service_with};
use crate::support::{Fixture, loopback};

/// Of an upstream with a service that exists, and some of which only their names matter.
const POLICY: &str = r#"
version: 1
routes:
  - {path: /grpc.health.v1.Health/**, access: signed_in}
  - {path: /grpc.health.v1.Health/Watch, access: {role: admin}}
  - {path: /app.v1.Invoices/Create, access: {permission: "org:invoices:create"}}
  - {path: /app.v1.Reports/**, access: {feature: "org:none"}}
  - {path: /app.v1.Billing/**, access: {plan: "org:none"}}
  - {path: /app.v1.Transfers/**, access: {reverification: strict}}
  - {path: /app.v1.Keys/**, access: {signed_in: true, impersonation: deny}}
  - {path: /app.v1.Closed/**, access: denied}
  - {path: /app.v1.Ambiguous/**, access: public}
"#;

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Who calls.
#[derive(Clone, Copy, Debug)]
enum Caller {
    Python,
    Go,
}

impl Caller {
    /// Those that are installed. In CI each must be.
    fn all() -> Vec<Self> {
        let go = Path::new(GO).exists();
        if !go {
            println!(
                "skipped: through Envoy, go: `make setup` builds the caller where there is Go"
            );
            assert!(std::env::var_os("CI").is_none(), "no Go: {GO} is missing");
        }
        [Self::Python, Self::Go]
            .into_iter()
            .filter(|caller| go || matches!(caller, Self::Python))
            .collect()
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Go => "go",
        }
    }

    /// What it saw of a call: the status, the reason in its details, and the message.
    async fn call(self, envoy: &Envoy, method: &str, authorization: &str) -> [String; 3] {
        let mut command = match self {
            Self::Python => {
                let mut python =
                    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.venv/bin/python"));
                python.arg(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/tests/it/envoy/call.py"
                ));
                python
            }
            Self::Go => Command::new(GO),
        };
        let run = command
            .args([&envoy.addr.to_string(), method, authorization])
            .kill_on_drop(true)
            .output();
        let ran = run.await.expect("Python in .venv: run `make setup`");
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let mut words = said.trim().splitn(3, ' ').map(ToOwned::to_owned);
        std::array::from_fn(|_| words.next().unwrap_or_else(|| panic!("{self:?}: {ran:?}")))
    }
}

const GO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.tools/go/call");

/// An upstream of gRPC's behind Envoy as it is shipped.
struct Gate {
    fixture: Fixture,
    envoy: Envoy,
    _policy: tempfile::NamedTempFile,
}

impl Gate {
    async fn start(of_jwks: Faults) -> Self {
        let (fixture, policy) = service_with(POLICY, of_jwks).await;
        let envoy = Envoy::start(
            SetUp::Shipped,
            fixture.service.grpc_addr(),
            upstream().await,
        )
        .await;
        Self {
            fixture,
            envoy,
            _policy: policy,
        }
    }

    async fn assert_says(
        &self,
        caller: Caller,
        method: &str,
        authorization: &str,
        expected: [&str; 2],
    ) {
        let [status, reason, message] = caller.call(&self.envoy, method, authorization).await;
        let status = status.replace('_', "").to_lowercase();
        assert_eq!(
            [&*status, &*reason],
            expected,
            "{caller:?} {method}: {message}"
        );
        assert!(reason == "-" || message.starts_with(&reason), "{message}");
    }
}

async fn upstream() -> std::net::SocketAddr {
    let listener = TcpListener::bind(loopback()).await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let (_, health) = tonic_health::server::health_reporter();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(health)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    addr
}

#[tokio::test]
async fn a_client_of_grpc_sees_statuses_with_reasons() {
    let gate = Gate::start(Faults::default()).await;
    let down = Gate::start(Faults::always(Fault::Down)).await;
    let token = |spec: TokenSpec| bearer(&gate.fixture, spec);
    let session = || TokenSpec::session("user_alice").in_organization("acme");
    let alice = token(session());
    let alone = token(TokenSpec::session("user_alice"));
    let bob = token(TokenSpec::session("user_bob").in_organization("acme"));
    let forged = token(TokenSpec {
        forged: true,
        ..session()
    });
    let pending = token(TokenSpec {
        pending: true,
        ..session()
    });
    let acting = token(TokenSpec {
        impersonated_by: Some("user_bob".to_owned()),
        ..session()
    });
    let old = token(session().with_claim("fva", json!([99, 99])));
    let expired = TokenSpec {
        expired: true,
        ..session()
    };
    let expired = format!("Bearer {}", gate.fixture.mint(&expired));
    let two = format!("{alice}, {bob}");

    let (unauthenticated, denied) = ("unauthenticated", "permissiondenied");
    let statuses = [
        (CHECK, &*bob, ["ok", "-"]),
        (CHECK, "", [unauthenticated, "TOKEN_MISSING"]),
        (CHECK, "Bearer junk", [unauthenticated, "TOKEN_MALFORMED"]),
        (CHECK, &*expired, [unauthenticated, "TOKEN_EXPIRED"]),
        (CHECK, &*forged, [unauthenticated, "SIGNATURE_INVALID"]),
        (CHECK, &*pending, [unauthenticated, "SESSION_PENDING"]),
        (CHECK, &*two, [unauthenticated, "CREDENTIALS_AMBIGUOUS"]),
        ("/grpc.health.v1.Health/Watch", &*alice, ["ok", "-"]),
        (
            "/grpc.health.v1.Health/Watch",
            &*bob,
            [denied, "ROLE_MISMATCH"],
        ),
        (
            "/app.v1.Invoices/Create",
            &*bob,
            [denied, "PERMISSION_MISSING"],
        ),
        (
            "/app.v1.Invoices/Create",
            &*alone,
            [denied, "ORGANIZATION_MISSING"],
        ),
        // Allowed: it is the upstream that does not know it.
        ("/app.v1.Invoices/Create", &*alice, ["unimplemented", "-"]),
        ("/app.v1.Reports/List", &*alice, [denied, "FEATURE_MISSING"]),
        ("/app.v1.Billing/Change", &*alice, [denied, "PLAN_MISMATCH"]),
        (
            "/app.v1.Transfers/Make",
            &*old,
            [denied, "REVERIFICATION_REQUIRED"],
        ),
        (
            "/app.v1.Keys/Rotate",
            &*acting,
            [denied, "IMPERSONATION_NOT_ALLOWED"],
        ),
        ("/app.v1.Closed/Open", &*alice, [denied, "ROUTE_DENIED"]),
        ("/app.v1.Other/Open", &*alice, [denied, "ROUTE_UNMATCHED"]),
        (
            "/app.v1.Ambiguous//Open",
            &*alice,
            [denied, "PATH_AMBIGUOUS"],
        ),
    ];
    for caller in Caller::all() {
        for (method, authorization, expected) in statuses {
            gate.assert_says(caller, method, authorization, expected)
                .await;
        }
        let cannot_tell = ["unavailable", "KEYS_UNAVAILABLE"];
        let alice = bearer(&down.fixture, session());
        down.assert_says(caller, CHECK, &alice, cannot_tell).await;
        println!(
            "through Envoy, {}: {} statuses",
            caller.name(),
            statuses.len() + 1
        );
    }

    // Nobody is left to say why.
    let Gate { fixture, envoy, .. } = gate;
    fixture.stop().await;
    for caller in Caller::all() {
        let [status, reason, _] = caller.call(&envoy, CHECK, &alice).await;
        assert_eq!(
            (&*status.to_lowercase(), &*reason),
            ("unavailable", "-"),
            "{caller:?}"
        );
    }
    drop(envoy);
    down.fixture.stop().await;
}
