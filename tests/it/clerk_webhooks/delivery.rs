//! How messages arrive: signed, again after a failure, lost, twice, late, in another order.

use clerk_authz::{
    emulator::{NoReplay, WebhookMessage, WebhookSettings},
    webhook::Refused,
};
use serde_json::json;

use super::{Told, idle};
use crate::support::{PATIENCE, eventually, offline_clerk, receiver::Answer};

const OLD: &str = "whsec_YW5vdGhlci1zZWNyZXQtb2YtMzItYnl0ZXMtbG9uZyE=";

impl Told {
    /// So many events by hand, numbered.
    fn send(&self, many: usize) {
        for number in 0..many {
            self.instance()
                .send_event("test.sent", json!({ "number": number }));
        }
    }

    fn messages(&self) -> Vec<WebhookMessage> {
        self.instance().webhook_messages()
    }

    fn numbers(&self) -> Vec<u64> {
        let received = self.receiver.received();
        let number = |it: &crate::support::receiver::Received| it.json()["data"]["number"].as_u64();
        received.iter().filter_map(number).collect()
    }

    fn statuses(&self, message: usize) -> Vec<Option<u16>> {
        let attempts = &self.messages()[message].attempts;
        attempts.iter().map(|attempt| attempt.status).collect()
    }
}

#[tokio::test]
async fn a_message_is_signed_with_the_secret_and_with_the_old_ones() {
    let told = Told::start_with(|to| to.old_secrets = vec![OLD.to_owned()]).await;
    told.send(1);
    told.idle().await;
    let received = &told.receiver.received()[0];
    assert_eq!(received.header("svix-signature").matches("v1,").count(), 2);
    for secret in [&told.settings.secret, OLD] {
        assert!(received.verify(secret).is_ok());
    }
    let stranger = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    assert_eq!(
        received.verify(stranger).err(),
        Some(Refused::WrongSignature)
    );
    told.clerk.stop().await;
}

#[tokio::test]
async fn what_fails_is_sent_again_under_its_id_until_it_is_given_up() {
    let told = Told::start().await;
    told.receiver.answer([
        Answer::Status(500),
        Answer::Status(503),
        Answer::Status(202),
    ]);
    told.send(1);
    told.idle().await;
    assert_eq!(told.statuses(0), [Some(500), Some(503), Some(202)]);
    let ids = told.receiver.ids();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| *id == *told.messages()[0].id));

    told.receiver.answer([
        Answer::Redirect,
        Answer::Status(400),
        Answer::Status(404),
        Answer::Status(500),
    ]);
    told.send(1);
    told.idle().await;
    assert_eq!(
        told.statuses(1),
        [Some(302), Some(400), Some(404), Some(500)],
        "a redirect is not followed, and behind three retries nothing comes"
    );
    let stats = told.instance().webhook_stats();
    assert_eq!((stats.retried, stats.given_up), (5, 1));
    assert_eq!((stats.attempts, stats.answers["500"]), (7, 2));
    told.clerk.stop().await;
}

#[tokio::test]
async fn who_does_not_answer_in_time_or_at_all_has_failed() {
    let told = Told::start_with(|to| to.timeout_milliseconds = 1_000).await;
    told.receiver.answer([Answer::Silence]);
    told.send(1);
    told.idle().await;
    assert_eq!(told.statuses(0), [None, Some(204)]);

    // A port that nobody listens at.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let to = WebhookSettings {
        retry_milliseconds: vec![1],
        ..WebhookSettings::to(url)
    };
    told.instance().set_webhooks(to).expect("set");
    told.send(1);
    told.idle().await;
    assert_eq!(told.statuses(1), [None, None]);
    assert_eq!(told.instance().webhook_stats().answers["none"], 3);
    told.clerk.stop().await;
}

#[tokio::test]
async fn a_message_is_replayed_under_its_id() {
    let told = Told::start_with(|to| to.lose = 1.0).await;
    told.send(1);
    told.idle().await;
    assert!(told.receiver.received().is_empty());
    let message = told.messages()[0].clone();
    assert!(message.lost && message.attempts.is_empty());

    for _ in 0..2 {
        told.instance().replay(&message.id).expect("replayed");
    }
    told.idle().await;
    let received = told.receiver.received();
    assert_eq!(told.receiver.ids(), vec![&*message.id; 2]);
    assert!(
        received
            .iter()
            .all(|it| *it.body == *message.body.as_bytes())
    );
    assert!(received[0].verify(&told.settings.secret).is_ok());
    let stats = told.instance().webhook_stats();
    assert_eq!((stats.messages, stats.lost, stats.replayed), (1, 1, 2));

    assert_eq!(told.instance().replay("msg_none"), Err(NoReplay::Unknown));
    told.instance().end_webhooks();
    assert_eq!(
        told.instance().replay(&message.id),
        Err(NoReplay::NoEndpoint)
    );
    told.clerk.stop().await;
}

#[tokio::test]
async fn what_is_lost_and_doubled_is_told_by_the_seed() {
    let fates = async |seed: u64| {
        let told = Told::start_with(|to| {
            (to.lose, to.double, to.seed) = (0.2, 0.3, seed);
        })
        .await;
        told.send(200);
        told.idle().await;
        let messages = told.messages();
        for message in &messages {
            let arrived = told.receiver.ids();
            let arrived = arrived.iter().filter(|id| **id == *message.id).count();
            let expected = match (message.lost, message.doubled) {
                (true, _) => 0,
                (false, true) => 2,
                (false, false) => 1,
            };
            assert_eq!(arrived, expected, "{message:?}");
        }
        let stats = told.instance().webhook_stats();
        assert!((20..=60).contains(&stats.lost), "{stats:?}");
        assert!((30..=70).contains(&stats.doubled), "{stats:?}");
        told.clerk.stop().await;
        let fate = |message: &WebhookMessage| (message.lost, message.doubled);
        messages.iter().map(fate).collect::<Vec<_>>()
    };
    let once = fates(1).await;
    assert_eq!(once, fates(1).await);
    assert_ne!(once, fates(2).await);
}

#[tokio::test]
async fn delays_keep_the_order_and_shuffling_does_not() {
    let in_order: Vec<u64> = (0..40).collect();
    let arrivals = async |change: fn(&mut WebhookSettings)| {
        let told = Told::start_with(change).await;
        told.send(40);
        told.idle().await;
        let numbers = told.numbers();
        told.clerk.stop().await;
        numbers
    };
    assert_eq!(arrivals(|_| {}).await, in_order);
    assert_eq!(
        arrivals(|to| to.delay_milliseconds = [0, 100]).await,
        in_order
    );
    let mut shuffled = arrivals(|to| to.shuffle = true).await;
    assert_ne!(shuffled, in_order);
    shuffled.sort_unstable();
    assert_eq!(shuffled, in_order, "all of them");
}

#[tokio::test]
async fn one_that_does_not_answer_holds_up_no_others_when_several_are_under_way() {
    let told = Told::start_with(|to| to.concurrent = 2).await;
    told.receiver.answer([Answer::Silence]);
    told.send(5);
    eventually("four are through", async || {
        told.instance().webhook_stats().attempts == 4
    })
    .await;
    assert_eq!(told.instance().webhook_stats().waiting, 1);
    told.clerk.stop().await;
}

#[tokio::test]
async fn no_change_waits_for_the_endpoint_and_what_is_too_much_is_counted() {
    let told = Told::start().await;
    told.receiver.answer([Answer::Silence]);
    let changes = async {
        told.send(10_100);
        told.directory().lock_user("user_bob").expect("locked");
    };
    tokio::time::timeout(PATIENCE, changes)
        .await
        .expect("done while the first message has no answer");
    let stats = told.instance().webhook_stats();
    assert_eq!(stats.messages, 10_101);
    assert!((100..=101).contains(&stats.overflowed), "{stats:?}");
    assert_eq!(told.messages().len(), 10_000, "the latest");
    let last = told.messages().pop().expect("a message");
    assert_eq!(last.event_type, "user.updated");
    assert_eq!(told.instance().replay(&last.id), Err(NoReplay::Full));

    told.instance().end_webhooks();
    assert!(told.instance().webhook_stats().waiting <= 1);
    told.clerk.stop().await;
}

#[tokio::test]
async fn what_waits_goes_where_the_endpoint_is_now() {
    let told = Told::start_with(|to| to.delay_milliseconds = [2_000, 2_000]).await;
    told.send(1);
    let receiver = crate::support::receiver::Receiver::start().await;
    let to = WebhookSettings {
        secret: OLD.to_owned(),
        ..WebhookSettings::to(receiver.url())
    };
    told.instance().set_webhooks(to).expect("set");
    told.idle().await;
    assert!(told.receiver.received().is_empty());
    assert!(receiver.received()[0].verify(OLD).is_ok());
    told.clerk.stop().await;
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_kept() {
    let clerk = offline_clerk().await;
    let instance = &clerk.instances()[0];
    instance.directory().ban_user("user_bob").expect("banned");
    instance.send_event("email.created", json!({}));
    idle(instance).await;
    assert!(instance.webhook_messages().is_empty());
    assert_eq!(instance.webhook_stats().messages, 0);
    clerk.stop().await;
}
