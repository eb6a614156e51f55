//! Keys under fault. Time is injected: the clock is a number, and tokio's time is paused, so that
//! sleeping passes it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Mutex, atomic::AtomicUsize},
};

use super::*;
use crate::{
    identity::{InstanceName, SigningAlgorithms},
    keys::{KeysOf, SnapshotDirectory, tests::TestKey},
};

/// Starts at a round number; advances with tokio's paused time.
fn clock() -> Clock {
    let start = tokio::time::Instant::now();
    Arc::new(move || {
        Timestamp::from_unix_seconds(1_800_000_000)
            .plus(tokio::time::Instant::now().duration_since(start))
    })
}

/// What a source does when it is asked.
#[derive(Clone)]
enum Behaviour {
    Serves(Vec<u8>),
    Fails,
    Hangs,
}

struct TestSource {
    behaviour: Mutex<Behaviour>,
    fetches: AtomicUsize,
}

impl TestSource {
    fn new(behaviour: Behaviour) -> Arc<Self> {
        Arc::new(Self {
            behaviour: Mutex::new(behaviour),
            fetches: AtomicUsize::new(0),
        })
    }

    fn now(&self, behaviour: Behaviour) {
        *self.behaviour.lock().expect("not poisoned") = behaviour;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

impl JwksSource for TestSource {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + '_>> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let behaviour = self.behaviour.lock().expect("not poisoned").clone();
        Box::pin(async move {
            match behaviour {
                Behaviour::Serves(document) => Ok(document),
                Behaviour::Fails => Err(FetchError::Status(503)),
                Behaviour::Hangs => std::future::pending().await,
            }
        })
    }
}

struct Fixture {
    ring: Arc<Keyring>,
    source: Arc<TestSource>,
    clock: Clock,
    stop: CancellationToken,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Fixture {
    fn start(source: &Arc<TestSource>, clock: &Clock, snapshot: Option<Snapshot>) -> Self {
        let ring = Arc::new(Keyring::refreshed(
            Arc::clone(source) as Arc<dyn JwksSource>,
            RefreshSettings::default(),
            snapshot,
            Arc::clone(clock),
        ));
        let stop = CancellationToken::new();
        let task = tokio::spawn(Arc::clone(&ring).run(stop.clone()));
        Self {
            ring,
            source: Arc::clone(source),
            clock: Arc::clone(clock),
            stop,
            _task: tokio_util::task::AbortOnDropHandle::new(task),
        }
    }

    fn serving(keys: &[&TestKey]) -> Self {
        let source = TestSource::new(Behaviour::Serves(TestKey::document(keys)));
        Self::start(&source, &clock(), None)
    }

    async fn find(&self, key_id: &str) -> Lookup {
        self.ring.find(Some(key_id), (self.clock)()).await
    }

    async fn finds(&self, key_id: &str) -> bool {
        matches!(self.find(key_id).await, Lookup::Found(_))
    }
}

async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn outage_of_24_hours_with_a_restart_in_the_middle_denies_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    let name = KeysOf::instance(&InstanceName::default_instance());
    let snapshots = SnapshotDirectory::new(directory.path().to_owned());
    let snapshot = async || {
        let store = Arc::new(snapshots.clone());
        Some(Snapshot::open(store, name.clone(), "https://clerk.example.com").await)
    };
    let key = TestKey::generate("ins_1");
    let source = TestSource::new(Behaviour::Serves(TestKey::document(&[&key])));
    let clock = clock();
    let first = Fixture::start(&source, &clock, snapshot().await);
    assert!(first.finds("ins_1").await);
    // The snapshot is written off the runtime, in real time.
    while !snapshots.file(&name).exists() {
        tokio::task::yield_now().await;
        std::thread::yield_now();
    }

    source.now(Behaviour::Fails);
    for _ in 0..12 {
        pass(3_600).await;
        assert!(first.finds("ins_1").await);
    }
    drop(first);
    let second = Fixture::start(&source, &clock, snapshot().await);
    for _ in 0..12 {
        assert!(second.finds("ins_1").await);
        assert!(second.ring.is_usable(clock()));
        pass(3_600).await;
    }
    assert!(second.finds("ins_1").await);
}

#[tokio::test(start_paused = true)]
async fn a_set_past_its_bound_is_not_used_and_that_is_not_a_denial() {
    let key = TestKey::generate("ins_1");
    let fixture = Fixture::serving(&[&key]);
    let Lookup::Found(found) = fixture.find("ins_1").await else {
        panic!("the key is there")
    };
    fixture.source.now(Behaviour::Fails);

    pass(7 * 86_400 - 120).await;
    assert!(fixture.finds("ins_1").await);
    assert!(fixture.ring.stands(&found, (fixture.clock)()));

    pass(240).await;
    assert!(matches!(
        fixture.find("ins_1").await,
        Lookup::Unavailable { .. }
    ));
    assert!(!fixture.ring.stands(&found, (fixture.clock)()));
    assert!(!fixture.ring.is_usable((fixture.clock)()));

    fixture
        .source
        .now(Behaviour::Serves(TestKey::document(&[&key])));
    pass(60).await;
    assert!(fixture.finds("ins_1").await);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_kid_flood_makes_one_fetch_per_cooldown() {
    let key = TestKey::generate("ins_1");
    let fixture = Fixture::serving(&[&key]);
    assert!(fixture.finds("ins_1").await);
    let before = fixture.source.fetches();

    for round in 0..1_000 {
        for junk in 0..20 {
            let answer = fixture.find(&format!("ins_junk{round}x{junk}")).await;
            assert!(matches!(answer, Lookup::Unknown), "{answer:?}");
        }
        sleep(Duration::from_millis(100)).await;
    }

    let fetches = fixture.source.fetches() - before;
    // 100 seconds: one each five, and two refreshes by themselves.
    assert!((18..=22).contains(&fetches), "{fetches} fetches");
    assert!(fixture.ring.stats((fixture.clock)()).refused_fetches > 19_000);
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_makes_only_so_many_wait() {
    use futures_util::{StreamExt, stream::FuturesUnordered};
    let key = TestKey::generate("ins_1");
    let fixture = Fixture::serving(&[&key]);
    assert!(fixture.finds("ins_1").await);
    fixture.source.now(Behaviour::Hangs);
    pass(10).await;
    let start = tokio::time::Instant::now();
    let mut waiting: FuturesUnordered<_> =
        (0..MAX_WAITING).map(|_| fixture.find("ins_junk")).collect();
    assert!(futures_util::poll!(waiting.next()).is_pending());

    for _ in 0..10 {
        let further = fixture.find("ins_junk").await;
        assert!(matches!(further, Lookup::Unavailable { .. }), "{further:?}");
        assert!(fixture.finds("ins_1").await);
    }
    assert_eq!(tokio::time::Instant::now(), start, "one of them waited");
    assert_eq!(fixture.ring.stats((fixture.clock)()).refused_fetches, 10);

    // A place is free again once somebody has waited, or has left.
    drop(waiting);
    let next = Box::pin(fixture.find("ins_junk"));
    assert!(futures_util::poll!(next).is_pending());
}

#[tokio::test(start_paused = true)]
async fn removed_key_dies_under_constant_traffic() {
    let (old, new) = (TestKey::generate("ins_old"), TestKey::generate("ins_new"));
    let fixture = Fixture::serving(&[&old, &new]);
    let Lookup::Found(held) = fixture.find("ins_old").await else {
        panic!("the key is there")
    };
    fixture
        .source
        .now(Behaviour::Serves(TestKey::document(&[&new])));

    let mut died_after = None;
    for second in 0..120 {
        let found = fixture.finds("ins_old").await;
        assert_eq!(
            fixture.ring.stands(&held, (fixture.clock)()),
            found,
            "cache and look-up agree"
        );
        if !found {
            died_after = died_after.or(Some(second));
        } else {
            assert_eq!(died_after, None, "a removed key came back");
        }
        // Traffic with an unknown kid must not renew it either.
        fixture.find("ins_junk").await;
        pass(1).await;
    }
    assert!(
        died_after.is_some_and(|second| second <= 60),
        "{died_after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn rotation_is_picked_up_on_first_sight() {
    let (old, new) = (TestKey::generate("ins_old"), TestKey::generate("ins_new"));
    let fixture = Fixture::serving(&[&old]);
    assert!(fixture.finds("ins_old").await);
    pass(10).await;
    fixture
        .source
        .now(Behaviour::Serves(TestKey::document(&[&old, &new])));

    assert!(fixture.finds("ins_new").await);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_changes_under_its_name_is_another_key() {
    let (old, new) = (TestKey::generate("ins_1"), TestKey::generate("ins_1"));
    let fixture = Fixture::serving(&[&old]);
    let Lookup::Found(held) = fixture.find("ins_1").await else {
        panic!("the key is there")
    };
    fixture
        .source
        .now(Behaviour::Serves(TestKey::document(&[&new])));
    pass(61).await;

    assert!(fixture.finds("ins_1").await);
    assert!(!fixture.ring.stands(&held, (fixture.clock)()));
}

#[tokio::test(start_paused = true)]
async fn a_known_kid_never_waits_for_a_source_that_hangs() {
    let key = TestKey::generate("ins_1");
    let fixture = Fixture::serving(&[&key]);
    assert!(fixture.finds("ins_1").await);
    fixture.source.now(Behaviour::Hangs);
    pass(58).await;

    for _ in 0..100 {
        let before = tokio::time::Instant::now();
        assert!(fixture.finds("ins_1").await);
        assert_eq!(tokio::time::Instant::now(), before, "it waited");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_fetch_serves_all_who_wait_and_goes_on_when_one_leaves() {
    let (old, new) = (TestKey::generate("ins_old"), TestKey::generate("ins_new"));
    let fixture = Fixture::serving(&[&old]);
    assert!(fixture.finds("ins_old").await);
    pass(10).await;
    fixture
        .source
        .now(Behaviour::Serves(TestKey::document(&[&old, &new])));
    let before = fixture.source.fetches();

    drop(futures_util::poll!(Box::pin(fixture.find("ins_new"))));
    let all = futures_util::future::join_all((0..50).map(|_| fixture.finds("ins_new"))).await;

    assert!(all.into_iter().all(|found| found));
    assert_eq!(fixture.source.fetches() - before, 1);
}

/// Advisory 34: a source that is down is never a reason to call a token invalid.
#[tokio::test(start_paused = true)]
async fn a_start_without_keys_cannot_tell_and_recovers_by_itself() {
    let key = TestKey::generate("ins_1");
    let source = TestSource::new(Behaviour::Fails);
    let fixture = Fixture::start(&source, &clock(), None);
    for _ in 0..20 {
        assert!(matches!(
            fixture.find("ins_1").await,
            Lookup::Unavailable { .. }
        ));
        assert!(!fixture.ring.is_usable((fixture.clock)()));
        pass(1).await;
    }
    source.now(Behaviour::Serves(TestKey::document(&[&key])));
    pass(60).await;
    assert!(fixture.finds("ins_1").await);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_kid_while_the_source_is_down_cannot_be_told() {
    let key = TestKey::generate("ins_1");
    let fixture = Fixture::serving(&[&key]);
    assert!(fixture.finds("ins_1").await);
    pass(10).await;
    fixture.source.now(Behaviour::Fails);

    for _ in 0..3 {
        let answer = fixture.find("ins_new").await;
        assert!(matches!(answer, Lookup::Unavailable { .. }), "{answer:?}");
    }
    assert!(fixture.finds("ins_1").await);
}

#[tokio::test(start_paused = true)]
async fn garbage_never_replaces_a_good_set() {
    let key = TestKey::generate("ins_1");
    let fixture = Fixture::serving(&[&key]);
    assert!(fixture.finds("ins_1").await);
    for garbage in [
        &b""[..],
        b"{",
        b"{\"keys\":[]}",
        b"{\"keys\":[{\"kty\":\"oct\"}]}",
        b"\xff",
    ] {
        fixture.source.now(Behaviour::Serves(garbage.to_vec()));
        pass(120).await;
        assert!(fixture.finds("ins_1").await, "{garbage:?}");
    }
    let stats = fixture.ring.stats((fixture.clock)());
    let documents = stats
        .fetches
        .iter()
        .find(|(outcome, _)| *outcome == FetchOutcome::Document);
    assert!(documents.is_some_and(|(_, count)| *count >= 5), "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn a_kid_that_no_set_can_have_costs_no_fetch() {
    let key = TestKey::generate("ins_1");
    let fixture = Fixture::serving(&[&key]);
    assert!(fixture.finds("ins_1").await);
    pass(10).await;
    let before = fixture.source.fetches();
    let long = "a".repeat(256);
    for junk in [None, Some(""), Some("a b"), Some("é"), Some(long.as_str())] {
        let answer = fixture.ring.find(junk, (fixture.clock)()).await;
        assert!(matches!(answer, Lookup::Unknown), "{junk:?}: {answer:?}");
    }
    assert_eq!(fixture.source.fetches(), before);
}

#[tokio::test(start_paused = true)]
async fn the_owner_ends_with_its_stop() {
    let key = TestKey::generate("ins_1");
    let fixture = Fixture::serving(&[&key]);
    assert!(fixture.finds("ins_1").await);
    fixture.stop.cancel();
    pass(1).await;
    let before = fixture.source.fetches();
    pass(600).await;
    assert_eq!(fixture.source.fetches(), before);
}

#[tokio::test]
async fn a_snapshot_is_believed_only_when_it_is_ours_young_and_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let name = KeysOf::instance(&InstanceName::default_instance());
    let snapshots = Arc::new(SnapshotDirectory::new(directory.path().to_owned()));
    let at = async |issuer: &str| {
        Snapshot::open(Arc::clone(&snapshots) as _, name.clone(), issuer).await
    };
    let ours = async || at("https://a.example.com").await;
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    let keys = |snapshot: &Snapshot, later: u64| {
        snapshot.keys(
            SigningAlgorithms::CLERKS,
            Duration::from_secs(3_600),
            now.plus(Duration::from_secs(later)),
        )
    };
    assert!(
        matches!(keys(&ours().await, 0), Ok(None)),
        "there is none yet"
    );

    let document = TestKey::document(&[&TestKey::generate("ins_1")]);
    let saved = ours().await.save(document, now).await;
    saved.expect("written");

    let kept = ours().await;
    let (set, fetched_at) = keys(&kept, 3_600).expect("good").expect("there");
    assert!(set.get("ins_1").is_some());
    assert_eq!(fetched_at, now, "its age is kept: a restart renews nothing");
    assert!(keys(&kept, 3_601).is_err(), "too old");
    let others = at("https://b.example.com").await;
    assert!(keys(&others, 0).is_err(), "another issuer's");
    let early = kept.keys(
        SigningAlgorithms::CLERKS,
        Duration::from_secs(3_600),
        now.minus(Duration::from_secs(301)),
    );
    assert!(early.is_err(), "from the future");
    let file = snapshots.file(&name);
    let text = std::fs::read_to_string(&file).expect("text");
    std::fs::write(&file, &text[..text.len() / 2]).expect("written");
    assert!(keys(&ours().await, 0).is_err(), "half a file");
}

#[test]
fn a_pinned_key_needs_nothing_and_takes_every_kid() {
    let key = TestKey::generate("ins_1");
    let ring = Keyring::pinned(VerifyingKey::from_pem(&key.pem()).expect("a key"));
    let now = Timestamp::from_unix_seconds(0);
    assert!(ring.is_usable(now));
    for key_id in [None, Some("anything")] {
        let found = futures_util::future::FutureExt::now_or_never(ring.find(key_id, now));
        let Some(Lookup::Found(found)) = found else {
            panic!("found at once")
        };
        assert!(ring.stands(&found, now));
        assert!(found.verify(b"message", &key.sign(b"message")));
    }
}
