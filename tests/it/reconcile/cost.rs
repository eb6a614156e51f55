//! What a reconciliation of 100,000 users costs: `scripts/reconcile-cost.sh` builds the release binary
//! and runs this. Clerk is a small server in this process, so that what is measured is ours alone.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::json;

use crate::support::{
    database::{Database, Place},
    http_client, offline_clerk,
};

const USERS: usize = 100_000;
const ORGANIZATIONS: usize = 10_000;
const MEMBERSHIPS: usize = 150_000;
/// Users that are at Clerk and not in the mirror, once there is drift.
const NEW_USERS: usize = 500;
/// When everything was made; users one after the other.
const MADE_AT: i64 = 1_700_000_000_000;

/// A Clerk that is a formula.
struct Formula {
    user: String,
    organization: String,
    membership: String,
    size: [usize; 3],
    drift: AtomicBool,
    requests: AtomicU64,
}

#[derive(Deserialize)]
struct Page {
    limit: Option<usize>,
    offset: Option<usize>,
    starting_after: Option<String>,
}

impl Formula {
    /// Objects as the offline Clerk has them, with every member of Clerk's schemas.
    async fn of(size: [usize; 3]) -> Self {
        let clerk = offline_clerk().await;
        let instance = &clerk.instances()[0];
        let text = async |path: &str| {
            let url = format!("{}/v1/{path}", instance.issuer());
            let answer = http_client()
                .get(url)
                .bearer_auth(instance.secret_key())
                .send()
                .await;
            answer.expect("an answer").text().await.expect("a body")
        };
        let user = text("users/user_alice").await;
        let organization = text("organizations/org_acme").await;
        let all = text("organizations/org_acme/memberships?limit=1&order_by=created_at").await;
        let all: serde_json::Value = serde_json::from_str(&all).expect("JSON");
        let membership = all["data"][0].to_string();
        clerk.stop().await;
        Self {
            user,
            organization,
            membership,
            size,
            drift: AtomicBool::new(false),
            requests: AtomicU64::new(0),
        }
    }

    fn has_drift(&self) -> bool {
        self.drift.load(Ordering::Relaxed)
    }

    fn users(&self) -> usize {
        self.size[0] + if self.has_drift() { NEW_USERS } else { 0 }
    }

    /// Whether the user is at Clerk; a two hundredth was deleted, once there is drift.
    fn has_user(&self, index: usize) -> bool {
        index < self.users() && !(self.has_drift() && index % 200 == 1)
    }

    fn user(&self, index: usize) -> String {
        // A hundredth has another name, once there is drift.
        let changed = self.has_drift() && index.is_multiple_of(100);
        let made_at = MADE_AT + i64::try_from(index).expect("small");
        let mut user: serde_json::Value = serde_json::from_str(&self.user).expect("JSON");
        user["created_at"] = json!(made_at);
        user["updated_at"] = json!(made_at + i64::from(changed));
        user["first_name"] = json!(if changed { "Another" } else { "Ada" });
        user["external_id"] = json!(format!("ext-{index}"));
        user.to_string().replace("alice", &format!("{index:08}"))
    }

    fn organization(&self, index: usize) -> String {
        self.organization.replace("acme", &format!("{index:08}"))
    }

    fn membership(&self, index: usize) -> String {
        let (organization, user) = self.pair(index);
        self.membership
            .replace("alice", &format!("{user:08}"))
            .replace("acme", &format!("{organization:08}"))
    }

    /// No pair comes twice.
    fn pair(&self, index: usize) -> (usize, usize) {
        let [users, organizations, _] = self.size;
        ((index * 7 + index / users) % organizations, index % users)
    }

    fn memberships(&self) -> Vec<usize> {
        (0..self.size[2])
            .filter(|index| self.has_user(self.pair(*index).1))
            .collect()
    }
}

async fn users(State(clerk): State<Arc<Formula>>, Query(page): Query<Page>) -> Response {
    clerk.requests.fetch_add(1, Ordering::Relaxed);
    let after = page.starting_after.as_deref().and_then(index_of);
    let from = after.map_or(0, |index| index + 1);
    let all = (from..clerk.users()).filter(|index| clerk.has_user(*index));
    let objects: Vec<String> = all
        .take(page.limit.unwrap_or(10))
        .map(|it| clerk.user(it))
        .collect();
    body(format!("[{}]", objects.join(",")))
}

async fn count(State(clerk): State<Arc<Formula>>) -> Response {
    clerk.requests.fetch_add(1, Ordering::Relaxed);
    Json(json!({"object": "total_count", "total_count": clerk.users()})).into_response()
}

async fn one_user(State(clerk): State<Arc<Formula>>, Path(id): Path<String>) -> Response {
    clerk.requests.fetch_add(1, Ordering::Relaxed);
    match index_of(&id).filter(|index| clerk.has_user(*index)) {
        Some(index) => body(clerk.user(index)),
        None => {
            let error = json!({"code": "resource_not_found", "message": "not found", "long_message": "not found"});
            (StatusCode::NOT_FOUND, Json(json!({ "errors": [error] }))).into_response()
        }
    }
}

async fn organizations(State(clerk): State<Arc<Formula>>, Query(page): Query<Page>) -> Response {
    let all: Vec<usize> = (0..clerk.size[1]).collect();
    counted(&clerk, &page, &all, |index| clerk.organization(index))
}

async fn memberships(State(clerk): State<Arc<Formula>>, Query(page): Query<Page>) -> Response {
    counted(&clerk, &page, &clerk.memberships(), |index| {
        clerk.membership(index)
    })
}

fn counted(
    clerk: &Formula,
    page: &Page,
    all: &[usize],
    object: impl Fn(usize) -> String,
) -> Response {
    clerk.requests.fetch_add(1, Ordering::Relaxed);
    let some = all
        .iter()
        .skip(page.offset.unwrap_or(0))
        .take(page.limit.unwrap_or(10));
    let objects: Vec<String> = some.map(|index| object(*index)).collect();
    body(format!(
        r#"{{"data":[{}],"total_count":{}}}"#,
        objects.join(","),
        all.len()
    ))
}

fn body(text: String) -> Response {
    ([("content-type", "application/json")], text).into_response()
}

fn index_of(id: &str) -> Option<usize> {
    id.strip_prefix("user_")?.parse().ok()
}

/// What a process took.
struct Took {
    cpu: Duration,
    wall: Duration,
    peak_bytes: u64,
    code: Option<i32>,
    report: String,
}

/// Runs it to its end, and looks at it meanwhile. What it took of the CPU stands in `/proc` until it
/// is waited for.
fn measure(mut command: Command) -> Took {
    let began = Instant::now();
    let output = tempfile::NamedTempFile::new().expect("a file");
    let file = output.reopen().expect("the file");
    let mut child: Child = command
        .stdout(file)
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let proc = format!("/proc/{}", child.id());
    let mut peak_bytes = 0;
    let cpu = loop {
        let stat = std::fs::read_to_string(format!("{proc}/stat")).expect("Linux");
        // Behind the name, which may hold anything: state, …, utime and stime in hundredths.
        let fields: Vec<&str> = stat
            .rsplit(") ")
            .next()
            .expect("fields")
            .split(' ')
            .collect();
        let status = std::fs::read_to_string(format!("{proc}/status")).expect("Linux");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|it| it.split_whitespace().next()?.parse::<u64>().ok());
        peak_bytes = peak_bytes.max(kib.unwrap_or(0) * 1_024);
        if fields[0] == "Z" {
            let ticks: u64 = fields[11..13]
                .iter()
                .map(|it| it.parse::<u64>().expect("a number"))
                .sum();
            break Duration::from_millis(ticks * 10);
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let wall = began.elapsed();
    let code = child.wait().expect("it ended").code();
    let report = std::fs::read_to_string(output.path()).expect("a report");
    Took {
        cpu,
        wall,
        peak_bytes,
        code,
        report,
    }
}

async fn reconcile(addr: std::net::SocketAddr, database: &Database, arguments: &[&str]) -> Took {
    let binary = std::env::var("LOAD_BINARY").expect("LOAD_BINARY: use scripts/reconcile-cost.sh");
    let url = format!("http://{addr}");
    let mut command = Command::new(binary);
    command
        .arg("reconcile")
        .args(arguments)
        .args(["--format", "json"])
        .env_clear()
        .envs([
            ("CLERK_AUTHZ_ISSUER", "https://clerk.example.com"),
            ("CLERK_SECRET_KEY", "sk_test_formula"),
            ("CLERK_API_URL", &url),
            ("CLERK_AUTHZ_API_BUDGET", "100000"),
            ("CLERK_AUTHZ_DATABASE_URL", &database.place.url()),
        ]);
    tokio::task::spawn_blocking(move || measure(command))
        .await
        .expect("measured")
}

async fn serve(clerk: Arc<Formula>) -> std::net::SocketAddr {
    let router = Router::new()
        .route("/v1/users", get(users))
        .route("/v1/users/count", get(count))
        .route("/v1/users/{id}", get(one_user))
        .route("/v1/organizations", get(organizations))
        .route("/v1/organization_memberships", get(memberships))
        .with_state(clerk);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    addr
}

async fn cost(place: Place, engine: &str) {
    let database = Database::on(place).await;
    let nobody = serve(Arc::new(Formula::of([0, 1, 0]).await)).await;
    let idle = reconcile(nobody, &database, &[]).await.peak_bytes;
    let clerk = Arc::new(Formula::of([USERS, ORGANIZATIONS, MEMBERSHIPS]).await);
    let addr = serve(Arc::clone(&clerk)).await;
    for (what, drift, arguments, code) in [
        ("an empty mirror, filled", false, &["--apply"][..], 1),
        ("in step, compared", false, &[], 0),
        ("2 % of the users differ, mended", true, &["--apply"], 1),
        ("in step again, compared", true, &[], 0),
    ] {
        clerk.drift.store(drift, Ordering::Relaxed);
        clerk.requests.store(0, Ordering::Relaxed);
        let took = reconcile(addr, &database, arguments).await;
        assert_eq!(took.code, Some(code), "{what}: {}", took.report);
        println!(
            "| {engine}: {what} | {:.1} s | {:.1} MiB | {} | {:.1} s |",
            took.cpu.as_secs_f64(),
            (took.peak_bytes.saturating_sub(idle)) as f64 / f64::from(1 << 20),
            clerk.requests.load(Ordering::Relaxed),
            took.wall.as_secs_f64(),
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures the release binary: scripts/reconcile-cost.sh"]
async fn a_hundred_thousand_users() {
    println!(
        "| reconciliation | CPU | memory above idle | requests | took |\n|---|---|---|---|---|"
    );
    cost(Place::sqlite(), "SQLite").await;
    cost(Place::postgres().await, "PostgreSQL").await;
}
