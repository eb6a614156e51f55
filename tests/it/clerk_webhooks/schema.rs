//! Every event, by the schema that Clerk publishes for it.

use std::collections::BTreeSet;

use clerk_authz::{
    emulator::{
        TimestampUnit, TokenSpec,
        directory::{Organization, Permission, Role, SessionStatus, User},
    },
    webhook::EventType,
};
use serde_json::{Value, json};

use super::Told;
use crate::{clerk_api::openapi::as_json_schema, support::receiver::Received};

/// Clerk's file, as far as it was cut.
fn document() -> Value {
    let text = include_str!("../clerk-openapi/webhooks.json");
    as_json_schema(serde_json::from_str(text).expect("JSON"))
}

fn events() -> Vec<String> {
    let document = document();
    let events = document["x-webhooks"].as_object().expect("events");
    let sent = events.iter().filter(|(_, schema)| schema.is_object());
    sent.map(|(name, _)| name.clone()).collect()
}

fn assert_valid(what: &str, mut schema: Value, value: &Value) {
    schema["components"] = document()["components"].clone();
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    let wrong: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{what}: {wrong:#?}\n{value:#}");
}

fn component(name: &str) -> Value {
    json!({ "allOf": [{ "$ref": format!("#/components/schemas/{name}") }] })
}

/// Sessions forbid further members and are extended by `user` nonetheless: Clerk's own events are
/// not valid by Clerk's schema, so the two parts are looked at apart. Nor does the schema know the
/// status `pending` that Clerk's own example has.
fn assert_schema(event: &Value) {
    let name = event["type"].as_str().expect("a type");
    if !name.starts_with("session.") {
        let schema = document()["x-webhooks"][name].clone();
        assert!(schema.is_object(), "{name} is no event of Clerk's");
        return assert_valid(name, schema, event);
    }
    let mut session = event["data"].clone();
    let user = session.as_object_mut().expect("an object").remove("user");
    if name == "session.pending" {
        assert_eq!(session["status"], "pending");
        session["status"] = json!("active");
    }
    assert_valid(name, component("WebhookEventPayload"), event);
    assert_valid(name, component("Session"), &session);
    assert_valid(name, component("User"), &user.expect("the user"));
}

#[test]
fn the_catalogue_is_that_of_clerks_file() {
    let document = document();
    let theirs = document["x-webhooks"].as_object().expect("events").keys();
    let ours = EventType::KNOWN.iter().map(|known| known.name());
    assert_eq!(
        ours.collect::<BTreeSet<_>>(),
        theirs.map(String::as_str).collect::<BTreeSet<_>>(),
        "src/webhook/event_type.rs has the catalogue"
    );
}

/// Everything that can be changed.
fn change_everything(told: &Told) {
    let directory = told.directory();
    let dora = User {
        external_id: Some("ext1".to_owned()),
        ..User::with_email("dora@example.com")
    };
    let dora = directory.create_user(dora).expect("made").id;
    let change = directory.change_user(&dora, |user| user.first_name = Some("Dora".to_owned()));
    change.expect("changed");
    let umbrella = Organization {
        created_by: Some(dora.clone()),
        ..Organization::named("Umbrella")
    };
    let umbrella = directory.create_organization(umbrella).expect("made").id;
    let change = directory.change_organization(&umbrella, |it| it.name = "Umbrella 2".to_owned());
    change.expect("changed");

    directory
        .add_member(&umbrella, "user_bob", "org:member")
        .expect("joined");
    directory
        .set_role(&umbrella, "user_bob", "org:admin")
        .expect("raised");
    directory
        .remove_member(&umbrella, "user_bob")
        .expect("removed");

    let letters = Permission {
        key: "org:letters:read".to_owned(),
        name: "Read letters".to_owned(),
        ..Permission::default()
    };
    directory.create_permission(letters).expect("made");
    let change = directory.change_permission("org:letters:read", |it| it.name = "Read".to_owned());
    change.expect("changed");
    let role = Role {
        key: "org:clerk".to_owned(),
        name: "Clerk".to_owned(),
        permissions: vec!["org:letters:read".to_owned()],
        ..Role::default()
    };
    directory.create_role(role).expect("made");
    directory
        .set_role_permissions("org:clerk", ["org:sys_billing:read"])
        .expect("set");
    directory.delete_role("org:clerk").expect("deleted");
    directory
        .delete_permission("org:letters:read")
        .expect("deleted");

    for status in [
        SessionStatus::Pending,
        SessionStatus::Ended,
        SessionStatus::Removed,
        SessionStatus::Revoked,
    ] {
        let session = directory.create_session(&dora, Some(&umbrella));
        let session = session.expect("signed in").id;
        directory
            .set_session_status(&session, status)
            .expect("changed");
    }
    directory.delete_organization(&umbrella).expect("deleted");
    directory.delete_user(&dora).expect("deleted");
}

#[tokio::test]
async fn every_event_is_as_clerks_schema_says() {
    let told = Told::start().await;
    change_everything(&told);
    told.idle().await;

    let mut seen = BTreeSet::new();
    for received in told.receiver.received() {
        assert_schema(&received.json());
        assert_eq!(received.header("content-type"), "application/json");
        let delivery = received.verify(&told.settings.secret).expect("verified");
        let envelope = delivery.envelope;
        assert_eq!(delivery.message_id.as_str(), received.id());
        assert_eq!(
            envelope.instance_id.expect("an instance").as_str(),
            "ins_emulator",
            "the kid of its tokens"
        );
        seen.insert(envelope.event_type.name().to_owned());
    }
    let missing: Vec<String> = events()
        .into_iter()
        .filter(|it| !seen.contains(it))
        .collect();
    assert!(missing.is_empty(), "never sent: {missing:?}");
    println!("covered: {} webhook events", seen.len());
    told.clerk.stop().await;
}

#[tokio::test]
async fn a_change_is_the_events_that_clerk_documents_and_no_more() {
    let told = Told::start().await;
    let directory = told.directory();

    let first = directory
        .create_session("user_bob", Some("org_acme"))
        .expect("signed in");
    assert_eq!(
        told.events().await,
        ["user.updated", "session.created"],
        "signing in changes the user's last_sign_in_at"
    );
    directory.create_session("user_bob", None).expect("another");
    directory.end_session(&first.id).expect("ended");
    told.events().await;
    directory.create_session("user_bob", None).expect("a third");
    told.events().await;
    directory.ban_user("user_bob").expect("banned");
    assert_eq!(
        told.events().await,
        ["user.updated", "session.revoked", "session.revoked"],
        "of the sessions that lived"
    );
    directory.unban_user("user_bob").expect("unbanned");
    assert_eq!(told.events().await, ["user.updated"]);
    directory.lock_user("user_bob").expect("locked");
    assert_eq!(told.events().await, ["user.updated"]);
    directory.revoke_session(&first.id).expect("nothing to do");
    assert!(told.events().await.is_empty(), "it had ended");

    directory
        .set_role_permissions("org:admin", ["org:sys_billing:read"])
        .expect("set");
    assert_eq!(told.events().await, ["role.updated"], "no membership");
    directory
        .change_role("org:admin", |role| role.key = "org:chief".to_owned())
        .expect("renamed");
    assert_eq!(told.events().await, ["role.updated"], "no membership");

    let spec = TokenSpec::session("user_alice").in_organization("acme");
    told.instance().mint(&spec).expect("a token");
    assert_eq!(told.events().await, ["user.updated", "session.created"]);
    told.instance().mint(&spec).expect("a token");
    assert!(told.events().await.is_empty(), "of the same session");

    directory.delete_organization("org_acme").expect("deleted");
    assert_eq!(
        told.events().await,
        ["organization.deleted"],
        "not its memberships, nor the sessions in it"
    );
    directory.delete_user("user_alice").expect("deleted");
    assert_eq!(
        told.events().await,
        ["user.deleted"],
        "nor what goes with a user"
    );

    assert!(directory.ban_user("user_alice").is_err());
    assert!(
        directory
            .add_member("org_globex", "user_bob", "org:none")
            .is_err()
    );
    assert!(
        told.events().await.is_empty(),
        "what is refused is no change"
    );
    told.instance().end_webhooks();
    directory.unlock_user("user_bob").expect("unlocked");
    assert!(told.events().await.is_empty(), "nobody is told any more");
    told.clerk.stop().await;
}

#[tokio::test]
async fn changes_through_the_api_are_told_too() {
    let told = Told::start().await;
    let url = format!(
        "http://{}/v1/organizations/org_acme/memberships/user_bob",
        told.instance().addr()
    );
    let answer = crate::support::http_client()
        .delete(url)
        .bearer_auth(told.instance().secret_key())
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    told.idle().await;
    let [received] = &told.receiver.received()[..] else {
        panic!("one event: {:?}", told.receiver.event_types());
    };
    let event = received.json();
    assert_eq!(event["type"], "organizationMembership.deleted");
    let data = &event["data"];
    assert_eq!(data["object"], "organization_membership", "the whole of it");
    assert_eq!(data["public_user_data"]["user_id"], "user_bob");
    assert_eq!(data["organization"]["id"], "org_acme");
    assert_eq!(data["deleted"], Value::Null, "no deleted object");
    told.clerk.stop().await;
}

fn at(received: &Received) -> i64 {
    received.json()["timestamp"].as_i64().expect("a number")
}

#[tokio::test]
async fn an_event_is_not_older_than_its_data_and_a_deletion_is_newer_than_all_before() {
    let world = clerk_authz::emulator::World::default_world();
    let now = clerk_authz::identity::Timestamp::from_unix_millis(1_790_000_000_123);
    let clock = std::sync::Arc::new(move || now);
    let clerk = clerk_authz::emulator::Emulator::start(world, crate::support::loopback(), clock);
    let told = Told::start_on(clerk.await.expect("an offline Clerk"), |_| {}).await;
    for _ in 0..3 {
        told.directory().lock_user("user_bob").expect("locked");
    }
    told.directory().delete_user("user_bob").expect("deleted");
    told.idle().await;

    let received = told.receiver.received();
    let times: Vec<i64> = received.iter().map(at).collect();
    let start = now.unix_millis();
    assert_eq!(
        times,
        [start + 1, start + 2, start + 3, start + 4],
        "within one millisecond"
    );
    for received in &received[..3] {
        assert_eq!(received.json()["data"]["updated_at"], at(received));
    }
    told.clerk.stop().await;
}

#[tokio::test]
async fn the_time_is_in_seconds_when_it_is_to_be() {
    let told = Told::start_with(|to| to.timestamps = TimestampUnit::Seconds).await;
    told.directory().lock_user("user_bob").expect("locked");
    told.idle().await;
    let received = &told.receiver.received()[0];
    assert_schema(&received.json());
    let updated_at = received.json()["data"]["updated_at"].as_i64();
    assert_eq!(at(received), updated_at.expect("milliseconds") / 1_000);
    told.clerk.stop().await;
}
