//! `CheckOrgPermission` and `BatchCheckOrgPermission`.

use std::process::{Command, Stdio};

use bytes::Bytes;
use clerk_authz::{
    door::grpc::proto::{self, check_org_permission_request::Subject},
    emulator::{Fault, Faults},
};

use crate::{
    Bench, ROUNDS,
    client::{BATCH_CHECK, CHECK, Client, body_file, framed, frames_file, h2load},
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
    rows.push(storm(bench, &token).await);
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

/// What the token answers, while questions that Clerk would have to answer are refused by it.
async fn storm(bench: &Bench, token: &str) -> Row {
    say("a storm of questions that Clerk does not answer");
    let body = body_file(&framed(&by_token(token)));
    let unknown: Vec<Bytes> = (0..500)
        .map(|n| framed(&of_user(&format!("user_nobody{n}"))))
        .collect();
    let file = frames_file(&unknown);
    let (mut quiet, mut stormy) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        quiet.push(h2load(bench.addr, CHECK, body.path()));
        bench
            .instance
            .set_faults(Faults::always(Fault::RateLimited));
        let mut flood = Command::new(&bench.this)
            .args(["flood", &bench.addr.to_string(), CHECK])
            .arg(file.path())
            .env("FLOOD_EACH_MILLISECOND", "1")
            .stdout(Stdio::null())
            .spawn()
            .expect("the storm");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        stormy.push(h2load(bench.addr, CHECK, body.path()));
        flood.kill().expect("ended");
        let _ = flood.wait();
        bench.instance.set_faults(Faults::default());
    }
    let (quiet, stormy) = (median(quiet), median(stormy));
    Row {
        figure: "`CheckOrgPermission` by the token while Clerk answers 429 to others' questions",
        measured: format!("{:.2}× ({stormy:.0} of {quiet:.0} calls/s)", stormy / quiet),
        target: "≥ 0.90×".into(),
        reached: stormy / quiet >= 0.90,
    }
}
