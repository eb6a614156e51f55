//! How the service ends, and how a connection does: the binary at a real SIGTERM.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use clerk_authz::{
    door::grpc::proto::{
        self, authz_service_client::AuthzServiceClient, check_org_permission_request::Subject,
        watch_users_response::Change,
    },
    emulator::{Emulator, Endpoint, Faults, TokenSpec},
};
use futures_util::future::join_all;
use tokio::{
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinHandle,
    time::Instant,
};
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

use crate::support::{
    Fixture, PATIENCE, Reason, about, channel,
    database::Place,
    eventually,
    frames::{ACK, Frames, GOAWAY, PING, frame},
    grpc_port, http_client, loopback, offline_clerk,
    process::Service,
    reason_of,
    webhook::{SECRET, user_updated},
};

const NAMES: [&str; 4] = [
    "",
    "clerkauthz.v1.AuthzService",
    "liveness",
    "clerk-backend-api",
];

/// The binary, beside an offline Clerk whose answers about memberships take a while.
struct Scene {
    clerk: Emulator,
    place: Place,
    service: Service,
    channel: Channel,
}

impl Scene {
    async fn start(more: &[(&str, &str)]) -> Self {
        let (clerk, place) = (offline_clerk().await, Place::sqlite());
        let service = service(&clerk, &place, more).await;
        let channel = channel(service.grpc_addr).await;
        Self {
            clerk,
            place,
            service,
            channel,
        }
    }

    fn client(&self) -> AuthzServiceClient<Channel> {
        AuthzServiceClient::new(self.channel.clone())
    }

    fn token(&self) -> String {
        let token = self.clerk.instances()[0].mint(&TokenSpec::session("user_alice"));
        token.expect("a token")
    }

    /// A call that waits for Clerk for so long; it is under way when this returns.
    async fn call_of(&self, milliseconds: u64) -> JoinHandle<Result<bool, Status>> {
        let instance = &self.clerk.instances()[0];
        instance.set_faults_for(Endpoint::Memberships, Faults::slow(milliseconds));
        let mut client = self.client();
        let call = tokio::spawn(async move {
            let request = proto::CheckOrgPermissionRequest {
                subject: Some(Subject::UserId("user_alice".into())),
                organization_id: "org_acme".into(),
                role: Some("admin".into()),
                ..Default::default()
            };
            let answer = client.check_org_permission(request).await;
            answer.map(|answer| answer.into_inner().allowed)
        });
        eventually("Clerk is asked", async || {
            instance.api_requests(Endpoint::Memberships) > 0
        })
        .await;
        call
    }

    async fn status(&self, name: &str) -> ServingStatus {
        let request = HealthCheckRequest {
            service: name.into(),
        };
        let answer = HealthClient::new(self.channel.clone()).check(request).await;
        answer.expect("it answers").into_inner().status()
    }

    async fn says_that_it_leaves(&self) {
        eventually("it says that it leaves", async || {
            self.status("").await == ServingStatus::NotServing
        })
        .await;
    }
}

async fn service(clerk: &Emulator, place: &Place, more: &[(&str, &str)]) -> Service {
    let instance = &clerk.instances()[0];
    let (issuer, secret) = (instance.issuer().to_string(), instance.secret_key());
    let url = place.url();
    let mut variables = vec![
        ("CLERK_PUBLISHABLE_KEY", instance.publishable_key().as_str()),
        ("CLERK_AUTHZ_ISSUER", &issuer),
        ("CLERK_SECRET_KEY", &secret),
        ("CLERK_API_URL", &issuer),
        ("CLERK_AUTHORIZED_PARTIES", "http://localhost:3000"),
        ("CLERK_AUTHZ_DATABASE_URL", &url),
        ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
    ];
    variables.extend(more);
    Service::start(&variables).await
}

/// All that a stream says until it ends, and how it ends.
async fn rest<M>(stream: &mut Streaming<M>) -> (Vec<M>, Result<(), Status>) {
    let mut said = Vec::new();
    let reading = async {
        loop {
            match stream.message().await {
                Ok(Some(message)) => said.push(message),
                Ok(None) => return Ok(()),
                Err(status) => return Err(status),
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, reading).await;
    let ended = ended.expect("the stream ends");
    (said, ended)
}

async fn is_refused(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).await.is_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_sigterm_it_says_that_it_leaves_answers_on_and_cuts_no_call_off() {
    let scene = Scene::start(&[("CLERK_AUTHZ_DRAIN_PAUSE", "2s")]).await;
    let (grpc, http) = (scene.service.grpc_addr, scene.service.http_addr);
    let (token, kept) = (scene.token(), http_client());
    let ready = format!("http://{http}/readyz");
    let answer = kept.get(&ready).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().get("connection").is_none(), "it is kept");
    for name in NAMES {
        assert_eq!(scene.status(name).await, ServingStatus::Serving, "{name}");
    }
    let mut health: Streaming<HealthCheckResponse> = HealthClient::new(scene.channel.clone())
        .watch(HealthCheckRequest::default())
        .await
        .expect("watched")
        .into_inner();
    let mut users = scene
        .client()
        .watch_users(proto::WatchUsersRequest::default())
        .await
        .expect("watched")
        .into_inner();
    // Longer than the pause, and the breaker's and the API's time.
    let call = scene.call_of(2_700).await;

    scene.service.signal("-TERM");

    // First it says so, everywhere, and answers on over connections old and new.
    scene.says_that_it_leaves().await;
    for name in NAMES {
        assert_eq!(
            scene.status(name).await,
            ServingStatus::NotServing,
            "{name}"
        );
    }
    let answer = kept.get(&ready).send().await.expect("an answer");
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["connection"], "close");
    assert!(
        answer
            .text()
            .await
            .expect("a body")
            .contains("\"draining\":true")
    );
    let mut new = AuthzServiceClient::new(channel(grpc).await);
    new.verify_session(about(&token)).await.expect("answered");
    scene
        .client()
        .verify_session(about(&token))
        .await
        .expect("answered");

    // Then watches end, and nothing new is taken, while the call is still worked on.
    let (said, ended) = rest(&mut health).await;
    let last = said.last().map(HealthCheckResponse::status);
    assert_eq!(last, Some(ServingStatus::NotServing));
    ended.expect("it is told, and ends");
    let (told, ended) = rest(&mut users).await;
    let ended = ended.expect_err("it ends with an error");
    assert_eq!(ended.code(), Code::Unavailable);
    assert_eq!(reason_of(&ended), Reason::Draining.name());
    eventually("neither door accepts", async || {
        is_refused(grpc).await && is_refused(http).await
    })
    .await;
    assert!(!call.is_finished(), "the call is still worked on");
    let allowed = call.await.expect("no panic").expect("it is answered");
    assert!(allowed);
    let (status, log) = scene.service.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("were still open"), "{log}");

    // Whoever watched goes on elsewhere with the last token.
    let other = service(&scene.clerk, &scene.place, &[]).await;
    let mut users = AuthzServiceClient::new(channel(other.grpc_addr).await)
        .watch_users(proto::WatchUsersRequest {
            resume_token: told.last().expect("told").resume_token.clone(),
            ..Default::default()
        })
        .await
        .expect("it goes on")
        .into_inner();
    let changed = user_updated("msg_1", "user_new", "Ada", 1);
    assert_eq!(changed.status(other.http_addr).await, 204);
    let next = tokio::time::timeout(PATIENCE, users.message()).await;
    let next = next.expect("in time").expect("it goes on").expect("more");
    let Some(Change::User(user)) = next.change else {
        panic!("not what follows the token: {next:?}");
    };
    assert_eq!(user.id, "user_new");
    other.kill().await;
    scene.clerk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let scene = Scene::start(&[("CLERK_AUTHZ_DRAIN_PAUSE", "10m")]).await;
    let call = scene.call_of(2_500).await;
    scene.service.signal("-TERM");
    scene.says_that_it_leaves().await;

    scene.service.signal("-INT");

    let (status, log) = scene.service.ended().await;
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains("a second signal"), "{log}");
    assert!(call.await.expect("no panic").is_err(), "it is cut off");
    scene.clerk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_outlasts_the_time_to_end_is_cut_off() {
    let scene = Scene::start(&[("CLERK_AUTHZ_DRAIN_TIMEOUT", "1s")]).await;
    let call = scene.call_of(2_900).await;

    scene.service.signal("-TERM");

    let (status, log) = scene.service.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("calls were still open after 1s"), "{log}");
    assert!(call.await.expect("no panic").is_err(), "it is cut off");
    scene.clerk.stop().await;
}

/// When the connection is told to go, as RFC 9113, 6.8 has it: first that no more is taken, and only
/// when that has arrived, where it ends.
async fn told_to_go(addr: SocketAddr) -> Instant {
    let stream = TcpStream::connect(addr).await.expect("it accepts");
    let mut frames = Frames::open(stream).await;
    let first = frames.next_of(GOAWAY).await.expect("it is told");
    let told_at = Instant::now();
    assert_eq!(first.number(0), u32::MAX >> 1, "no stream is refused yet");
    assert_eq!(first.number(4), 0, "NO_ERROR");
    let ping = frames.next_of(PING).await.expect("whether it arrived");
    assert_eq!(ping.flags & ACK, 0);
    let arrived = frame(PING, ACK, 0, &ping.payload);
    frames.send(&arrived).await.expect("it takes it");
    let second = frames.next_of(GOAWAY).await.expect("where it ends");
    assert_eq!((second.number(0), second.number(4)), (0, 0));
    assert!(frames.next_of(GOAWAY).await.is_none(), "it is closed");
    told_at
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_grow_old_at_different_times_and_their_calls_end() {
    let scene = Scene::start(&[("CLERK_AUTHZ_MAX_CONNECTION_AGE", "1s")]).await;
    let endless = Fixture::start_with(&[("CLERK_AUTHZ_MAX_CONNECTION_AGE", "0s")]).await;
    let stays = TcpStream::connect(grpc_port(&endless.service)).await;
    let mut stays = Frames::open(stays.expect("it accepts")).await;
    // It is under way when its connection is old.
    let call = scene.call_of(2_500).await;
    let begun = Instant::now();

    let told = join_all((0..40).map(|_| told_to_go(scene.service.grpc_addr))).await;

    let (first, last) = (told.iter().min(), told.iter().max());
    let (first, last) = (*first.expect("many"), *last.expect("many"));
    assert!(first - begun > Duration::from_millis(800));
    assert!(last - first > Duration::from_millis(50), "all at once");
    assert!(!call.is_finished(), "the call is still worked on");
    assert!(call.await.expect("no panic").expect("it is answered"));
    // One without an age answers still.
    let ping = frame(PING, 0, 0, b"12345678");
    stays.send(&ping).await.expect("it takes it");
    loop {
        let frame = stays.next().await.expect("the connection stays");
        assert_ne!(frame.kind, GOAWAY);
        if frame.kind == PING {
            break;
        }
    }
    scene.service.kill().await;
    scene.clerk.stop().await;
    endless.stop().await;
}

/// As the first process of a container it hears of no signal that it does not wait for.
#[tokio::test]
async fn a_signal_during_the_start_ends_it() {
    // Who has the keys and never says them holds the start up.
    let silent = TcpListener::bind(loopback()).await.expect("a port");
    let keys = format!(
        "http://{}/jwks.json",
        silent.local_addr().expect("it is bound")
    );
    let clerk = offline_clerk().await;
    let key = clerk.instances()[0].publishable_key().as_str().to_owned();
    let issuer = clerk.instances()[0].issuer().as_str().to_owned();
    let child = Command::new(env!("CARGO_BIN_EXE_clerk-authz"))
        .arg("serve")
        .env_clear()
        .envs([
            ("CLERK_PUBLISHABLE_KEY", &*key),
            ("CLERK_AUTHZ_ISSUER", &issuer),
            ("CLERK_AUTHZ_JWKS_URL", &keys),
            ("CLERK_AUTHORIZED_PARTIES", "http://localhost:3000"),
            ("CLERK_AUTHZ_GRPC_ADDR", "127.0.0.1:0"),
            ("CLERK_AUTHZ_HTTP_ADDR", "127.0.0.1:0"),
        ])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it runs");
    let asked = tokio::time::timeout(PATIENCE, silent.accept()).await;
    let _asked = asked.expect("it asks for the keys").expect("a connection");

    let id = child.id().expect("it runs").to_string();
    let sent = Command::new("kill").args(["-TERM", &id]).status().await;
    assert!(sent.expect("kill runs").success());

    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let ended = ended.expect("it ends in time").expect("it ran");
    let log = String::from_utf8(ended.stderr).expect("text");
    assert_eq!(ended.status.code(), Some(0), "{log}");
    assert!(log.contains("before the start was done"), "{log}");
    assert!(!log.contains(" listening "), "{log}");
    clerk.stop().await;
}
