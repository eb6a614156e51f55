//! The service is told to end while messages arrive.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use clerk_authz::mirror::InboxState;
use futures_util::future::join_all;

use super::crashes::changes;
use crate::support::{
    database::{Database, on_each_engine},
    eventually, http_client, offline_clerk,
    process::Service,
    webhook::{SECRET, user_updated},
};

/// At least so many, and on until something was left.
const ROUNDS: usize = 3;
const MOST_ROUNDS: usize = 20;
/// Many senders at once, so that some messages are taken in last and not yet applied.
const SENDERS: usize = 24;
/// What a worker has keeps its lease for 20 s.
const AT_ONCE: Duration = Duration::from_secs(10);

on_each_engine! {
    /// What a worker has it finishes before the end; the rest is nobody's, and the next one's at once.
    async fn what_was_answered_204_is_applied_once_by_the_next_one_at_once_when_the_service_ends(database: Database) {
        let clerk = offline_clerk().await;
        let (issuer, pem) = (clerk.instances()[0].issuer().to_string(), clerk.instances()[0].public_key_pem());
        let url = database.place.url();
        let variables = [
            ("CLERK_AUTHZ_ISSUER", &*issuer), ("CLERK_JWT_KEY", &*pem),
            ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET), ("CLERK_AUTHZ_DATABASE_URL", &*url),
        ];
        let next = Arc::new(AtomicU64::new(0));
        let (mut accepted, mut left) = (Vec::new(), 0);
        let mut rounds = 0;
        while rounds < ROUNDS || left == 0 {
            rounds += 1;
            assert!(rounds <= MOST_ROUNDS, "nothing was left to be applied");
            let service = Service::start(&variables).await;
            super::settled(&database, AT_ONCE).await;
            let (addr, begun) = (service.http_addr, next.load(Relaxed));
            let senders: Vec<_> = (0..SENDERS).map(|_| {
                let (next, client) = (Arc::clone(&next), http_client());
                tokio::spawn(async move {
                    let mut accepted = Vec::new();
                    // Until nobody is there; then a message may be safe or not.
                    loop {
                        let number = next.fetch_add(1, Relaxed);
                        let message = user_updated(&format!("msg_{number}"), &format!("user_{number}"), "Ada", 5);
                        match message.request_by(&client, addr, "/webhooks/clerk").send().await {
                            Ok(answer) if answer.status() == 204 => accepted.push(number),
                            // On a busy machine: it is not safe, and would be sent again.
                            Ok(answer) if answer.status() == 503 => {}
                            Ok(answer) => panic!("answered {}", answer.status()),
                            Err(_) => return accepted,
                        }
                    }
                })
            }).collect();
            eventually("messages arrive", async || next.load(Relaxed) > begun + 10 * SENDERS as u64).await;

            service.signal("-TERM");
            let (status, log) = service.ended().await;

            assert_eq!(status.code(), Some(0), "{log}");
            assert!(!log.contains("still"), "{log}");
            for sender in join_all(senders).await {
                accepted.extend(sender.expect("it ran"));
            }
            let claimed = database.place.number("SELECT COUNT(*) FROM inbox WHERE state = 'claimed'").await;
            assert_eq!(claimed, 0, "it kept what it had");
            left += database.place.number("SELECT COUNT(*) FROM inbox WHERE state = 'waiting'").await;
        }

        let service = Service::start(&variables).await;
        super::settled(&database, AT_ONCE).await;
        service.kill().await;
        assert!(super::list(&database, InboxState::Poison).await.is_empty());
        let changes = changes(&database).await;
        for number in &accepted {
            let user = format!("user_{number}");
            assert_eq!(changes.get(&user), Some(&1), "{user}");
        }
        assert!(changes.values().all(|times| *times == 1), "twice");
        println!("ending: {} answered 204, {left} left to the next, {} applied", accepted.len(), changes.len());
    }
}
