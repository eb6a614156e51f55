//! docs/decision-log.md, through the doors.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use clerk_authz::{
    door::grpc::proto::{self, CheckOrgPermissionRequest, check_org_permission_request::Subject},
    emulator::TokenSpec,
    identity::Timestamp,
    server,
    settings::{EnvironmentVariables, Settings, SettingsArgs},
};
use serde_json::Value;

use super::calls::value;
use crate::{
    envoy::{check, http},
    forward_auth::{self, Original, POLICY},
    policy::PolicyFile,
    support::{Fixture, about, client, eventually, offline_clerk, settings_for},
};

/// A service with a policy and a decision log, and the files of both.
struct Scene {
    fixture: Fixture,
    path: PathBuf,
    _files: (PolicyFile, tempfile::TempDir),
}

impl Scene {
    async fn start(more: &[(&str, &str)]) -> Self {
        let policy = PolicyFile::of(POLICY);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("decisions.jsonl");
        let mut variables = vec![
            ("CLERK_AUTHZ_POLICY", policy.text()),
            ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
            ("CLERK_AUTHZ_DECISION_LOG", path.to_str().expect("text")),
        ];
        variables.extend(more);
        Self {
            fixture: Fixture::start_with(&variables).await,
            path,
            _files: (policy, folder),
        }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).expect("text")
    }

    /// The records, when there are so many; each is held to the schema.
    async fn records(&self, count: usize) -> Vec<Value> {
        let schema = include_str!("../../../docs/decision-log.schema.json");
        let schema = serde_json::from_str(schema).expect("JSON");
        let validator = jsonschema::draft202012::new(&schema).expect("a schema");
        eventually("the records are there", async || {
            self.text().lines().count() >= count
        })
        .await;
        let text = self.text();
        let records: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        for record in &records {
            let faults: Vec<String> = validator
                .iter_errors(record)
                .map(|fault| fault.to_string())
                .collect();
            assert!(faults.is_empty(), "{record}: {faults:?}");
        }
        assert_eq!(records.len(), count, "{text}");
        records
    }
}

fn check_request(subject: Subject, organization: &str, role: &str) -> CheckOrgPermissionRequest {
    CheckOrgPermissionRequest {
        subject: Some(subject),
        organization_id: organization.to_owned(),
        role: Some(role.to_owned()),
        ..CheckOrgPermissionRequest::default()
    }
}

#[tokio::test]
async fn every_door_records_what_it_decides_by_the_schema_and_nothing_of_a_token() {
    let scene = Scene::start(&[]).await;
    let fixture = &scene.fixture;
    let admin = fixture.mint(&TokenSpec::session("user_alice").in_organization("acme"));
    let alone = fixture.mint(&TokenSpec::session("user_alice"));
    let acted = fixture.mint(&TokenSpec {
        impersonated_by: Some("user_bob".to_owned()),
        ..TokenSpec::session("user_alice")
    });
    let mut client = fixture.client.clone();

    fixture.verify(&admin).await.expect("accepted");
    fixture.verify(&acted).await.expect("accepted");
    let mut named = tonic::Request::new(about("junk"));
    let id = "request-7".parse().expect("a value");
    named.metadata_mut().insert("x-request-id", id);
    client.verify_session(named).await.expect_err("denied");
    let batch = proto::BatchVerifySessionRequest {
        requests: vec![about(&alone), about("")],
    };
    client.batch_verify_session(batch).await.expect("answered");
    let asked = check_request(Subject::Token(admin.clone()), "", "admin");
    let allowed = client.check_org_permission(asked).await.expect("answered");
    let asked = check_request(Subject::Token(admin.clone()), "", "owner");
    let denied = client.check_org_permission(asked).await.expect("answered");
    let asked = check_request(Subject::UserId("user_bob".to_owned()), "org_acme", "admin");
    client
        .check_org_permission(asked)
        .await
        .expect_err("nobody to ask");
    for token in [&admin, &alone] {
        let request = http("/admin", &format!("Bearer {token}"));
        check(fixture, Some(request), &[]).await.expect("answered");
    }
    let addr = fixture.service.http_addr();
    let bearer = format!("Bearer {alone}");
    for (path, status) in [("/mine/a?hush=1", 200), ("/o/org_acme", 503), ("/x", 403)] {
        let more = [("authorization", &*bearer), ("x-request-id", "proxy-1")];
        let answered = forward_auth::status(addr, &Original::get(path), &more).await;
        assert_eq!(answered, status, "{path}");
    }
    client
        .verify_session(proto::VerifySessionRequest::default())
        .await
        .expect_err("malformed");

    let records = scene.records(13).await;
    let said: Vec<[&str; 4]> = records
        .iter()
        .map(|record| {
            ["door", "rpc", "outcome", "reason"].map(|key| record[key].as_str().expect("text"))
        })
        .collect();
    assert_eq!(
        said,
        [
            ["grpc", "VerifySession", "allowed", "ALLOWED"],
            ["grpc", "VerifySession", "allowed", "ALLOWED"],
            ["grpc", "VerifySession", "denied", "TOKEN_MALFORMED"],
            ["grpc", "BatchVerifySession", "allowed", "ALLOWED"],
            ["grpc", "BatchVerifySession", "denied", "TOKEN_MISSING"],
            ["grpc", "CheckOrgPermission", "allowed", "ALLOWED"],
            ["grpc", "CheckOrgPermission", "denied", "ROLE_MISMATCH"],
            [
                "grpc",
                "CheckOrgPermission",
                "cannot_tell",
                "CLERK_UNAVAILABLE"
            ],
            ["ext_authz", "Check", "allowed", "ALLOWED"],
            ["ext_authz", "Check", "denied", "ORGANIZATION_MISSING"],
            ["forward_auth", "ForwardAuth", "allowed", "ALLOWED"],
            [
                "forward_auth",
                "ForwardAuth",
                "cannot_tell",
                "CLERK_UNAVAILABLE"
            ],
            ["forward_auth", "ForwardAuth", "denied", "ROUTE_UNMATCHED"],
        ]
    );
    assert_eq!(records[0]["user_id"], "user_alice");
    assert_eq!(records[0]["organization"], "org_acme");
    assert_eq!(records[0]["instance"], "default");
    assert_eq!(records[1]["actor"], "user_bob");
    assert_eq!(records[2]["request_id"], "request-7");
    assert!(records[2].get("user_id").is_none(), "{}", records[2]);
    assert_eq!(records[5]["decision_id"], allowed.into_inner().decision_id);
    assert_eq!(records[5]["source"], "TOKEN");
    assert_eq!(records[6]["decision_id"], denied.into_inner().decision_id);
    assert_eq!(records[7]["user_id"], "user_bob");
    assert_eq!(records[7]["organization"], "org_acme");
    assert_eq!(records[9]["user_id"], "user_alice");
    assert_eq!(records[9]["route"], "admin");
    assert_eq!(records[11]["organization"], "org_acme");
    assert_eq!(records[12]["request_id"], "proxy-1");
    assert!(records[12].get("route").is_none(), "{}", records[12]);
    let text = scene.text();
    for private in [
        &admin[..30],
        &alone[alone.len() - 30..],
        "Bearer",
        "hush",
        "junk",
    ] {
        assert!(!text.contains(private), "{private} is in\n{text}");
    }
    let written = "clerk_authz_decision_log_lines_total{outcome=\"written\"}";
    assert!((value(&fixture.metrics().await, written) - 13.0).abs() < f64::EPSILON);
    scene.fixture.stop().await;
}

/// Its tokens are judged by one moment; each is recorded with its own, as the first may have waited for keys.
#[tokio::test]
async fn what_a_batch_decides_is_recorded_with_the_time_of_each() {
    const MINUTE: i64 = 60_000;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("decisions.jsonl");
    let log = ("CLERK_AUTHZ_DECISION_LOG", path.to_str().expect("text"));
    let clerk = offline_clerk().await;
    let readings = AtomicI64::new(Timestamp::from(SystemTime::now()).unix_millis());
    // Each time that it is asked a minute has passed.
    let clock = move || Timestamp::from_unix_millis(readings.fetch_add(MINUTE, Relaxed));
    let service = server::start(&settings_for(&clerk, &[log]), Arc::new(clock)).await;
    let service = service.expect("it starts");

    let requests = vec![about("junk"), about("junk"), about("junk")];
    let batch = proto::BatchVerifySessionRequest { requests };
    let mut client = client(service.grpc_addr()).await;
    client.batch_verify_session(batch).await.expect("answered");
    service.stop().await;
    clerk.stop().await;

    let text = fs::read_to_string(&path).expect("text");
    let times: Vec<SystemTime> = text
        .lines()
        .map(|line| {
            let record: Value = serde_json::from_str(line).expect("JSON");
            humantime::parse_rfc3339(record["time"].as_str().expect("text")).expect("a time")
        })
        .collect();
    assert_eq!(times.len(), 3, "{text}");
    for (earlier, later) in times.iter().zip(&times[1..]) {
        let passed = later.duration_since(*earlier).expect("in order");
        assert!(passed > Duration::from_secs(30), "{text}");
    }
}

#[tokio::test]
async fn a_sample_leaves_out_what_is_allowed_and_nothing_else() {
    let scene = Scene::start(&[("CLERK_AUTHZ_DECISION_LOG_SAMPLE", "0")]).await;
    let token = scene.fixture.mint(&TokenSpec::session("user_alice"));
    for _ in 0..20 {
        scene.fixture.verify(&token).await.expect("accepted");
        scene.fixture.verify("junk").await.expect_err("denied");
    }
    for record in scene.records(20).await {
        assert_eq!(record["outcome"], "denied");
        assert_eq!(record["sample_rate"], 1.0);
    }
    scene.fixture.stop().await;

    let scene = Scene::start(&[("CLERK_AUTHZ_DECISION_LOG_SAMPLE", "0.5")]).await;
    let token = scene.fixture.mint(&TokenSpec::session("user_alice"));
    for _ in 0..400 {
        scene.fixture.verify(&token).await.expect("accepted");
    }
    // What waits is written at the end.
    let Scene {
        fixture,
        path,
        _files,
    } = scene;
    fixture.stop().await;
    let text = fs::read_to_string(path).expect("text");
    let count = text.lines().count();
    // Ten standard deviations to either side.
    assert!((100..=300).contains(&count), "{count}");
    assert!(
        text.lines()
            .all(|line| line.contains("\"sample_rate\":0.5"))
    );
}

#[tokio::test]
async fn a_rotated_file_is_made_anew_and_no_record_is_lost() {
    let scene = Scene::start(&[]).await;
    scene.fixture.verify("junk").await.expect_err("denied");
    scene.records(1).await;
    fs::rename(&scene.path, scene.path.with_extension("1")).expect("moved");

    scene.fixture.verify("").await.expect_err("denied");
    eventually("the file is there again", async || scene.path.exists()).await;
    assert_eq!(scene.records(1).await[0]["reason"], "TOKEN_MISSING");
    scene.fixture.stop().await;
}

#[test]
fn what_is_no_place_and_no_part_is_said() {
    let problems = |name: &str, value: &str| {
        let clerk = ("CLERK_AUTHZ_ISSUER", "https://clerk.example.com");
        let environment: EnvironmentVariables = [clerk, (name, value)]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        let loaded = Settings::load(&SettingsArgs::default(), &environment);
        loaded
            .err()
            .map(|problems| problems.to_string())
            .unwrap_or_default()
    };
    let said = problems("CLERK_AUTHZ_DECISION_LOG", "on");
    assert!(
        said.contains("is \"on\"; expected \"off\", \"stdout\", or a file's path"),
        "{said}"
    );
    for bad in ["2", "-0.1", "10%", "NaN"] {
        let said = problems("CLERK_AUTHZ_DECISION_LOG_SAMPLE", bad);
        assert!(
            said.contains("expected a number from 0 to 1"),
            "{bad}: {said}"
        );
    }
    assert_eq!(problems("CLERK_AUTHZ_DECISION_LOG_SAMPLE", "0.25"), "");
}
