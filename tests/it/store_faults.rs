//! The database goes away, or has no room, while the service works.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use clerk_authz::{
    emulator::TokenSpec,
    mirror::{Mirror, Upkeep, UserKey},
    store::SqlStore,
};
use tokio::time::sleep;

use crate::support::{
    Fixture,
    database::user_id,
    eventually, eventually_within, get, offline_clerk,
    postgres::Server,
    process::Service,
    settings_for,
    webhook::{SECRET, user_updated},
};
use crate::{
    forward_auth::{Original, status},
    policy::PolicyFile,
};

/// Senders at once.
const SENDERS: usize = 4;
/// How often the database goes away.
const OUTAGES: usize = 2;
/// What a sender waits before it sends again; Clerk's own waits seconds and more.
const SENT_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// A message that was worked on when the database went away waits for its lease, 20 s.
const LEASES_PASS_WITHIN: Duration = Duration::from_secs(60);

/// What is going on, and what became of it.
#[derive(Default)]
struct Traffic {
    stop: AtomicBool,
    verified: AtomicU64,
    /// Messages that were answered 204; their numbers are those below it.
    accepted: AtomicU64,
    /// Deliveries that were answered 503, and sent again.
    refused: AtomicU64,
    next: AtomicU64,
}

impl Traffic {
    /// Sends one message after the other, each until it is taken.
    async fn send(&self, addr: SocketAddr) {
        while !self.stop.load(Relaxed) {
            let number = self.next.fetch_add(1, Relaxed);
            let message = user_updated(
                &format!("msg_{number}"),
                &format!("user_{number}"),
                "Ada",
                5,
            );
            loop {
                match message.status(addr).await {
                    204 => break,
                    503 => self.refused.fetch_add(1, Relaxed),
                    status => panic!("answered {status}"),
                };
                sleep(SENT_AGAIN_AFTER).await;
            }
            self.accepted.fetch_add(1, Relaxed);
        }
    }

    /// Verifies tokens, each of which must pass, and is let through behind a proxy.
    async fn verify(&self, fixture: &Fixture) {
        let addr = fixture.service.http_addr();
        while !self.stop.load(Relaxed) {
            let token = fixture.mint(&TokenSpec::session("user_alice"));
            let verified = fixture.verify(&token).await;
            assert!(verified.is_ok(), "{verified:?}");
            let authorization = format!("Bearer {token}");
            let with = [("authorization", &*authorization)];
            assert_eq!(status(addr, &Original::get("/a"), &with).await, 200);
            self.verified.fetch_add(1, Relaxed);
        }
    }

    async fn more(&self, what: &str, count: &AtomicU64) {
        const MORE: u64 = 20;
        let before = count.load(Relaxed);
        eventually(what, || async { count.load(Relaxed) >= before + MORE }).await;
    }
}

/// Tokens go on to be verified, webhooks are refused and come again, nothing is lost, and nobody has
/// to restart anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_may_go_away_and_come_back_under_traffic() {
    let started = tokio::task::spawn_blocking(Server::start_for_tests);
    let mut server = started.await.expect("a server");
    let url = server.fresh_database().await;
    let clerk = offline_clerk().await;
    let policy = PolicyFile::routes("  - {path: /a, access: signed_in}\n");
    let variables = [
        ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
        ("CLERK_AUTHZ_DATABASE_URL", &*url),
        ("CLERK_AUTHZ_POLICY", policy.text()),
        ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
    ];
    let settings = settings_for(&clerk, &variables);
    let fixture = Arc::new(Fixture::start_on(clerk, &settings).await);
    let addr = fixture.service.http_addr();
    let traffic = Arc::new(Traffic::default());
    let mut working: Vec<_> = (0..SENDERS)
        .map(|_| {
            let traffic = Arc::clone(&traffic);
            tokio::spawn(async move { traffic.send(addr).await })
        })
        .collect();
    working.push(tokio::spawn({
        let (traffic, fixture) = (Arc::clone(&traffic), Arc::clone(&fixture));
        async move { traffic.verify(&fixture).await }
    }));

    for _ in 0..OUTAGES {
        traffic.more("webhooks are taken", &traffic.accepted).await;
        let stopped = server.id();
        server = tokio::task::spawn_blocking(move || {
            server.stop();
            server
        })
        .await
        .expect("it stops");
        traffic.more("webhooks are refused", &traffic.refused).await;
        traffic.more("tokens are verified", &traffic.verified).await;
        eventually("it is seen", || async {
            let (status, ready) = get(addr, "/readyz").await;
            // Tokens are verified all the same.
            status == 200 && ready.contains("\"database_answers\":false")
        })
        .await;
        server.start_again();
        traffic
            .more("webhooks are taken again", &traffic.accepted)
            .await;
        assert_ne!(server.id(), stopped, "it was another process");
    }
    traffic.stop.store(true, Relaxed);
    for one in working {
        one.await.expect("it ended well");
    }

    let store = SqlStore::postgres(&url).await.expect("it answers");
    let instance = "default".parse().expect("a name");
    eventually_within(LEASES_PASS_WITHIN, "the inbox is empty", || async {
        let stats = store.stats(&instance).await;
        stats.is_ok_and(|stats| stats.oldest_waiting.is_none())
    })
    .await;
    let accepted = traffic.accepted.load(Relaxed);
    for number in 0..accepted {
        let id = user_id(&format!("user_{number}"));
        let found = store.user(&instance, UserKey::Id(&id)).await;
        assert!(found.expect("answered").is_some(), "user_{number} is lost");
    }
    println!(
        "store faults: {accepted} accepted, {} refused before, {} tokens verified",
        traffic.refused.load(Relaxed),
        traffic.verified.load(Relaxed)
    );
    store.close().await;
    let fixture = Arc::into_inner(fixture).expect("nobody else has it");
    fixture.stop().await;
}

/// Mounts a disk of a megabyte where only the command behind it sees it.
const ON_A_SMALL_DISK: &str = r#"mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@""#;

/// The disk is full: a webhook is refused, the log says what to do, and with room it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_says_what_to_do_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().to_str().expect("UTF-8");
    let command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        ON_A_SMALL_DISK,
        disk,
    ];
    let allowed = Command::new(command[0])
        .args(&command[1..])
        .arg("true")
        .output();
    if !allowed.as_ref().is_ok_and(|tried| tried.status.success()) {
        // CI looks for lines that begin so; a runner of one thread has written the test's name before.
        println!("\nskipped: the disk is full: no small disk can be made here: {allowed:?}");
        return;
    }
    let clerk = offline_clerk().await;
    let instance = &clerk.instances()[0];
    let (issuer, pem) = (instance.issuer().to_string(), instance.public_key_pem());
    let url = format!("sqlite://{disk}/clerk-authz.db");
    let variables = [
        ("CLERK_AUTHZ_ISSUER", &*issuer),
        ("CLERK_JWT_KEY", &*pem),
        ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
        ("CLERK_AUTHZ_DATABASE_URL", &*url),
    ];
    let service = Service::start_behind(&command, &variables).await;
    let addr = service.http_addr;
    assert_eq!(
        user_updated("msg_1", "user_1", "Ada", 5).status(addr).await,
        204
    );

    let filler = PathBuf::from(format!("/proc/{}/root{disk}/filler", service.id()));
    let filled = std::fs::write(&filler, vec![0; 1 << 20]);
    assert!(filled.is_err(), "it is not small");
    // What has room in pages that are there already is still taken.
    let refused = async |number: usize| {
        let name = "Ada".repeat(2_000);
        let message = user_updated(&format!("msg_full{number}"), "user_2", &name, 5);
        (message.status(addr).await == 503).then_some(message)
    };
    let mut message = None;
    for number in 0..100 {
        message = refused(number).await;
        if message.is_some() {
            break;
        }
    }
    let message = message.expect("it is full");
    assert_eq!(get(addr, "/readyz").await.0, 200);

    std::fs::remove_file(&filler).expect("room again");
    eventually("there is room again", || async {
        message.status(addr).await == 204
    })
    .await;
    eventually("it is applied", || async {
        let metrics = get(addr, "/metrics").await.1;
        metrics.contains("clerk_authz_inbox_messages{instance=\"default\",state=\"poison\"} 0")
            && metrics.contains("clerk_authz_database_up{} 1")
    })
    .await;
    let log = service.end().await;
    let line = log
        .lines()
        .find(|line| line.contains("a webhook was not taken"));
    let line = line.unwrap_or_else(|| panic!("no line in {log}"));
    assert!(line.contains("make room"), "{line}");
    clerk.stop().await;
}
