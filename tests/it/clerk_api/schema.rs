//! Every operation, by the schema that Clerk publishes for it.

use clerk_authz::emulator::{Kind, Operation, TokenSpec, directory::Permission, operations};
use serde_json::{Value, json};

use super::{Api, claims, ids, text, wrong};

#[tokio::test]
async fn every_operation_answers_by_clerks_schema() {
    let api = Api::start().await;
    people(&api).await;
    organizations(&api).await;
    roles(&api).await;
    sessions(&api).await;
    machine_tokens(&api).await;
    sign_in_tokens(&api).await;
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
    let said = claims(text(&token, "jwt"));
    assert_eq!(
        (&said["sid"], &said["o"]["id"]),
        (&json!(id), &json!("org_acme"))
    );
    let body = Some(json!({"expires_in_seconds": 30}));
    let template = api
        .good("CreateSessionTokenFromTemplate", &[id, "hasura"], "", body)
        .await;
    let said = claims(text(&template, "jwt"));
    assert_eq!(said["exp"].as_i64(), said["iat"].as_i64().map(|at| at + 30));
    let revoked = api.good("RevokeSession", &[id], "", None).await;
    assert_eq!(text(&revoked, "status"), "revoked");
    assert_eq!(
        api.refused("CreateSessionToken", &[id], "", None).await.0,
        404
    );
}

async fn sign_in_tokens(api: &Api) {
    let body = |organization: Value| json!({"user_id": "user_alice", "org_id": organization, "expires_in_seconds": 60});
    let made = api
        .good("CreateSignInToken", &[], "", Some(body(json!("org_acme"))))
        .await;
    assert_eq!(text(&made, "status"), "pending");
    assert_eq!(text(&made, "user_id"), "user_alice");
    assert!(!text(&made, "token").is_empty());
    let alone = api
        .good("CreateSignInToken", &[], "", Some(body(Value::Null)))
        .await;
    assert_ne!(text(&made, "token"), text(&alone, "token"));
    for (what, body, expected) in [
        ("nobody", json!({"user_id": "user_nobody"}), 404),
        ("no user", json!({}), 422),
        ("no member", body(json!("org_nowhere")), 422),
        (
            "no time",
            json!({"user_id": "user_alice", "expires_in_seconds": 0}),
            422,
        ),
    ] {
        let refused = api.refused("CreateSignInToken", &[], "", Some(body)).await;
        assert_eq!(refused.0, expected, "{what}");
    }
}

async fn machine_tokens(api: &Api) {
    let body = json!({"email_address": ["machines@example.com"]});
    let user = api.good("CreateUser", &[], "", Some(body)).await;
    let user = text(&user, "id").to_owned();
    for (operation, member, kind) in [
        ("verifyM2MToken", "token", Kind::M2m),
        ("verifyOAuthAccessToken", "access_token", Kind::Oauth),
        ("verifyApiKey", "secret", Kind::ApiKey),
    ] {
        let spec = TokenSpec {
            user: Some(user.clone()),
            ..TokenSpec::of(kind).as_opaque()
        };
        let token = api.instance().mint(&spec).expect("a token");
        let body = Some(json!({ member: token }));
        let good = api.good(operation, &[], "", body.clone()).await;
        assert_eq!(
            (&good["revoked"], &good["expired"]),
            (&json!(false), &json!(false)),
            "{operation}"
        );
        assert_eq!(
            api.instance().machine_token_id(&token).as_deref(),
            good["id"].as_str()
        );
        let (method, path) = &api.openapi.operations()[operation];
        assert_eq!(*method, "POST");

        // Clerk's SDK leaves out the version that its OpenAPI file has.
        let path = path.strip_prefix("/v1").expect("a version");
        let url = format!("http://{}{path}", api.instance().addr());
        let request = api
            .client
            .post(url)
            .bearer_auth(api.instance().secret_key());
        let request = request.header("content-type", "application/json");
        let body_text = body.clone().expect("a body").to_string();
        let same = request.body(body_text).send().await.expect("an answer");
        let same: Value = serde_json::from_str(&same.text().await.expect("text")).expect("JSON");
        assert_eq!(same, good, "{operation} without a version");

        assert!(api.instance().revoke_machine_token(text(&good, "id")));
        let revoked = api.good(operation, &[], "", body).await;
        assert_eq!(revoked["revoked"], true, "{operation}");
        let unknown = Some(json!({ member: format!("{token}x") }));
        let refused = api.refused(operation, &[], "", unknown).await;
        assert_eq!((refused.0, &*refused.1), (404, "resource_not_found"));
    }
}

#[test]
fn the_document_has_every_operation() {
    let document = include_str!("../../../docs/emulator.md");
    let rows = document.lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<&str> = rows.filter(|row| row.contains(" /v1/")).collect();
    for operation in operations() {
        let endpoint = serde_json::to_value(operation.endpoint).expect("JSON");
        let endpoint = endpoint.as_str().expect("text");
        let Operation {
            id, method, path, ..
        } = &operation;
        let row = format!("| `{endpoint}` | `{method} {path}` | `{id}` |");
        assert!(rows.contains(&&*row), "docs/emulator.md lacks\n{row}");
    }
    assert_eq!(rows.len(), operations().len(), "docs/emulator.md has more");
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
    let permission = api.directory().create_permission(Permission {
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
