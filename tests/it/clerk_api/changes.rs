//! What a change does to everything else.

use clerk_authz::emulator::{
    TokenSpec,
    directory::{Organization, Refused, User},
};
use serde_json::json;

use super::{Api, claims, text, wrong};

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
async fn an_identifier_is_one_users_until_it_is_given_up() {
    let api = Api::start().await;
    let people = api.directory();
    let named = |name: &str| {
        let name = Some(name.to_owned());
        move |user: &mut User| user.username = name
    };
    people.change_user("user_bob", named("bob")).expect("free");
    let taken = people.change_user("user_alice", named("bob"));
    assert!(matches!(
        taken,
        Err(Refused::Taken {
            parameter: "username",
            ..
        })
    ));
    people
        .change_user("user_bob", named("bob"))
        .expect("it is his");
    people
        .change_user("user_bob", named("robert"))
        .expect("free");
    people
        .change_user("user_alice", named("bob"))
        .expect("given up");

    let again = || User::with_email("Alice@example.com");
    assert!(people.create_user(again()).is_err(), "of any case");
    people.delete_user("user_alice").expect("deleted");
    people.create_user(again()).expect("free");
    api.clerk.stop().await;
}

/// Clerk's Python client still asks for the version before.
#[tokio::test]
async fn updates_of_an_older_version_take_metadata() {
    let api = Api::start().await;
    let addr = api.instance().addr();
    let update = async |path: &str, version: Option<&str>| {
        let mut request = api
            .client
            .patch(format!("http://{addr}/v1/{path}"))
            .bearer_auth(api.instance().secret_key())
            .header("content-type", "application/json");
        if let Some(version) = version {
            request = request.header("clerk-api-version", version);
        }
        let body = json!({"public_metadata": {"a": 1}}).to_string();
        let response = request.body(body).send().await.expect("an answer");
        response.status().as_u16()
    };
    for path in ["users/user_bob", "organizations/org_acme"] {
        assert_eq!(update(path, None).await, 422, "{path}");
        assert_eq!(update(path, Some("2026-05-12")).await, 422, "{path}");
        assert_eq!(update(path, Some("2025-11-10")).await, 200, "{path}");
    }
    let user = api.directory().user("user_bob").expect("there");
    assert_eq!(json!(user.public_metadata), json!({"a": 1}));
    let organization = api.directory().organization("acme").expect("there");
    assert_eq!(json!(organization.public_metadata), json!({"a": 1}));
    api.clerk.stop().await;
}
