//! `VerifySession` and `BatchVerifySession`.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use clerk_authz::{door::grpc::proto, explain::Steps, keys::VerifyingKey, token};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    Bench, ROUNDS,
    client::{BATCH, Client, VERIFY, about, body_file, framed, h2load, last_rate},
    empty::{EMPTY, SIZED},
    process::Server,
    table::{Row, median, percentile, say},
};

/// Tokens that are all new.
const NEW_TOKENS: usize = 30_000;

/// From the start of the process to the first 200 of `/readyz`, with a snapshot of the keys, in
/// milliseconds.
pub(crate) async fn start(bench: &Bench) -> f64 {
    // The first start leaves a snapshot of the keys behind.
    let first = bench.serve();
    first.accepts().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(first);
    let mut starts = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let server = bench.serve();
        while !is_ready(bench).await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        starts.push(start.elapsed().as_secs_f64() * 1e3);
        drop(server);
    }
    median(starts)
}

async fn is_ready(bench: &Bench) -> bool {
    let Ok(mut stream) = TcpStream::connect(bench.http_addr).await else {
        return false;
    };
    let request = b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    if stream.write_all(request).await.is_err() {
        return false;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer.starts_with(b"HTTP/1.1 200")
}

/// CPU time per call in microseconds, each the median of interleaved rounds.
struct Cpu {
    empty: f64,
    new: f64,
    cached: f64,
    bytes_per_token: f64,
}

pub(crate) async fn measure(bench: &Bench, service: &Server, start: f64) -> Vec<Row> {
    tokio::time::sleep(Duration::from_millis(300)).await;
    let idle = service.resident();
    let rsa = rsa_microseconds(bench);
    let client = Client::connect(bench.addr).await;
    say("tokens");
    let tokens: Vec<String> = (0..NEW_TOKENS).map(|_| bench.mint(|_| {})).collect();
    let frames: Vec<Bytes> = tokens.iter().map(|token| framed(&about(token))).collect();
    let cpu = cpu(bench, service, &client, &frames).await;
    let batch = batches(service, &client, &tokens[..100]).await;
    let throughput = throughput(bench, &frames[0]);
    let flood = flood(bench, &client, &frames[0]).await;
    let allowed_new = cpu.empty + 1.3 * rsa;
    let allowed_batch = 5.0 * cpu.empty / 22.0;
    vec![
        throughput,
        Row {
            figure: "`VerifySession`, every token new: CPU per call",
            measured: format!(
                "{:.1} µs (empty {:.1} µs, one RSA-2048 {rsa:.1} µs, cached {:.1} µs)",
                cpu.new, cpu.empty, cpu.cached
            ),
            target: format!("≤ empty + 1.3 × RSA = {allowed_new:.1} µs"),
            reached: cpu.new <= allowed_new,
        },
        Row {
            figure: "`BatchVerifySession` of 100 cached tokens: CPU per token",
            measured: format!("{batch:.1} µs"),
            target: format!("≤ {allowed_batch:.1} µs (5 µs where the empty call costs 22 µs)"),
            reached: batch <= allowed_batch,
        },
        Row {
            figure: "memory per cached token",
            measured: format!("{:.0} bytes", cpu.bytes_per_token),
            target: "≤ 1,024 bytes".into(),
            reached: cpu.bytes_per_token <= 1024.0,
        },
        Row {
            figure: "memory idle",
            measured: format!("{:.1} MiB resident", idle as f64 / f64::from(1 << 20)),
            target: "≤ 30 MiB".into(),
            reached: idle <= 30 << 20,
        },
        Row {
            figure: "start to ready with local keys",
            measured: format!("{start:.0} ms"),
            target: "≤ 200 ms".into(),
            reached: start <= 200.0,
        },
        flood,
    ]
}

/// One RSA-2048 verification, here and now, in microseconds.
fn rsa_microseconds(bench: &Bench) -> f64 {
    let key = VerifyingKey::from_pem(&bench.instance.public_key_pem()).expect("a key");
    let text = bench.mint(|_| {});
    let token = token::parse(&text, &mut Steps::off()).expect("well-formed");
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        for _ in 0..2_000 {
            let parts = token.signature_parts(&text);
            assert!(key.verify(parts.signing_input, parts.signature));
        }
        start.elapsed().as_secs_f64() * 1e6 / 2_000.0
    });
    median(rounds.collect())
}

async fn cpu(bench: &Bench, service: &Server, client: &Client, frames: &[Bytes]) -> Cpu {
    say("CPU per call, interleaved");
    let empty_frames = vec![framed(&()); NEW_TOKENS / ROUNDS];
    let cached_frames = vec![frames[0].clone(); NEW_TOKENS / ROUNDS];
    let (mut empty, mut new, mut cached) = (Vec::new(), Vec::new(), Vec::new());
    // What calls take whatever the cache holds is there before it is filled.
    client
        .drive(VERIFY, &vec![frames[0].clone(); NEW_TOKENS], 50, "0")
        .await;
    let warm = service.resident();
    for round in 0..ROUNDS {
        let part = &frames[1..][round * (NEW_TOKENS / ROUNDS - 1)..][..NEW_TOKENS / ROUNDS - 1];
        empty.push(
            bench
                .empty
                .cpu_per_call(&bench.empty_client, EMPTY, &empty_frames)
                .await,
        );
        new.push(service.cpu_per_call(client, VERIFY, part).await);
        cached.push(service.cpu_per_call(client, VERIFY, &cached_frames).await);
    }
    let used = service.resident().saturating_sub(warm);
    Cpu {
        empty: median(empty),
        new: median(new),
        cached: median(cached),
        bytes_per_token: used as f64 / NEW_TOKENS as f64,
    }
}

async fn batches(service: &Server, client: &Client, tokens: &[String]) -> f64 {
    say("batches");
    let batch = proto::BatchVerifySessionRequest {
        requests: tokens.iter().map(|token| about(token)).collect(),
    };
    let batches = vec![framed(&batch); 200];
    let mut cpu = Vec::new();
    for _ in 0..ROUNDS {
        cpu.push(service.cpu_per_call(client, BATCH, &batches).await / tokens.len() as f64);
    }
    median(cpu)
}

fn throughput(bench: &Bench, frame: &Bytes) -> Row {
    say("throughput by h2load, interleaved");
    let (body, no_body) = (body_file(frame), body_file(&framed(&())));
    let empty_addr = bench.empty.addr();
    let (mut floor, mut sized, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floor.push(h2load(empty_addr, EMPTY, no_body.path()));
        sized.push(h2load(empty_addr, SIZED, body.path()));
        ours.push(h2load(bench.addr, VERIFY, body.path()));
    }
    let (floor, sized, ours) = (median(floor), median(sized), median(ours));
    Row {
        figure: "`VerifySession`, cached: throughput against the empty call",
        measured: format!(
            "{:.2}× ({ours:.0} of {floor:.0} calls/s); {:.2}× of an empty call with as many bytes ({sized:.0} calls/s)",
            ours / floor,
            ours / sized,
        ),
        target: "≥ 0.90×".into(),
        reached: ours / floor >= 0.90,
    }
}

/// Latencies of `count` good calls, one each millisecond or two, in microseconds.
async fn latencies(client: &Client, frame: &Bytes, count: usize) -> Vec<f64> {
    let mut latencies = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        assert_eq!(client.call(VERIFY, frame.clone()).await, "0");
        latencies.push(start.elapsed().as_secs_f64() * 1e6);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    latencies
}

async fn flood(bench: &Bench, client: &Client, frame: &Bytes) -> Row {
    say("a flood of junk kids");
    let junk: Vec<Bytes> = (0..500)
        .map(|n| {
            let kid = serde_json::json!(format!("ins_junk{n}"));
            let token = bench.mint(|spec| {
                spec.header.insert("kid".into(), kid);
            });
            framed(&about(&token))
        })
        .collect();
    let mut quiet = latencies(client, frame, 2_000).await;
    let file = crate::client::frames_file(&junk);
    // A process of its own: what good calls wait for must not be this one's work on bad ones.
    let mut flood = Command::new(&bench.this)
        .args(["flood", &bench.addr.to_string(), VERIFY])
        .arg(file.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the flood");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut flooded = latencies(client, frame, 2_000).await;
    flood.kill().expect("ended");
    let said = flood.wait_with_output().expect("its rate").stdout;
    let rate = last_rate(&said);
    let (quiet, flooded) = (percentile(&mut quiet, 0.99), percentile(&mut flooded, 0.99));
    Row {
        figure: "p99 of good calls beside 10,000 junk-kid calls a second",
        measured: format!(
            "{:.2}× ({flooded:.0} µs against {quiet:.0} µs, {rate:.0} junk calls/s)",
            flooded / quiet
        ),
        target: "≤ 1.5×, at 9,900 junk calls/s or more".into(),
        reached: flooded / quiet <= 1.5 && rate >= 9_900.0,
    }
}
