//! The import table: which room may name which. The core knows neither tonic nor axum nor Clerk's
//! JSON; an arrow never points back up.

use std::{collections::BTreeMap, fs, path::Path};

/// A room, the rooms of ours that it may import, and the foreign crates that only some may name.
/// `*` is everything.
const TABLE: &[(&str, &[&str], &[&str])] = &[
    // Meaning: pure, no I/O, no async, no clock of its own.
    (
        "identity",
        &[],
        &["aws_lc_rs", "base64", "humantime", "thiserror", "url"],
    ),
    ("backoff", &[], &["fastrand"]),
    ("closed_list", &[], &[]),
    ("histogram", &[], &[]),
    (
        "trace",
        &[],
        &["fastrand", "http", "opentelemetry", "pin_project_lite"],
    ),
    ("reason", &[], &[]),
    ("explain", &[], &[]),
    (
        "callers",
        &["closed_list"],
        &["arc_swap", "aws_lc_rs", "thiserror"],
    ),
    (
        "token",
        &["explain", "identity", "reason"],
        &["base64", "serde", "serde_json", "thiserror"],
    ),
    (
        "credential",
        &["explain", "identity", "reason", "token"],
        &["memchr", "percent_encoding", "thiserror"],
    ),
    (
        "handshake",
        &["credential", "identity", "reason"],
        &["thiserror", "url"],
    ),
    (
        "assertion",
        &["explain", "identity", "mirror", "reason", "token"],
        &["aws_lc_rs", "serde", "serde_json"],
    ),
    (
        "mirror",
        &["histogram", "identity", "webhook"],
        &["aws_lc_rs", "secrecy", "thiserror"],
    ),
    (
        "policy",
        &["decision", "identity", "mirror", "reason"],
        &[
            "aws_lc_rs",
            "humantime",
            "serde",
            "serde_saphyr",
            "strsim",
            "thiserror",
            "url",
        ],
    ),
    (
        "decision",
        &["explain", "identity", "mirror", "reason"],
        &["thiserror"],
    ),
    (
        "webhook",
        &["identity"],
        &[
            "aws_lc_rs",
            "base64",
            "secrecy",
            "serde",
            "serde_json",
            "thiserror",
        ],
    ),
    // Knowing: caches, keys, orchestration.
    (
        "keys",
        &["backoff", "identity"],
        &[
            "arc_swap",
            "aws_lc_rs",
            "base64",
            "jsonwebtoken",
            "rustls_pki_types",
            "serde",
            "serde_json",
            "tempfile",
            "thiserror",
            "tokio",
            "tokio_util",
            "tracing",
        ],
    ),
    (
        "authz",
        &[
            "assertion",
            "closed_list",
            "credential",
            "decision",
            "explain",
            "handshake",
            "identity",
            "keys",
            "mirror",
            "policy",
            "reason",
            "token",
        ],
        &[
            "arc_swap",
            "aws_lc_rs",
            "equivalent",
            "futures_util",
            "moka",
            "papaya",
            "thiserror",
            "tracing",
            "url",
        ],
    ),
    (
        "sync",
        &[
            "authz",
            "backoff",
            "closed_list",
            "identity",
            "mirror",
            "webhook",
        ],
        &[
            "arc_swap",
            "aws_lc_rs",
            "base64",
            "fastrand",
            "futures_util",
            // How far a reconciliation has come is kept as JSON.
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio_util",
            "tracing",
        ],
    ),
    (
        "upstream_assertion",
        &["identity", "keys"],
        &[
            "arc_swap",
            "aws_lc_rs",
            "base64",
            "moka",
            "secrecy",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio_util",
            "tracing",
        ],
    ),
    // Doors and neighbours: each knows one foreign format.
    (
        "clerk",
        &[
            "backoff",
            "histogram",
            "identity",
            "keys",
            "mirror",
            "trace",
            "webhook",
        ],
        &[
            "futures_util",
            "httpdate",
            "reqwest",
            "secrecy",
            "serde",
            "serde_json",
            "serde_path_to_error",
            "thiserror",
            "tokio",
            "tokio_util",
            "tracing",
            "url",
        ],
    ),
    (
        "store",
        &[
            "histogram",
            "identity",
            "keys",
            "mirror",
            "trace",
            "upstream_assertion",
        ],
        // Modules of its own have the names of the engines.
        &[
            "aws_lc_rs",
            "serde",
            "serde_json",
            "sqlx",
            "thiserror",
            "tokio",
        ],
    ),
    (
        "door",
        &[
            "assertion",
            "closed_list",
            "authz",
            "callers",
            "credential",
            "decision",
            "explain",
            "handshake",
            "histogram",
            "identity",
            "keys",
            "mirror",
            "policy",
            "reason",
            "sync",
            "trace",
            "upstream_assertion",
            "webhook",
        ],
        &[
            "arc_swap",
            "axum",
            "bytes",
            "envoy_types",
            "fastrand",
            "futures_util",
            "http",
            "ipnet",
            "percent_encoding",
            "pin_project_lite",
            "prost",
            "prost_reflect",
            "prost_types",
            "rustls",
            // A ticket leaves its mask where it is answered.
            "secrecy",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio_rustls",
            "tokio_stream",
            "tokio_util",
            "tonic",
            "tonic_health",
            "tonic_prost",
            "tonic_reflection",
            "tonic_types",
            "tower",
            "tracing",
            "x509_parser",
        ],
    ),
    // Running it.
    (
        "settings",
        &["assertion", "callers", "identity", "webhook"],
        &[
            "clap",
            "humantime",
            "ipnet",
            "percent_encoding",
            "secrecy",
            "serde",
            "strsim",
            "thiserror",
            "toml",
            "url",
        ],
    ),
    (
        "telemetry",
        &["closed_list", "histogram", "trace"],
        &[
            "opentelemetry",
            "opentelemetry_appender_tracing",
            "opentelemetry_otlp",
            "opentelemetry_sdk",
            "prometheus_client",
            "secrecy",
            "thiserror",
            // A module of the exporter's has this name.
            "tonic_types",
            "tracing",
            "tracing_appender",
            "tracing_subscriber",
        ],
    ),
    (
        "emulator",
        &["identity"],
        &[
            "aws_lc_rs",
            "axum",
            "base64",
            "fastrand",
            "futures_util",
            // A module of its own has this name.
            "http",
            "humantime",
            "reqwest",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio_util",
            "toml",
        ],
    ),
    (
        "server",
        &[
            "authz",
            "callers",
            "clerk",
            "door",
            "identity",
            "keys",
            "mirror",
            "policy",
            "settings",
            "store",
            "sync",
            "telemetry",
            "upstream_assertion",
            "webhook",
        ],
        // `http` is the door.
        &[
            "http",
            "secrecy",
            "thiserror",
            "tokio",
            "tokio_util",
            "tracing",
        ],
    ),
    ("cli", &["*"], &["*"]),
];

/// Names at the start of a path that are no crates.
const OWN: &[&str] = &["std", "core", "crate", "self", "super", "Self"];

#[test]
fn every_room_imports_only_what_the_table_permits() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let crates = dependencies();
    let mut wrong = Vec::new();
    for (file, room, code) in files(&root) {
        for (line, imported) in imports(&code, &crates) {
            if let Some(problem) = judge(&room, &imported) {
                wrong.push(format!("{file}:{line}: {problem}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "tests/it/rooms.rs holds the table:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_table_has_every_room_of_the_library() {
    let library = include_str!("../../src/lib.rs");
    let declared: Vec<&str> = library
        .lines()
        .map(|line| line.strip_prefix("pub ").unwrap_or(line))
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    let mut known: Vec<&str> = TABLE.iter().map(|(room, ..)| *room).collect();
    let mut declared_sorted = declared.clone();
    declared_sorted.sort_unstable();
    known.sort_unstable();
    assert_eq!(declared_sorted, known);
}

#[test]
fn a_wrong_import_is_seen() {
    let crates = dependencies();
    let code =
        "use crate::door::grpc;\nuse tonic::Status;\nfn f() { reqwest::get(); }\n// use axum::x;\n";
    let seen: Vec<String> = imports(code, &crates)
        .iter()
        .filter_map(|(_, imported)| judge("token", imported))
        .collect();
    assert_eq!(seen.len(), 3, "{seen:?}");

    for (group, lines) in [
        ("use crate::{identity::UserId, door::grpc};\n", vec![1]),
        (
            "use crate::{identity::{UserId, SessionId}, door};\n",
            vec![1],
        ),
        (
            "\nuse crate::{\n    identity::{\n        door,\n    },\n    server, // door\n};\n",
            vec![6],
        ),
    ] {
        let seen: Vec<usize> = imports(group, &crates)
            .iter()
            .filter(|(_, imported)| judge("token", imported).is_some())
            .map(|(line, _)| *line)
            .collect();
        assert_eq!(seen, lines, "{group}");
    }

    assert!(imports("#[cfg(test)]\nmod tests {\n use axum::x;\n}\n", &crates).is_empty());
}

#[derive(Debug)]
enum Imported {
    Room(String),
    Crate(String),
}

fn judge(room: &str, imported: &Imported) -> Option<String> {
    if room == "lib" || room == "main" {
        return None;
    }
    let (_, rooms, crates) = TABLE.iter().find(|(name, ..)| *name == room)?;
    let permits = |list: &[&str], name: &str| list.contains(&"*") || list.contains(&name);
    match imported {
        Imported::Room(other) if other != room && !permits(rooms, other) => Some(format!(
            "room `{room}` imports room `{other}`; it may import {rooms:?}"
        )),
        Imported::Crate(name) if !permits(crates, name) => Some(format!(
            "room `{room}` names crate `{name}`; it may name {crates:?}"
        )),
        Imported::Room(_) | Imported::Crate(_) => None,
    }
}

/// The dependencies of Cargo.toml, as Rust names them.
fn dependencies() -> Vec<String> {
    let manifest: toml::Table = include_str!("../../Cargo.toml")
        .parse()
        .expect("Cargo.toml is TOML");
    let names = ["dependencies", "dev-dependencies"]
        .iter()
        .filter_map(|key| manifest.get(*key));
    names
        .filter_map(toml::Value::as_table)
        .flat_map(|table| table.keys().map(|name| name.replace('-', "_")))
        .collect()
}

/// Every file, with its room and its code without comments and tests.
fn files(folder: &Path) -> Vec<(String, String, String)> {
    fn walk(folder: &Path, into: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                walk(&path, into);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let text = fs::read_to_string(&path).expect("text");
                into.insert(path.to_string_lossy().into_owned(), text);
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(folder, &mut all);
    all.into_iter()
        .map(|(path, code)| {
            let inside = path.rsplit_once("/src/").expect("below src").1.to_owned();
            let room = inside.split(['/', '.']).next().expect("a room").to_owned();
            (format!("src/{inside}"), room, code)
        })
        .collect()
}

/// What the code names: `crate::room`, and crates at the start of a path.
fn imports(code: &str, crates: &[String]) -> Vec<(usize, Imported)> {
    // Tests stand at the end of a file.
    let code = code.split("#[cfg(test)]\n").next().unwrap_or_default();
    let lines = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut found = grouped_rooms(&code);
    for (index, line) in code.lines().enumerate() {
        let words = line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        for word in words.filter(|word| word.contains("::")) {
            let mut parts = word.split("::");
            let first = parts.next().unwrap_or_default();
            if first == "crate" {
                if let Some(room) = parts.next().filter(|room| !room.is_empty()) {
                    found.push((index + 1, Imported::Room(room.to_owned())));
                }
            } else if !OWN.contains(&first) && crates.iter().any(|name| name == first) {
                found.push((index + 1, Imported::Crate(first.to_owned())));
            }
        }
    }
    found
}

/// The rooms in `crate::{…}`, whether the group stands on one line or on many.
fn grouped_rooms(code: &str) -> Vec<(usize, Imported)> {
    const OPEN: &str = "crate::{";
    let mut found = Vec::new();
    for (start, _) in code.match_indices(OPEN) {
        let mut line = code[..start].matches('\n').count() + 1;
        let mut depth = 1;
        let mut at_item_start = true;
        let mut room = String::new();
        for c in code[start + OPEN.len()..].chars() {
            if depth == 1 && at_item_start && (c.is_alphanumeric() || c == '_') {
                room.push(c);
                continue;
            }
            if !room.is_empty() {
                found.push((line, Imported::Room(std::mem::take(&mut room))));
                at_item_start = false;
            }
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => at_item_start = true,
                '\n' => line += 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}
