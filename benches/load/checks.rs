//! `CheckOrgPermission` and `BatchCheckOrgPermission`.

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use clerk_authz::{
    door::grpc::proto::{self, check_org_permission_request::Subject},
    emulator::{Fault, Faults},
};

use crate::{
    Bench, ROUNDS,
    client::{BATCH_CHECK, CHECK, Client, body_file, framed, frames_file, h2load, last_rate},
    empty::EMPTY,
    process::Server,
    table::{Row, median, say},
};

/// How one way to an answer compares with the empty call.
struct Way {
    figure: &'static str,
    at_least: f64,
    request: proto::CheckOrgPermissionRequest,
}

fn by_token(token: &str) -> proto::CheckOrgPermissionRequest {
    proto::CheckOrgPermissionRequest {
        subject: Some(Subject::Token(token.to_owned())),
        permission: Some("org:invoices:create".to_owned()),
        ..Default::default()
    }
}

/// Of the user by id, so that it takes the membership.
fn of_user(user: &str) -> proto::CheckOrgPermissionRequest {
    proto::CheckOrgPermissionRequest {
        subject: Some(Subject::UserId(user.to_owned())),
        organization_id: "org_acme".to_owned(),
        permission: Some("org:invoices:create".to_owned()),
        ..Default::default()
    }
}

pub(crate) async fn measure(bench: &Bench, service: &Server) -> Vec<Row> {
    let client = Client::connect(bench.addr).await;
    let token = bench.mint(|_| {});
    let ways = [
        Way {
            figure: "`CheckOrgPermission` by the token: throughput against the empty call",
            at_least: 0.85,
            request: by_token(&token),
        },
        Way {
            figure: "`CheckOrgPermission` by token and remembered membership, likewise",
            at_least: 0.80,
            request: proto::CheckOrgPermissionRequest {
                organization_id: "org_globex".to_owned(),
                permission: Some("org:reports:read".to_owned()),
                ..by_token(&token)
            },
        },
        Way {
            figure: "`CheckOrgPermission` of a user by a remembered membership, likewise",
            at_least: 0.80,
            request: of_user("user_alice"),
        },
    ];
    let mut rows = Vec::new();
    for way in ways {
        rows.push(throughput(bench, &client, way).await);
    }
    rows.push(batch(bench, service, &client, &token).await);
    for bad in bad_clerks() {
        rows.push(storm(bench, &client, &token, bad).await);
    }
    rows
}

async fn throughput(bench: &Bench, client: &Client, way: Way) -> Row {
    say(way.figure);
    let frame = framed(&way.request);
    // The first asks Clerk, where that is needed.
    assert_eq!(
        client.call(CHECK, frame.clone()).await,
        "0",
        "{}",
        way.figure
    );
    let (body, no_body) = (body_file(&frame), body_file(&framed(&())));
    let (mut floor, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floor.push(h2load(bench.empty.addr(), EMPTY, no_body.path()));
        ours.push(h2load(bench.addr, CHECK, body.path()));
    }
    let (floor, ours) = (median(floor), median(ours));
    Row {
        figure: way.figure,
        measured: format!("{:.2}× ({ours:.0} of {floor:.0} calls/s)", ours / floor),
        target: format!("≥ {:.2}×", way.at_least),
        reached: ours / floor >= way.at_least,
    }
}

async fn batch(bench: &Bench, service: &Server, client: &Client, token: &str) -> Row {
    const ITEMS: usize = 100;
    say("batches of checks");
    let batch = proto::BatchCheckOrgPermissionRequest {
        requests: vec![by_token(token); ITEMS],
    };
    let batches = vec![framed(&batch); 200];
    let empty_frames = vec![framed(&()); 4_000];
    let (mut empty, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        empty.push(
            bench
                .empty
                .cpu_per_call(&bench.empty_client, EMPTY, &empty_frames)
                .await,
        );
        ours.push(service.cpu_per_call(client, BATCH_CHECK, &batches).await / ITEMS as f64);
    }
    let (empty, ours) = (median(empty), median(ours));
    let allowed = 5.0 * empty / 22.0;
    Row {
        figure: "`BatchCheckOrgPermission` of 100 by the token: CPU per item",
        measured: format!("{ours:.1} µs"),
        target: format!("≤ {allowed:.1} µs (5 µs where the empty call costs 22 µs)"),
        reached: ours <= allowed,
    }
}

/// Interleaved rounds of a storm, which last longer than the others.
const STORM_ROUNDS: usize = 3;
/// Questions of a storm that differ: equal ones that wait at one time are asked once.
const STORM_QUESTIONS: usize = 4_000;
/// Questions a second below which it was no storm.
const STORM_RATE: f64 = 500.0;

/// How Clerk does not answer.
struct BadClerk {
    figure: &'static str,
    faults: Faults,
}

fn bad_clerks() -> [BadClerk; 5] {
    [
        BadClerk {
            figure: "`CheckOrgPermission` by the token while Clerk answers 429 to others' questions",
            faults: Faults::rate_limited(1),
        },
        BadClerk {
            figure: "the same while Clerk answers 500",
            faults: Faults::always(Fault::ServerError),
        },
        BadClerk {
            figure: "the same while Clerk answers after 10 s",
            faults: Faults::slow(10_000),
        },
        BadClerk {
            figure: "the same while Clerk breaks the connections",
            faults: Faults::always(Fault::Down),
        },
        BadClerk {
            figure: "the same while Clerk answers garbage",
            faults: Faults::always(Fault::Garbage),
        },
    ]
}

/// What the token answers, while questions wait that Clerk would have to answer and does not.
async fn storm(bench: &Bench, client: &Client, token: &str, bad: BadClerk) -> Row {
    say(bad.figure);
    let body = body_file(&framed(&by_token(token)));
    let unanswered: Vec<Bytes> = (0..STORM_QUESTIONS)
        .map(|n| framed(&of_user(&format!("user_nobody{n}"))))
        .collect();
    let file = frames_file(&unanswered);
    let (mut quiet, mut stormy, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STORM_ROUNDS {
        clerk_answers(client).await;
        quiet.push(h2load(bench.addr, CHECK, body.path()));
        bench.instance.set_faults(bad.faults.clone());
        let mut storm = Command::new(&bench.this)
            .args(["storm", &bench.addr.to_string(), CHECK])
            .arg(file.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the storm");
        // Until calls that were given up make room for others.
        tokio::time::sleep(Duration::from_secs(2)).await;
        stormy.push(h2load(bench.addr, CHECK, body.path()));
        storm.kill().expect("ended");
        rates.push(last_rate(
            &storm.wait_with_output().expect("its rate").stdout,
        ));
        bench.instance.clear_faults();
    }
    let (quiet, stormy, rate) = (median(quiet), median(stormy), median(rates));
    Row {
        figure: bad.figure,
        measured: format!(
            "{:.2}× ({stormy:.0} of {quiet:.0} calls/s, {rate:.0} such questions/s)",
            stormy / quiet
        ),
        target: format!("≥ 0.90×, at {STORM_RATE} such questions/s or more"),
        reached: stormy / quiet >= 0.90 && rate >= STORM_RATE,
    }
}

/// Waits until Clerk is asked again: each storm is to meet a service that does not expect it.
async fn clerk_answers(client: &Client) {
    const PATIENCE: Duration = Duration::from_secs(60);
    // One more with each question, since answers are remembered.
    static STRANGERS: AtomicUsize = AtomicUsize::new(0);
    let start = Instant::now();
    loop {
        let stranger = STRANGERS.fetch_add(1, Ordering::Relaxed);
        let asked = framed(&of_user(&format!("user_stranger{stranger}")));
        if client.call(CHECK, asked).await == "0" {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "Clerk is not asked again");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
