//! Cases that Clerk's own SDK was asked about.

use std::{path::Path, process::Command};

use serde::de::DeserializeOwned;

/// Has a script of `conformance/` make so many cases from a seed: its first line, and a line for each.
pub fn generate<Header: DeserializeOwned, Case: DeserializeOwned>(
    script: &str,
    seed: &str,
    count: &str,
) -> (Header, Vec<Case>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(
        root.join("conformance/node_modules/@clerk/backend")
            .exists(),
        "Clerk's SDK is not installed: run `make setup` (it needs Node 20 or later)"
    );
    let out = tempfile::NamedTempFile::new().expect("a temporary file");
    let ran = Command::new("node")
        .arg(root.join("conformance").join(script))
        .args(["--seed", seed, "--cases", count, "--out"])
        .arg(out.path())
        .output()
        .expect("node can be started: run `make setup`");
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let text = std::fs::read_to_string(out.path()).expect("the cases");
    let mut lines = text.lines();
    let header = serde_json::from_str(lines.next().expect("a first line")).expect("the header");
    let cases = lines
        .map(|line| serde_json::from_str(line).expect("a case"))
        .collect();
    (header, cases)
}
