//! A token that is cached, beside a million revocations and beside none.

use std::time::Instant;

use clerk_authz::{
    identity::{InstanceName, Timestamp},
    mirror::{Effect, Fact, MAX_FACTS, Mirror, SessionEnd},
    store::SqlStore,
};

use crate::{
    Bench, ROUNDS,
    client::{VERIFY, about, body_file, framed, h2load},
    process::free_port,
    table::{Row, median, say},
};

/// Sessions that ended.
const REVOCATIONS: usize = 1_000_000;
/// What is left of the throughput.
const AT_LEAST: f64 = 0.97;

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    const FIGURE: &str = "`VerifySession`, cached, beside 10⁶ revocations: throughput against none";
    say(FIGURE);
    let folder = tempfile::tempdir().expect("a folder");
    let few = folder.path().join("few.db");
    let many = folder.path().join("many.db");
    let store = SqlStore::sqlite(&many).await.expect("a store");
    end_sessions(&store).await;
    store.close().await;
    let serve = |file: &std::path::Path, addr, http| {
        let url = format!("sqlite://{}", file.display());
        let (addr, http) = (format!("{addr}"), format!("{http}"));
        bench.serve_at(
            addr.parse().expect("an address"),
            &[
                ("CLERK_AUTHZ_DATABASE_URL", &url),
                ("CLERK_AUTHZ_GRPC_ADDR", &addr),
                ("CLERK_AUTHZ_HTTP_ADDR", &http),
            ],
        )
    };
    let none = serve(&few, free_port(), free_port());
    none.accepts().await;
    let begun = Instant::now();
    let million = serve(&many, free_port(), free_port());
    // It answers nothing before it knows all of them.
    million.accepts_within(120).await;
    let loaded = begun.elapsed();

    let body = body_file(&framed(&about(&bench.mint(|_| {}))));
    let (mut floor, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floor.push(h2load(none.addr(), VERIFY, body.path()));
        ours.push(h2load(million.addr(), VERIFY, body.path()));
    }
    let (floor, ours) = (median(floor), median(ours));
    let bytes = million.resident().saturating_sub(none.resident()) / REVOCATIONS as u64;
    vec![Row {
        figure: FIGURE,
        measured: format!(
            "{:.2}× ({ours:.0} of {floor:.0} calls/s; {bytes} bytes resident for each; ready {:.1} s \
             after the start)",
            ours / floor,
            loaded.as_secs_f64(),
        ),
        target: format!("≥ {AT_LEAST}×"),
        reached: ours / floor >= AT_LEAST,
    }]
}

/// As Clerk's webhooks would have said it.
async fn end_sessions(store: &SqlStore) {
    let instance = InstanceName::default_instance();
    let now = Timestamp::from(std::time::SystemTime::now());
    let ends = (0..REVOCATIONS).map(|number| {
        Fact::SessionEnded(SessionEnd {
            session: format!("sess_{number:027}").parse().expect("an id"),
            user: None,
            at: now,
        })
    });
    let mut facts: Vec<Fact> = ends.collect();
    while !facts.is_empty() {
        let rest = facts.split_off(facts.len().min(MAX_FACTS));
        let effect = Effect { facts, done: None };
        store
            .apply(&instance, effect, now)
            .await
            .expect("it is written");
        facts = rest;
    }
}
