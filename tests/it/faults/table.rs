//! The table of docs/operations.md and the tests that it names.

use std::{collections::BTreeSet, fs, path::Path};

/// Every row names tests that are there; every test here stands in a row.
#[test]
fn each_row_of_the_fault_table_names_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/operations.md")).expect("it is there");
    let table = document
        .split_once("## What survives which fault")
        .expect("the section")
        .1;
    let table = table.split_once("\n## ").map_or(table, |(table, _)| table);
    let rows: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| part down "))
        .collect();
    assert!(rows.len() >= 9, "{rows:#?}");
    let mut named = BTreeSet::new();
    for row in rows {
        let test = row.trim_end_matches([' ', '|']).rsplit("| ").next();
        let tests: Vec<&str> = test
            .expect("a cell")
            .split('`')
            .skip(1)
            .step_by(2)
            .collect();
        assert!(!tests.is_empty(), "no test in {row}");
        for test in tests {
            let (path, name) = test.rsplit_once("::").expect("ROOM::TEST");
            let path = root
                .join("tests/it")
                .join(path.replace("::", "/"))
                .with_extension("rs");
            let text = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{test}: {path:?}"));
            assert!(
                text.contains(&format!("fn {name}(")),
                "{test} is not in {path:?}"
            );
            named.insert(test.to_owned());
        }
    }
    for file in ["clerk", "clocks", "database", "paused"] {
        let path = root.join("tests/it/faults").join(file).with_extension("rs");
        let text = fs::read_to_string(path).expect("it is there");
        for test in text.split("#[tokio::test").skip(1) {
            let name = test.split_once("async fn ").expect("a test").1;
            let name = name.split('(').next().expect("a name");
            let test = format!("faults::{file}::{name}");
            assert!(
                named.contains(&test),
                "{test} has no row in docs/operations.md"
            );
        }
    }
}
