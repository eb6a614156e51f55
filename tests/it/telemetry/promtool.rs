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
