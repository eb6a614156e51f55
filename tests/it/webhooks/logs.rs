//! What the log holds of messages: nothing.

use clerk_authz::mirror::InboxState;
use serde_json::json;

use crate::support::{
    database::{Database, on_each_engine},
    eventually, offline_clerk,
    process::Service,
    webhook::{Message, NEXT_SECRET, SECRET, user_data},
};

on_each_engine! {
    async fn nothing_of_a_body_and_no_secret_is_in_the_log_at_its_most_verbose(database: Database) {
        let clerk = offline_clerk().await;
        let (issuer, pem) = (clerk.instances()[0].issuer().to_string(), clerk.instances()[0].public_key_pem());
        let url = database.place.url();
        let service = Service::start(&[
            ("CLERK_AUTHZ_ISSUER", &issuer), ("CLERK_JWT_KEY", &pem),
            ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET), ("CLERK_AUTHZ_DATABASE_URL", &url),
            ("CLERK_AUTHZ_LOG", "trace"),
        ]).await;
        let addr = service.http_addr;
        let good = Message::new("msg_1", "user.created", &user_data("user_1", "hushname", 5));
        let mut unreadable = user_data("user_2", "hushname", 5);
        unreadable["updated_at"] = json!("hushtime");
        let poison = Message::new("msg_2", "user.updated", &unreadable);
        let code = Message::new("msg_3", "sms.created", &json!({"message": "hushcode"}));
        let unknown = Message::new("msg_4", "user.promoted", &json!({"to": "hushrank"}));
        for (message, status) in [
            (good.clone(), 204), (poison, 204), (code, 204), (unknown, 204),
            (good.signed_with(NEXT_SECRET), 401),
            (Message::raw("msg_5", r#"{"type":"user.updated","hushmember":1}"#), 400),
            (Message::raw("msg_6", "hushtext ".repeat(200_000)), 413),
        ] {
            assert_eq!(message.status(addr).await, status, "{}", message.id);
        }
        eventually("one is applied and one is poison", || async {
            super::list(&database, InboxState::Poison).await.len() == 1
                && super::first_name(&database, "user_1").await.is_some()
        }).await;
        let metrics = crate::support::get(addr, "/metrics").await.1;

        let log = service.end().await + &metrics;

        for said in ["a webhook was not taken", "a message cannot be applied", "user.promoted", "updated_at is of another type"] {
            assert!(log.contains(said), "{said} is not in\n{log}");
        }
        for private in ["hush", &SECRET["whsec_".len()..], &NEXT_SECRET["whsec_".len()..]] {
            let line = log.lines().find(|line| line.contains(private));
            assert_eq!(line, None, "{private}");
        }
    }
}
