//! The offline Clerk and the mirror side by side: what each says of everything, in one form.

use std::collections::BTreeMap;

use clerk_authz::{
    emulator::Instance,
    mirror::{Entity, EntityKind, KnownMembership, Mirror, UserKey},
};
use serde_json::{Value, json};

use super::{database::Database, http_client};

/// By id; a membership's is its organization's, `/`, and its user's.
pub type State = BTreeMap<String, Value>;

/// What Clerk says, over HTTP and read by hand: not by the code that is tested.
pub async fn at_clerk(instance: &Instance) -> State {
    let mut state = State::new();
    for user in list(instance, "users").await {
        let primary = &user["primary_email_address_id"];
        let emails: Vec<Value> = user["email_addresses"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|email| {
                let verified = email["verification"]["status"] == "verified";
                json!([email["email_address"], verified, email["id"] == *primary])
            })
            .collect();
        let value = json!({
            "external_id": user["external_id"],
            "username": user["username"],
            "first_name": user["first_name"],
            "last_name": user["last_name"],
            "emails": emails,
            "banned": user["banned"],
            "locked": user["locked"],
            "public_metadata": user["public_metadata"],
            "updated_at": user["updated_at"],
        });
        state.insert(text(&user["id"]), value);
    }
    for organization in list(instance, "organizations").await {
        let value = json!({
            "slug": organization["slug"],
            "name": organization["name"],
            "public_metadata": organization["public_metadata"],
            "updated_at": organization["updated_at"],
        });
        state.insert(text(&organization["id"]), value);
    }
    for membership in list(instance, "organization_memberships").await {
        let mut permissions: Vec<String> = membership["permissions"]
            .as_array()
            .expect("a list")
            .iter()
            .map(text)
            .collect();
        permissions.sort_unstable();
        let value = json!({
            "role": membership["role"],
            "permissions": permissions,
            "updated_at": membership["updated_at"],
        });
        let organization = text(&membership["organization"]["id"]);
        let user = text(&membership["public_user_data"]["user_id"]);
        state.insert(format!("{organization}/{user}"), value);
    }
    state
}

async fn list(instance: &Instance, what: &str) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let url = format!(
            "{}/v1/{what}?limit=500&order_by=%2Bcreated_at&offset={}",
            instance.issuer(),
            all.len()
        );
        let answer = http_client()
            .get(url)
            .bearer_auth(instance.secret_key())
            .send()
            .await
            .expect("an answer");
        let body: Value =
            serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
        let page = body.as_array().or_else(|| body["data"].as_array());
        let page = page.unwrap_or_else(|| panic!("no list: {body}")).clone();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// What the mirror says.
pub async fn in_mirror(database: &Database) -> State {
    let mut state = State::new();
    let (store, instance) = (&database.store, &database.instance);
    for kind in EntityKind::ALL {
        let mut after = None;
        loop {
            let page = store.heads(instance, kind, after.as_ref(), 500).await;
            let page = page.expect("answered");
            let Some(last) = page.last() else { break };
            after = Some(last.entity.clone());
            for versioned in page.iter().filter(|it| it.head.is_live()) {
                let (id, value) = said(database, &versioned.entity).await;
                state.insert(id, value);
            }
        }
    }
    state
}

async fn said(database: &Database, entity: &Entity) -> (String, Value) {
    let (store, instance) = (&database.store, &database.instance);
    match entity {
        Entity::User(id) => {
            let user = store.user(instance, UserKey::Id(id)).await;
            let user = user.expect("answered").expect("it is there").value;
            let emails: Vec<Value> = user
                .emails
                .iter()
                .map(|email| json!([email.address, email.verified, email.primary]))
                .collect();
            let value = json!({
                "external_id": user.external_id,
                "username": user.username,
                "first_name": user.first_name,
                "last_name": user.last_name,
                "emails": emails,
                "banned": user.banned,
                "locked": user.locked,
                "public_metadata": json_of(&user.public_metadata),
                "updated_at": user.updated_at.unix_millis(),
            });
            (id.to_string(), value)
        }
        Entity::Organization(id) => {
            let organization = store.organization(instance, id).await;
            let organization = organization.expect("answered").expect("it is there").value;
            let value = json!({
                "slug": organization.slug.as_ref().map(|slug| slug.as_str()),
                "name": organization.name,
                "public_metadata": json_of(&organization.public_metadata),
                "updated_at": organization.updated_at.unix_millis(),
            });
            (id.to_string(), value)
        }
        Entity::Membership(organization, user) => {
            let known = store.membership(instance, organization, user).await;
            let KnownMembership::Member(seen) = known.expect("answered") else {
                panic!("{organization}/{user} is live and not there")
            };
            let membership = seen.value.membership;
            let mut permissions: Vec<&str> = membership.permissions.iter().collect();
            permissions.sort_unstable();
            let value = json!({
                "role": membership.role,
                "permissions": permissions,
                "updated_at": membership.updated_at.unix_millis(),
            });
            (format!("{organization}/{user}"), value)
        }
    }
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// Where they differ, one line each; none when they do not.
pub fn differences(clerk: &State, mirror: &State) -> Vec<String> {
    let mut found = Vec::new();
    for id in clerk
        .keys()
        .chain(mirror.keys().filter(|id| !clerk.contains_key(*id)))
    {
        let (at_clerk, in_mirror) = (clerk.get(id), mirror.get(id));
        if at_clerk != in_mirror {
            let shown =
                |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
            found.push(format!(
                "{id}: at Clerk {}, in the mirror {}",
                shown(at_clerk),
                shown(in_mirror)
            ));
        }
    }
    found
}
