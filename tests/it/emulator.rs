//! The offline Clerk over HTTP, as a stranger uses it.

use clerk_authz::emulator::World;
use serde_json::{Value, json};

use crate::support::{get, http_client, offline_clerk};

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
