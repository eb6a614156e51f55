//! The offline Clerk over HTTP, as a stranger uses it.

use clerk_authz::emulator::World;
use serde_json::{Value, json};

use crate::support::{get, http_client, offline_clerk, offline_clerk_of};

#[test]
fn the_default_world_is_good() {
    let world = World::default_world();
    assert_eq!(world.instances.len(), 1);
    assert!(world.instances[0].users.len() >= 3);
}

#[test]
fn a_wrong_world_says_where() {
    let base = "[[instance]]\nname = \"a\"\nkey_id = \"ins_a\"\nauthorized_party = \"http://a\"\n";
    let user = "[[instance.user]]\nid = \"user_a\"\nemail = \"a@example.com\"\n";
    let organization = |more: &str| {
        format!("{base}{user}[[instance.organization]]\nid = \"org_a\"\nslug = \"a\"\n{more}")
    };
    for (text, expected) in [
        (String::new(), "missing field `instance`"),
        (
            "instance = []".to_owned(),
            "expected at least one [[instance]]",
        ),
        (format!("{base}colour = 1\n"), "unknown field `colour`"),
        (
            base.replace("\"a\"", "\"a b\""),
            "name: expected letters and digits",
        ),
        (format!("{base}{base}"), "the name stands twice"),
        (
            format!("{base}{}", user.replace("user_a", "alice")),
            "expected \"user_\"",
        ),
        (
            organization("roles.admin = [\"org:x:read\"]"),
            "with a feature of the organization",
        ),
        (
            organization("roles.admin = [\"org:sys_nothing:read\"]"),
            "or one of Clerk's system permissions",
        ),
        (
            organization(
                "features = [\"x\"]\nroles.admin = [\"org:x:read\"]\n\
                 [[instance.organization]]\nid = \"org_b\"\nslug = \"b\"\n\
                 features = [\"x\"]\nroles.admin = []",
            ),
            "has \"org:x:read\" here and not in org_b",
        ),
        (
            organization("members = [{ user = \"user_b\", role = \"admin\" }]"),
            "no such user",
        ),
        (
            organization("members = [{ user = \"user_a\", role = \"admin\" }]"),
            "role \"admin\"",
        ),
    ] {
        let error = World::parse("w.toml", &text)
            .expect_err(expected)
            .to_string();
        assert!(
            error.contains(expected),
            "found {error}\nexpected {expected}"
        );
    }
}

#[tokio::test]
async fn tokens_are_minted_over_http_and_mistakes_are_explained() {
    let clerk = offline_clerk().await;
    let addr = clerk.instances()[0].addr();
    let (code, token) = get(addr, "/_emulator/token?user=user_alice&organization=acme").await;
    assert_eq!((code, token.split('.').count()), (200, 3));
    let post = async |body: Value| {
        let url = format!("http://{addr}/_emulator/tokens");
        let response = http_client()
            .post(url)
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .expect("answered");
        let code = response.status().as_u16();
        let body: Value =
            serde_json::from_str(&response.text().await.expect("text")).expect("JSON");
        (code, body)
    };
    for kind in [
        "session",
        "session_v1",
        "template",
        "m2m",
        "oauth",
        "handshake",
    ] {
        let (code, body) = post(json!({"kind": kind, "user": "user_alice"})).await;
        assert_eq!(code, 200, "{kind}: {body}");
        assert!(
            body["cookie"]
                .as_str()
                .expect("text")
                .contains("__session_"),
            "{kind}"
        );
    }
    for (body, expected) in [
        (
            json!({"user": "user_nobody"}),
            "there are user_alice, user_bob, user_carol",
        ),
        (
            json!({"user": "user_carol", "organization": "acme"}),
            "user_carol is not a member of org_acme",
        ),
        (
            json!({"organization": "nowhere"}),
            "there are org_acme, org_globex",
        ),
        (json!({"usr": "user_alice"}), "unknown field `usr`"),
        (json!({"expired": "yes"}), "expired"),
    ] {
        let (code, answer) = post(body).await;
        assert_eq!(code, 422);
        let message = answer["errors"][0]["message"].as_str().expect("a message");
        assert!(
            message.contains(expected),
            "found {message}\nexpected {expected}"
        );
    }
    let (code, world) = get(addr, "/_emulator/world").await;
    assert_eq!(code, 200);
    assert!(world.contains("user_alice"));
    assert_eq!(get(addr, "/nowhere").await.0, 404);
    assert_eq!(get(addr, "/").await.0, 200);
    clerk.stop().await;
}

#[tokio::test]
async fn keys_and_faults_are_changed_over_http() {
    let clerk = offline_clerk().await;
    let addr = clerk.instances()[0].addr();
    let client = http_client();
    let url = |path: &str| format!("http://{addr}{path}");
    let rotated = client
        .post(url("/_emulator/keys/rotate"))
        .send()
        .await
        .expect("answered");
    let rotated: Value = serde_json::from_str(&rotated.text().await.expect("text")).expect("JSON");
    let jwks = get(addr, "/.well-known/jwks.json").await.1;
    assert!(
        jwks.contains("\"ins_emulator\"") && jwks.contains(rotated["kid"].as_str().expect("a kid"))
    );
    let gone = client
        .delete(url("/_emulator/keys/ins_emulator"))
        .send()
        .await
        .expect("answered");
    assert_eq!(gone.status().as_u16(), 204);
    assert!(
        !get(addr, "/.well-known/jwks.json")
            .await
            .1
            .contains("\"ins_emulator\"")
    );
    let again = client
        .delete(url("/_emulator/keys/ins_emulator"))
        .send()
        .await
        .expect("answered");
    assert_eq!(again.status().as_u16(), 404);

    let fault = client
        .put(url("/_emulator/faults"))
        .header("content-type", "application/json")
        .body(r#"{"fault":"server_error"}"#);
    assert_eq!(fault.send().await.expect("answered").status().as_u16(), 200);
    assert_eq!(get(addr, "/.well-known/jwks.json").await.0, 500);
    assert_eq!(
        get(addr, "/_emulator/world").await.0,
        200,
        "the control addresses are never hit"
    );
    client
        .delete(url("/_emulator/faults"))
        .send()
        .await
        .expect("answered");
    assert_eq!(get(addr, "/.well-known/jwks.json").await.0, 200);
    let stats = get(addr, "/_emulator/stats").await.1;
    assert!(stats.contains("\"frontend\":4"), "{stats}");
    clerk.stop().await;
}

#[test]
fn roles_of_one_name_may_differ_where_the_features_do() {
    let text = "[[instance]]\nname = \"a\"\nkey_id = \"ins_a\"\nauthorized_party = \"http://a\"\n\
                [[instance.organization]]\nid = \"org_a\"\nslug = \"a\"\nfeatures = [\"x\"]\n\
                roles.admin = [\"org:x:read\", \"org:sys_memberships:read\"]\n\
                [[instance.organization]]\nid = \"org_b\"\nslug = \"b\"\nfeatures = [\"y\"]\n\
                roles.admin = [\"org:y:read\"]\n";
    World::parse("w.toml", text).expect("a good world");
}

#[tokio::test]
async fn faults_limits_and_counts_are_kept_per_endpoint_over_http() {
    let clerk = offline_clerk().await;
    let instance = &clerk.instances()[0];
    let client = http_client();
    let url = |path: &str| format!("http://{}{path}", instance.addr());
    let put = async |path: &str, body: Value| {
        let request = client
            .put(url(path))
            .header("content-type", "application/json");
        let response = request.body(body.to_string()).send().await;
        response.expect("answered").status().as_u16()
    };
    let api = async |path: &str| {
        let request = client.get(url(path)).bearer_auth(instance.secret_key());
        request.send().await.expect("answered").status().as_u16()
    };
    let faults = "/_emulator/faults";
    let down = json!({"endpoint": "users", "fault": "server_error"});
    assert_eq!(put(faults, down).await, 200);
    let limited = json!({"endpoint": "roles", "fault": "rate_limited", "retry_after_seconds": 3});
    assert_eq!(put(faults, limited).await, 200);
    assert_eq!(api("/v1/users").await, 500);
    assert_eq!(api("/v1/organization_roles").await, 429);
    assert_eq!(api("/v1/organizations").await, 200);
    let shown: Value = serde_json::from_str(&get(instance.addr(), faults).await.1).expect("JSON");
    assert_eq!(shown["endpoints"]["users"]["fault"], "server_error");
    assert_eq!(put(faults, json!({"endpoint": "cats"})).await, 422);
    assert_eq!(put(faults, json!({"falt": "down"})).await, 422);
    client.delete(url(faults)).send().await.expect("answered");
    assert_eq!(api("/v1/users").await, 200);

    client
        .delete(url("/_emulator/stats"))
        .send()
        .await
        .expect("answered");
    assert_eq!(
        put(
            "/_emulator/rate_limit",
            json!({"requests": 0, "seconds": 10})
        )
        .await,
        200
    );
    assert_eq!(api("/v1/users").await, 429);
    assert_eq!(api("/v1/jwks").await, 200, "Clerk does not limit key sets");
    client
        .delete(url("/_emulator/rate_limit"))
        .send()
        .await
        .expect("answered");
    assert_eq!(api("/v1/users").await, 200);
    let stats: Value =
        serde_json::from_str(&get(instance.addr(), "/_emulator/stats").await.1).expect("JSON");
    assert_eq!(
        (&stats["requests"]["users"], &stats["total"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(stats["jwks_requests"]["backend"], 1);
    assert!(stats["peaks"]["ten_seconds"].as_u64() >= Some(1));
    clerk.stop().await;
}

#[tokio::test]
async fn the_world_that_is_shown_is_the_one_that_is_now_and_can_be_started_from() {
    let clerk = offline_clerk().await;
    let directory = clerk.instances()[0].directory();
    directory.delete_user("user_carol").expect("deleted");
    directory
        .set_role("org_acme", "user_bob", "org:admin")
        .expect("set");
    let new = [
        "org:invoices:read",
        "org:tickets:close",
        "org:sys_billing:read",
    ];
    directory
        .set_role_permissions("org:member", new)
        .expect("set");

    let shown = get(clerk.instances()[0].addr(), "/_emulator/world").await.1;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let mut instance = World::default_world().instances[0].clone();
    let field = |name: &str| shown["instances"][0][name].clone();
    instance.users = serde_json::from_value(field("users")).expect("users");
    instance.organizations = serde_json::from_value(field("organizations")).expect("organizations");
    assert_eq!(instance.users.len(), 2);
    assert_eq!(instance.organizations[0].role_of("user_bob"), Some("admin"));
    assert_eq!(instance.organizations[0].roles["member"], new);
    let world = World {
        instances: vec![instance],
    };
    let again = offline_clerk_of(world).await;
    let shown_again = get(again.instances()[0].addr(), "/_emulator/world").await.1;
    let shown_again: Value = serde_json::from_str(&shown_again).expect("JSON");
    for name in ["users", "organizations"] {
        assert_eq!(shown_again["instances"][0][name], field(name), "{name}");
    }
    again.stop().await;
    clerk.stop().await;
}

#[tokio::test]
async fn a_page_under_another_name_gets_no_tokens() {
    let clerk = offline_clerk().await;
    let addr = clerk.instances()[0].addr();
    let url = format!("http://{addr}/_emulator/token");
    let answer = http_client()
        .get(url)
        .header("host", "evil.example:80")
        .send()
        .await;
    assert_eq!(answer.expect("answered").status().as_u16(), 403);
    clerk.stop().await;
}
