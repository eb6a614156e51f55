//! The Backend API's client against a Clerk that answers by script: what each answer means, what is
//! repeated, what is held back, and how storms end.

use std::{
    collections::VecDeque,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, Response},
};
use clerk_authz::{
    clerk::{ApiOptions, BackendApi, InsecureUrl},
    identity::{OrganizationId, OrganizationSlug, Timestamp, UserId},
    mirror::{
        Ask, Asking, Credentials, Directory, DirectoryError, Join, MembershipAnswer,
        RequestOutcome, Standing,
    },
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{sync::Notify, time::Instant};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{Fixture, channel, eventually, get, loopback, offline_clerk, settings_for};

const SECRET: &str = "sk_test_hushhush";

/// What Clerk is to answer.
#[derive(Clone)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Never.
    silent: bool,
}

impl Reply {
    fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: vec![("content-type", "application/json; charset=utf-8".to_owned())],
            body: body.to_string().into_bytes(),
            silent: false,
        }
    }

    fn found(body: &Value) -> Self {
        Self::json(200, body)
    }

    fn error(status: u16, code: &str) -> Self {
        let error = json!({"code": code, "message": "private words", "long_message": "private"});
        Self::json(
            status,
            &json!({"errors": [error], "clerk_trace_id": "trace0123"}),
        )
    }

    fn html(status: u16) -> Self {
        Self {
            headers: vec![("content-type", "text/html".to_owned())],
            body: b"<html>private words</html>".to_vec(),
            ..Self::json(status, &Value::Null)
        }
    }

    fn silence() -> Self {
        Self {
            silent: true,
            ..Self::html(200)
        }
    }

    fn with_header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// A request as Clerk saw it.
#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    target: String,
    headers: HeaderMap,
}

#[derive(Clone)]
struct Script {
    seen: Arc<Mutex<Vec<Seen>>>,
    /// One for each request; the last for all further ones.
    replies: Arc<Mutex<VecDeque<Reply>>>,
    /// Answers wait for it while there is one.
    held: Arc<Mutex<Option<Arc<Notify>>>>,
    arrived: Arc<AtomicUsize>,
}

/// A Clerk that answers by script.
struct Clerk {
    addr: SocketAddr,
    script: Script,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Clerk {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(script): State<Script>, request: Request) -> Response<Body> {
    script.seen.lock().expect("alive").push(Seen {
        at: Instant::now(),
        target: request.uri().to_string(),
        headers: request.headers().clone(),
    });
    script.arrived.fetch_add(1, Ordering::SeqCst);
    let reply = {
        let mut replies = script.replies.lock().expect("alive");
        if replies.len() > 1 {
            replies.pop_front()
        } else {
            replies.front().cloned()
        }
    };
    let reply = reply.expect("a reply in the script");
    let held = script.held.lock().expect("alive").clone();
    if let Some(release) = held {
        release.notified().await;
    }
    if reply.silent {
        pending::<()>().await;
    }
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(HeaderName::from_static(name), value);
    }
    response.body(Body::from(reply.body)).expect("a response")
}

impl Clerk {
    async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let script = Script {
            seen: Arc::default(),
            replies: Arc::new(Mutex::new(replies.into_iter().collect())),
            held: Arc::default(),
            arrived: Arc::default(),
        };
        let listener = tokio::net::TcpListener::bind(loopback())
            .await
            .expect("a port");
        let addr = listener.local_addr().expect("bound");
        let router = Router::new().fallback(answer).with_state(script.clone());
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("served");
        });
        Self {
            addr,
            script,
            server,
        }
    }

    fn says(&self, replies: impl IntoIterator<Item = Reply>) {
        *self.script.replies.lock().expect("alive") = replies.into_iter().collect();
    }

    fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().expect("alive").clone()
    }

    fn requests(&self) -> usize {
        self.script.arrived.load(Ordering::SeqCst)
    }

    /// From now on answers wait.
    fn hold(&self) -> Arc<Notify> {
        let release = Arc::new(Notify::new());
        *self.script.held.lock().expect("alive") = Some(Arc::clone(&release));
        release
    }

    /// The most requests in any ten seconds.
    fn most_in_ten_seconds(&self) -> usize {
        let mut times: Vec<Instant> = self.seen().iter().map(|seen| seen.at).collect();
        times.sort();
        let span = Duration::from_secs(10);
        let counts = (0..times.len()).map(|i| {
            times[i..]
                .iter()
                .take_while(|at| **at < times[i] + span)
                .count()
        });
        counts.max().unwrap_or(0)
    }
}

fn options(addr: SocketAddr) -> ApiOptions {
    ApiOptions {
        instance: "default".parse().expect("a name"),
        url: format!("http://{addr}").parse().expect("a URL"),
        secret_key: SECRET.to_owned().into(),
        budget: 900,
        timeout: Duration::from_millis(400),
    }
}

fn api_with(options: ApiOptions) -> BackendApi {
    BackendApi::new(options, clerk_authz::server::system_clock()).expect("a client")
}

fn api(clerk: &Clerk) -> BackendApi {
    api_with(options(clerk.addr))
}

fn within(millis: u64) -> Ask {
    Ask {
        patience: Duration::from_millis(millis),
        join: Join::Any,
    }
}

fn organization() -> OrganizationId {
    "org_acme".parse().expect("an id")
}

fn user(number: usize) -> UserId {
    format!("user_{number}").parse().expect("an id")
}

/// What Clerk said, its age aside.
async fn said<T>(asking: Asking<'_, T>) -> Result<T, DirectoryError> {
    asking.await.map(|answered| answered.value)
}

async fn ask(
    api: &BackendApi,
    number: usize,
    ask: Ask,
) -> Result<MembershipAnswer, DirectoryError> {
    said(api.membership(&organization(), &user(number), ask)).await
}

fn membership(number: usize) -> Value {
    json!({"data": [{
        "object": "organization_membership", "id": "orgmem_1", "role": "admin", "role_name": "Admin",
        "permissions": ["org:docs:read", "org:sys_memberships:read"],
        "organization": {"id": "org_acme", "slug": "acme", "name": "Acme"},
        "public_user_data": {"user_id": user(number).as_str(), "banned": false, "first_name": null},
        "created_at": 1, "updated_at": 1_700_000_000_123_i64,
    }], "total_count": 1})
}

fn nobody() -> Value {
    json!({"data": [], "total_count": 0})
}

fn role(answer: &Result<MembershipAnswer, DirectoryError>) -> &str {
    match answer {
        Ok(MembershipAnswer::Member(membership)) => &membership.role,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_membership_is_one_targeted_question() {
    let clerk = Clerk::start([Reply::found(&membership(1))]).await;
    let answer = ask(&api(&clerk), 1, within(5_000)).await.expect("answered");

    let MembershipAnswer::Member(found) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(&*found.role, "org:admin");
    assert!(found.permissions.contains("org:sys_memberships:read"));
    assert_eq!(
        found
            .organization
            .slug
            .as_ref()
            .map(OrganizationSlug::as_str),
        Some("acme")
    );
    assert_eq!(found.standing, Standing::Good);
    assert_eq!(
        found.updated_at,
        Timestamp::from_unix_millis(1_700_000_000_123)
    );
    let [request] = &clerk.seen()[..] else {
        panic!("one request")
    };
    assert_eq!(
        request.target,
        "/v1/organizations/org_acme/memberships?user_id=user_1&limit=1"
    );
    let header = |name: &str| request.headers[name].to_str().expect("text").to_owned();
    assert_eq!(header("authorization"), format!("Bearer {SECRET}"));
    assert_eq!(header("clerk-api-version"), "2026-05-12");
    assert!(header("user-agent").starts_with("clerk-authz/"));
}

/// What is expected of an answer: a text that the answer's or the fault's `Debug` has.
#[tokio::test]
async fn each_answer_has_its_meaning_and_only_clerks_own_word_is_a_no() {
    let large = format!("{{\"data\":[],\"x\":\"{}\"}}", "x".repeat(1 << 20));
    let wrong = |from: &str, to: &str| {
        let body = membership(1).to_string();
        assert!(body.contains(from), "{from}");
        Reply::found(&Value::Null).with_body(body.replace(from, to))
    };
    let cases: Vec<(&str, Reply, &str, usize)> = vec![
        ("member", Reply::found(&membership(1)), "Member(", 1),
        ("empty list", Reply::found(&nobody()), "NotAMember", 1),
        (
            "404",
            Reply::error(404, "resource_not_found"),
            "NoOrganization",
            1,
        ),
        (
            "a 404 of another code",
            Reply::error(404, "route_not_found"),
            "Unavailable { cause: \"answered with status 404, route_not_found, trace id trace0123, \
             which does not say that there is no such thing\"",
            1,
        ),
        (
            "a 404 without a code",
            Reply::error(404, "resource_not_found").with_body("{\"errors\":[]}".to_owned()),
            "Unavailable { cause: \"answered with status 404, which does not say that there is no \
             such thing\"",
            1,
        ),
        (
            "a proxy's 404",
            Reply::html(404),
            "Unavailable { cause: \"answered with status 404, which is not Clerk's own\"",
            1,
        ),
        (
            "banned",
            wrong("\"banned\":false", "\"banned\":true"),
            "standing: Banned",
            1,
        ),
        (
            "401",
            Reply::error(401, "clerk_key_invalid"),
            "CredentialsRefused { cause: \"status 401, clerk_key_invalid, trace id trace0123\"",
            1,
        ),
        (
            "a bare 401",
            Reply::html(401).with_header("cf-ray", "ray-1"),
            "CredentialsRefused { cause: \"status 401, trace id ray-1\"",
            1,
        ),
        (
            "403 of the key",
            Reply::error(403, "authentication_invalid"),
            "CredentialsRefused",
            1,
        ),
        (
            "organizations off",
            Reply::error(403, "organization_not_enabled_in_instance"),
            "CredentialsRefused",
            1,
        ),
        (
            "403 of one",
            Reply::error(403, "authorization_invalid"),
            "CredentialsRefused",
            1,
        ),
        ("a proxy's 403", Reply::html(403), "Unavailable", 1),
        (
            "400",
            Reply::error(400, "bad_request"),
            "Rejected { cause: \"status 400, bad_request",
            1,
        ),
        (
            "422",
            Reply::error(422, "form_param_invalid"),
            "Rejected { cause: \"status 422, form_param_invalid",
            1,
        ),
        (
            "500",
            Reply::error(500, "internal"),
            "Unavailable { cause: \"answered with status 500\"",
            3,
        ),
        (
            "503",
            Reply::html(503),
            "Unavailable { cause: \"answered with status 503\"",
            3,
        ),
        (
            "redirect",
            Reply::html(302).with_header("location", "/v1/jwks"),
            "redirect, which is not followed",
            1,
        ),
        (
            "204",
            Reply::html(204).with_body(""),
            "Unavailable { cause: \"answered with status 204\"",
            1,
        ),
        (
            "HTML",
            Reply::html(200),
            "another content type than JSON",
            3,
        ),
        (
            "garbage",
            Reply::found(&Value::Null).with_body("{\"data\":[{]"),
            "what is not JSON",
            3,
        ),
        (
            "too large",
            Reply::found(&Value::Null).with_body(large),
            "more than 1048576 bytes",
            1,
        ),
        (
            "wrong type",
            wrong("\"admin\"", "77001"),
            "data[0].role is of another type",
            1,
        ),
        (
            "no user",
            wrong("\"user_id\":\"user_1\"", "\"x\":1"),
            "data[0].public_user_data.user_id is missing",
            1,
        ),
        (
            "another user",
            wrong("user_1", "user_77001"),
            "data[0].public_user_data.user_id is not what was asked about",
            1,
        ),
        (
            "another organization",
            wrong("org_acme", "org_77001"),
            "data[0].organization.id is not what was asked about",
            1,
        ),
        (
            "silence",
            Reply::silence(),
            "Unavailable { cause: \"no answer in time\"",
            3,
        ),
        (
            "429",
            Reply::html(429).with_header("retry-after", 9),
            "RateLimited { retry_after: ",
            1,
        ),
    ];
    for (name, reply, expected, requests) in cases {
        let clerk = Clerk::start([reply]).await;
        let answer = ask(&api(&clerk), 1, within(5_000)).await;

        let text = format!("{answer:?}");
        assert!(text.contains(expected), "{name}: {text}");
        assert_eq!(clerk.requests(), requests, "{name}: requests");
        for private in ["private", "77001", "hushhush"] {
            let shown = answer
                .as_ref()
                .err()
                .map(|error| format!("{error} {error:?}"));
            assert!(
                !shown.unwrap_or_default().contains(private),
                "{name}: {text}"
            );
        }
    }
}

#[tokio::test]
async fn every_end_of_a_request_is_counted() {
    let clerk = Clerk::start([
        Reply::found(&membership(1)),
        Reply::found(&nobody()),
        Reply::error(404, "resource_not_found"),
        Reply::error(422, "form_param_invalid"),
        Reply::html(500),
        Reply::error(429, "rate_limited").with_header("retry-after", 60),
    ])
    .await;
    let api = api(&clerk);
    for _ in 0..5 {
        let _ = ask(&api, 1, within(5_000)).await;
    }
    let counted: Vec<(RequestOutcome, u64)> = api
        .stats()
        .requests
        .into_iter()
        .filter(|(endpoint, ..)| *endpoint == "organization_memberships")
        .map(|(_, outcome, count)| (outcome, count))
        .collect();
    assert_eq!(
        counted,
        [
            (RequestOutcome::Found, 1),
            (RequestOutcome::NotFound, 2),
            (RequestOutcome::CredentialsRefused, 0),
            (RequestOutcome::Rejected, 1),
            (RequestOutcome::RateLimited, 1),
            (RequestOutcome::Unavailable, 1),
        ]
    );
    assert_eq!(
        api.stats().held_back,
        1,
        "the last one, until the pause is over"
    );
}

#[tokio::test]
async fn a_slug_leads_to_its_organization_or_to_none() {
    let slug: OrganizationSlug = "acme".parse().expect("a slug");
    let organization = |slug: &str| Reply::found(&json!({"id": "org_1", "slug": slug}));
    let clerk = Clerk::start([
        organization("acme"),
        Reply::error(404, "resource_not_found"),
        organization("other"),
        Reply::found(&json!({"id": "user_1", "slug": "acme"})),
    ])
    .await;
    let api = api(&clerk);
    let find = async || said(api.organization_by_slug(&slug, within(5_000))).await;
    let found = find().await.expect("answered").expect("found");
    assert_eq!(found.id.as_str(), "org_1");
    assert_eq!(found.slug, Some(slug.clone()));
    assert_eq!(find().await, Ok(None));
    for named in [
        "slug is not what was asked about",
        "id is not an organization's id",
    ] {
        let error = find().await.expect_err(named).to_string();
        assert!(error.contains(named), "{error}");
    }
    assert_eq!(clerk.seen()[0].target, "/v1/organizations/acme");
}

#[tokio::test]
async fn a_role_is_found_by_its_exact_key_on_whatever_page() {
    let role = |key: &str, permissions: Value| json!({"key": key, "permissions": permissions});
    let first: Vec<Value> = (0..500)
        .map(|n| role(&format!("org:editor_{n}"), json!([])))
        .collect();
    let editor = role(
        "org:editor",
        json!([{"key": "org:sys_profile:manage"}, {"key": "docs:read"}]),
    );
    let pages = [
        Reply::found(&json!({"data": first, "total_count": 501})),
        Reply::found(&json!({"data": [editor], "total_count": 501})),
    ];
    let clerk = Clerk::start(pages).await;
    let api = api(&clerk);
    let permissions = said(api.role_permissions("org:editor", within(5_000)))
        .await
        .expect("answered");
    let permissions = permissions.expect("found");
    assert!(
        permissions
            .iter()
            .eq(["org:sys_profile:manage", "org:docs:read"])
    );
    let targets: Vec<String> = clerk.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(
        targets,
        [
            "/v1/organization_roles?query=editor&limit=500&offset=0",
            "/v1/organization_roles?query=editor&limit=500&offset=500",
        ]
    );

    assert_eq!(
        said(api.role_permissions("org:edit", within(5_000))).await,
        Ok(None)
    );
    let odd = said(api.role_permissions("org:a+b&limit=1/..", within(5_000))).await;
    assert_eq!(odd, Ok(None));
    let last = clerk.seen().pop().expect("a request").target;
    assert!(
        last.contains("?query=a%2Bb%26limit%3D1%2F..&limit=500"),
        "{last}"
    );
}

#[tokio::test]
async fn five_thousand_equal_questions_cost_one_request() {
    for (join, most) in [(Join::Any, 1), (Join::SentAfter, 2)] {
        let clerk = Clerk::start([Reply::found(&membership(1))]).await;
        let release = clerk.hold();
        let api = api(&clerk);
        let patience = Duration::from_secs(20);
        let tasks: Vec<_> = (0..5_000)
            .map(|_| {
                let api = api.clone();
                tokio::spawn(async move { ask(&api, 1, Ask { patience, join }).await })
            })
            .collect();
        eventually("all have asked", async || {
            clerk.requests() == 1 && api.stats().joined as usize + most >= 5_000
        })
        .await;
        *clerk.script.held.lock().expect("alive") = None;
        release.notify_one();
        for task in tasks {
            assert_eq!(role(&task.await.expect("ended")), "org:admin");
        }
        assert!(clerk.requests() <= most, "{join:?}: {}", clerk.requests());
    }
}

#[tokio::test]
async fn a_question_that_must_be_sent_after_is_not_answered_by_an_earlier_one() {
    let clerk = Clerk::start([Reply::found(&membership(1)), Reply::found(&nobody())]).await;
    let release = clerk.hold();
    let api = api(&clerk);
    let asked = |join| {
        let api = api.clone();
        let patience = Duration::from_secs(5);
        tokio::spawn(async move { ask(&api, 1, Ask { patience, join }).await })
    };
    let first = asked(Join::Any);
    eventually("the first is sent", async || clerk.requests() == 1).await;
    let joined = asked(Join::Any);
    eventually("the second joined", async || api.stats().joined == 1).await;
    // The user leaves the organization now; the first question may have been answered before.
    let after = asked(Join::SentAfter);
    let also_after = asked(Join::SentAfter);
    eventually("the fourth joined the third", async || {
        api.stats().joined == 2
    })
    .await;
    assert_eq!(clerk.requests(), 1, "one under way at a time");
    *clerk.script.held.lock().expect("alive") = None;
    release.notify_one();

    for task in [first, joined] {
        assert_eq!(role(&task.await.expect("ended")), "org:admin");
    }
    for task in [after, also_after] {
        assert_eq!(task.await.expect("ended"), Ok(MembershipAnswer::NotAMember));
    }
    assert_eq!(clerk.requests(), 2);
}

#[tokio::test]
async fn whoever_leaves_harms_nobody_and_the_last_one_ends_the_question() {
    let clerk = Clerk::start([Reply::silence(), Reply::found(&membership(1))]).await;
    let api = api_with(ApiOptions {
        timeout: Duration::from_secs(20),
        ..options(clerk.addr)
    });
    let both = [1, 2].map(|_| {
        let api = api.clone();
        tokio::spawn(async move { ask(&api, 1, within(20_000)).await })
    });
    eventually("both wait for one", async || {
        clerk.requests() == 1 && api.stats().joined == 1
    })
    .await;
    let [first, second] = both;
    first.abort();
    assert!(first.await.is_err());
    let joins = ask(&api, 1, within(50)).await;
    assert!(
        matches!(joins, Err(DirectoryError::Unavailable { .. })),
        "{joins:?}"
    );
    assert_eq!(clerk.requests(), 1, "the second's question goes on");

    second.abort();
    assert!(second.await.is_err());
    assert_eq!(role(&ask(&api, 1, within(5_000)).await), "org:admin");
    assert_eq!(clerk.requests(), 2);
}

/// Of 30 in ten seconds ten may be sent at once, then two each second.
#[tokio::test]
async fn whoever_has_the_patience_waits_for_the_budget_in_turn() {
    let clerk = Clerk::start([Reply::found(&nobody())]).await;
    let api = api_with(ApiOptions {
        budget: 30,
        ..options(clerk.addr)
    });
    let start = Instant::now();
    let patient = (0..14).map(|number| ask(&api, number, within(10_000)));
    let hasty = (20..30).map(|number| ask(&api, number, within(1_500)));
    let (patient, hasty) = tokio::join!(join_all(patient), join_all(hasty));
    let took = start.elapsed();
    assert!(patient.iter().all(Result::is_ok), "{patient:?}");
    assert!(
        took >= Duration::from_millis(1_900),
        "four waited half a second each: {took:?}"
    );
    assert!(
        hasty
            .iter()
            .all(|answer| matches!(answer, Err(DirectoryError::RateLimited { .. })))
    );
    assert_eq!(clerk.requests(), 14);
    assert_eq!(api.stats().held_back, 10);
}

#[tokio::test]
async fn a_clerk_slower_than_its_callers_is_left_alone_too() {
    let clerk = Clerk::start([Reply::silence()]).await;
    let api = api_with(ApiOptions {
        timeout: Duration::from_secs(20),
        ..options(clerk.addr)
    });
    for answer in join_all((0..8).map(|number| ask(&api, number, within(2_000)))).await {
        let error = answer.expect_err("nobody answers").to_string();
        assert!(error.contains("no answer within 2s"), "{error}");
    }
    assert!(api.stats().breaker_open);
    let error = ask(&api, 1, within(2_000))
        .await
        .expect_err("left alone")
        .to_string();
    assert!(error.contains("did not answer within"), "{error}");
    assert_eq!(clerk.requests(), 8);

    // Callers who go away at once say nothing of Clerk.
    let api = api_with(options(clerk.addr));
    let _ = join_all((0..20).map(|number| ask(&api, number, within(100)))).await;
    assert!(!api.stats().breaker_open);
}

#[tokio::test]
async fn a_fault_is_outlived_within_the_patience() {
    let clerk = Clerk::start([
        Reply::html(500),
        Reply::silence(),
        Reply::found(&membership(1)),
    ])
    .await;
    assert_eq!(
        role(&ask(&api(&clerk), 1, within(5_000)).await),
        "org:admin"
    );
    assert_eq!(clerk.requests(), 3);
}

#[tokio::test]
async fn a_repetition_that_would_come_too_late_is_not_waited_for() {
    let clerk = Clerk::start([Reply::html(503).with_header("retry-after", 20)]).await;
    let start = Instant::now();
    let error = ask(&api(&clerk), 1, within(5_000)).await.expect_err("down");
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    let DirectoryError::Unavailable { cause, retry_after } = error else {
        panic!("{error:?}")
    };
    assert_eq!(cause, "answered with status 503");
    assert_eq!(retry_after, Duration::from_secs(20));
    assert_eq!(clerk.requests(), 1);
}

#[tokio::test]
async fn retry_after_is_waited_for_in_seconds_or_until_a_date_if_there_is_patience() {
    let now = Timestamp::from_unix_seconds(784_111_777);
    let clerk_of = async |value: &str| {
        Clerk::start([
            Reply::html(429).with_header("retry-after", value),
            Reply::found(&membership(1)),
        ])
        .await
    };
    for value in ["1", "Sun, 06 Nov 1994 08:49:38 GMT"] {
        let clerk = clerk_of(value).await;
        let api = BackendApi::new(options(clerk.addr), Arc::new(move || now)).expect("a client");
        assert_eq!(role(&ask(&api, 1, within(5_000)).await), "org:admin");
        let [first, second] = &clerk.seen()[..] else {
            panic!("two requests")
        };
        assert!(second.at - first.at >= Duration::from_secs(1), "{value}");
    }
    for (value, seconds) in [
        ("20", 20),
        ("Sun, 06 Nov 1994 08:49:57 GMT", 20),
        ("junk", 1),
    ] {
        let clerk = clerk_of(value).await;
        let api = BackendApi::new(options(clerk.addr), Arc::new(move || now)).expect("a client");
        let start = Instant::now();
        let error = ask(&api, 1, within(800)).await.expect_err("limited");
        assert!(
            start.elapsed() < Duration::from_millis(700),
            "at once: {value}"
        );
        let DirectoryError::RateLimited { retry_after } = error else {
            panic!("{value}: {error:?}")
        };
        assert_eq!(retry_after.as_secs_f64().round() as u64, seconds, "{value}");

        // The next does not even ask, and other endpoints go on.
        assert!(ask(&api, 2, within(300)).await.is_err());
        assert_eq!(clerk.requests(), 1, "{value}");
        let slug = "acme".parse().expect("a slug");
        let _ = api.organization_by_slug(&slug, within(300)).await;
        assert_eq!(clerk.requests(), 2, "{value}");
    }
}

#[tokio::test]
async fn storms_end_in_time_within_the_budget_and_recover_without_a_restart() {
    const BUDGET: usize = 120;
    const PATIENCE: Duration = Duration::from_millis(900);
    let storms: Vec<(&str, Option<Reply>, &[&str])> = vec![
        (
            "429",
            Some(Reply::html(429).with_header("retry-after", 1)),
            &["rate limit"],
        ),
        ("500", Some(Reply::html(500)), &["status 500", "rate limit"]),
        (
            "slow",
            Some(Reply::silence()),
            &["no answer in", "did not answer", "rate limit"],
        ),
        (
            "garbage",
            Some(Reply::found(&Value::Null).with_body("\u{0}{")),
            &["not JSON", "rate limit"],
        ),
        ("refused", None, &["cannot connect", "rate limit"]),
    ];
    for (name, reply, reasons) in storms {
        let clerk = Clerk::start([reply.clone().unwrap_or_else(Reply::silence)]).await;
        let addr = clerk.addr;
        let is_down = reply.is_none();
        if is_down {
            clerk.server.abort();
            eventually("the port is closed", async || {
                tokio::net::TcpStream::connect(addr).await.is_err()
            })
            .await;
        }
        let api = api_with(ApiOptions {
            budget: BUDGET as u32,
            ..options(addr)
        });
        let asked = (0..500).map(|number| {
            let api = api.clone();
            tokio::spawn(async move {
                let start = Instant::now();
                let answer = ask(&api, number, within(PATIENCE.as_millis() as u64)).await;
                (answer, start.elapsed())
            })
        });
        for task in join_all(asked.collect::<Vec<_>>()).await {
            let (answer, took) = task.expect("ended");
            let error = answer.expect_err(name).to_string();
            assert!(
                reasons.iter().any(|reason| error.contains(reason)),
                "{name}: {error}"
            );
            assert!(!error.contains("hushhush"), "{name}: {error}");
            // A busy machine polls late; that is not a wait of ours.
            assert!(
                took < PATIENCE + Duration::from_millis(600),
                "{name}: {took:?}"
            );
        }
        assert!(clerk.most_in_ten_seconds() <= BUDGET, "{name}");

        let healed = if is_down {
            let listener = tokio::net::TcpListener::bind(addr)
                .await
                .expect("the same port");
            let router = Router::new()
                .fallback(answer)
                .with_state(clerk.script.clone());
            Some(tokio::spawn(async move {
                axum::serve(listener, router).await.expect("served");
            }))
        } else {
            None
        };
        clerk.says([Reply::found(&nobody())]);
        eventually("it answers again", async || {
            ask(&api, 1, within(2_000)).await == Ok(MembershipAnswer::NotAMember)
        })
        .await;
        assert!(!api.stats().breaker_open, "{name}");
        assert!(clerk.most_in_ten_seconds() <= BUDGET, "{name}");
        if let Some(healed) = healed {
            healed.abort();
        }
    }
}

#[tokio::test]
async fn a_clerk_that_keeps_failing_is_left_alone_and_probed() {
    let clerk = Clerk::start([Reply::html(500)]).await;
    let api = api(&clerk);
    eventually("the breaker opens", async || {
        let _ = ask(&api, 1, within(1_000)).await;
        api.stats().breaker_open
    })
    .await;
    let requests = clerk.requests();
    for number in 0..50 {
        let error = ask(&api, number, within(1_000))
            .await
            .expect_err("left alone");
        let DirectoryError::Unavailable { cause, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(
            cause,
            "left alone for a while; last it answered with status 500"
        );
    }
    assert_eq!(clerk.requests(), requests);
    assert!(api.stats().held_back >= 50);

    clerk.says([Reply::found(&nobody())]);
    eventually("it is probed", async || {
        ask(&api, 1, within(1_000)).await.is_ok()
    })
    .await;
    assert!(!api.stats().breaker_open);
}

/// Of 15 in ten seconds five may be sent at once, of which three are reserved.
#[tokio::test]
async fn background_work_never_takes_the_checks_reserve() {
    let clerk = Clerk::start([Reply::found(&nobody())]).await;
    let api = api_with(ApiOptions {
        budget: 15,
        ..options(clerk.addr)
    });
    let background = api.in_background();
    let asked = (0..100).map(|number| ask(&background, number, within(900)));
    let answers = join_all(asked).await;
    let answered = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((1..=2).contains(&answered), "{answered}");
    let is_limited =
        |answer: &Result<_, _>| matches!(answer, Err(DirectoryError::RateLimited { .. }));
    assert!(
        answers
            .iter()
            .all(|answer| answer.is_ok() || is_limited(answer))
    );
    for number in 0..3 {
        assert_eq!(
            ask(&api, number, within(900)).await,
            Ok(MembershipAnswer::NotAMember)
        );
    }
    assert_eq!(clerk.requests(), answered + 3);
}

/// Writes of `tracing`, for looking through.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("alive").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("alive")).into_owned()
    }
}

#[tokio::test]
async fn a_refused_key_is_said_once_asked_about_rarely_and_mended_without_a_restart() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer({
            let log = log.clone();
            move || log.clone()
        })
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let clerk = Clerk::start([Reply::error(401, "clerk_key_invalid")]).await;
    let api = api(&clerk);
    assert_eq!(api.credentials(), Credentials::Unknown);
    let asked = (0..200).map(|number| ask(&api, number, within(2_000)));
    for answer in join_all(asked).await {
        let is_refused = matches!(answer, Err(DirectoryError::CredentialsRefused { .. }));
        assert!(is_refused, "never a no: {answer:?}");
    }
    assert_eq!(api.credentials(), Credentials::Refused);
    let requests = clerk.requests();
    assert!(requests <= 64, "what was under way at once: {requests}");
    for number in 0..50 {
        assert!(ask(&api, number, within(2_000)).await.is_err());
    }
    assert_eq!(clerk.requests(), requests, "a pause");

    let pass_time = async |seconds| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    };
    pass_time(10).await;
    assert!(ask(&api, 1, within(2_000)).await.is_err());
    assert!(ask(&api, 2, within(2_000)).await.is_err());
    assert_eq!(clerk.requests(), requests + 1, "one probe");

    clerk.says([Reply::found(&membership(1))]);
    pass_time(10).await;
    assert_eq!(role(&ask(&api, 1, within(2_000)).await), "org:admin");
    assert_eq!(api.credentials(), Credentials::Accepted);

    let text = log.text();
    let said = text.matches("Clerk refuses our requests").count();
    assert_eq!(said, 1, "{text}");
    for part in [
        "ERROR",
        "CLERK_SECRET_KEY",
        "clerk_key_invalid",
        "trace0123",
        "accepts the secret key again",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for private in ["hushhush", "private words", "user_1"] {
        assert!(!text.contains(private), "{private}: {text}");
    }
    assert!(!format!("{api:?}").contains("hushhush"));
    assert!(!format!("{:?}", options(clerk.addr)).contains("hushhush"));
}

#[test]
fn the_secret_key_travels_over_tls_but_on_this_machine() {
    let client = |url: &str, secret: &str| {
        let options = ApiOptions {
            url: url.parse().expect("a URL"),
            secret_key: secret.to_owned().into(),
            ..options(loopback())
        };
        BackendApi::new(options, clerk_authz::server::system_clock())
    };
    for url in ["http://api.clerk.com", "http://10.0.0.1", "ftp://127.0.0.1"] {
        let error = client(url, SECRET).expect_err(url);
        assert!(matches!(error, InsecureUrl::PlainHttp(_)), "{url}");
    }
    let error = client("https://api.clerk.com", "sk_test_\nhushhush").expect_err("refused");
    assert!(!format!("{error} {error:?}").contains("hushhush"));
    for url in [
        "https://api.clerk.com",
        "http://127.0.0.1:9/",
        "http://[::1]",
    ] {
        assert!(client(url, SECRET).is_ok(), "{url}");
    }
}

async fn backend_api_health(fixture: &Fixture) -> Result<ServingStatus, tonic::Code> {
    let request = HealthCheckRequest {
        service: "clerk-backend-api".to_owned(),
    };
    HealthClient::new(channel(fixture.service.grpc_addr()).await)
        .check(request)
        .await
        .map(|response| response.into_inner().status())
        .map_err(|status| status.code())
}

#[tokio::test]
async fn a_refused_key_shows_in_health_readiness_and_metrics_and_takes_nothing_else_down() {
    let clerk = Clerk::start([Reply::error(401, "clerk_key_invalid")]).await;
    let keys = offline_clerk().await;
    let api_url = format!("http://{}", clerk.addr);
    let issuer = keys.instances()[0].issuer().to_string();
    let jwks_url = format!("{issuer}/.well-known/jwks.json");
    let settings = settings_for(
        &keys,
        &[
            ("CLERK_SECRET_KEY", SECRET),
            ("CLERK_API_URL", &api_url),
            ("CLERK_AUTHZ_JWKS_URL", &jwks_url),
        ],
    );
    let fixture = Fixture::start_on(keys, &settings).await;
    assert_eq!(
        backend_api_health(&fixture).await,
        Ok(ServingStatus::Serving)
    );

    let instance = Arc::clone(&fixture.service.verifier().instances().all()[0]);
    let directory = instance.directory.as_ref().expect("a secret key");
    let answer = directory
        .membership(&organization(), &user(1), within(2_000))
        .await;
    assert!(
        matches!(answer, Err(DirectoryError::CredentialsRefused { .. })),
        "{answer:?}"
    );
    eventually("it shows in health", async || {
        backend_api_health(&fixture).await == Ok(ServingStatus::NotServing)
    })
    .await;
    let (status, ready) = get(fixture.service.http_addr(), "/readyz").await;
    assert_eq!(status, 200, "tokens are verified all the same");
    assert!(
        ready.contains("\"credentials_refused\":[\"default\"]"),
        "{ready}"
    );
    let metrics = fixture.metrics().await;
    for line in [
        "clerk_authz_clerk_requests_total{instance=\"default\",endpoint=\"organization_memberships\",outcome=\"credentials_refused\"} 1",
        "clerk_authz_clerk_questions_joined_total{instance=\"default\"} 0",
        "clerk_authz_clerk_questions_held_back_total{instance=\"default\"} 0",
        "clerk_authz_clerk_breaker_open{instance=\"default\"} 0",
        "clerk_authz_clerk_budget_left{instance=\"default\"}",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains("hushhush"));
    fixture.stop().await;

    let without = Fixture::start().await;
    assert_eq!(
        backend_api_health(&without).await,
        Err(tonic::Code::NotFound)
    );
    without.stop().await;
}
