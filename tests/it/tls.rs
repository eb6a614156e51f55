//! TLS on both doors: who is let in, whom it is, and what hostile connections do not do to others.

mod callers;
mod floods;
mod rotation;

use std::net::SocketAddr;

use clerk_authz::{door::PeerInfo, emulator::TokenSpec, keys::Clock, server};
use rustls::HandshakeKind;

use crate::support::{
    Fixture, PATIENCE, about,
    authority::{Authority, Certificate, TlsFiles, handshake, tls_client, trusting, trusting_by},
    client, grpc_port, http_client, offline_clerk, settings_for,
};

const ALICE: &str = "spiffe://example.org/alice";

/// A service with TLS, which asks its callers for certificates of an authority.
struct Scene {
    authority: Authority,
    clients: Authority,
    files: TlsFiles,
    clerk: clerk_authz::emulator::Emulator,
    service: server::Running,
}

impl Scene {
    async fn start() -> Self {
        let (authority, clients) = (Authority::new(), Authority::new());
        let files = TlsFiles::new(&authority.server(), Some(&clients.pem));
        Self::of(authority, clients, files).await
    }

    /// Nobody is asked for a certificate.
    async fn one_sided() -> Self {
        let (authority, clients) = (Authority::new(), Authority::new());
        let files = TlsFiles::new(&authority.server(), None);
        Self::of(authority, clients, files).await
    }

    async fn of(authority: Authority, clients: Authority, files: TlsFiles) -> Self {
        Self::by(server::system_clock(), authority, clients, files).await
    }

    async fn by(clock: Clock, authority: Authority, clients: Authority, files: TlsFiles) -> Self {
        let clerk = offline_clerk().await;
        let variables = files.variables();
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        let settings = settings_for(&clerk, &variables);
        let service = server::start(&settings, clock).await;
        Self {
            service: service.expect("it starts"),
            authority,
            clients,
            files,
            clerk,
        }
    }

    fn grpc(&self) -> SocketAddr {
        grpc_port(&self.service)
    }

    fn token(&self) -> String {
        let token = self.clerk.instances()[0].mint(&TokenSpec::session("user_alice"));
        token.expect("a token")
    }

    /// A call over a new connection of a client that trusts the service, with this certificate.
    async fn call(&self, own: Option<&Certificate>) -> Result<(), String> {
        let connector = trusting(&self.authority.pem, own, &["h2"]);
        let called = async {
            let client = tls_client(connector, self.grpc()).await;
            let mut client = client.map_err(|error| format!("{error:?}"))?;
            let answer = client.verify_session(about(&self.token())).await;
            answer.map(drop).map_err(|status| format!("{status:?}"))
        };
        let called = tokio::time::timeout(PATIENCE, called).await;
        called.expect("an answer in time")
    }

    async fn metrics(&self) -> String {
        let (status, body) = self.get("/metrics").await.expect("an answer");
        assert_eq!(status, 200);
        body
    }

    /// A client of HTTPS, without a certificate.
    fn https(&self) -> reqwest::Client {
        let authority = reqwest::Certificate::from_pem(self.authority.pem.as_bytes());
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([authority.expect("PEM")])
            .build()
            .expect("a client")
    }

    /// Over a new connection of such a client.
    async fn get(&self, path: &str) -> Result<(u16, String), reqwest::Error> {
        let url = format!("https://{}{path}", self.service.http_addr());
        let answer = self.https().get(url).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    async fn stop(self) {
        self.service.stop().await;
        self.clerk.stop().await;
    }
}

/// Where nobody is asked for a certificate a session may be resumed, which is quicker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_shows_its_certificate_at_each_connection() {
    for (scene, second) in [
        (Scene::start().await, HandshakeKind::Full),
        (Scene::one_sided().await, HandshakeKind::Resumed),
    ] {
        let own = scene.clients.client(ALICE);
        let version = &rustls::version::TLS12;
        let connector = trusting_by(&[version], &scene.authority.pem, Some(&own), &["h2"]);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let stream = handshake(&connector, scene.grpc()).await;
            let stream = stream.expect("a handshake");
            kinds.push(stream.get_ref().1.handshake_kind().expect("it is done"));
        }
        assert_eq!(kinds, [HandshakeKind::Full, second]);
        scene.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_clients_of_the_authority_are_answered_over_grpc() {
    let scene = Scene::start().await;
    let stranger = Authority::new();

    let good = scene.clients.client(ALICE);
    scene.call(Some(&good)).await.expect("a client of ours");
    for (what, own) in [
        ("no certificate", None),
        ("another authority's", Some(stranger.client(ALICE))),
        ("expired", Some(scene.clients.expired_client(ALICE))),
        ("one for servers", Some(scene.clients.server())),
        // Who signed the service's own signs no clients.
        (
            "the service's authority's",
            Some(scene.authority.client(ALICE)),
        ),
    ] {
        let refused = scene.call(own.as_ref()).await;
        assert!(refused.is_err(), "{what}: it was answered");
    }
    // A client that speaks no TLS is not answered either.
    let plain = tokio::time::timeout(PATIENCE, async {
        let endpoint = tonic::transport::Endpoint::try_from(format!("http://{}", scene.grpc()));
        let channel = endpoint.expect("a target").connect().await?;
        let mut client =
            clerk_authz::door::grpc::proto::authz_service_client::AuthzServiceClient::new(channel);
        let answer = client.verify_session(about(&scene.token())).await;
        Ok::<_, tonic::transport::Error>(answer.map(drop))
    });
    let plain = plain.await.expect("an end in time");
    assert!(!matches!(plain, Ok(Ok(()))), "plain text was answered");
    scene
        .call(Some(&good))
        .await
        .expect("still a client of ours");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_authority_whoever_speaks_tls_is_answered_by_tls_12_and_13() {
    let scene = Scene::one_sided().await;
    scene.call(None).await.expect("answered");
    for (version, name) in [
        (&rustls::version::TLS12, rustls::ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, rustls::ProtocolVersion::TLSv1_3),
    ] {
        let connector = trusting_by(&[version], &scene.authority.pem, None, &["h2"]);
        let stream = handshake(&connector, scene.grpc())
            .await
            .expect("a handshake");
        assert_eq!(stream.get_ref().1.protocol_version(), Some(name));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    }
    // gRPC is HTTP/2 alone, and says so; HTTP is both.
    let old = trusting(&scene.authority.pem, None, &["http/1.1"]);
    assert!(handshake(&old, scene.grpc()).await.is_err());
    let http = scene.service.http_addr();
    let stream = handshake(&old, http).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let new = trusting(&scene.authority.pem, None, &["h2", "http/1.1"]);
    let stream = handshake(&new, http).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    // Who does not trust the authority does not go on.
    let stranger = trusting(&Authority::new().pem, None, &["h2"]);
    assert!(handshake(&stranger, scene.grpc()).await.is_err());
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_speaks_tls_and_asks_nobody_for_a_certificate() {
    let scene = Scene::start().await;
    for path in ["/livez", "/readyz", "/metrics"] {
        let (status, _) = scene.get(path).await.expect("an answer");
        assert_eq!(status, 200, "{path}");
    }
    let url = format!("http://{}/livez", scene.service.http_addr());
    assert!(http_client().get(url).send().await.is_err(), "plain text");
    let metrics = scene.metrics().await;
    assert!(metrics.contains("clerk_authz_tls_reloads_total{outcome=\"applied\"} 0"));
    assert!(metrics.contains("clerk_authz_tls_certificate_expires_timestamp_seconds{} "));
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_used_is_an_error_at_start_that_names_the_setting() {
    let clerk = offline_clerk().await;
    let (authority, other) = (Authority::new(), Authority::new());
    let good = authority.server();
    let expired = authority.signed(|params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let mixed = Certificate {
        key: other.server().key,
        ..good.clone()
    };
    let no_key = Certificate {
        key: good.pem.clone(),
        ..good.clone()
    };
    let nothing = Certificate {
        pem: "nothing".into(),
        ..good.clone()
    };
    for (what, certificate, ca, variable, cause) in [
        ("good", &good, &*authority.pem, "", ""),
        (
            "expired",
            &expired,
            &authority.pem,
            "CLERK_AUTHZ_TLS_CERT",
            "it expired at 2021-",
        ),
        (
            "nothing",
            &nothing,
            &authority.pem,
            "CLERK_AUTHZ_TLS_CERT",
            "no certificate as PEM",
        ),
        (
            "mixed",
            &mixed,
            &authority.pem,
            "CLERK_AUTHZ_TLS_KEY",
            "not the key of the certificate",
        ),
        (
            "no key",
            &no_key,
            &authority.pem,
            "CLERK_AUTHZ_TLS_KEY",
            "no private key as PEM",
        ),
        (
            "no authority",
            &good,
            "",
            "CLERK_AUTHZ_TLS_CLIENT_CA",
            "no certificate as PEM",
        ),
    ] {
        let files = TlsFiles::new(certificate, Some(ca));
        let variables = files.variables();
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        let started =
            server::start(&settings_for(&clerk, &variables), server::system_clock()).await;
        match started {
            Ok(service) => {
                assert_eq!(variable, "", "{what}: it started");
                service.stop().await;
            }
            Err(error) => {
                let error = error.to_string();
                assert!(
                    !variable.is_empty() && error.starts_with(variable),
                    "{what}: {error}"
                );
                assert!(error.contains(cause), "{what}: {error}");
            }
        }
    }
    let files = TlsFiles::new(&good, None);
    let variables = files.variables();
    let missing = [
        variables[0].clone(),
        ("CLERK_AUTHZ_TLS_KEY", "/nowhere/key.pem".into()),
    ];
    let missing: Vec<_> = missing
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect();
    let error = server::start(&settings_for(&clerk, &missing), server::system_clock()).await;
    let error = error.err().expect("it does not start").to_string();
    let expected = "CLERK_AUTHZ_TLS_KEY is /nowhere/key.pem; it cannot be read: ";
    assert!(error.starts_with(expected), "{error}");
    clerk.stop().await;
}

/// What the doors find in each call's extensions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_knows_whom_its_certificate_names() {
    use axum::serve::Listener;
    use clerk_authz::door::{GuardedListener, ListenerLimits, Tls, TlsMaterial};
    use tokio::io::AsyncReadExt;
    use tonic::transport::server::Connected;
    let (authority, clients) = (Authority::new(), Authority::new());
    let server = authority.server();
    let material = TlsMaterial {
        certificate: server.pem.into_bytes(),
        key: server.key.into_bytes(),
        client_ca: Some(clients.pem.clone().into_bytes()),
    };
    let tls = Tls::new(&material, &server::system_clock()).expect("good");
    let limits = ListenerLimits {
        max_connections: 2,
        opening_bytes: 1,
        opening_within: PATIENCE,
        max_age: None,
    };
    let listener = GuardedListener::bind(crate::support::loopback(), limits).await;
    let mut listener = listener.expect("it binds").with_tls(Some(tls.grpc.clone()));
    let addr = listener.local_addr().expect("bound").expect("TCP");
    let own = clients.client(ALICE);
    let connector = trusting(&authority.pem, Some(&own), &["h2"]);
    let opened = tokio::spawn(async move {
        let mut stream = handshake(&connector, addr).await.expect("a handshake");
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"x")
            .await
            .expect("sent");
        stream
    });

    let (mut stream, from) = listener.accept().await;
    let before: PeerInfo = stream.connect_info();
    assert_eq!(before.addr, from);
    assert!(
        before.identity.get().is_none(),
        "the handshake is not made yet"
    );
    let mut byte = [0];
    stream.read_exact(&mut byte).await.expect("read");

    let identity = before.identity.get().expect("it is known now");
    assert_eq!(identity.uris, [ALICE.into()]);
    assert_eq!(identity.dns_names, ["localhost".into()]);
    drop(opened.await.expect("no panic"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_command_asks_over_tls() {
    let (authority, clients) = (Authority::new(), Authority::new());
    // Signed by whom the service trusts, it may be shown to it.
    let server = authority.signed(|_| {});
    let files = TlsFiles::new(&server, Some(&authority.pem));
    let scene = Scene::of(authority, clients, files).await;
    let health = async |arguments: &[&str], variables: &[(&str, String)]| {
        let ran = tokio::process::Command::new(env!("CARGO_BIN_EXE_clerk-authz"))
            .args(["health", "--addr", &scene.grpc().to_string()])
            .args(arguments)
            .env_clear()
            .envs(variables.iter().map(|(name, value)| (*name, value)))
            .output()
            .await
            .expect("it runs");
        let said = [ran.stdout, ran.stderr].concat();
        let said = String::from_utf8(said).expect("UTF-8");
        (ran.status.code(), said)
    };

    // Beside the service nothing is to be given.
    let variables = scene.files.variables();
    let (code, said) = health(&[], &variables[..2]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said, "SERVING\n");
    // Elsewhere: an authority, and a certificate of one's own.
    let own = scene.authority.client(ALICE);
    let mine = TlsFiles::new(&own, Some(&scene.authority.pem));
    let mine = mine.variables();
    let trust = ["--tls-ca", &*mine[2].1];
    let (code, said) = health(&trust, &mine[..2]).await;
    assert_eq!(code, Some(0), "{said}");
    // On this machine also where the file has another certificate by now, which was refused.
    let (code, said) = health(&[], &mine[..2]).await;
    assert_eq!(code, Some(0), "{said}");
    // Without one it is not answered, nor without TLS, nor by an authority that signed another's.
    let stranger = TlsFiles::new(&own, Some(&scene.clients.pem));
    let of_stranger = stranger.variables();
    let distrust = ["--tls-ca", &*of_stranger[2].1];
    for (arguments, variables) in [
        (&trust[..], &variables[..0]),
        (&[][..], &variables[..0]),
        (&distrust[..], &mine[..2]),
    ] {
        let (code, said) = health(arguments, variables).await;
        assert_eq!(code, Some(2), "{said}");
    }
    scene.stop().await;
}

/// A client whose service is plain is not slowed by any of this; it is the nearest there is.
#[tokio::test]
async fn without_the_settings_both_doors_are_plain() {
    let fixture = Fixture::start().await;
    let token = fixture.mint(&TokenSpec::session("user_alice"));
    let mut client = client(fixture.service.grpc_addr()).await;
    client
        .verify_session(about(&token))
        .await
        .expect("answered");
    let metrics = fixture.metrics().await;
    assert!(
        !metrics.contains("clerk_authz_tls_reloads_total{"),
        "{metrics}"
    );
    fixture.stop().await;
}
