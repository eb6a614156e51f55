//! `policy check`, `policy explain` and `policy test`, as people run them.

use std::process::{Command, Output};

use clerk_authz::emulator::TokenSpec;
use serde_json::Value;

use super::{PolicyFile, routes_of};
use crate::support::offline_clerk;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/policy.example.yaml");

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clerk-authz"))
        .arg("policy")
        .args(args)
        .env_clear()
        .output()
        .expect("it runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_example_is_good_and_passes_its_own_tests() {
    let checked = run(&["check", EXAMPLE]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    assert!(out(&checked).contains("10 routes, 21 tests"), "{checked:?}");

    let tested = run(&["test", EXAMPLE]);
    assert_eq!(tested.status.code(), Some(0), "{tested:?}");
    assert!(out(&tested).contains("21 as expected, 0 not"), "{tested:?}");
}

#[test]
fn check_says_what_is_wrong_and_where() {
    let file = PolicyFile::routes("  - path: /a\n    acess: public\n");
    let checked = run(&["check", file.text()]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let said = String::from_utf8_lossy(&checked.stderr);
    let expected = format!(
        "{}:4:5: unknown key \"acess\"; did you mean \"access\"?",
        file.text()
    );
    assert_eq!(said.trim(), expected);

    let missing = run(&["check", "/no/such/policy.yaml"]);
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
}

#[test]
fn cases_are_wrong_where_they_name_what_is_not_there() {
    let text = format!(
        "{}tests:\n  - request: {{path: /a}}\n    token: TOKEN_EXPIERD\n    \
         expect: {{decision: alowed, route: home}}\n",
        routes_of("  - {name: hom, path: /a, access: public}\n")
    );
    let checked = run(&["check", PolicyFile::of(&text).text()]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    for expected in [
        ":6:12: token is \"TOKEN_EXPIERD\"; did you mean \"TOKEN_EXPIRED\"?",
        ":7:24: decision is \"alowed\"; did you mean \"allowed\"?",
        ":7:39: route: no route is \"home\"; did you mean \"hom\"?",
    ] {
        assert!(said.contains(expected), "{said}\nexpected: {expected}");
    }
    assert_eq!(checked.status.code(), Some(1));
}

#[test]
fn a_case_that_differs_is_told_as_a_table_and_as_junit() {
    let text = std::fs::read_to_string(EXAMPLE).expect("it is there");
    let file = PolicyFile::of(&text.replace("decision: step_up", "decision: allowed"));

    let table = run(&["test", file.text()]);
    assert_eq!(table.status.code(), Some(1), "{table:?}");
    let said = out(&table);
    assert!(said.contains("20 as expected, 1 not"), "{said}");
    assert!(
        said.contains("expected allowed REVERIFICATION_REQUIRED by payout"),
        "{said}"
    );
    assert!(
        said.contains("found    step_up REVERIFICATION_REQUIRED by payout"),
        "{said}"
    );

    let junit = run(&["test", file.text(), "--format", "junit"]);
    assert_eq!(junit.status.code(), Some(1), "{junit:?}");
    let said = out(&junit);
    assert!(
        said.contains("tests=\"21\"") && said.contains("failures=\"1\""),
        "{said}"
    );

    let none = PolicyFile::routes("  - {path: /a, access: public}\n");
    assert_eq!(
        run(&["test", none.text()]).status.code(),
        Some(2),
        "no tests"
    );
    let wrong = PolicyFile::of("version: 2\nroutes: []\n");
    assert_eq!(run(&["test", wrong.text()]).status.code(), Some(2), "wrong");
}

#[test]
fn what_a_case_does_not_know_is_not_guessed() {
    let case = |more: &str, expect: &str| {
        let text = format!(
            "{}tests:\n  - request: {{path: /o/org_other}}\n    token: {{organization: org_acme, \
             role: admin}}\n{more}    expect: {{{expect}}}\n",
            routes_of("  - {path: '/o/{id}', access: {role: admin}, organization: '{id}'}\n")
        );
        run(&["test", PolicyFile::of(&text).text()])
    };
    // Nearest allow: the membership says it.
    for (more, expect) in [
        ("", "decision: unavailable, reason: CLERK_UNAVAILABLE"),
        (
            "    memberships: []\n",
            "decision: forbidden, reason: NOT_A_MEMBER",
        ),
        (
            "    memberships: [{organization: org_other, role: member}]\n",
            "decision: forbidden, reason: ROLE_MISMATCH",
        ),
        (
            "    memberships: [{organization: org_other, role: admin}]\n",
            "decision: allowed, reason: ALLOWED",
        ),
    ] {
        let tested = case(more, expect);
        assert_eq!(tested.status.code(), Some(0), "{more}: {}", out(&tested));
    }
}

#[test]
fn explain_says_which_route_and_why_no_other() {
    let url = "https://api.example.com/orgs/acme/invoices/7/payout";
    let explained = run(&["explain", EXAMPLE, "POST", url]);
    assert_eq!(explained.status.code(), Some(0), "{explained:?}");
    let said = out(&explained);
    for expected in [
        "route  \"payout\"",
        "role org:admin",
        "it would be, but \"payout\" is more specific",
        "\"invoices\" (line 32): another method (",
        "another host, another path (",
    ] {
        assert!(said.contains(expected), "{said}\nexpected: {expected}");
    }

    for (path, named) in [
        ("/reports/a%2Fb", "encoded_slash"),
        ("/reports/%2e%2e/b", "encoded_dot"),
    ] {
        let explained = run(&["explain", EXAMPLE, "GET", path]);
        assert_eq!(explained.status.code(), Some(1), "{explained:?}");
        assert!(out(&explained).contains(named), "{explained:?}");
    }
    let none = run(&["explain", EXAMPLE, "GET", "/unknown", "--json"]);
    assert_eq!(none.status.code(), Some(1), "{none:?}");
    let none: Value = serde_json::from_slice(&none.stdout).expect("JSON");
    assert_eq!(none["route"], Value::Null);
    assert_eq!(none["others"].as_array().map(Vec::len), Some(10), "{none}");
}

#[tokio::test]
async fn explain_with_a_token_is_the_whole_decision() {
    let clerk = offline_clerk().await;
    let instance = &clerk.instances()[0];
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key.pem");
    std::fs::write(&key, instance.public_key_pem()).expect("written");
    let file = PolicyFile::routes(
        "  - {name: admin, path: /admin, access: {role: admin}}\n  \
         - {name: mine, path: /mine, access: signed_in}\n",
    );
    let explain = |path: &str, token: &str| {
        Command::new(env!("CARGO_BIN_EXE_clerk-authz"))
            .args([
                "policy",
                "explain",
                file.text(),
                "GET",
                path,
                "--json",
                "--offline",
            ])
            .args(["--token", token, "--issuer", instance.issuer().as_str()])
            .env_clear()
            .env("CLERK_JWT_KEY_FILE", &key)
            .output()
            .expect("it runs")
    };
    let signed_in = instance
        .mint(&TokenSpec::session("user_alice"))
        .expect("a token");
    for (path, token, code, decision, reason) in [
        ("/mine", &*signed_in, 0, "allowed", "ALLOWED"),
        (
            "/admin",
            &*signed_in,
            1,
            "forbidden",
            "ORGANIZATION_MISSING",
        ),
        ("/mine", "nonsense", 1, "unauthenticated", "TOKEN_MALFORMED"),
        ("/other", &*signed_in, 1, "forbidden", "ROUTE_UNMATCHED"),
    ] {
        let output = explain(path, token);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(said["decision"], decision, "{said}");
        assert_eq!(said["reason"], reason, "{said}");
        assert!(said["steps"].is_array(), "{said}");
    }
    clerk.stop().await;
}
