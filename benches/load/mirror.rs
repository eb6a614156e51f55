//! Webhooks into the mirror, and users out of it, on each engine.
//!
//! The service stands on core 0. PostgreSQL stands on core 1, beside the clients, and waits for its
//! disk as it does by default; SQLite is in the service. What the disk takes for one write is stated:
//! no message is accepted before it.

use std::{
    fs,
    io::Write,
    os::unix::fs::FileExt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clerk_authz::door::grpc::proto::{self, get_user_request::Key};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    Bench, ROUNDS,
    client::{Client, GET_USER, body_file, framed, h2load, h2load_calls},
    empty::EMPTY,
    postgres,
    process::Server,
    table::{Row, median, say},
};

/// Messages of a round, about users in turn.
const MESSAGES: usize = 12_000;
const USERS: usize = 2_000;
/// Connections of the sender, each with one message on its way: as many as are taken at once.
const CONNECTIONS: usize = 64;
/// Rounds of messages, which last longer than the others.
const MESSAGE_ROUNDS: usize = 3;
/// Messages a second on one core.
const AT_LEAST: f64 = 2_000.0;
/// What the mirror answers a user with, against the empty call.
const GET_USER_AT_LEAST: f64 = 0.35;
/// Calls of one round of h2load.
const USER_CALLS: usize = 20_000;
/// How long all of a round's messages may take until they are applied.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the rows of an engine are called.
struct Names {
    webhooks: &'static str,
    get_user: &'static str,
}

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let object = bench.user_object().await;
    let mut sender = Sender::new(object);
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("mirror.db").display());
    let names = Names {
        webhooks: "webhooks on SQLite, of one core: accepted a second",
        get_user: "`GetUser` on SQLite: throughput against the empty call",
    };
    let mut rows = on(bench, &mut sender, &url, None, names).await;

    // With connections as a small server has them; each commit waits for the disk.
    let server = postgres::Server::start(&["-c", "max_connections=50"]);
    let url = server.fresh_database().await;
    let names = Names {
        webhooks: "webhooks on PostgreSQL, of one core beside the database's: accepted a second",
        get_user: "`GetUser` on PostgreSQL, likewise",
    };
    rows.extend(on(bench, &mut sender, &url, Some(&server), names).await);
    rows
}

async fn on(
    bench: &Bench,
    sender: &mut Sender,
    url: &str,
    database: Option<&postgres::Server>,
    names: Names,
) -> Vec<Row> {
    say(names.webhooks);
    let service = bench.serve_with(&[
        ("CLERK_AUTHZ_DATABASE_URL", url),
        ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
    ]);
    service.accepts().await;
    let (mut accepted, mut applied, mut in_the_end) = (Vec::new(), Vec::new(), Vec::new());
    let cpu = service.cpu();
    for _ in 0..MESSAGE_ROUNDS {
        let round = sender.round(bench).await;
        accepted.push(MESSAGES as f64 / round.accepted_within.as_secs_f64());
        applied.push(round.applied_meanwhile / round.accepted_within.as_secs_f64());
        in_the_end.push(MESSAGES as f64 / round.applied_within.as_secs_f64());
    }
    let cpu = (service.cpu() - cpu).as_secs_f64() * 1e6 / (MESSAGES * MESSAGE_ROUNDS) as f64;
    let (accepted, applied, in_the_end) = (median(accepted), median(applied), median(in_the_end));
    let webhooks = Row {
        figure: names.webhooks,
        measured: format!(
            "{accepted:.0} (meanwhile {applied:.0} applied a second; from the first to the last \
             applied {in_the_end:.0} a second; {cpu:.0} µs of CPU each; one write of the disk {:.1} ms)",
            disk_milliseconds(),
        ),
        target: format!("≥ {AT_LEAST}"),
        reached: accepted >= AT_LEAST,
    };
    say(&webhooks.measured);
    vec![
        webhooks,
        get_user(bench, &service, database, names.get_user).await,
    ]
}

async fn get_user(
    bench: &Bench,
    service: &Server,
    database: Option<&postgres::Server>,
    figure: &'static str,
) -> Row {
    say(figure);
    let frame = framed(&proto::GetUserRequest {
        key: Some(Key::UserId(user_id(0))),
        ..Default::default()
    });
    let (body, no_body) = (body_file(&frame), body_file(&framed(&())));
    let (mut floor, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floor.push(h2load(bench.empty.addr(), EMPTY, no_body.path()));
        ours.push(h2load_calls(USER_CALLS, bench.addr, GET_USER, body.path()));
    }
    let (floor, ours) = (median(floor), median(ours));
    let client = Client::connect(bench.addr).await;
    // Every user in turn, where h2load asks for one again and again.
    let frames: Vec<_> = (0..2 * USERS)
        .map(|number| {
            framed(&proto::GetUserRequest {
                key: Some(Key::UserId(user_id(number % USERS))),
                ..Default::default()
            })
        })
        .collect();
    let no_frames = vec![framed(&()); frames.len()];
    let empty_cpu = bench
        .empty
        .cpu_per_call(&bench.empty_client, EMPTY, &no_frames);
    let empty_cpu = empty_cpu.await;
    let before = database.map(database_cpu);
    let cpu = service.cpu_per_call(&client, GET_USER, &frames).await;
    let of_the_database = database
        .zip(before)
        .map_or(String::new(), |(server, before)| {
            let each = (database_cpu(server) - before).as_secs_f64() * 1e6 / frames.len() as f64;
            format!(", and {each:.1} µs of the database's")
        });
    Row {
        figure,
        measured: format!(
            "{:.2}× ({ours:.0} of {floor:.0} calls/s); every user in turn {:.2}× by CPU \
             ({cpu:.1} µs{of_the_database}; empty {empty_cpu:.1} µs)",
            ours / floor,
            empty_cpu / cpu,
        ),
        target: match database {
            Some(_) => "stated".to_owned(),
            None => format!("≥ {GET_USER_AT_LEAST:.2}×, both"),
        },
        reached: database.is_some() || (ours / floor).min(empty_cpu / cpu) >= GET_USER_AT_LEAST,
    }
}

/// CPU time of the processes that serve our connections.
fn database_cpu(server: &postgres::Server) -> Duration {
    let id = server.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("Linux");
    let nanoseconds = children.split_whitespace().filter_map(|child| {
        let spent = fs::read_to_string(format!("/proc/{child}/schedstat")).ok()?;
        spent.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// How long the disk takes for a write of one page, the median of some.
fn disk_milliseconds() -> f64 {
    let file = tempfile::tempfile().expect("a file");
    let writes = (0..50).map(|at| {
        file.write_all_at(&[1; 4096], at * 4096).expect("written");
        let start = Instant::now();
        file.sync_data().expect("on the disk");
        start.elapsed().as_secs_f64() * 1e3
    });
    median(writes.collect())
}

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

fn user_id(number: usize) -> String {
    format!("user_load{number}")
}

/// Signs messages and sends them, each once.
struct Sender {
    /// A user as Clerk writes it.
    object: Value,
    key: hmac::Key,
    /// Messages sent so far, also the newest version.
    sent: usize,
}

/// What became of a round.
struct Round {
    accepted_within: Duration,
    applied_within: Duration,
    /// While they were still being accepted.
    applied_meanwhile: f64,
}

impl Sender {
    fn new(object: Value) -> Self {
        let secret = SECRET.strip_prefix("whsec_").expect("a secret");
        let secret = STANDARD.decode(secret).expect("base64");
        Self {
            object,
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            sent: 0,
        }
    }

    /// A change of a user, as a request.
    fn request(&mut self) -> Vec<u8> {
        self.sent += 1;
        let (version, id) = (1_800_000_000_000 + self.sent, user_id(self.sent % USERS));
        self.object["first_name"] = json!(format!("Ada {version}"));
        self.object["updated_at"] = json!(version);
        self.object["email_addresses"][0]["email_address"] = json!(format!("{id}@example.com"));
        self.object["id"] = json!(id);
        let body = json!({
            "object": "event", "type": "user.updated", "timestamp": version,
            "instance_id": "ins_load", "data": self.object,
        })
        .to_string();
        let id = format!("msg_{version}");
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = seconds.expect("after 1970").as_secs();
        let tag = hmac::sign(&self.key, format!("{id}.{seconds}.{body}").as_bytes());
        let signature = STANDARD.encode(tag.as_ref());
        let mut request = Vec::with_capacity(body.len() + 300);
        write!(
            request,
            "POST /webhooks/clerk HTTP/1.1\r\nhost: load\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nsvix-id: {id}\r\nsvix-timestamp: {seconds}\r\n\
             svix-signature: v1,{signature}\r\n\r\n{body}",
            body.len()
        )
        .expect("memory takes it");
        request
    }

    async fn round(&mut self, bench: &Bench) -> Round {
        let requests: Vec<Vec<u8>> = (0..MESSAGES).map(|_| self.request()).collect();
        let applied_before = applied(bench).await;
        let start = Instant::now();
        let parts = requests.chunks(MESSAGES.div_ceil(CONNECTIONS));
        join_all(parts.map(|part| send(bench, part))).await;
        let accepted_within = start.elapsed();
        let applied_meanwhile = applied(bench).await - applied_before;
        while applied(bench).await - applied_before < MESSAGES as f64 {
            assert!(start.elapsed() < PATIENCE, "messages are not applied");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Round {
            accepted_within,
            applied_within: start.elapsed(),
            applied_meanwhile,
        }
    }
}

/// One after the other over one connection; each must be accepted.
async fn send(bench: &Bench, requests: &[Vec<u8>]) {
    let mut stream = TcpStream::connect(bench.http_addr).await.expect("connects");
    stream.set_nodelay(true).expect("a socket");
    let mut answer = Vec::new();
    for request in requests {
        stream.write_all(request).await.expect("sent");
        answer.clear();
        while !answer.ends_with(b"\r\n\r\n") {
            let read = stream.read_buf(&mut answer).await.expect("an answer");
            assert!(read > 0, "the connection was closed");
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 204"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
}

/// Messages that were applied, as the service counts them.
async fn applied(bench: &Bench) -> f64 {
    let metrics = bench.get("/metrics").await;
    let lines = metrics.lines();
    lines
        .filter(|line| line.starts_with("clerk_authz_inbox_applied_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

impl Bench {
    /// A user as Clerk's API writes it.
    async fn user_object(&self) -> Value {
        let clerk = self.instance.issuer().as_str();
        let client = reqwest::Client::builder().no_proxy().build();
        let asked = client
            .expect("a client")
            .get(format!("{clerk}/v1/users/user_alice"))
            .bearer_auth(self.instance.secret_key());
        let answer = asked.send().await.expect("an answer");
        let object = answer.text().await.expect("text");
        let object: Value = serde_json::from_str(&object).expect("JSON");
        assert_eq!(object["object"], "user", "{object}");
        object
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.http_addr).await.expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        answer
    }
}
