//! `clerk-authz inbox`, beside a service that runs.

use std::process::Output;

use clerk_authz::mirror::InboxState;
use serde_json::{Value, json};

use super::Scene;
use crate::support::{
    database::{Database, on_each_engine},
    webhook::{Message, user_data, user_updated},
};

async fn inbox(url: &str, arguments: &[&str]) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_clerk-authz"))
        .arg("inbox")
        .args(arguments)
        .env_clear()
        .env("CLERK_AUTHZ_DATABASE_URL", url)
        .output()
        .await
        .expect("it runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8").trim_end()
}

on_each_engine! {
    async fn poison_is_listed_tried_again_and_dropped(database: Database) {
        let scene = Scene::start(database).await;
        let url = scene.database.place.url();
        let mut unreadable = user_data("user_1", "Ada", 5);
        unreadable["created_at"] = json!("hush");
        for id in ["msg_1", "msg_2"] {
            let poison = Message::new(id, "user.updated", &unreadable);
            assert_eq!(poison.status(scene.addr()).await, 204);
        }
        scene.settled().await;

        let listed = inbox(&url, &["list"]).await;
        assert_eq!(listed.status.code(), Some(0), "{listed:?}");
        let lines = text(&listed.stdout);
        assert!(lines.contains("msg_1  user.updated  1 tries  user_1\n    the event's data cannot be read: created_at is of another type"), "{lines}");
        assert!(!lines.contains("hush"), "nothing of a body");
        let listed = inbox(&url, &["list", "--state", "poison", "--json"]).await;
        let objects: Vec<Value> = text(&listed.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((&objects[0]["id"], &objects[1]["id"]), (&json!("msg_1"), &json!("msg_2")));
        let elsewhere = inbox(&url, &["list", "--instance", "shop"]).await;
        assert_eq!((elsewhere.status.code(), text(&elsewhere.stdout)), (Some(0), ""));

        let dropped = inbox(&url, &["drop", "msg_2"]).await;
        assert_eq!((dropped.status.code(), text(&dropped.stdout)), (Some(0), "msg_2 is given up"));
        assert_eq!(inbox(&url, &["drop", "msg_2"]).await.status.code(), Some(1));
        // The service takes it up by itself, and finds again what is wrong with it.
        let retried = inbox(&url, &["retry", "msg_1", "--json"]).await;
        assert_eq!(text(&retried.stdout), r#"{"found":true,"id":"msg_1"}"#);
        crate::support::eventually("it is tried again", || async {
            let metrics = scene.fixture.metrics().await;
            metrics.contains("clerk_authz_inbox_poisoned_total{instance=\"default\"} 3.0\n")
        }).await;
        assert_eq!(scene.list(InboxState::Poison).await.len(), 1);
        assert_eq!(inbox(&url, &["retry", "msg_9"]).await.status.code(), Some(1));
        assert_eq!(user_updated("msg_2", "user_1", "Ada", 6).status(scene.addr()).await, 204);
        assert_eq!(scene.first_name("user_1").await, None, "a dropped message's id stays known");
        scene.stop().await;
    }
}

#[tokio::test]
async fn a_wrong_address_or_name_says_how_to_mend_it() {
    for (url, arguments, expected) in [
        (
            "",
            &["list"][..],
            "CLERK_AUTHZ_DATABASE_URL is not set; set it as for the service",
        ),
        (
            "sqlite:///nowhere/x.db",
            &["list"],
            "where there is no file; is it the service's?",
        ),
        (
            "mysql://x/y",
            &["list"],
            "CLERK_AUTHZ_DATABASE_URL is not a database's address",
        ),
        (
            "sqlite:///nowhere/x.db",
            &["list", "--instance", "A b"],
            "--instance is \"A b\"; expected lower-case",
        ),
    ] {
        let output = inbox(url, arguments).await;
        assert_eq!(output.status.code(), Some(2), "{expected}");
        let said = text(&output.stderr);
        assert!(said.contains(expected), "{said}");
    }
}
