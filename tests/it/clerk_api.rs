//! The offline Clerk's Backend API: each answer by Clerk's own schemas, and what these do not say:
//! pages, filters, cursors, errors, limits.

mod openapi;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use clerk_authz::{
    emulator::{
        Directory, Emulator, Endpoint, Fault, Faults, Instance, Operation, RateLimit, TokenSpec,
        World,
        directory::{Organization, Refused, User},
        operations,
    },
    identity::Timestamp,
};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use self::openapi::OpenApi;
use crate::support::{http_client, loopback};

/// An offline Clerk whose clock the test moves, and a client that believes no answer before it has
/// looked at its schema.
struct Api {
    clerk: Emulator,
    now: Arc<Mutex<Timestamp>>,
    openapi: OpenApi,
    operations: BTreeMap<&'static str, Operation>,
    client: reqwest::Client,
    /// Which operations answered with what they are for.
    covered: Mutex<BTreeSet<&'static str>>,
}

/// An answer whose schema is right.
struct Answered {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Api {
    async fn start() -> Self {
        let now = Arc::new(Mutex::new(Timestamp::from_unix_seconds(1_790_000_000)));
        let shown = Arc::clone(&now);
        let clock = Arc::new(move || *shown.lock().expect("a time"));
        let clerk = Emulator::start(World::default_world(), loopback(), clock).await;
        Self {
            clerk: clerk.expect("an offline Clerk"),
            now,
            openapi: OpenApi::load(),
            operations: operations().into_iter().map(|it| (it.id, it)).collect(),
            client: http_client(),
            covered: Mutex::default(),
        }
    }

    fn instance(&self) -> &Instance {
        &self.clerk.instances()[0]
    }

    fn directory(&self) -> &Directory {
        self.instance().directory()
    }

    fn pass_millis(&self, millis: i64) {
        let mut now = self.now.lock().expect("a time");
        *now = Timestamp::from_unix_millis(now.unix_millis() + millis);
    }

    /// `rest` is what follows the operation's path with these ids in it: a query.
    async fn call(&self, id: &str, ids: &[&str], rest: &str, body: Option<Value>) -> Answered {
        let operation = self.operations.get(id).expect("an operation");
        let mut path = String::new();
        let mut ids = ids.iter();
        for segment in operation.path.split('/').skip(1) {
            path.push('/');
            path.push_str(match segment.starts_with('{') {
                true => ids.next().expect("an id for each"),
                false => segment,
            });
        }
        let url = format!("http://{}{path}{rest}", self.instance().addr());
        let mut request = self
            .client
            .request(operation.method.clone(), url)
            .bearer_auth(self.instance().secret_key());
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.expect("a body");
        let body: Value = serde_json::from_str(&text).expect("JSON");
        let schema = self.openapi.answer(id, status);
        let wrong: Vec<String> = schema
            .iter_errors(&body)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(wrong.is_empty(), "{id} {status}: {wrong:#?}\n{body:#}");
        if status < 300 {
            self.covered.lock().expect("a set").insert(operation.id);
        }
        Answered {
            status,
            headers,
            body,
        }
    }

    async fn good(&self, id: &str, ids: &[&str], rest: &str, body: Option<Value>) -> Value {
        let answered = self.call(id, ids, rest, body).await;
        assert_eq!(answered.status, 200, "{id} {rest}: {}", answered.body);
        answered.body
    }

    async fn get(&self, id: &str, ids: &[&str], rest: &str) -> Value {
        self.good(id, ids, rest, None).await
    }

    /// Status, code and named parameter of an error.
    async fn refused(
        &self,
        id: &str,
        ids: &[&str],
        rest: &str,
        body: Option<Value>,
    ) -> (u16, String, String) {
        let answered = self.call(id, ids, rest, body).await;
        let trace = answered.body["clerk_trace_id"].as_str().unwrap_or_default();
        assert!(!trace.is_empty(), "{id} {rest}: no trace id");
        let error = &answered.body["errors"][0];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (
            answered.status,
            text(&error["code"]),
            text(&error["meta"]["param_name"]),
        )
    }
}

fn ids(list: &Value) -> Vec<&str> {
    let list = list.as_array().or(list["data"].as_array()).expect("a list");
    list.iter()
        .map(|it| it["id"].as_str().expect("an id"))
        .collect()
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name} in {object}"))
}

/// A refusal that names its parameter.
fn wrong(code: &str, parameter: &str) -> (u16, String, String) {
    (422, code.to_owned(), parameter.to_owned())
}

#[tokio::test]
async fn every_operation_answers_by_clerks_schema() {
    let api = Api::start().await;
    people(&api).await;
    organizations(&api).await;
    roles(&api).await;
    sessions(&api).await;
    api.get("GetJWKS", &[], "").await;

    let described = api.openapi.operations();
    let mut missing = Vec::new();
    for operation in api.operations.values() {
        let (method, path) = described.get(operation.id).expect("it is in Clerk's file");
        assert_eq!(
            (operation.method.as_str(), operation.path),
            (&**method, &**path),
            "{}",
            operation.id
        );
        if !api.covered.lock().expect("a set").contains(operation.id) {
            missing.push(operation.id);
        }
        println!("covered: {} {method} {path}", operation.id);
    }
    assert!(missing.is_empty(), "no good answer was seen of {missing:?}");
    assert_eq!(
        described.len(),
        api.operations.len(),
        "the excerpt has more"
    );
    println!("covered: {} operations", described.len());
    api.clerk.stop().await;
}

async fn people(api: &Api) {
    let body = json!({
        "email_address": ["dora@example.com", "d@example.com"],
        "email_address_identification_status": ["verified", "reserved"],
        "phone_number": ["+15555550100"],
        "external_id": "ext1", "username": "dora", "first_name": "Dora", "last_name": "Diaz",
        "locale": "en-US", "password": "long enough", "totp_secret": "s", "backup_codes": ["a"],
        "public_metadata": {"tier": "gold"}, "private_metadata": {"note": {"a": 1, "b": 2}},
        "unsafe_metadata": {"theme": "dark"}, "created_at": "2020-01-02T03:04:05.678Z",
        "legal_accepted_at": "2020-01-02T03:04:05Z", "create_organizations_limit": 3,
    });
    let user = api.good("CreateUser", &[], "", Some(body)).await;
    let id = text(&user, "id");
    assert_eq!(user["created_at"], 1_577_934_245_678_i64);
    assert_eq!(user["email_addresses"][1]["reserved"], true);
    assert_eq!(
        user["primary_email_address_id"],
        user["email_addresses"][0]["id"]
    );
    assert_eq!(api.get("GetUser", &[id], "").await, user);
    api.get("GetUserList", &[], "?limit=500").await;
    let count = api.get("GetUsersCount", &[], "?query=dora").await;
    assert_eq!(count["total_count"], 1);
    let body = json!({"first_name": "Dorothea", "username": null, "delete_self_enabled": false});
    let updated = api.good("UpdateUser", &[id], "", Some(body)).await;
    assert_eq!(
        (&updated["first_name"], &updated["username"]),
        (&json!("Dorothea"), &json!(null))
    );
    assert!(updated["updated_at"].as_i64() > user["updated_at"].as_i64());
    for (operation, member, value) in [
        ("BanUser", "banned", true),
        ("UnbanUser", "banned", false),
        ("LockUser", "locked", true),
        ("UnlockUser", "locked", false),
    ] {
        let changed = api.good(operation, &[id], "", None).await;
        assert_eq!(changed[member], value, "{operation}");
    }
    let change = json!({"private_metadata": {"note": {"a": null, "c": 3}}});
    let merged = api
        .good("UpdateUserMetadata", &[id], "", Some(change.clone()))
        .await;
    assert_eq!(
        merged["private_metadata"],
        json!({"note": {"b": 2, "c": 3}})
    );
    let replaced = api
        .good("ReplaceUserMetadata", &[id], "", Some(change))
        .await;
    assert_eq!(
        replaced["private_metadata"],
        json!({"note": {"a": null, "c": 3}})
    );
    assert_eq!(
        replaced["public_metadata"],
        json!({"tier": "gold"}),
        "absent stays"
    );
    let deleted = api.good("DeleteUser", &[id], "", None).await;
    assert_eq!(
        (&deleted["deleted"], &deleted["external_id"]),
        (&json!(true), &json!("ext1"))
    );
    let gone = api.refused("GetUser", &[id], "", None).await;
    assert_eq!((gone.0, &*gone.1), (404, "resource_not_found"));
}

async fn organizations(api: &Api) {
    let body = json!({
        "name": "Initech, Inc.", "created_by": "user_carol", "max_allowed_memberships": 2,
        "public_metadata": {"a": {"x": 1}}, "private_metadata": null,
    });
    let organization = api.good("CreateOrganization", &[], "", Some(body)).await;
    let id = text(&organization, "id");
    assert_eq!(
        (text(&organization, "slug"), &organization["members_count"]),
        ("initech-inc", &json!(1))
    );
    let all = api
        .get("ListOrganizations", &[], "?include_members_count=true")
        .await;
    assert_eq!(all["data"][0]["members_count"], 1);
    let by_slug = api.get("GetOrganization", &["initech-inc"], "").await;
    assert_eq!(
        (text(&by_slug, "id"), &by_slug["members_count"]),
        (id, &json!(null))
    );
    let change = json!({"name": "Initech", "slug": "initech"});
    let changed = api
        .good("UpdateOrganization", &[id], "", Some(change))
        .await;
    assert_eq!(text(&changed, "slug"), "initech");
    let change = json!({"public_metadata": {"a": {"y": 2}}});
    let merged = api
        .good("MergeOrganizationMetadata", &[id], "", Some(change.clone()))
        .await;
    assert_eq!(merged["public_metadata"], json!({"a": {"x": 1, "y": 2}}));
    let replaced = api
        .good("ReplaceOrganizationMetadata", &[id], "", Some(change))
        .await;
    assert_eq!(replaced["public_metadata"], json!({"a": {"y": 2}}));

    let member = json!({"user_id": "user_bob", "role": "org:member", "public_metadata": {"t": 1}});
    let made = api
        .good(
            "CreateOrganizationMembership",
            &[id],
            "",
            Some(member.clone()),
        )
        .await;
    assert_eq!(
        (text(&made, "role"), text(&made, "role_name")),
        ("org:member", "Member")
    );
    let again = api
        .refused("CreateOrganizationMembership", &[id], "", Some(member))
        .await;
    assert_eq!(
        (again.0, &*again.1),
        (400, "already_a_member_in_organization")
    );
    let third = json!({"user_id": "user_alice", "role": "org:member"});
    let full = api
        .refused("CreateOrganizationMembership", &[id], "", Some(third))
        .await;
    assert_eq!(
        (full.0, &*full.1),
        (403, "organization_membership_quota_exceeded")
    );
    let listed = api.get("ListOrganizationMemberships", &[id], "").await;
    assert_eq!(listed["total_count"], 2);
    api.get(
        "InstanceGetOrganizationMemberships",
        &[],
        "?order_by=-email_address",
    )
    .await;
    let of_bob = api
        .get("UsersGetOrganizationMemberships", &["user_bob"], "")
        .await;
    assert_eq!(of_bob["total_count"], 2);
    let role = Some(json!({"role": "org:admin"}));
    let changed = api
        .good("UpdateOrganizationMembership", &[id, "user_bob"], "", role)
        .await;
    assert!(changed["updated_at"].as_i64() > made["updated_at"].as_i64());
    let change = Some(json!({"public_metadata": {"t": null, "u": 2}}));
    let changed = api
        .good(
            "UpdateOrganizationMembershipMetadata",
            &[id, "user_bob"],
            "",
            change,
        )
        .await;
    assert_eq!(changed["public_metadata"], json!({"u": 2}));
    let left = api
        .good("DeleteOrganizationMembership", &[id, "user_bob"], "", None)
        .await;
    assert_eq!(left["id"], made["id"]);
    let deleted = api.good("DeleteOrganization", &[id], "", None).await;
    assert_eq!(
        (&deleted["object"], &deleted["slug"]),
        (&json!("organization"), &json!("initech"))
    );
}

async fn roles(api: &Api) {
    let body = json!({"key": "org:tickets:close", "name": "Close tickets", "description": "d"});
    let permission = api
        .good("CreateOrganizationPermission", &[], "", Some(body))
        .await;
    let permission_id = text(&permission, "id");
    assert_eq!(text(&permission, "type"), "user");
    let body = json!({"key": "org:support", "name": "Support", "permissions": [permission_id]});
    let role = api
        .good("CreateOrganizationRole", &[], "", Some(body))
        .await;
    let role_id = text(&role, "id");
    assert_eq!(role["permissions"][0]["key"], "org:tickets:close");
    let change = Some(json!({"key": "org:tickets:end"}));
    api.good("UpdateOrganizationPermission", &[permission_id], "", change)
        .await;
    let role = api.get("GetOrganizationRole", &[role_id], "").await;
    assert_eq!(
        role["permissions"][0]["key"], "org:tickets:end",
        "the role follows"
    );
    api.get("GetOrganizationPermission", &[permission_id], "")
        .await;
    let found = api
        .get("ListOrganizationPermissions", &[], "?query=sys_memberships")
        .await;
    assert_eq!(found["total_count"], 2);
    let system_id = text(&found["data"][0], "id");
    let untouched = api
        .refused("DeleteOrganizationPermission", &[system_id], "", None)
        .await;
    assert_eq!(untouched.0, 403, "a system permission is Clerk's");
    let assign = "AssignPermissionToOrganizationRole";
    let assigned = api.good(assign, &[role_id, system_id], "", None).await;
    assert_eq!(assigned["permissions"].as_array().expect("a list").len(), 2);
    assert_eq!(
        api.refused(assign, &[role_id, system_id], "", None).await.0,
        409
    );
    let remove = "RemovePermissionFromOrganizationRole";
    let removed = api.good(remove, &[role_id, system_id], "", None).await;
    assert_eq!(removed["permissions"].as_array().expect("a list").len(), 1);
    let change = Some(json!({"name": "Help", "permissions": [], "description": null}));
    let changed = api
        .good("UpdateOrganizationRole", &[role_id], "", change)
        .await;
    assert_eq!(changed["permissions"], json!([]));
    let roles = api
        .get("ListOrganizationRoles", &[], "?order_by=%2Bkey")
        .await;
    let keys: Vec<&Value> = roles["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| &r["key"])
        .collect();
    assert_eq!(keys, ["org:admin", "org:member", "org:support"]);
    let member_id = roles["data"][1]["id"].as_str().expect("an id");
    let in_use = api
        .refused("DeleteOrganizationRole", &[member_id], "", None)
        .await;
    assert_eq!(in_use.0, 422, "somebody has it");
    api.good("DeleteOrganizationRole", &[role_id], "", None)
        .await;
    api.good("DeleteOrganizationPermission", &[permission_id], "", None)
        .await;
}

async fn sessions(api: &Api) {
    let body = json!({"user_id": "user_alice", "active_organization_id": "org_acme"});
    let session = api.good("createSession", &[], "", Some(body)).await;
    let id = text(&session, "id");
    assert_eq!(api.get("GetSession", &[id], "").await, session);
    let bare = api
        .get("GetSessionList", &[], "?user_id=user_alice&status=active")
        .await;
    assert_eq!(ids(&bare), [id]);
    let token = api.good("CreateSessionToken", &[id], "", None).await;
    let claims = claims(text(&token, "jwt"));
    assert_eq!(
        (&claims["sid"], &claims["o"]["id"]),
        (&json!(id), &json!("org_acme"))
    );
    let body = Some(json!({"expires_in_seconds": 30}));
    let template = api
        .good("CreateSessionTokenFromTemplate", &[id, "hasura"], "", body)
        .await;
    let claims = self::claims(text(&template, "jwt"));
    assert_eq!(
        claims["exp"].as_i64(),
        claims["iat"].as_i64().map(|at| at + 30)
    );
    let revoked = api.good("RevokeSession", &[id], "", None).await;
    assert_eq!(text(&revoked, "status"), "revoked");
    assert_eq!(
        api.refused("CreateSessionToken", &[id], "", None).await.0,
        404
    );
}

fn claims(jwt: &str) -> Value {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let payload = jwt.split('.').nth(1).expect("a payload");
    let bytes = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&bytes).expect("claims")
}

#[tokio::test]
async fn an_incomplete_answer_is_seen() {
    let api = Api::start().await;
    let schema = api.openapi.answer("GetUser", 200);
    let user = api.get("GetUser", &["user_bob"], "").await;
    assert!(schema.is_valid(&user));
    for member in ["banned", "last_active_at", "enterprise_accounts"] {
        let mut less = user.clone();
        less.as_object_mut().expect("an object").remove(member);
        assert!(!schema.is_valid(&less), "{member}");
    }
    let mut more = user.clone();
    more["colour"] = json!("red");
    assert!(!schema.is_valid(&more));
    let mut other = user;
    other["email_addresses"][0]["verification"]["status"] = json!("maybe");
    assert!(!schema.is_valid(&other));
    api.clerk.stop().await;
}

/// What Clerk's file declares is known, and what it does not declare is refused by name.
#[tokio::test]
async fn members_of_bodies_and_parameters_are_those_of_clerks_file() {
    let api = Api::start().await;
    let role = api.directory().role("org:member").expect("a role").id;
    let permission =
        api.directory()
            .create_permission(clerk_authz::emulator::directory::Permission {
                key: "org:x:y".into(),
                name: "x".into(),
                ..Default::default()
            });
    let permission = permission.expect("made").id;
    let session = api
        .directory()
        .create_session("user_alice", None)
        .expect("made")
        .id;
    for operation in api.operations.values() {
        let path_ids: Vec<&str> = operation
            .path
            .split('/')
            .filter_map(|segment| match segment {
                "{user_id}" => Some("user_alice"),
                "{organization_id}" => Some("org_acme"),
                "{organization_role_id}" => Some(&*role),
                "{permission_id}" => Some(&*permission),
                "{session_id}" => Some(&*session),
                "{template_name}" => Some("t"),
                _ => None,
            })
            .collect();
        let members = api.openapi.body_members(operation.id);
        if !members.is_empty() {
            let mut body: serde_json::Map<String, Value> = members
                .iter()
                .map(|name| (name.clone(), json!(null)))
                .collect();
            for (name, value) in [
                ("user_id", json!("user_nobody")),
                ("role", json!("org:member")),
                ("name", json!("")),
                ("key", json!("")),
            ] {
                if body.contains_key(name) {
                    body.insert(name.into(), value);
                }
            }
            let answered = api
                .call(operation.id, &path_ids, "", Some(json!(body)))
                .await;
            let code = &answered.body["errors"][0]["code"];
            assert_ne!(
                code, "form_param_unknown",
                "{}: {}",
                operation.id, answered.body
            );

            for (name, value) in [("name", json!("x")), ("key", json!("org:x:z"))] {
                if body.contains_key(name) {
                    body.insert(name.into(), value);
                }
            }
            body.insert("colour".into(), json!("red"));
            let refused = api
                .refused(operation.id, &path_ids, "", Some(json!(body)))
                .await;
            assert_eq!(
                refused,
                wrong("form_param_unknown", "colour"),
                "{}",
                operation.id
            );
        }
        for (name, kind) in api.openapi.query_parameters(operation.id) {
            // Who has "elevated permissions" is nowhere said.
            if kind == "string" || kind == "array" || name.starts_with("include_missing") {
                continue;
            }
            let refused = api
                .refused(operation.id, &path_ids, &format!("?{name}=x"), None)
                .await;
            let expected = wrong("form_param_value_invalid", &name);
            assert_eq!(refused, expected, "{}", operation.id);
        }
    }
    api.clerk.stop().await;
}

#[tokio::test]
async fn pages_are_cut_as_clerk_cuts_them() {
    let api = Api::start().await;
    for number in 0..12 {
        api.pass_millis(1);
        let user = User::with_email(&format!("u{number}@example.com"));
        api.directory().create_user(user).expect("made");
    }
    let first = api.get("GetUserList", &[], "").await;
    assert_eq!(ids(&first).len(), 10, "ten where nothing is said");
    assert_eq!(
        first[0]["email_addresses"][0]["email_address"],
        "u11@example.com"
    );
    let rest = api.get("GetUserList", &[], "?offset=10&limit=500").await;
    assert_eq!(ids(&rest).len(), 5);
    for query in ["?limit=0", "?limit=501", "?limit=ten", "?limit=-1"] {
        for (operation, ids) in [
            ("GetUserList", &[][..]),
            ("ListOrganizations", &[]),
            ("ListOrganizationMemberships", &["org_acme"]),
            ("UsersGetOrganizationMemberships", &["user_alice"]),
            ("InstanceGetOrganizationMemberships", &[]),
            ("ListOrganizationRoles", &[]),
            ("ListOrganizationPermissions", &[]),
            ("GetSessionList", &[]),
        ] {
            let refused = api.refused(operation, ids, query, None).await;
            assert_eq!(
                refused,
                wrong("form_param_value_invalid", "limit"),
                "{operation}"
            );
        }
    }
    let refused = api.refused("GetUserList", &[], "?offset=-1", None).await;
    assert_eq!(refused, wrong("form_param_value_invalid", "offset"));
    api.clerk.stop().await;
}

#[tokio::test]
async fn a_cursor_walks_everybody_once_while_people_come_and_go() {
    let api = Api::start().await;
    for number in 0..7 {
        api.pass_millis(number % 2);
        let user = User::with_email(&format!("u{number}@example.com"));
        api.directory().create_user(user).expect("made");
    }
    let mut seen = Vec::new();
    loop {
        let cursor = seen
            .last()
            .map_or_else(String::new, |id| format!("&starting_after={id}"));
        let page = format!("?limit=3&order_by=%2Bcreated_at{cursor}");
        let page = api.get("GetUserList", &[], &page).await;
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        if ids(&page).len() < 3 {
            break;
        }
        if seen.len() == 3 {
            api.directory().delete_user(&seen[0]).expect("deleted");
            let late = User::with_email("late@example.com");
            api.directory().create_user(late).expect("made");
        }
    }
    let distinct: BTreeSet<&String> = seen.iter().collect();
    assert_eq!((seen.len(), distinct.len()), (11, 11));

    for (query, parameter) in [
        ("order_by=updated_at", "starting_after"),
        ("offset=1", "starting_after"),
        ("limit=0", "limit"),
    ] {
        let query = format!("?starting_after=user_bob&{query}");
        let refused = api.refused("GetUserList", &[], &query, None).await;
        assert_eq!(
            refused,
            wrong("form_param_value_invalid", parameter),
            "{query}"
        );
    }
    for query in [
        "",
        "&order_by=created_at",
        "&order_by=-created_at",
        "&offset=0",
    ] {
        let query = format!("?starting_after=user_bob{query}");
        api.get("GetUserList", &[], &query).await;
    }
    let refused = api
        .refused("GetUserList", &[], "?starting_after=user_nobody", None)
        .await;
    assert_eq!(refused, wrong("form_param_value_invalid", "starting_after"));
    api.clerk.stop().await;
}

#[tokio::test]
async fn filters_choose_and_unknown_values_are_left_aside() {
    let api = Api::start().await;
    let people = api.directory();
    people
        .change_user("user_bob", |user| {
            user.username = Some("builder".into());
            user.first_name = Some("Bob".into());
            user.external_id = Some("7".into());
        })
        .expect("changed");
    people.ban_user("user_carol").expect("banned");
    for (query, expected) in [
        (
            "user_id=user_alice&user_id=user_nobody",
            &["user_alice"][..],
        ),
        (
            "user_id=%2Buser_bob&user_id=user_alice",
            &["user_alice", "user_bob"],
        ),
        ("user_id=-user_bob", &["user_alice", "user_carol"]),
        ("email_address=BOB@example.com", &["user_bob"]),
        ("email_address_query=OB@EX", &["user_bob"]),
        ("username=builder", &["user_bob"]),
        ("username=nobody", &[]),
        ("external_id=7", &["user_bob"]),
        ("external_id=-7", &["user_alice", "user_carol"]),
        ("query=uild", &["user_bob"]),
        ("name_query=bo", &["user_bob"]),
        ("banned=true", &["user_carol"]),
        ("organization_id=org_acme", &["user_alice", "user_bob"]),
        (
            "organization_id=org_acme&organization_id=-org_globex",
            &["user_bob"],
        ),
        ("web3_wallet=0x1", &[]),
        (
            "created_at_after=1",
            &["user_alice", "user_bob", "user_carol"],
        ),
        ("created_at_before=1", &[]),
        ("last_active_at_after=1", &[]),
    ] {
        let list = format!("?order_by=email_address&{query}");
        let list = api.get("GetUserList", &[], &list).await;
        assert_eq!(ids(&list), expected, "{query}");
        let count = api.get("GetUsersCount", &[], &format!("?{query}")).await;
        assert_eq!(count["total_count"], expected.len(), "{query}");
    }
    for (query, expected) in [
        ("", &["user_bob", "user_alice"][..]),
        ("user_id=user_alice", &["user_alice"]),
        ("user_id=user_carol", &[]),
        ("user_id=-user_alice", &["user_bob"]),
        ("role=org:member&role=org:nothing", &["user_bob"]),
        ("role=org:nothing", &[]),
        ("query=alice", &["user_alice"]),
        ("order_by=email_address", &["user_alice", "user_bob"]),
        ("order_by=-email_address", &["user_bob", "user_alice"]),
        ("order_by=email_address&limit=1&offset=1", &["user_bob"]),
    ] {
        let path = format!("?{query}");
        let list = api
            .get("ListOrganizationMemberships", &["org_acme"], &path)
            .await;
        let members = list["data"].as_array().expect("a list").iter();
        let users: Vec<&Value> = members
            .map(|it| &it["public_user_data"]["user_id"])
            .collect();
        assert_eq!(users, expected, "{query}");
    }
    for (query, expected) in [
        ("", &["org_globex", "org_acme"][..]),
        ("user_id=user_bob", &["org_acme"]),
        ("user_id=-user_bob", &["org_globex"]),
        ("query=LOBE", &["org_globex"]),
        ("organization_id=org_acme", &["org_acme"]),
        ("order_by=-members_count", &["org_acme", "org_globex"]),
        ("order_by=name", &["org_acme", "org_globex"]),
    ] {
        let list = api
            .get("ListOrganizations", &[], &format!("?{query}"))
            .await;
        assert_eq!(ids(&list), expected, "{query}");
    }
    let many = vec!["user_id=user_x"; 101].join("&");
    let refused = api
        .refused("GetUserList", &[], &format!("?{many}"), None)
        .await;
    assert_eq!(refused, wrong("form_param_value_invalid", "user_id"));
    let refused = api
        .refused("GetUserList", &[], "?order_by=+created_at", None)
        .await;
    assert_eq!(
        refused,
        wrong("form_param_value_invalid", "order_by"),
        "a space"
    );
    api.clerk.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_404_and_a_slug_is_no_id() {
    let api = Api::start().await;
    let missing = (404, "resource_not_found".to_owned(), String::new());
    let member = Some(json!({"user_id": "user_nobody", "role": "org:member"}));
    for (operation, ids, body) in [
        ("GetUser", &["user_nobody"][..], None),
        ("BanUser", &["user_nobody"], None),
        ("UsersGetOrganizationMemberships", &["user_nobody"], None),
        ("GetOrganization", &["org_nothing"], None),
        ("ListOrganizationMemberships", &["org_nothing"], None),
        ("ListOrganizationMemberships", &["acme"], None),
        ("CreateOrganizationMembership", &["org_acme"], member),
        (
            "DeleteOrganizationMembership",
            &["org_acme", "user_carol"],
            None,
        ),
        ("DeleteOrganization", &["acme"], None),
        ("GetOrganizationRole", &["org:admin"], None),
        ("GetOrganizationPermission", &["perm_no"], None),
        ("GetSession", &["sess_no"], None),
        ("RevokeSession", &["sess_no"], None),
    ] {
        let refused = api.refused(operation, ids, "", body).await;
        assert_eq!(refused, missing, "{operation} {ids:?}");
    }
    assert_eq!(
        ids(&json!([api.get("GetOrganization", &["acme"], "").await])),
        ["org_acme"]
    );
    api.clerk.stop().await;
}

#[tokio::test]
async fn wrong_values_name_their_parameter() {
    let api = Api::start().await;
    let invalid = "form_param_value_invalid";
    for (operation, ids, body, code, parameter) in [
        (
            "CreateUser",
            &[][..],
            json!({"email_address": "a@b"}),
            invalid,
            "email_address",
        ),
        (
            "CreateUser",
            &[],
            json!({"email_address": ["nobody"]}),
            invalid,
            "email_address",
        ),
        (
            "CreateUser",
            &[],
            json!({"email_address": ["bob@example.com"]}),
            "form_identifier_exists",
            "email_address",
        ),
        (
            "CreateUser",
            &[],
            json!({"password": "short"}),
            invalid,
            "password",
        ),
        (
            "CreateUser",
            &[],
            json!({"web3_wallet": ["0x1"]}),
            invalid,
            "web3_wallet",
        ),
        (
            "CreateUser",
            &[],
            json!({"created_at": "yesterday"}),
            invalid,
            "created_at",
        ),
        (
            "UpdateUser",
            &["user_bob"],
            json!({"public_metadata": {}}),
            "form_param_unknown",
            "public_metadata",
        ),
        (
            "UpdateUser",
            &["user_bob"],
            json!({"primary_email_address_id": "idn_x"}),
            invalid,
            "primary_email_address_id",
        ),
        (
            "UpdateUserMetadata",
            &["user_bob"],
            json!({"public_metadata": 1}),
            invalid,
            "public_metadata",
        ),
        (
            "CreateOrganization",
            &[],
            json!({}),
            "form_param_missing",
            "name",
        ),
        (
            "CreateOrganization",
            &[],
            json!({"name": "A", "slug": "A B"}),
            invalid,
            "slug",
        ),
        (
            "CreateOrganization",
            &[],
            json!({"name": "A", "slug": "acme"}),
            "form_identifier_exists",
            "slug",
        ),
        (
            "CreateOrganizationMembership",
            &["org_acme"],
            json!({"user_id": "user_carol"}),
            "form_param_missing",
            "role",
        ),
        (
            "CreateOrganizationMembership",
            &["org_acme"],
            json!({"user_id": "user_carol", "role": "admin"}),
            invalid,
            "role",
        ),
        (
            "CreateOrganizationRole",
            &[],
            json!({"key": "admin", "name": "A"}),
            invalid,
            "key",
        ),
        (
            "CreateOrganizationRole",
            &[],
            json!({"key": "org:admin", "name": "A"}),
            "form_identifier_exists",
            "key",
        ),
        (
            "CreateOrganizationPermission",
            &[],
            json!({"key": "org:sys_x:y", "name": "A"}),
            invalid,
            "key",
        ),
        (
            "createSession",
            &[],
            json!({"user_id": "user_carol", "active_organization_id": "org_acme"}),
            invalid,
            "active_organization_id",
        ),
    ] {
        let refused = api.refused(operation, ids, "", Some(body.clone())).await;
        assert_eq!(refused, wrong(code, parameter), "{operation} {body}");
    }
    api.clerk.stop().await;
}

#[tokio::test]
async fn only_the_secret_key_opens_the_api() {
    let api = Api::start().await;
    let url = format!("http://{}/v1/users", api.instance().addr());
    let ask = async |key: Option<&str>| {
        let mut request = api.client.get(&url);
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let body: Value =
            serde_json::from_str(&response.text().await.expect("text")).expect("JSON");
        (
            status,
            body["errors"][0]["code"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    assert_eq!(ask(None).await, (401, "authentication_invalid".into()));
    assert_eq!(
        ask(Some("sk_test_other")).await,
        (401, "clerk_key_invalid".into())
    );
    assert_eq!(ask(Some(&api.instance().secret_key())).await.0, 200);
    api.clerk.stop().await;
}

#[tokio::test]
async fn a_ban_revokes_sessions_and_its_end_brings_none_back() {
    let api = Api::start().await;
    let session = api
        .directory()
        .create_session("user_bob", Some("org_acme"))
        .expect("made");
    let other = api
        .directory()
        .create_session("user_alice", None)
        .expect("made");
    api.good("BanUser", &["user_bob"], "", None).await;
    let status =
        async |id: &str| text(&api.get("GetSession", &[id], "").await, "status").to_owned();
    assert_eq!(status(&session.id).await, "revoked");
    assert_eq!(status(&other.id).await, "active", "somebody else's");
    let again = api
        .refused(
            "createSession",
            &[],
            "",
            Some(json!({"user_id": "user_bob"})),
        )
        .await;
    assert_eq!(again, wrong("form_param_value_invalid", "user_id"));
    let membership = api
        .get(
            "ListOrganizationMemberships",
            &["org_acme"],
            "?user_id=user_bob",
        )
        .await;
    assert_eq!(membership["data"][0]["public_user_data"]["banned"], true);
    api.good("UnbanUser", &["user_bob"], "", None).await;
    assert_eq!(status(&session.id).await, "revoked");
    api.good(
        "createSession",
        &[],
        "",
        Some(json!({"user_id": "user_bob"})),
    )
    .await;

    api.pass_millis(8 * 86_400_000);
    assert_eq!(status(&other.id).await, "expired", "a week is over");
    api.clerk.stop().await;
}

#[tokio::test]
async fn an_organization_takes_its_memberships_with_it() {
    let api = Api::start().await;
    let session = api
        .directory()
        .create_session("user_alice", Some("org_acme"))
        .expect("made");
    api.good("DeleteOrganization", &["org_acme"], "", None)
        .await;
    let left = api
        .get("UsersGetOrganizationMemberships", &["user_alice"], "")
        .await;
    assert_eq!(
        (
            left["total_count"].as_u64(),
            &left["data"][0]["organization"]["id"]
        ),
        (Some(1), &json!("org_globex"))
    );
    let session = api.get("GetSession", &[&session.id], "").await;
    assert_eq!(
        (
            text(&session, "status"),
            &session["last_active_organization_id"]
        ),
        ("active", &json!(null))
    );
    let spec = TokenSpec::session("user_alice").in_organization("acme");
    assert!(api.instance().mint(&spec).is_err());
    api.clerk.stop().await;
}

#[tokio::test]
async fn tokens_and_memberships_say_what_the_directory_says_now() {
    let api = Api::start().await;
    let instance = api.instance();
    let of = |user: &str, organization: &str| {
        let spec = TokenSpec::session(user).in_organization(organization);
        instance.mint(&spec).map(|token| claims(&token))
    };
    let permissions = async |organization: &str, user: &str| {
        let query = format!("?user_id={user}");
        let list = api
            .get("ListOrganizationMemberships", &[organization], &query)
            .await;
        list["data"][0]["permissions"].clone()
    };
    let bob = of("user_bob", "acme").expect("a token");
    assert_eq!(
        (&bob["o"]["rol"], &bob["o"]["per"]),
        (&json!("member"), &json!("read"))
    );

    api.directory()
        .set_role("org_acme", "user_bob", "org:admin")
        .expect("set");
    let bob = of("user_bob", "acme").expect("a token");
    assert_eq!(
        (&bob["o"]["rol"], &bob["o"]["per"]),
        (&json!("admin"), &json!("read,create"))
    );

    let new = [
        "org:invoices:void",
        "org:sys_memberships:manage",
        "org:tickets:close",
    ];
    api.directory()
        .set_role_permissions("org:admin", new)
        .expect("set");
    let bob = of("user_bob", "acme").expect("a token");
    assert_eq!(
        bob["fea"], "o:invoices,o:reports,o:tickets",
        "what no organization lists, all have"
    );
    assert_eq!(
        (&bob["o"]["per"], &bob["o"]["fpm"]),
        (&json!("void,close"), &json!("1,0,2"))
    );
    assert_eq!(permissions("org_acme", "user_bob").await, json!(new));
    assert_eq!(
        permissions("org_globex", "user_alice").await,
        json!(new[1..]),
        "without the feature no permission of it"
    );
    let refused = api.directory().set_role_permissions("org:nobody", new);
    assert!(matches!(
        refused,
        Err(Refused::NotFound { what: "role", .. })
    ));

    let first = api
        .directory()
        .membership("org_acme", "user_bob")
        .expect("a member")
        .id;
    api.directory()
        .remove_member("org_acme", "user_bob")
        .expect("removed");
    assert!(of("user_bob", "acme").is_err());
    api.directory()
        .add_member("org_acme", "user_bob", "org:member")
        .expect("back");
    assert!(of("user_bob", "acme").is_ok());
    let second = api
        .directory()
        .membership("org_acme", "user_bob")
        .expect("a member")
        .id;
    assert_ne!(first, second, "who comes back has another membership");

    let dave = api
        .directory()
        .create_user(User::with_email("dave@example.com"))
        .expect("made");
    let initech = Organization {
        created_by: Some(dave.id.clone()),
        ..Organization::named("Initech")
    };
    let initech = api.directory().create_organization(initech).expect("made");
    let token = of(&dave.id, &initech.slug).expect("a token");
    assert_eq!(
        (&token["o"]["rol"], &token["o"]["per"]),
        (&json!("admin"), &json!("close"))
    );
    let session = text(&token, "sid");
    assert_eq!(
        text(&api.get("GetSession", &[session], "").await, "status"),
        "active"
    );
    assert_eq!(
        of(&dave.id, &initech.slug).expect("a token")["sid"],
        session,
        "one sign-in"
    );
    api.directory().end_session(session).expect("ended");
    assert_ne!(
        of(&dave.id, &initech.slug).expect("a token")["sid"],
        session
    );
    api.clerk.stop().await;
}

#[tokio::test]
async fn every_change_raises_updated_at_even_within_one_millisecond() {
    let api = Api::start().await;
    let mut last = api
        .directory()
        .user("user_bob")
        .expect("there")
        .stamp
        .updated_at;
    for _ in 0..3 {
        let changed = api.good("LockUser", &["user_bob"], "", None).await;
        let now = changed["updated_at"].as_i64().expect("a number");
        assert!(now > last);
        last = now;
    }
    api.clerk.stop().await;
}

#[tokio::test]
async fn an_endpoints_faults_hit_it_alone_and_several_at_once() {
    let api = Api::start().await;
    let instance = api.instance();
    instance.set_faults_for(Endpoint::Memberships, Faults::always(Fault::ServerError));
    instance.set_faults_for(
        Endpoint::Users,
        Faults {
            times: Some(1),
            ..Faults::rate_limited(7)
        },
    );
    let limited = api.call("GetUser", &["user_bob"], "", None).await;
    assert_eq!(
        (limited.status, &limited.headers["retry-after"]),
        (429, &"7".parse().expect("a value"))
    );
    assert_eq!(
        api.call("GetUser", &["user_bob"], "", None).await.status,
        200,
        "it was for one"
    );
    let members = async || {
        api.call("ListOrganizationMemberships", &["org_acme"], "", None)
            .await
            .status
    };
    assert_eq!(members().await, 500);
    let body = Some(json!({"user_id": "user_carol", "role": "org:member"}));
    assert_eq!(
        api.call("CreateOrganizationMembership", &["org_acme"], "", body)
            .await
            .status,
        500
    );
    assert!(
        api.directory()
            .membership("org_acme", "user_carol")
            .is_none(),
        "nothing was done"
    );
    assert_eq!(
        api.call("GetOrganization", &["acme"], "", None)
            .await
            .status,
        200
    );
    assert_eq!(api.call("GetJWKS", &[], "", None).await.status, 200);

    instance.set_faults(Faults::always(Fault::ServerError));
    instance.set_faults_for(Endpoint::Users, Faults::default());
    assert_eq!(
        api.call("GetJWKS", &[], "", None).await.status,
        500,
        "everywhere"
    );
    assert_eq!(
        api.call("GetUser", &["user_bob"], "", None).await.status,
        200,
        "but where another is"
    );
    instance.clear_faults();
    assert_eq!(members().await, 200);
    api.clerk.stop().await;
}

#[tokio::test]
async fn a_full_budget_is_429_with_retry_after_and_keys_are_free() {
    let api = Api::start().await;
    let instance = api.instance();
    instance.set_rate_limit(Some(RateLimit {
        requests: 3,
        seconds: 10,
    }));
    for _ in 0..3 {
        api.get("GetUsersCount", &[], "").await;
    }
    api.pass_millis(2_500);
    let refused = api.call("GetOrganization", &["acme"], "", None).await;
    assert_eq!(
        (refused.status, &refused.headers["retry-after"]),
        (429, &"8".parse().expect("a value"))
    );
    assert_eq!(refused.body["errors"][0]["code"], "too_many_requests");
    api.get("GetJWKS", &[], "").await;
    api.pass_millis(7_500);
    api.get("GetOrganization", &["acme"], "").await;

    assert_eq!(instance.api_requests(Endpoint::Users), 3);
    assert_eq!(
        instance.api_requests(Endpoint::Organizations),
        2,
        "refused ones too"
    );
    assert_eq!(instance.api_requests(Endpoint::Jwks), 1);
    assert_eq!(instance.api_requests_total(), 5);
    assert_eq!(
        (
            instance.api_peaks().one_second,
            instance.api_peaks().ten_seconds
        ),
        (3, 4)
    );
    instance.reset_counts();
    assert_eq!(
        (
            instance.api_requests_total(),
            instance.api_peaks().ten_seconds
        ),
        (0, 0)
    );
    api.clerk.stop().await;
}
