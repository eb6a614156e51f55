use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::mirror::Standing;

const AT: i64 = 1_900_000_000_500;

fn envelope(event_type: &str, data: &Value) -> Envelope {
    envelope_at(event_type, data, &json!(AT))
}

fn envelope_at(event_type: &str, data: &Value, timestamp: &Value) -> Envelope {
    let body = json!({"type": event_type, "timestamp": timestamp, "data": data});
    Envelope::parse(body.to_string().as_bytes()).expect("an envelope")
}

fn user(banned: bool) -> Value {
    json!({"id": "user_1", "banned": banned, "created_at": 1, "updated_at": 2})
}

fn organization() -> Value {
    json!({"id": "org_1", "slug": "acme", "name": "Acme", "created_at": 1, "updated_at": 2})
}

fn membership() -> Value {
    json!({
        "id": "orgmem_1", "role": "org:admin", "permissions": ["org:a:b"],
        "organization": organization(), "public_user_data": {"user_id": "user_1"},
        "created_at": 3, "updated_at": 4,
    })
}

/// Data that an event of each type may have.
fn data_of(event_type: &EventType) -> Value {
    match meaning(event_type) {
        Meaning::User => user(false),
        Meaning::UserDeleted => json!({"id": "user_1", "object": "user", "deleted": true}),
        Meaning::SessionEnded => json!({"id": "sess_1", "user_id": "user_1"}),
        Meaning::Organization => organization(),
        Meaning::OrganizationDeleted => json!({"id": "org_1", "deleted": true}),
        Meaning::Membership | Meaning::MembershipDeleted => membership(),
        Meaning::Role => json!({"id": "role_1", "key": "org:admin"}),
        Meaning::Permission | Meaning::Nothing => json!({"id": "x_1"}),
    }
}

fn facts_of(event_type: &str, data: &Value) -> Vec<Fact> {
    let received = Timestamp::from_unix_millis(AT + 7_000);
    ClerkEvents
        .facts(&envelope(event_type, data), received)
        .expect(event_type)
}

fn at() -> Timestamp {
    Timestamp::from_unix_millis(AT)
}

fn user_id() -> UserId {
    "user_1".parse().expect("an id")
}

/// The next whole second behind the event.
fn revoked(cause: RevocationCause) -> Fact {
    Fact::UserRevoked {
        user: user_id(),
        not_before: Timestamp::from_unix_millis(1_900_000_001_000),
        cause,
    }
}

/// docs/mirror.md has the same table.
#[test]
fn every_type_of_the_catalogue_says_something_or_concerns_nobody() {
    for event_type in EventType::KNOWN {
        let envelope = envelope(event_type.name(), &data_of(event_type));
        let facts = ClerkEvents.facts(&envelope, at()).expect("good data");
        let ignored = ClerkEvents.concern(&envelope) == Concern::Nothing;
        assert_eq!(
            facts.is_empty(),
            ignored,
            "{event_type}: what says something is kept"
        );
        if !event_type.keeps_data() {
            assert!(ignored, "{event_type}: its data may not be kept");
        }
    }
}

#[test]
fn a_user_that_may_not_act_is_revoked_too() {
    assert_eq!(facts_of("user.created", &user(false)).len(), 1);

    let mut deprovisioned = user(false);
    deprovisioned["deprovisioned"] = json!(true);
    for (data, cause) in [
        (user(true), RevocationCause::Banned),
        (deprovisioned, RevocationCause::Deprovisioned),
    ] {
        let facts = facts_of("user.updated", &data);
        assert!(
            matches!(&facts[0], Fact::User(user, Origin::Event) if user.standing() != Standing::Good)
        );
        assert_eq!(facts[1..], [revoked(cause)]);
    }

    let mut locked = user(false);
    locked["locked"] = json!(true);
    assert_eq!(facts_of("user.updated", &locked).len(), 1, "sessions go on");
}

#[test]
fn deletions_have_the_events_time() {
    let organization: OrganizationId = "org_1".parse().expect("an id");
    let deleted = |entity| Fact::Deleted { entity, at: at() };
    assert_eq!(
        facts_of("user.deleted", &json!({"id": "user_1", "deleted": true})),
        [
            deleted(Entity::User(user_id())),
            revoked(RevocationCause::Deleted)
        ]
    );
    assert_eq!(
        facts_of(
            "organization.deleted",
            &json!({"id": "org_1", "deleted": true})
        ),
        [deleted(Entity::Organization(organization.clone()))]
    );
    // The whole membership, with an older time of its own.
    assert_eq!(
        facts_of("organizationMembership.deleted", &membership()),
        [deleted(Entity::Membership(organization, user_id()))]
    );
}

#[test]
fn a_membership_brings_its_organization_at_its_own_time() {
    let facts = facts_of("organizationMembership.updated", &membership());
    let [
        Fact::Organization(organization, Origin::Event),
        Fact::Membership(member, Origin::Event),
    ] = &facts[..]
    else {
        panic!("{facts:?}")
    };
    assert_eq!(organization.updated_at.unix_millis(), 2);
    assert_eq!(member.membership.updated_at.unix_millis(), 4);
}

#[test]
fn a_role_is_named_where_it_says_its_key() {
    let role = |role: Option<&str>| Fact::RoleChanged {
        role: role.map(Into::into),
        at: at(),
    };
    assert_eq!(
        facts_of("role.updated", &json!({"key": "admin"})),
        [role(Some("org:admin"))]
    );
    assert_eq!(
        facts_of("role.deleted", &json!({"id": "role_1"})),
        [role(None)]
    );
    assert_eq!(
        facts_of("permission.updated", &json!({"key": "org:a:b"})),
        [role(None)]
    );
}

#[test]
fn a_time_in_seconds_orders_as_early_and_revokes_as_late_as_it_may_be() {
    let data = json!({"id": "user_1", "deleted": true});
    let envelope = envelope_at("user.deleted", &data, &json!(1_900_000_000));
    let facts = ClerkEvents.facts(&envelope, at()).expect("good data");
    let Fact::Deleted { at, .. } = &facts[0] else {
        panic!("{facts:?}")
    };
    assert_eq!(at.unix_millis(), 1_900_000_000_000);
    assert_eq!(facts[1], revoked(RevocationCause::Deleted));
}

#[test]
fn without_a_time_it_happened_when_it_came() {
    let body = json!({"type": "user.deleted", "data": {"id": "user_1"}}).to_string();
    let envelope = Envelope::parse(body.as_bytes()).expect("an envelope");
    let facts = ClerkEvents.facts(&envelope, at()).expect("good data");
    assert_eq!(
        facts[0],
        Fact::Deleted {
            entity: Entity::User(user_id()),
            at: at()
        }
    );
}

#[test]
fn events_about_one_entity_have_one_name() {
    let concern = |event_type, data: &Value| ClerkEvents.concern(&envelope(event_type, data));
    let entity = |name: &str| Concern::Entity(name.into());
    assert_eq!(concern("user.updated", &user(true)), entity("user_1"));
    assert_eq!(
        concern("user.deleted", &json!({"id": "user_1"})),
        entity("user_1")
    );
    for event_type in [
        "organizationMembership.created",
        "organizationMembership.deleted",
    ] {
        assert_eq!(concern(event_type, &membership()), entity("org_1/user_1"));
    }
    assert_eq!(
        concern("role.updated", &json!({"key": "x"})),
        Concern::Anything
    );
    assert_eq!(
        concern("user.updated", &json!({"id": 7})),
        Concern::Anything
    );
    assert_eq!(
        concern("subscription.active", &json!({"id": "x"})),
        Concern::Nothing
    );
    assert_eq!(concern("user.promoted", &user(false)), Concern::Nothing);
}

#[test]
fn what_cannot_be_read_is_named_and_never_quoted() {
    for (event_type, data, cause) in [
        (
            "user.updated",
            json!({"id": "hush"}),
            "created_at is missing",
        ),
        (
            "user.deleted",
            json!({"id": "hush"}),
            "id is not such an id",
        ),
        ("session.ended", json!({"id": 7}), "id is of another type"),
        (
            "organizationMembership.deleted",
            json!({}),
            "organization is missing",
        ),
        (
            "role.updated",
            json!({"key": ["hush"]}),
            "key is of another type",
        ),
    ] {
        let read = ClerkEvents.facts(&envelope(event_type, &data), at());
        let error = read.expect_err(event_type);
        assert_eq!(&*error.cause, cause, "{event_type}");
        assert!(!error.to_string().contains("hush"));
    }
}

/// Any JSON, with the members that are looked at.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(user_|org_|sess_|org:)?[a-zA-Z0-9é ]{0,8}".prop_map(Value::from),
    ];
    let member = prop_oneof![
        Just("id".to_owned()),
        Just("user_id".to_owned()),
        Just("key".to_owned()),
        Just("role".to_owned()),
        Just("name".to_owned()),
        Just("organization".to_owned()),
        Just("public_user_data".to_owned()),
        Just("email_addresses".to_owned()),
        Just("created_at".to_owned()),
        Just("updated_at".to_owned()),
        "[a-z_]{0,12}",
    ];
    leaf.prop_recursive(4, 48, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(member.clone(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_json_makes_it_panic(
        which in 0..EventType::KNOWN.len(),
        data in any_json(),
        cut in prop::option::of((0_usize..16, any_json())),
        time: Option<i64>,
    ) {
        let event_type = &EventType::KNOWN[which];
        // Good data with one member changed comes further than any other.
        let mut near = data_of(event_type);
        if let (Some((index, value)), Some(object)) = (cut, near.as_object_mut()) {
            let key = object.keys().nth(index % object.len()).cloned();
            object.insert(key.unwrap_or_default(), value);
        }
        for data in [data, near] {
            let mut body = json!({"type": event_type.name(), "data": data});
            if let Some(time) = time {
                body["timestamp"] = json!(time);
            }
            if let Ok(envelope) = Envelope::parse(body.to_string().as_bytes()) {
                let _ = ClerkEvents.concern(&envelope);
                let _ = ClerkEvents.facts(&envelope, at());
            }
        }
    }
}
