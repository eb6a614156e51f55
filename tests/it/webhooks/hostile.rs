//! Advisory 26: whatever comes from outside is compared, and is never a part of a query or a pattern.

use clerk_authz::{
    door::grpc::proto::{self, get_user_request::Key},
    mirror::InboxState,
};
use serde_json::json;
use tonic::{Code, Status};

use super::Scene;
use crate::support::{
    database::{Database, on_each_engine},
    webhook::{Message, user_data},
};

/// SQL in both dialects, parameters, wildcards and patterns.
const HOSTILE: &[&str] = &[
    "'; DROP TABLE users; --",
    "x' OR '1'='1",
    "\" OR 1=1 --",
    "$1",
    "?1",
    ":instance",
    "%",
    "_ser@example.com",
    ".*",
    "^(a+)+$",
    "\\'; DELETE FROM inbox; --",
    "');INSERT INTO users (id) VALUES ('user_x",
    "😀\u{202e}'\n\r\t;",
];

impl Scene {
    async fn get(&self, key: Key) -> Result<proto::User, Status> {
        let request = proto::GetUserRequest {
            key: Some(key),
            ..Default::default()
        };
        let answer = self.fixture.client.clone().get_user(request).await?;
        Ok(answer.into_inner().user.expect("a user"))
    }

    async fn finds_nobody(&self, key: Key) {
        let what = format!("{key:?}");
        let status = self.get(key).await.expect_err(&what);
        assert_eq!(status.code(), Code::NotFound, "{what}: {status:?}");
    }
}

on_each_engine! {
    async fn no_input_becomes_a_query_or_a_pattern(database: Database) {
        let scene = Scene::start(database).await;
        let mut plain = user_data("user_plain", "Ada", 5);
        plain["external_id"] = json!("plain");
        plain["email_addresses"] = json!([{
            "id": "idn_1", "email_address": "user@example.com", "verification": {"status": "verified"},
        }]);
        let plain = Message::new("msg_plain", "user.created", &plain);
        assert_eq!(plain.status(scene.addr()).await, 204);
        scene.settled().await;
        scene.get(Key::ExternalId("plain".into())).await.expect("found");
        scene.get(Key::Email("user@example.com".into())).await.expect("found");

        for hostile in HOSTILE {
            scene.finds_nobody(Key::ExternalId((*hostile).into())).await;
            scene.finds_nobody(Key::Email((*hostile).into())).await;
            let status = scene.get(Key::UserId(format!("user_{hostile}"))).await.expect_err(hostile);
            assert_eq!(status.code(), Code::InvalidArgument, "{hostile}");
        }
        for (number, hostile) in HOSTILE.iter().enumerate() {
            let id = format!("user_h{number}");
            let mut data = user_data(&id, hostile, 5);
            data["external_id"] = json!(hostile);
            data["username"] = json!(hostile);
            data["public_metadata"] = json!({*hostile: hostile});
            data["email_addresses"] = json!([{
                "id": "idn_1", "email_address": hostile, "verification": {"status": "verified"},
            }]);
            let visible: String = hostile.chars().filter(char::is_ascii_graphic).collect();
            let message = Message::new(&format!("msg_{number}{visible}"), "user.created", &data);
            assert_eq!(message.status(scene.addr()).await, 204, "{hostile}");
            // An id that is none, and a type that is none.
            let unknown = Message::new(&format!("msg_t{number}"), hostile, &data);
            let status = unknown.status(scene.addr()).await;
            assert!(matches!(status, 204 | 400), "{hostile}: {status}");
            data["id"] = json!(hostile);
            let no_id = Message::new(&format!("msg_n{number}"), "user.created", &data);
            assert_eq!(no_id.status(scene.addr()).await, 204, "{hostile}");
        }
        scene.settled().await;

        for (number, hostile) in HOSTILE.iter().enumerate() {
            let id = format!("user_h{number}");
            for key in [Key::ExternalId((*hostile).into()), Key::Email((*hostile).into())] {
                let found = scene.get(key).await.expect(hostile);
                assert_eq!((found.id, &*found.first_name), (id.clone(), *hostile));
            }
        }
        let plain = scene.get(Key::UserId("user_plain".into())).await.expect("still there");
        assert_eq!((&*plain.first_name, &*plain.external_id), ("Ada", "plain"));
        let poison = scene.list(InboxState::Poison).await;
        assert_eq!(poison.len(), HOSTILE.len(), "those whose id is none: {poison:?}");
        scene.stop().await;
    }
}
