//! What each delivery is answered.

use clerk_authz::{emulator::TokenSpec, mirror::InboxState};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Scene;
use crate::support::{
    database::{Database, on_each_engine},
    get, http_client,
    webhook::{Message, NEXT_SECRET, SECRET, user_data, user_updated},
};

const UNKNOWN_SECRET: &str = "whsec_bm9ib2R5J3M=";

on_each_engine! {
    async fn what_is_good_is_safe_once_and_what_is_not_says_why(database: Database) {
        let scene = Scene::start(database).await;
        let addr = scene.addr();
        let good = user_updated("msg_1", "user_1", "Ada", 5);
        assert_eq!(good.status(addr).await, 204);
        assert_eq!(good.status(addr).await, 204, "once more");
        let rotated = user_updated("msg_2", "user_2", "Bob", 5).signed_with(NEXT_SECRET);
        assert_eq!(rotated.status(addr).await, 204);
        let mut with_charset = user_updated("msg_3", "user_3", "Eve", 5);
        with_charset.content_type = "Application/JSON; charset=utf-8";
        assert_eq!(with_charset.status(addr).await, 204);

        let mut text = good.clone();
        text.content_type = "text/plain";
        assert_eq!(text.status(addr).await, 415);
        assert_eq!(good.clone().signed_with(UNKNOWN_SECRET).status(addr).await, 401);
        let unreadable = [
            Message::raw("msg_4", "{}"),
            Message::raw("msg_4", "[1]"),
            Message::raw("msg_4", r#"{"type":"user.updated","data":[]}"#),
            Message::raw("msg 4", good.body.clone()),
        ];
        for bad in unreadable {
            assert_eq!(bad.status(addr).await, 400, "{}", bad.body);
        }
        let old = good.request(addr, "/webhooks/clerk").header("svix-timestamp", "1");
        assert_eq!(old.send().await.expect("an answer").status(), 400, "two of one header");
        let large = Message::raw("msg_5", " ".repeat(1_048_577));
        assert_eq!(large.status(addr).await, 413);
        let largest = format!("{}{}", good.body, " ".repeat(1_048_576 - good.body.len()));
        assert_eq!(Message::raw("msg_6", largest).status(addr).await, 204, "the limit itself");

        let elsewhere = good.request(addr, "/webhooks/clerk/nobody").send().await.expect("an answer");
        assert_eq!(elsewhere.status(), 404);
        let named = user_updated("msg_7", "user_7", "Kim", 5);
        let named = named.request(addr, "/webhooks/clerk/default").send().await.expect("an answer");
        assert_eq!(named.status(), 204);
        assert_eq!(get(addr, "/webhooks/clerk").await.0, 405);
        assert_eq!(get(addr, "/webhooks/clerk/default").await.0, 405);

        scene.settled().await;
        let mut done: Vec<_> = scene.list(InboxState::Done).await.into_iter().map(|it| it.id.to_string()).collect();
        done.sort_unstable();
        assert_eq!(done, ["msg_1", "msg_2", "msg_3", "msg_6", "msg_7"]);
        let metrics = scene.fixture.metrics().await;
        for (outcome, count) in [
            ("accepted", 5), ("duplicate", 1), ("unsupported_media_type", 1), ("wrong_signature", 1),
            ("malformed", 5), ("too_large", 1), ("store_unavailable", 0),
        ] {
            let line = format!("clerk_authz_webhook_deliveries_total{{instance=\"default\",outcome=\"{outcome}\"}} {count}.0\n");
            assert!(metrics.contains(&line), "{line}{metrics}");
        }
        assert!(metrics.contains("clerk_authz_inbox_applied_total{instance=\"default\",class=\"user\"} 5.0\n"), "{metrics}");
        assert!(metrics.contains("clerk_authz_database_up{} 1"), "{metrics}");
        scene.stop().await;
    }

    /// Advisory 29: an internal door that took a user's credential.
    async fn a_users_token_or_cookie_opens_nothing_at_the_webhook_door(database: Database) {
        let scene = Scene::start(database).await;
        let token = scene.fixture.mint(&TokenSpec::default());
        let message = user_updated("msg_1", "user_1", "Mallory", 5);
        for (name, value) in [
            ("authorization", format!("Bearer {token}")),
            ("cookie", format!("__session={token}")),
            ("authorization", format!("Bearer {SECRET}")),
            ("svix-signature", format!("v1,{token}")),
        ] {
            let request = http_client()
                .post(format!("http://{}/webhooks/clerk", scene.addr()))
                .header("content-type", "application/json")
                .header("svix-id", "msg_1")
                .header("svix-timestamp", message.signature().0)
                .header(name, &value);
            let request = match name {
                "svix-signature" => request,
                _ => request.header("svix-signature", message.clone().signed_with(UNKNOWN_SECRET).signature().1),
            };
            let answer = request.body(message.body.clone()).send().await.expect("an answer");
            assert_eq!(answer.status(), 401, "{name}");
        }

        // The nearest that is taken: the same message with its signature, whatever else is there.
        let request = message.request(scene.addr(), "/webhooks/clerk").header("authorization", "Bearer junk");
        assert_eq!(request.send().await.expect("an answer").status(), 204);
        // And the secret opens no other door.
        assert!(scene.fixture.verify(SECRET).await.is_err());
        scene.stop().await;
    }

    async fn what_cannot_be_stored_is_asked_for_again_and_then_applied(database: Database) {
        let scene = Scene::start(database).await;
        let message = user_updated("msg_1", "user_1", "Ada", 5);
        scene.database.place.run("ALTER TABLE inbox RENAME TO inbox_away").await;

        let refused = message.send(scene.addr()).await;

        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "5");
        scene.database.place.run("ALTER TABLE inbox_away RENAME TO inbox").await;
        assert!(scene.list(InboxState::Waiting).await.is_empty(), "nothing was kept");
        assert_eq!(message.status(scene.addr()).await, 204);
        scene.settled().await;
        assert_eq!(scene.first_name("user_1").await.as_deref(), Some("Ada"));
        scene.stop().await;
    }

    async fn a_message_of_another_clerk_instance_is_refused_also_after_a_restart(database: Database) {
        let from = |id: &str, instance_id: &str| {
            let body = json!({
                "type": "user.updated", "timestamp": 1_899_999_999_000_i64, "instance_id": instance_id,
                "data": user_data("user_1", "Ada", 5),
            });
            Message::raw(id, body.to_string())
        };
        let scene = Scene::start(database).await;
        assert_eq!(from("msg_1", "ins_1").status(scene.addr()).await, 204);
        assert_eq!(from("msg_2", "ins_2").status(scene.addr()).await, 403);
        let other_secret = from("msg_3", "ins_2").signed_with(NEXT_SECRET);
        assert_eq!(other_secret.status(scene.addr()).await, 204, "another secret may be of another");

        let scene = Scene::start(scene.stop().await).await;
        assert_eq!(from("msg_4", "ins_2").status(scene.addr()).await, 403);
        assert_eq!(from("msg_5", "ins_1").status(scene.addr()).await, 204);
        scene.stop().await;
    }
}

/// Without a database, or without a secret, there is nothing to send to.
#[tokio::test]
async fn without_a_secret_there_is_no_endpoint() {
    let fixture = crate::support::Fixture::start().await;
    let addr = fixture.service.http_addr();
    assert_eq!(
        user_updated("msg_1", "user_1", "Ada", 5).status(addr).await,
        404
    );
    assert_eq!(get(addr, "/webhooks/clerk").await.0, 405);
    let ready = get(addr, "/readyz").await.1;
    assert!(ready.contains("\"database_answers\":null"), "{ready}");
    fixture.stop().await;
}

/// Nor does it have to end.
#[tokio::test]
async fn a_body_without_a_length_is_read_up_to_the_limit() {
    use crate::support::database::{Database, Place};
    let scene = Scene::start(Database::on(Place::sqlite()).await).await;
    let mut stream = tokio::net::TcpStream::connect(scene.addr())
        .await
        .expect("connected");
    let head = "POST /webhooks/clerk HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..0x10 {
        stream.write_all(chunk.as_bytes()).await.expect("sent");
    }
    // One more than the limit, and the end never comes.
    stream.write_all(b"1\r\n \r\n").await.expect("sent");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 413");
    scene.stop().await;
}
