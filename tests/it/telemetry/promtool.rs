//! Prometheus' own tool has nothing to say of our metrics.

use std::{path::PathBuf, process::Stdio};

use clerk_authz::emulator::TokenSpec;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::support::{
    Fixture,
    database::{Database, on_each_engine},
};

/// The distribution's, as `make setup` unpacks it, or the machine's own.
fn promtool() -> Option<PathBuf> {
    let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/.prometheus/usr/bin/promtool");
    let known = [
        unpacked,
        "/usr/bin/promtool",
        "/usr/local/bin/promtool",
        "/opt/homebrew/bin/promtool",
    ];
    let found = known
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists());
    if found.is_none() {
        println!(
            "skipped: promtool is not installed; `make setup` unpacks the distribution's where there is apt"
        );
        assert!(std::env::var_os("CI").is_none(), "CI checks with promtool");
    }
    found
}

async fn run(arguments: &[&str], input: &str) -> Option<String> {
    let mut child = Command::new(promtool()?)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).await.expect("written");
    drop(stdin);
    let done = child.wait_with_output().await.expect("it ends");
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8(said).expect("text");
    assert!(done.status.success(), "promtool {arguments:?}: {said}");
    Some(said)
}

on_each_engine! {
    async fn promtool_has_nothing_to_say_of_the_metrics(database: Database) {
        let url = database.place.url();
        let fixture = Fixture::start_with(&[("CLERK_AUTHZ_DATABASE_URL", &url)]).await;
        let token = fixture.mint(&TokenSpec::session("user_alice"));
        fixture.verify(&token).await.expect("accepted");
        let url = format!("http://{}/metrics", fixture.service.http_addr());
        let asked = reqwest::Client::new().get(url).header("accept", "text/plain");
        let metrics = asked.send().await.expect("answered").text().await.expect("text");

        if let Some(said) = run(&["check", "metrics"], &metrics).await {
            assert_eq!(said, "", "{metrics}");
            println!("promtool: {} lines of metrics are clean", metrics.lines().count());
        }
        fixture.stop().await;
    }
}

#[tokio::test]
async fn every_alert_fires_for_what_it_is_about_and_for_nothing_else() {
    for arguments in [
        ["check", "rules", "deploy/prometheus/alerts.yaml"],
        ["test", "rules", "deploy/prometheus/alerts.test.yaml"],
    ] {
        if let Some(said) = run(&arguments, "").await {
            assert!(said.contains("SUCCESS"), "{said}");
            println!("promtool: {} of the alerts: green", arguments[0]);
        }
    }
}

/// Each expression of the dashboard as a rule of its own: promtool reads them.
#[tokio::test]
async fn promtool_reads_every_expression_of_the_dashboard() {
    let dashboard = include_str!("../../../deploy/grafana/clerk-authz.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let rules: Vec<serde_json::Value> = targets
        .flatten()
        .enumerate()
        .map(|(number, target)| {
            // Grafana fills these in.
            let asked = target["expr"].as_str().expect("an expression");
            let asked = asked
                .replace("$__rate_interval", "1m")
                .replace("$job", ".+");
            serde_json::json!({"record": format!("panel:{number}"), "expr": asked})
        })
        .collect();
    let groups = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
    std::fs::write(file.path(), groups.to_string()).expect("written");

    let path = file.path().to_str().expect("text");
    if let Some(said) = run(&["check", "rules", path], "").await {
        assert!(
            said.contains(&format!("{} rules found", rules.len())),
            "{said}"
        );
    }
}
