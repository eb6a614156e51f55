//! What is refused, and with which words.

use serde_json::{Value, json};

use super::{Api, ids, wrong};

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
