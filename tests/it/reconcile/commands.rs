//! `clerk-authz reconcile` and `clerk-authz sync`: what they print, and how they exit.

use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

use super::Scene;
use crate::support::database::{Database, on_each_engine};

/// What the service would be started with.
pub(super) fn variables(scene: &Scene) -> Vec<(&'static str, String)> {
    let instance = scene.instance();
    vec![
        (
            "CLERK_PUBLISHABLE_KEY",
            instance.publishable_key().as_str().to_owned(),
        ),
        ("CLERK_AUTHZ_ISSUER", instance.issuer().to_string()),
        ("CLERK_SECRET_KEY", instance.secret_key()),
        ("CLERK_API_URL", instance.issuer().to_string()),
        ("CLERK_AUTHZ_API_BUDGET", "100000".to_owned()),
        ("CLERK_AUTHZ_DATABASE_URL", scene.database.place.url()),
    ]
}

async fn run(variables: Vec<(&'static str, String)>, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_clerk-authz"))
        .args(arguments)
        .env_clear()
        .envs(variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut stdin = child.stdin.take().expect("piped");
    // It may have ended without reading.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    child.wait_with_output().await.expect("it ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8").trim_end()
}

on_each_engine! {
    async fn reconcile_reports_and_exits_by_what_it_found(database: Database) {
        let scene = Scene::start(database).await;
        let command = async |arguments: &[&str]| run(variables(&scene), arguments, "").await;

        let found = command(&["reconcile"]).await;
        assert_eq!(found.status.code(), Some(1), "{found:?}");
        let table = text(&found.stdout);
        assert!(table.contains("users                  3         0         3       0       0         0          0"), "{table}");
        assert!(table.contains("missing users: user_alice, user_bob, user_carol\n"), "{table}");
        assert!(table.ends_with("drift: 8 found; mend it with --apply"), "{table}");
        let said = text(&found.stderr);
        assert!(said.contains("comparing users: 3 of 3\n"), "{said}");

        let mended = command(&["reconcile", "--apply", "--format", "json"]).await;
        assert_eq!(mended.status.code(), Some(1));
        let report: Value = serde_json::from_slice(&mended.stdout).expect("JSON");
        assert_eq!((&report["in_step"], &report["applied"]), (&false.into(), &true.into()));
        assert_eq!(report["kinds"]["user"]["missing"]["mended"], 3);
        assert_eq!(report["kinds"]["membership"]["missing"]["examples"][0], "org_acme/user_alice");
        scene.assert_equal().await;

        let in_step = command(&["reconcile"]).await;
        assert_eq!((in_step.status.code(), text(&in_step.stdout).lines().last()), (Some(0), Some("in step")));
        scene.stop().await;
    }

    async fn sync_says_a_line_for_each_user_and_exits_by_the_worst(database: Database) {
        let scene = Scene::start(database).await;
        let command = async |arguments: &[&str], input: &str| run(variables(&scene), arguments, input).await;

        let created = command(&["sync", "user_alice", "user_bob"], "").await;
        assert_eq!(created.status.code(), Some(0), "{created:?}");
        assert_eq!(text(&created.stdout), "user_alice  created\nuser_bob  created");
        assert!(text(&created.stderr).contains("syncing users: 2 of 2"), "{created:?}");

        scene.directory().change_user("user_bob", |user| user.first_name = Some("Rob".to_owned())).expect("changed");
        let some = command(&["sync", "-", "user_nobody", "--json"], "user_alice\n\n user_bob\nuser_alice\n").await;
        assert_eq!(some.status.code(), Some(1), "one is unknown to Clerk");
        let lines: Vec<Value> = text(&some.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let outcomes: Vec<(&str, &str)> = lines.iter().map(|it| (it["user"].as_str().expect("text"), it["outcome"].as_str().expect("text"))).collect();
        assert_eq!(outcomes, [("user_alice", "unchanged"), ("user_bob", "updated"), ("user_nobody", "deleted")]);

        let mut refused = variables(&scene);
        refused[2].1 = "sk_test_emulatorother".to_owned();
        let failed = run(refused, &["sync", "user_alice"], "").await;
        assert_eq!(failed.status.code(), Some(1));
        assert!(text(&failed.stdout).starts_with("user_alice  failed: Clerk refuses the secret key"), "{failed:?}");
        scene.stop().await;
    }
}

#[tokio::test]
async fn what_cannot_be_begun_says_how_to_mend_it() {
    let scene = Scene::start(Database::on(crate::support::database::Place::sqlite()).await).await;
    let all = || variables(&scene);
    let without = |name: &str| {
        let mut variables = all();
        variables.retain(|(known, _)| *known != name);
        variables
    };
    let with = |name: &'static str, value: &str| {
        let mut variables = without(name);
        variables.push((name, value.to_owned()));
        variables
    };
    for (variables, arguments, expected) in [
        (
            without("CLERK_AUTHZ_DATABASE_URL"),
            &["reconcile"][..],
            "CLERK_AUTHZ_DATABASE_URL is not set; set it as for the service",
        ),
        (
            without("CLERK_SECRET_KEY"),
            &["reconcile"],
            "instance \"default\" has no secret key, with which Clerk is asked; set CLERK_SECRET_KEY",
        ),
        (
            without("CLERK_SECRET_KEY"),
            &["sync", "user_alice"],
            "has no secret key",
        ),
        (
            with("CLERK_SECRET_KEY", "sk_test_emulatorother"),
            &["reconcile"],
            "Clerk refuses the secret key",
        ),
        (
            with("CLERK_AUTHZ_DATABASE_URL", "sqlite:///nowhere/x.db"),
            &["reconcile"],
            "where there is no file; is it the service's?",
        ),
        (
            all(),
            &["reconcile", "--instance", "shop"],
            "--instance is \"shop\"; expected one of the settings: \"default\"",
        ),
        (
            all(),
            &["sync", "org_acme"],
            "USER is \"org_acme\"; expected \"user_\"",
        ),
        (all(), &["sync", "-"], "no user is given; expected ids"),
        (all(), &["sync"], "<USER|->"),
    ] {
        let output = run(variables, arguments, "").await;
        assert_eq!(output.status.code(), Some(2), "{expected}: {output:?}");
        let said = text(&output.stderr);
        assert!(said.contains(expected), "{said}");
    }
    scene.stop().await;
}
