use std::sync::atomic::AtomicUsize;

use futures_util::future::{join_all, poll_immediate};
use shuttle::{
    future::{block_on, yield_now},
    sync::atomic::AtomicU64 as SharedCounter,
    thread,
};

use super::*;

/// What the flights ask: a world that changes with each question.
#[derive(Default)]
struct World {
    changes: SharedCounter,
    under_way: AtomicUsize,
    requests: AtomicUsize,
}

struct UnderWay(Arc<World>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl World {
    /// Answers with how much had changed when the request left.
    async fn request(self: Arc<Self>, errand: Arc<Errand>) -> Answer<u64> {
        let others = self.under_way.fetch_add(1, Ordering::SeqCst);
        let _under_way = UnderWay(Arc::clone(&self));
        assert_eq!(others, 0, "two are under way for one key");
        // What the budget may hold up.
        yield_now().await;
        errand.sent();
        self.requests.fetch_add(1, Ordering::SeqCst);
        let seen = self.changes.load(Ordering::SeqCst);
        yield_now().await;
        yield_now().await;
        Ok(seen)
    }
}

type OneKey = Coalescer<(), u64>;

fn seat(flights: &OneKey, world: &Arc<World>, join: Join) -> Seat<u64> {
    let world = Arc::clone(world);
    let deadline = Instant::now() + LONGEST_PATIENCE;
    flights.seat((), join, deadline, move |errand| world.request(errand))
}

/// Six questions of both kinds, two of which are left before their answer.
fn questions() {
    let flights = Arc::new(OneKey::new());
    let world = Arc::new(World::default());
    let askers = [
        (Join::Any, true),
        (Join::SentAfter, true),
        (Join::SentAfter, false),
        (Join::SentAfter, true),
        (Join::Any, false),
        (Join::SentAfter, true),
    ];
    let threads = askers.map(|(join, stays)| {
        let (flights, world) = (Arc::clone(&flights), Arc::clone(&world));
        thread::spawn(move || {
            let asked = world.changes.fetch_add(1, Ordering::SeqCst) + 1;
            let seat = seat(&flights, &world, join);
            if !stays {
                block_on(poll_immediate(seat.answer));
                return;
            }
            let seen = block_on(seat.answer).expect("answered");
            if join == Join::SentAfter {
                assert!(seen >= asked, "asked at {asked}, answered with {seen}");
            }
        })
    });
    for thread in threads {
        thread.join().expect("ended");
    }
    assert!(flights.lines.lock().by_key.is_empty(), "an entry leaked");
    assert_eq!(world.under_way.load(Ordering::SeqCst), 0);
}

/// Advisory 28. Under shuttle: every question is answered, none with what was so before it was
/// asked, never two requests at once for one key, and nothing stays behind.
#[test]
fn coalescing_never_answers_with_what_was_asked_before() {
    shuttle::check_random(questions, 10_000);
    shuttle::check_pct(questions, 5_000, 3);
}

#[test]
fn any_number_of_equal_questions_costs_one_request_or_two() {
    for (join, most) in [(Join::Any, 1), (Join::SentAfter, 2)] {
        let run = move || {
            let flights = OneKey::new();
            let world = Arc::new(World::default());
            let first = seat(&flights, &world, Join::Any);
            block_on(poll_immediate(first.answer.clone()));
            block_on(poll_immediate(first.answer.clone()));
            let others = (0..50).map(|_| seat(&flights, &world, join));
            let answers = others.chain([first]).map(|seat| seat.answer);
            for answer in block_on(join_all(answers)) {
                answer.expect("answered");
            }
            assert_eq!(world.requests.load(Ordering::SeqCst), most);
        };
        shuttle::check_random(run, 1);
    }
}

#[test]
fn joiners_extend_the_time_and_whoever_is_last_takes_the_question_with_them() {
    let run = || {
        let flights = OneKey::new();
        let world = Arc::new(World::default());
        let first = seat(&flights, &world, Join::Any);
        let later = first.errand.deadline() + Duration::from_secs(5);
        let joined = flights.seat((), Join::Any, later, |_| async { Ok(0) });
        assert!(joined.joined);
        assert_eq!(first.errand.deadline(), later);

        block_on(poll_immediate(first.answer));
        assert_eq!(
            world.under_way.load(Ordering::SeqCst),
            1,
            "the other still waits"
        );
        drop(joined);
        assert_eq!(world.under_way.load(Ordering::SeqCst), 0);
        assert!(flights.lines.lock().by_key.is_empty());
    };
    shuttle::check_random(run, 1);
}
