//! The service is killed at any moment while messages arrive.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clerk_authz::mirror::{ChangeEvent, Feed, FeedPage, InboxState, Position};
use tokio::time::sleep;

use crate::support::{
    database::{Database, on_each_engine},
    offline_clerk,
    process::Service,
    webhook::{SECRET, user_updated},
};

/// How many senders there are at once.
const SENDERS: u64 = 4;
/// A message that was claimed when the worker was killed waits for its lease, 20 s.
const LEASES_PASS_WITHIN: Duration = Duration::from_secs(60);

/// How often each user changed.
pub(super) async fn changes(database: &Database) -> BTreeMap<String, u64> {
    let mut changes: BTreeMap<String, u64> = BTreeMap::new();
    let mut after = Position::START;
    loop {
        let page = database
            .store
            .changes(&database.instance, after, 1_000)
            .await;
        let Ok(FeedPage::Changes(page)) = page else {
            panic!("a feed")
        };
        let Some(last) = page.last() else {
            return changes;
        };
        after = last.position;
        for change in page {
            let ChangeEvent::UserChanged(user) = change.event else {
                panic!("{change:?}")
            };
            *changes.entry(user.to_string()).or_default() += 1;
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

on_each_engine! {
    /// Whatever was answered 204 is applied, and once. `CRASH_ROUNDS=200 CRASH_SEED=…` goes further,
    /// or the same way again.
    async fn what_was_answered_204_is_applied_exactly_once_whenever_the_service_is_killed(database: Database) {
        let rounds = number("CRASH_ROUNDS").unwrap_or(20);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let seed = number("CRASH_SEED").unwrap_or(now.as_micros() as u64);
        println!("crashes: seed {seed}, {rounds} rounds");
        let mut chance = fastrand::Rng::with_seed(seed);
        let clerk = offline_clerk().await;
        let (issuer, pem) = (clerk.instances()[0].issuer().to_string(), clerk.instances()[0].public_key_pem());
        let url = database.place.url();
        let variables = [
            ("CLERK_AUTHZ_ISSUER", &*issuer), ("CLERK_JWT_KEY", &*pem),
            ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET), ("CLERK_AUTHZ_DATABASE_URL", &*url),
        ];
        let next = Arc::new(AtomicU64::new(0));
        let mut accepted = Vec::new();
        for _ in 0..rounds {
            let service = Service::start(&variables).await;
            let addr = service.http_addr;
            let senders: Vec<_> = (0..SENDERS).map(|_| {
                let next = Arc::clone(&next);
                tokio::spawn(async move {
                    let mut accepted = Vec::new();
                    // Until it is killed; then a message may be safe or not.
                    loop {
                        let number = next.fetch_add(1, Relaxed);
                        let message = user_updated(&format!("msg_{number}"), &format!("user_{number}"), "Ada", 5);
                        match message.request(addr, "/webhooks/clerk").send().await {
                            Ok(answer) if answer.status() == 204 => accepted.push(number),
                            Ok(answer) => panic!("answered {}", answer.status()),
                            Err(_) => return accepted,
                        }
                    }
                })
            }).collect();
            sleep(Duration::from_millis(chance.u64(1..300))).await;
            service.kill().await;
            for sender in senders {
                accepted.extend(sender.await.expect("it ran"));
            }
        }

        let service = Service::start(&variables).await;
        super::settled(&database, LEASES_PASS_WITHIN).await;
        service.kill().await;

        assert!(!accepted.is_empty());
        assert!(super::list(&database, InboxState::Poison).await.is_empty());
        let changes = changes(&database).await;
        for number in &accepted {
            let user = format!("user_{number}");
            assert_eq!(changes.get(&user), Some(&1), "seed {seed}: {user}");
        }
        assert!(changes.values().all(|times| *times == 1), "seed {seed}: twice");
        println!("crashes: {} answered 204, {} applied", accepted.len(), changes.len());
    }
}
