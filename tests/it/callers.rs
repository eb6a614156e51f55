//! docs/callers.md through the real door: who may call what, and how much.
//!
//! Callers are recognized by bearer secrets here; by certificates in `tls/callers.rs`.

use std::{fs, path::PathBuf, process::Output, time::Duration};

use clerk_authz::{
    door::grpc::proto::{
        self, CheckOrgPermissionRequest, batch_check_org_permission_result::Result as ItemResult,
        check_org_permission_request::Subject, explain_decision_request::Decision,
        get_user_request::Key,
    },
    emulator::{Endpoint, Faults, TokenSpec},
    server::Limits,
    sync::WatchLimits,
};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;

use crate::{
    envoy::{check, http},
    policy::PolicyFile,
    support::{
        Fixture, Reason, about, channel, directory::TestClock, eventually, offline_clerk,
        process::Service, reason_of, settings_on,
    },
};

const BILLING: &str = "billing-secret-of-32-characters-";
const REPORTS: &str = "reports-secret-of-32-characters-";

/// A callers' file and the secrets of `billing` and `reports`, in a folder of their own.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn of(text: &str) -> Self {
        let files = Self {
            folder: tempfile::tempdir().expect("a folder"),
        };
        files.put("billing", &format!("{BILLING}\n"));
        files.put("reports", REPORTS);
        files.write(text);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self) -> String {
        self.path("callers.toml").display().to_string()
    }

    /// In one step, as ConfigMaps and Secrets do it.
    fn put(&self, name: &str, text: &str) {
        let new = self.path("new");
        fs::write(&new, text).expect("written");
        fs::rename(&new, self.path(name)).expect("renamed");
    }

    /// `@` stands for the folder.
    fn write(&self, text: &str) {
        let folder = self.folder.path().display().to_string();
        self.put("callers.toml", &text.replace('@', &folder));
    }
}

struct Scene {
    fixture: Fixture,
    files: Files,
    clock: TestClock,
    /// Of a user, as long as the test takes: the clock stands.
    token: String,
    _database: tempfile::TempDir,
}

impl Scene {
    async fn start(rules: &str) -> Self {
        Self::start_with(rules, &[]).await
    }

    /// With a database, Clerk's API, and the rules.
    async fn start_with(rules: &str, more: &[(&str, &str)]) -> Self {
        let (files, clock) = (Files::of(rules), TestClock::at_now());
        let clerk = offline_clerk().await;
        let database = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", database.path().join("mirror.db").display());
        let path = files.text();
        let variables = [&[("CLERK_AUTHZ_CALLERS", &*path)], more].concat();
        let settings = settings_on(&clerk, &url, &variables);
        // A watch that nothing happens to is heard of soon.
        let watches = WatchLimits {
            heartbeat: Duration::from_millis(100),
            ..WatchLimits::default()
        };
        let limits = Limits {
            watches,
            ..Limits::default()
        };
        let fixture = Fixture::start_under(limits, clerk, &settings, &clock).await;
        let token = fixture.mint(&TokenSpec::session("user_alice"));
        Self {
            fixture,
            files,
            clock,
            token,
            _database: database,
        }
    }

    fn token(&self) -> String {
        self.token.clone()
    }

    async fn verify(&self, bearer: &str) -> Result<(), Status> {
        self.send_verify(&bearing(about(&self.token()), bearer).into())
            .await
    }

    async fn send_verify(
        &self,
        request: &Bearing<proto::VerifySessionRequest>,
    ) -> Result<(), Status> {
        let mut client = self.fixture.client.clone();
        client.verify_session(request.again()).await.map(drop)
    }

    async fn get_user(&self, bearer: &str) -> Result<(), Status> {
        let request = proto::GetUserRequest {
            key: Some(Key::UserId("user_alice".to_owned())),
            ..Default::default()
        };
        let mut client = self.fixture.client.clone();
        client.get_user(bearing(request, bearer)).await.map(drop)
    }

    async fn check(&self, bearer: &str, subject: Subject) -> Result<bool, Status> {
        let mut client = self.fixture.client.clone();
        let request = bearing(member(subject), bearer);
        let answer = client.check_org_permission(request).await?;
        Ok(answer.into_inner().allowed)
    }

    async fn counted(&self, caller: &str, outcome: &str) -> f64 {
        let series =
            format!("clerk_authz_caller_calls_total{{caller=\"{caller}\",outcome=\"{outcome}\"}} ");
        let metrics = self.fixture.metrics().await;
        let count = metrics.lines().find_map(|line| line.strip_prefix(&series));
        count.map_or(0.0, |count| count.parse().expect("a number"))
    }
}

/// A request that can be sent again.
struct Bearing<T>(Request<T>);

impl<T> From<Request<T>> for Bearing<T> {
    fn from(request: Request<T>) -> Self {
        Self(request)
    }
}

impl<T: Clone> Bearing<T> {
    fn again(&self) -> Request<T> {
        let mut again = Request::new(self.0.get_ref().clone());
        *again.metadata_mut() = self.0.metadata().clone();
        again
    }
}

/// A call with `authorization: Bearer …`; with "" it shows nothing.
fn bearing<T>(message: T, bearer: &str) -> Request<T> {
    let mut request = Request::new(message);
    if !bearer.is_empty() {
        let value = format!("Bearer {bearer}").parse().expect("a header value");
        request.metadata_mut().insert("authorization", value);
    }
    request
}

fn member(subject: Subject) -> CheckOrgPermissionRequest {
    CheckOrgPermissionRequest {
        subject: Some(subject),
        organization_id: "org_acme".to_owned(),
        role: Some("org:admin".to_owned()),
        ..Default::default()
    }
}

fn alice() -> Subject {
    Subject::UserId("user_alice".to_owned())
}

fn assert_not_allowed<T: std::fmt::Debug>(answer: Result<T, Status>, says: &str) {
    let status = answer.expect_err("refused");
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert_eq!(reason_of(&status), Reason::CallerNotAllowed.name());
    assert!(status.message().contains(says), "{status:?}");
}

fn assert_over_limit<T: std::fmt::Debug>(answer: Result<T, Status>) -> Duration {
    let status = answer.expect_err("over the limit");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(reason_of(&status), Reason::Overloaded.name());
    let retry = status.get_details_retry_info().expect("RetryInfo");
    retry.retry_delay.expect("a delay")
}

const RULES: &str = r#"
[anyone]
rpcs = ["VerifySession"]

[[caller]]
name = "billing"
bearer_files = ["@/billing"]
rpcs = ["VerifySession", "GetUser"]

[[caller]]
name = "reports"
bearer_files = ["@/reports"]
rpcs = ["VerifySession"]
"#;

#[tokio::test]
async fn a_caller_may_call_what_its_rule_names_and_others_what_anyone_may() {
    let scene = Scene::start(RULES).await;

    for bearer in ["", BILLING, REPORTS] {
        scene.verify(bearer).await.expect("everybody may");
    }
    // There is no such user yet: the question was let through.
    let answer = scene.get_user(BILLING).await.expect_err("unknown");
    assert_eq!(answer.code(), Code::NotFound, "{answer:?}");
    assert_not_allowed(
        scene.get_user(REPORTS).await,
        "caller \"reports\" may not call GetUser",
    );
    assert_not_allowed(
        scene.get_user("").await,
        "a caller whom no rule names may not call GetUser",
    );

    let status = scene.get_user(REPORTS).await.expect_err("refused");
    let details = status.get_error_details();
    let metadata = &details.error_info().expect("ErrorInfo").metadata;
    assert_eq!(metadata["caller"], "reports");
    assert_eq!(metadata["rpc"], "GetUser");
    assert_eq!(scene.counted("reports", "denied").await, 2.0);
    assert_eq!(scene.counted("reports", "admitted").await, 1.0);
    assert_eq!(scene.counted("anyone", "denied").await, 1.0);
    scene.fixture.stop().await;
}

#[tokio::test]
async fn every_rpc_is_under_the_rules_and_health_and_reflection_are_not() {
    let policy = PolicyFile::routes("  - name: all\n    path: /**\n    access: public\n");
    let policy = ("CLERK_AUTHZ_POLICY", policy.text());
    // Nobody may anything but for one RPC of one caller.
    let only =
        "[[caller]]\nname = \"billing\"\nbearer_files = [\"@/billing\"]\nrpcs = [\"GetUser\"]\n";
    let scene = Scene::start_with(only, &[policy]).await;
    let mut client = scene.fixture.client.clone();
    let may_not = "may not call";

    assert_not_allowed(client.verify_session(about("x")).await, may_not);
    let batch = proto::BatchVerifySessionRequest::default();
    assert_not_allowed(client.batch_verify_session(batch).await, may_not);
    assert_not_allowed(client.check_org_permission(member(alice())).await, may_not);
    let batch = proto::BatchCheckOrgPermissionRequest::default();
    assert_not_allowed(client.batch_check_org_permission(batch).await, may_not);
    let sync = proto::SyncUserRequest::default();
    assert_not_allowed(client.sync_user(sync).await, may_not);
    let get = proto::GetUserRequest::default();
    assert_not_allowed(client.get_user(get).await, may_not);
    let watch = proto::WatchUsersRequest::default();
    assert_not_allowed(client.watch_users(watch).await.map(drop), may_not);
    let explain = proto::ExplainDecisionRequest::default();
    assert_not_allowed(client.explain_decision(explain).await, may_not);
    let asked = check(&scene.fixture, Some(http("/", "")), &[]).await;
    assert_not_allowed(asked, "may not call Check");

    let channel = channel(scene.fixture.service.grpc_addr()).await;
    let mut health = HealthClient::new(channel.clone());
    health
        .check(HealthCheckRequest::default())
        .await
        .expect("health is open");
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest,
    };
    let ask = futures_util::stream::iter([ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    }]);
    let mut reflection = ServerReflectionClient::new(channel);
    let answer = reflection.server_reflection_info(ask).await;
    answer.expect("reflection is open");
    scene.fixture.stop().await;
}

#[tokio::test]
async fn a_wrong_bearer_is_refused_where_none_would_be_let_in() {
    let scene = Scene::start(RULES).await;
    scene.verify("").await.expect("anyone may");

    let token = scene.token();
    for wrong in ["x", &BILLING[1..], &format!("{BILLING}-"), &token] {
        assert_not_allowed(
            scene.verify(wrong).await,
            "the bearer secret of the call is no caller's",
        );
    }
    for values in [
        &["Basic YTpi"][..],
        &["Bearer"],
        &[BILLING],
        &["bearer ", &format!("Bearer {BILLING}")],
    ] {
        let mut request = Request::new(about(&token));
        for value in values {
            let value = value.parse().expect("a header value");
            request.metadata_mut().append("authorization", value);
        }
        let answer = scene.send_verify(&request.into()).await;
        assert_not_allowed(answer, "no caller's");
    }
    let mut request = Request::new(about(&token));
    let value = format!("BEARER  {BILLING} ").parse().expect("a value");
    request.metadata_mut().insert("authorization", value);
    let answer = scene.send_verify(&request.into()).await;
    answer.expect("the scheme in any case, and spaces");
    assert_eq!(scene.counted("unrecognized", "denied").await, 8.0);
    scene.fixture.stop().await;
}

const BY_ID: &str = r#"
[anyone]
rpcs = ["CheckOrgPermission", "BatchCheckOrgPermission", "ExplainDecision"]

[[caller]]
name = "billing"
bearer_files = ["@/billing"]
rpcs = ["CheckOrgPermission", "BatchCheckOrgPermission", "ExplainDecision"]
any_user = true
"#;

const BY_ASSERTION: &str = r#"
[anyone]
rpcs = ["ExplainDecision"]

[[caller]]
name = "billing"
bearer_files = ["@/billing"]
rpcs = ["ExplainDecision", "ExchangeAssertion"]
"#;

#[tokio::test]
async fn an_assertion_is_explained_to_those_who_may_exchange_it() {
    let scene = Scene::start(BY_ASSERTION).await;
    let explain = || proto::ExplainDecisionRequest {
        decision: Some(Decision::ExchangeAssertion(
            proto::ExchangeAssertionRequest {
                provider: "acme".to_owned(),
                assertion: "a.b.c".to_owned(),
                ..Default::default()
            },
        )),
    };
    let mut client = scene.fixture.client.clone();
    let answer = client.explain_decision(bearing(explain(), BILLING)).await;
    let answer = answer.expect("it may").into_inner();
    assert_eq!(answer.reason(), proto::Reason::ProviderUnknown);
    let may_not = "may not ask about an assertion";
    assert_not_allowed(client.explain_decision(explain()).await, may_not);
    scene.fixture.stop().await;
}

#[tokio::test]
async fn a_user_without_a_token_is_asked_about_by_those_who_may() {
    let scene = Scene::start(BY_ID).await;
    let by_token = || Subject::Token(scene.token());
    let may_not = "may not ask by user_id";

    assert_eq!(scene.check(BILLING, alice()).await.ok(), Some(true));
    assert_eq!(scene.check("", by_token()).await.ok(), Some(true));
    assert_not_allowed(scene.check("", alice()).await, may_not);

    let mut client = scene.fixture.client.clone();
    let explain = |subject| proto::ExplainDecisionRequest {
        decision: Some(Decision::CheckOrgPermission(member(subject))),
    };
    let ask = bearing(explain(alice()), BILLING);
    client.explain_decision(ask).await.expect("it may");
    let ask = explain(by_token());
    client.explain_decision(ask).await.expect("of a token");
    assert_not_allowed(client.explain_decision(explain(alice())).await, may_not);

    // In a batch it is said of the item.
    let batch = || proto::BatchCheckOrgPermissionRequest {
        requests: vec![member(by_token()), member(alice())],
    };
    for (bearer, second_is_told) in [("", false), (BILLING, true)] {
        let answer = client.batch_check_org_permission(bearing(batch(), bearer));
        let results = answer.await.expect("answered").into_inner().results;
        let told: Vec<bool> = results
            .iter()
            .map(|item| matches!(&item.result, Some(ItemResult::Response(_))))
            .collect();
        assert_eq!(told, [true, second_is_told], "{bearer}");
        if let Some(ItemResult::Status(status)) = &results[1].result {
            assert_eq!(status.code, Code::PermissionDenied as i32);
            assert!(status.message.contains(may_not), "{status:?}");
        }
    }
    scene.fixture.stop().await;
}

#[tokio::test]
async fn over_its_rate_a_caller_is_turned_away_and_others_are_not() {
    let rules = RULES.replace(
        "rpcs = [\"VerifySession\", \"GetUser\"]",
        "rpcs = [\"VerifySession\", \"BatchVerifySession\"]\nmax_calls_per_second = 1",
    );
    let scene = Scene::start(&rules).await;
    let batch = proto::BatchVerifySessionRequest {
        requests: vec![about(&scene.token()); 600],
    };

    // Let in as one call, it counts as six hundred: for ten minutes, whatever the machine does.
    let mut client = scene.fixture.client.clone();
    let answer = client.batch_verify_session(bearing(batch, BILLING)).await;
    assert_eq!(answer.expect("let in").into_inner().results.len(), 600);

    let retry_after = assert_over_limit(scene.verify(BILLING).await);
    let expected = Duration::from_secs(500)..=Duration::from_secs(600);
    assert!(expected.contains(&retry_after), "{retry_after:?}");
    for other in [REPORTS, ""] {
        scene.verify(other).await.expect("its limit is its own");
    }
    assert_eq!(scene.counted("billing", "shed").await, 1.0);
    // That the caller may not is said before that it asks too much.
    assert_not_allowed(scene.get_user(BILLING).await, "may not call GetUser");
    scene.fixture.stop().await;
}

#[tokio::test]
async fn over_its_calls_at_once_a_caller_is_turned_away_until_one_ends() {
    let rules = RULES.replace("\"GetUser\"]", "\"GetUser\"]\nmax_concurrent_calls = 1");
    let scene = Scene::start(&rules).await;
    scene.verify(BILLING).await.expect("the keys are there");
    let slow = Faults::slow(4_500);
    scene
        .fixture
        .instance()
        .set_faults_for(Endpoint::Jwks, slow);
    // Past the cooldown of the first fetch.
    scene.clock.step(6);
    let unknown = TokenSpec::session("user_alice").with_header("kid", "ins_other".into());
    let waits = bearing(about(&scene.fixture.mint(&unknown)), BILLING);
    let mut client = scene.fixture.client.clone();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { client.verify_session(waits).await });

    eventually("the one place is taken", async || {
        scene.verify(BILLING).await.is_err()
    })
    .await;
    let retry_after = assert_over_limit(scene.verify(BILLING).await);
    assert!(retry_after > Duration::ZERO);
    scene.verify(REPORTS).await.expect("another caller");

    // Whoever gives up makes room.
    waiting.shutdown().await;
    eventually("there is room again", async || {
        scene.verify(BILLING).await.is_ok()
    })
    .await;
    scene.fixture.stop().await;
}

#[tokio::test]
async fn rules_and_secrets_are_read_again_and_a_wrong_file_changes_nothing() {
    let scene = Scene::start(RULES).await;
    assert_not_allowed(scene.get_user(REPORTS).await, "GetUser");

    scene.files.write(&RULES.replace(
        "rpcs = [\"VerifySession\"]\n",
        "rpcs = [\"VerifySession\", \"GetUser\"]\n",
    ));
    eventually("the new rules hold", async || {
        let answer = scene.get_user(REPORTS).await.expect_err("unknown");
        answer.code() == Code::NotFound
    })
    .await;

    // A secret is rotated: both, then the new one alone.
    let new = "the-new-secret-of-billing-is-this";
    scene.files.put("billing-new", new);
    let both = RULES.replace("[\"@/billing\"]", "[\"@/billing\", \"@/billing-new\"]");
    scene.files.write(&both);
    eventually("the new secret is taken too", async || {
        scene.verify(new).await.is_ok()
    })
    .await;
    scene.verify(BILLING).await.expect("and the old one");
    scene
        .files
        .put("billing", "another-secret-of-32-characters--");
    eventually("the old secret is nobody's", async || {
        scene.verify(BILLING).await.is_err()
    })
    .await;
    scene.verify(new).await.expect("still");

    let refused = "clerk_authz_caller_reloads_total{outcome=\"refused\"} ";
    let refusals = async || {
        let metrics = scene.fixture.metrics().await;
        let count = metrics.lines().find_map(|line| line.strip_prefix(refused));
        count.and_then(|count| count.parse::<f64>().ok())
    };
    assert_eq!(refusals().await, Some(0.0));
    scene.files.write("[[caller]]\nname = \"billing\"\n");
    eventually("the wrong file was seen", async || {
        refusals().await == Some(1.0)
    })
    .await;
    scene.verify(new).await.expect("the rules before");
    assert_not_allowed(scene.get_user("").await, "GetUser");
    scene.fixture.stop().await;
}

#[tokio::test]
async fn a_watch_ends_when_its_caller_may_watch_no_more() {
    let rules = RULES.replace("\"GetUser\"", "\"WatchUsers\", \"SyncUser\"");
    let scene = Scene::start(&rules).await;
    let mut client = scene.fixture.client.clone();
    let watch = bearing(proto::WatchUsersRequest::default(), BILLING);
    let mut stream = client
        .watch_users(watch)
        .await
        .expect("it may")
        .into_inner();
    let first = stream.message().await.expect("a message");
    assert!(first.is_some());

    scene.files.write(RULES);
    eventually("the new rules hold", async || {
        let answer = scene.get_user(BILLING).await.expect_err("unknown");
        answer.code() == Code::NotFound
    })
    .await;
    // Something to tell comes, or the watch's own sign of life.
    let ended = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a word"),
            Err(status) => break status,
        }
    };
    assert_not_allowed(
        Err::<(), _>(ended),
        "caller \"billing\" may not call WatchUsers",
    );
    scene.fixture.stop().await;
}

/// `serve` with these variables, until it ends or has said that it listens.
async fn serve(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_clerk-authz"))
        .arg("serve")
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .kill_on_drop(true)
        .output()
        .await
        .expect("it runs")
}

#[tokio::test]
async fn what_is_others_is_not_opened_to_a_network_by_an_oversight() {
    let database = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", database.path().join("a.db").display());
    let key = ("CLERK_PUBLISHABLE_KEY", "pk_test_Y2xlcmsuZXhhbXBsZS5jb20k");
    let secret = ("CLERK_SECRET_KEY", "sk_test_abcdefgh");
    let with_database = ("CLERK_AUTHZ_DATABASE_URL", &*url);
    let everywhere = ("CLERK_AUTHZ_GRPC_ADDR", "0.0.0.0:0");

    // Neither the start nor the look at the settings passes it by.
    for (variables, open) in [
        (
            vec![key, secret, with_database, everywhere],
            "SyncUser, GetUser, WatchUsers, CheckOrgPermission of any user_id;",
        ),
        (
            vec![key, with_database, everywhere],
            "call GetUser, WatchUsers, CheckOrgPermission of any user_id;",
        ),
        (
            vec![key, secret, everywhere],
            "call CheckOrgPermission of any user_id;",
        ),
        (
            vec![key, secret, ("CLERK_AUTHZ_GRPC_ADDR", "[::]:0")],
            "call CheckOrgPermission of any user_id;",
        ),
    ] {
        for arguments in [&[][..], &["--print-config"]] {
            let ended = serve(arguments, &variables).await;
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!(ended.status.code(), Some(2), "{variables:?}: {said}");
            for part in [
                open,
                "CLERK_AUTHZ_CALLERS is not set",
                "docs/callers.md",
                "[anyone]",
            ] {
                assert!(said.contains(part), "{part} is not in {said}");
            }
        }
    }

    // Where there is nothing of others, or nobody else to see it, or somebody looks who asks, it is fine.
    let files = Files::of("[anyone]\nrpcs = [\"*\"]\nany_user = true\n");
    let path = files.text();
    for variables in [
        vec![key, everywhere],
        vec![key, secret, with_database],
        vec![
            key,
            secret,
            with_database,
            ("CLERK_AUTHZ_GRPC_ADDR", "[::1]:0"),
        ],
        vec![
            key,
            secret,
            with_database,
            ("CLERK_AUTHZ_GRPC_ADDR", "unix:a.sock"),
        ],
        vec![
            key,
            secret,
            with_database,
            everywhere,
            ("CLERK_AUTHZ_CALLERS", &*path),
        ],
    ] {
        let shown = serve(&["--print-config"], &variables).await;
        assert_eq!(shown.status.code(), Some(0), "{variables:?}: {shown:?}");
    }
}

#[tokio::test]
async fn a_service_with_rules_starts_and_one_with_wrong_rules_says_where() {
    let files = Files::of(RULES);
    let path = files.text();
    let key = ("CLERK_PUBLISHABLE_KEY", "pk_test_Y2xlcmsuZXhhbXBsZS5jb20k");
    let variables = [key, ("CLERK_AUTHZ_CALLERS", &*path)];
    let service = Service::start(&variables).await;
    drop(service);
    let shown = serve(&["--print-config"], &variables).await;
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    for line in [
        format!("CLERK_AUTHZ_CALLERS={path}  # environment"),
        "# callers whom no rule names: VerifySession".to_owned(),
        "# caller \"billing\": VerifySession, GetUser;".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    assert!(!text.contains(&BILLING[..12]), "{text}");

    files.write(&RULES.replace("GetUser", "GetUsers"));
    let ended = serve(&[], &variables).await;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(2), "{said}");
    let expected = format!("CLERK_AUTHZ_CALLERS is \"{path}\"; line 8, column 26: \"GetUsers\"");
    assert!(said.contains(&expected), "{said}");
    assert!(said.contains("did you mean \"GetUser\"?"), "{said}");
}

#[tokio::test]
async fn the_decision_log_names_the_caller_and_no_secret() {
    let log = tempfile::tempdir().expect("a folder");
    let decisions = log.path().join("decisions.jsonl");
    let more = [(
        "CLERK_AUTHZ_DECISION_LOG",
        decisions.to_str().expect("text"),
    )];
    let scene = Scene::start_with(RULES, &more).await;
    let wrong = "wrong-secret-of-32-characters---";

    scene.verify(BILLING).await.expect("it may");
    scene.verify("").await.expect("anyone may");
    let refused = scene.verify(wrong).await.expect_err("nobody's");
    let not_allowed = scene.get_user(REPORTS).await.expect_err("not allowed");

    eventually("both are recorded", async || {
        fs::read_to_string(&decisions).is_ok_and(|text| text.lines().count() == 2)
    })
    .await;
    let text = fs::read_to_string(&decisions).expect("text");
    let callers: Vec<serde_json::Value> = text
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("JSON")["caller"].clone()
        })
        .collect();
    assert_eq!(callers, ["billing", "anyone"]);
    let metrics = scene.fixture.metrics().await;
    for said in [text, metrics, format!("{refused:?} {not_allowed:?}")] {
        for secret in [BILLING, REPORTS, wrong] {
            assert!(!said.contains(&secret[..12]), "{said}");
        }
    }
    scene.fixture.stop().await;
}

#[tokio::test]
async fn the_log_says_who_was_refused_and_no_secret_at_any_level() {
    let files = Files::of(RULES);
    let path = files.text();
    let wrong = "wrong-secret-of-32-characters---";
    let service = Service::start(&[
        ("CLERK_PUBLISHABLE_KEY", "pk_test_Y2xlcmsuZXhhbXBsZS5jb20k"),
        ("CLERK_AUTHZ_CALLERS", &path),
        ("CLERK_AUTHZ_LOG", "trace"),
    ])
    .await;
    let mut client = crate::support::client(service.grpc_addr).await;
    for bearer in [BILLING, REPORTS, wrong, ""] {
        let ask = bearing(proto::GetUserRequest::default(), bearer);
        client.get_user(ask).await.expect_err("of nobody");
    }
    // A secret where a name or a file belongs.
    files.write(&RULES.replace("\"@/reports\"", &format!("\"{REPORTS}\"")));
    eventually("the wrong file was seen", async || {
        let metrics = crate::support::get(service.http_addr, "/metrics").await.1;
        metrics.contains("clerk_authz_caller_reloads_total{outcome=\"refused\"} 1")
    })
    .await;

    let log = service.end().await;
    for line in [
        "caller \"reports\" may not call GetUser",
        "a caller whom no rule names may not call GetUser",
        "the bearer secret of the call is no caller's",
        "line 12, column 17: bearer_files has \"…\"",
    ] {
        let plain = log.replace("\\\"", "\"");
        assert!(plain.contains(line), "{line} is not in {log}");
    }
    for secret in [BILLING, REPORTS, wrong] {
        assert!(!log.contains(&secret[..12]), "{secret} is in the log");
    }
}
