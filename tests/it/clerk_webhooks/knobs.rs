//! The control addresses.

use serde_json::{Value, json};

use super::idle;
use crate::support::{PATIENCE, http_client, offline_clerk, receiver::Receiver};

#[tokio::test]
async fn the_endpoint_is_set_shown_and_taken_away_over_http() {
    let clerk = offline_clerk().await;
    let receiver = Receiver::start().await;
    let instance = &clerk.instances()[0];
    let ask = async |method: &str, path: &str, body: Option<Value>| {
        let method = method.parse().expect("a method");
        let url = format!("http://{}/_emulator/{path}", instance.addr());
        let mut request = http_client().request(method, url).timeout(PATIENCE);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    };

    assert_eq!(ask("GET", "webhooks", None).await, (200, Value::Null));
    let to = json!({
        "url": receiver.url(), "lose": 0.0, "double": 1, "delay_milliseconds": [0, 5],
        "shuffle": true, "timestamps": "seconds", "seed": 7,
    });
    let (status, set) = ask("PUT", "webhooks", Some(to)).await;
    assert_eq!(status, 200, "{set}");
    let secret = set["secret"].as_str().expect("one is made up");
    assert!(secret.starts_with("whsec_"), "{secret}");
    assert_eq!(ask("GET", "webhooks", None).await.1, set);
    let world = ask("GET", "world", None).await.1;
    assert_eq!(world["instances"][0]["webhooks"], set);

    let by_hand = json!({ "type": "email.created", "data": { "body": "123456" } });
    let sent = ask("POST", "webhooks/messages", Some(by_hand)).await;
    assert_eq!(sent.0, 204);
    idle(instance).await;
    assert_eq!(receiver.event_types(), ["email.created", "email.created"]);
    assert!(receiver.received()[1].verify(secret).is_ok());
    let messages = ask("GET", "webhooks/messages", None).await.1;
    assert_eq!(messages[0]["doubled"], true);
    assert_eq!(messages[0]["attempts"][1]["status"], 204);
    let id = messages[0]["id"].as_str().expect("an id");
    let replay = format!("webhooks/messages/{id}/replay");
    assert_eq!(ask("POST", &replay, None).await.0, 204);
    idle(instance).await;
    assert_eq!(receiver.ids(), [id, id, id]);
    let stats = ask("GET", "stats", None).await.1;
    assert_eq!(stats["webhooks"]["answers"], json!({ "204": 3 }));
    assert_eq!(stats["webhooks"]["doubled"], 1);
    assert_eq!(ask("DELETE", "stats", None).await.0, 204);
    let stats = ask("GET", "stats", None).await.1;
    assert_eq!(stats["webhooks"]["attempts"], 0);

    let unknown = ask("POST", "webhooks/messages/msg_none/replay", None).await;
    assert_eq!(unknown.0, 404);
    assert_eq!(ask("DELETE", "webhooks", None).await.0, 204);
    assert_eq!(ask("GET", "webhooks", None).await.1, Value::Null);
    assert_eq!(ask("POST", &replay, None).await.0, 422);
    clerk.stop().await;
}

#[tokio::test]
async fn wrong_settings_are_refused_by_name_and_change_nothing() {
    let clerk = offline_clerk().await;
    let instance = &clerk.instances()[0];
    let url = "http://127.0.0.1:8080/webhooks/clerk";
    let set = async |body: &Value| {
        let answer = http_client()
            .put(format!("http://{}/_emulator/webhooks", instance.addr()))
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    for (named, wrong) in [
        ("url", json!({})),
        ("url", json!({ "url": "" })),
        ("url", json!({ "url": "127.0.0.1:8080" })),
        ("url", json!({ "url": "http://192.0.2.1/webhooks/clerk" })),
        ("url", json!({ "url": "http://example.com/" })),
        ("url", json!({ "url": "http://127.0.0.1.example.com/" })),
        ("url", json!({ "url": "http://127.0.0.1@example.com/" })),
        ("url", json!({ "url": "http://0.0.0.0:8080/" })),
        ("url", json!({ "url": "https://127.0.0.1:8080/" })),
        ("url", json!({ "url": "file:///etc/passwd" })),
        ("secret", json!({ "url": url, "secret": "whsec_" })),
        ("secret", json!({ "url": url, "secret": "AAEC" })),
        ("old_secrets", json!({ "url": url, "old_secrets": [""] })),
        (
            "old_secrets",
            json!({ "url": url, "old_secrets": vec!["whsec_AAEC"; 10] }),
        ),
        ("lose", json!({ "url": url, "lose": 1.1 })),
        ("double", json!({ "url": url, "double": -0.1 })),
        (
            "delay_milliseconds",
            json!({ "url": url, "delay_milliseconds": [2, 1] }),
        ),
        (
            "delay_milliseconds",
            json!({ "url": url, "delay_milliseconds": [0, 86_400_001] }),
        ),
        (
            "retry_milliseconds",
            json!({ "url": url, "retry_milliseconds": vec![1; 21] }),
        ),
        (
            "timeout_milliseconds",
            json!({ "url": url, "timeout_milliseconds": 0 }),
        ),
        ("concurrent", json!({ "url": url, "concurrent": 0 })),
        ("concurrent", json!({ "url": url, "concurrent": 65 })),
        ("timestamps", json!({ "url": url, "timestamps": "minutes" })),
        ("lost", json!({ "url": url, "lost": 0.5 })),
    ] {
        let (status, text) = set(&wrong).await;
        assert_eq!(status, 422, "{wrong}: {text}");
        assert!(text.contains(named), "{wrong}: {text}");
        assert!(instance.webhooks().is_none(), "{wrong}");
    }
    for good in [url, "http://localhost:8080/x", "http://[::1]:8080/"] {
        assert_eq!(set(&json!({ "url": good })).await.0, 200, "{good}");
    }
    clerk.stop().await;
}
