//! Files that change while calls are made.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use clerk_authz::door::grpc::proto::authz_service_client::AuthzServiceClient;
use rcgen::ExtendedKeyUsagePurpose;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{ALICE, Scene};
use crate::support::{
    about,
    authority::{Authority, Certificate, TlsFiles, tls_channel, tls_client, trusting},
    directory::TestClock,
    eventually,
};

/// Calls without a pause over a connection that is kept, and over a new one each time.
struct Calls {
    ended: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    callers: Vec<JoinHandle<()>>,
}

impl Calls {
    async fn of(scene: &Scene, own: &Certificate) -> Self {
        let mut calls = Self {
            ended: Arc::default(),
            made: Arc::default(),
            callers: Vec::new(),
        };
        for keeps in [true, false] {
            let connector = trusting(&scene.authority.pem, Some(own), &["h2"]);
            let (addr, token) = (scene.grpc(), scene.token());
            let (ended, made) = (Arc::clone(&calls.ended), Arc::clone(&calls.made));
            calls.callers.push(tokio::spawn(async move {
                let mut kept: Option<AuthzServiceClient<Channel>> = None;
                while !ended.load(Relaxed) {
                    let mut client = match kept.take() {
                        Some(client) => client,
                        None => tls_client(connector.clone(), addr).await.expect("connects"),
                    };
                    client
                        .verify_session(about(&token))
                        .await
                        .expect("answered");
                    made.fetch_add(1, Relaxed);
                    kept = keeps.then_some(client);
                }
            }));
        }
        calls
    }

    /// None failed.
    async fn end(self) -> usize {
        self.ended.store(true, Relaxed);
        for caller in self.callers {
            caller.await.expect("no call failed");
        }
        self.made.load(Relaxed)
    }
}

async fn reloads(scene: &Scene, outcome: &str) -> u32 {
    let metrics = scene.metrics().await;
    let name = format!("clerk_authz_tls_reloads_total{{outcome=\"{outcome}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    let count: f64 = line.expect("there is one").parse().expect("a number");
    count as u32
}

async fn applied(scene: &Scene, times: u32) {
    eventually("the change is applied", async || {
        reloads(scene, "applied").await == times
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_new_certificates_cost_no_call() {
    const ROTATIONS: u32 = 20;
    let scene = Scene::start().await;
    let calls = Calls::of(&scene, &scene.clients.client(ALICE)).await;

    for rotation in 1..=ROTATIONS {
        scene.files.put(&scene.authority.server());
        applied(&scene, rotation).await;
    }

    let made = calls.end().await;
    assert!(made > 400, "only {made} calls");
    println!("{made} calls, {ROTATIONS} rotations, 0 failed");
    assert_eq!(reloads(&scene, "refused").await, 0);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_authority_is_in_force_at_once_and_costs_trusted_clients_no_call() {
    let scene = Scene::start().await;
    let new = Authority::new();
    let (old_own, new_own) = (scene.clients.client(ALICE), new.client(ALICE));
    let connector = trusting(&scene.authority.pem, Some(&old_own), &["h2"]);
    let mut kept = tls_client(connector, scene.grpc()).await.expect("connects");
    let token = scene.token();
    kept.verify_session(about(&token)).await.expect("answered");
    assert!(scene.call(Some(&new_own)).await.is_err(), "not yet");

    // Both, as long as clients change theirs.
    scene
        .files
        .put_client_ca(&[&*scene.clients.pem, &new.pem].concat());
    applied(&scene, 1).await;
    scene.call(Some(&old_own)).await.expect("still");
    let calls = Calls::of(&scene, &new_own).await;
    // A connection that was made under the old one alone is still good.
    kept.verify_session(about(&token)).await.expect("answered");
    scene.files.put_client_ca(&new.pem);
    applied(&scene, 2).await;

    // Neither over a new connection nor over the one that there was.
    assert!(
        scene.call(Some(&old_own)).await.is_err(),
        "a new connection"
    );
    let refused = kept.verify_session(about(&token)).await;
    assert!(refused.is_err(), "a connection that was kept");
    scene.call(Some(&new_own)).await.expect("a client of ours");
    assert!(calls.end().await > 0);
    scene.stop().await;
}

/// Certificates of workloads live for an hour, connections for longer: nobody is to be cut off because
/// the service got a new certificate of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_cuts_off_no_client_whose_own_has_ended_meanwhile() {
    const YEARS: i64 = 365 * 86_400;
    let (authority, clients) = (Authority::new(), Authority::new());
    let files = TlsFiles::new(&authority.server(), Some(&clients.pem));
    let clock = TestClock::at_now();
    let scene = Scene::by(clock.as_clock(), authority, clients, files).await;
    let own = scene.clients.signed(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    });
    let connector = trusting(&scene.authority.pem, Some(&own), &["h2"]);
    let channel = tls_channel(connector.clone(), scene.grpc()).await;
    let mut kept = HealthClient::new(channel.expect("connects"));
    let ask = HealthCheckRequest::default;
    kept.check(ask()).await.expect("answered");

    clock.step(80 * YEARS);
    scene.files.put(&scene.authority.server());
    applied(&scene, 1).await;

    kept.check(ask())
        .await
        .expect("over the connection that there was");
    let channel = tls_channel(connector, scene.grpc()).await;
    let anew = async {
        HealthClient::new(channel?)
            .check(ask())
            .await
            .map_err(Into::into)
    };
    let anew: Result<_, Box<dyn std::error::Error + Send + Sync>> = anew.await;
    assert!(anew.is_err(), "a new connection");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_keeps_what_was_before_and_is_counted_once() {
    let scene = Scene::start().await;
    let own = scene.clients.client(ALICE);
    let next = scene.authority.server();

    scene.files.put_certificate("junk");
    eventually("it is refused", async || {
        reloads(&scene, "refused").await == 1
    })
    .await;
    scene.call(Some(&own)).await.expect("the one before");
    // Another fault is another refusal.
    scene.files.put_client_ca("junk");
    scene.files.put(&next);
    eventually("it is refused, too", async || {
        reloads(&scene, "refused").await == 2
    })
    .await;
    scene.call(Some(&own)).await.expect("the one before");
    assert!(scene.call(None).await.is_err(), "nobody else");

    scene.files.put_client_ca(&scene.clients.pem);
    applied(&scene, 1).await;
    scene.call(Some(&own)).await.expect("the new one");
    assert_eq!(reloads(&scene, "refused").await, 2);
    scene.stop().await;
}
