//! Alerts, their runbooks and the dashboard speak of metrics that there are.

use std::{collections::BTreeSet, fs, path::Path};

use clerk_authz::telemetry::metrics::{CATALOGUE, Kind};
use serde_json::Value;

const ALERTS: &str = include_str!("../../../deploy/prometheus/alerts.yaml");
const TESTS: &str = include_str!("../../../deploy/prometheus/alerts.test.yaml");
const DASHBOARD: &str = include_str!("../../../deploy/grafana/clerk-authz.json");

/// What a runbook says, in this order.
const SECTIONS: [&str; 4] = [
    "## What it means",
    "## What users see",
    "## What to look at",
    "## What to do",
];

/// The names of the rules.
fn alerts() -> Vec<String> {
    let rules: Value = serde_saphyr::from_str(ALERTS).expect("YAML");
    let rules = rules["groups"][0]["rules"].as_array().expect("rules");
    rules
        .iter()
        .map(|rule| rule["alert"].as_str().expect("a name").to_owned())
        .collect()
}

/// Every name of a metric in a text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("clerk_authz_"))
        .collect()
}

/// As its values are called in the text of the metrics.
fn exists(name: &str) -> bool {
    CATALOGUE.iter().any(|metric| {
        let suffixes: &[&str] = match metric.kind {
            Kind::Counter => &["_total"],
            Kind::Gauge => &[""],
            Kind::Histogram => &["_bucket", "_sum", "_count"],
        };
        let rest = name.strip_prefix(metric.name);
        rest.is_some_and(|rest| suffixes.contains(&rest))
    })
}

#[test]
fn every_alert_has_a_runbook_and_two_tests_and_every_runbook_an_alert() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks");
    let index = fs::read_to_string(folder.join("README.md")).expect("an index");
    let alerts = alerts();
    assert!(alerts.len() >= 15, "{alerts:?}");
    for alert in &alerts {
        let file = folder.join(format!("{alert}.md"));
        let text = fs::read_to_string(&file).unwrap_or_else(|_| panic!("{alert} has no runbook"));
        let places = SECTIONS.map(|section| text.find(section));
        assert!(
            places.iter().all(Option::is_some),
            "{alert} lacks a section of {SECTIONS:?}"
        );
        assert!(places.is_sorted(), "{alert}");
        assert!(
            ALERTS.contains(&format!("runbook: docs/runbooks/{alert}.md")),
            "{alert}"
        );
        assert!(
            index.contains(&format!("[{alert}]({alert}.md)")),
            "{alert} is not in the index"
        );
        for test in ["fires", "stays quiet"] {
            assert!(
                TESTS.contains(&format!("name: {alert} {test}")),
                "{alert} {test}"
            );
        }
    }
    for entry in fs::read_dir(&folder).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_string_lossy();
        let name = name.trim_end_matches(".md");
        assert!(
            name == "README" || alerts.iter().any(|alert| alert == name),
            "{name}"
        );
    }
}

#[test]
fn alerts_runbooks_and_dashboard_name_metrics_that_there_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks");
    let mut texts = vec![ALERTS.to_owned(), TESTS.to_owned(), DASHBOARD.to_owned()];
    for alert in alerts() {
        texts.push(fs::read_to_string(folder.join(format!("{alert}.md"))).expect("text"));
    }
    let all: BTreeSet<&str> = texts.iter().flat_map(|text| metrics_in(text)).collect();
    assert!(all.len() >= 30, "{all:?}");
    let unknown: Vec<&&str> = all
        .iter()
        // In prose a histogram is called by its own name.
        .filter(|name| {
            !exists(name)
                && !CATALOGUE
                    .iter()
                    .any(|metric| metric.name == **name && metric.kind == Kind::Histogram)
        })
        .collect();
    assert!(
        unknown.is_empty(),
        "{unknown:?} are in no catalogue (src/telemetry/metrics.rs)"
    );
    assert!(!exists("clerk_authz_grpc_calls") && !exists("clerk_authz_keys_usable_total"));
}

#[test]
fn the_dashboard_asks_in_every_panel() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
        if panel["type"] == "row" {
            continue;
        }
        for target in panel["targets"].as_array().expect("targets") {
            let asked = target["expr"].as_str().expect("an expression");
            assert!(!metrics_in(asked).is_empty(), "{asked}");
            assert!(asked.contains("job=~\"$job\""), "{asked}");
        }
    }
    assert!(ids.len() >= 30, "{}", ids.len());
}
