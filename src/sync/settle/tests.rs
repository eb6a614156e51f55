use super::*;
use crate::{
    mirror::{
        Asking, Coordination, EmailAddress, ListPage, Mirror, Origin, PageStart, User, WholeEntity,
    },
    store::SqlStore,
};

/// A Clerk that says the same of everything, and counts.
#[derive(Debug)]
struct Says {
    answer: Mutex<Result<Option<User>, DirectoryError>>,
    asked: AtomicU64,
    clock: TestClock,
}

#[derive(Clone, Debug)]
struct TestClock(Arc<Mutex<Timestamp>>);

impl TestClock {
    fn now(&self) -> Timestamp {
        *lock(&self.0)
    }

    fn step(&self, by: Duration) {
        let mut now = lock(&self.0);
        *now = now.plus(by);
    }
}

impl Listing for Says {
    fn page<'a>(
        &'a self,
        _: EntityKind,
        _: PageStart<'a>,
        _: Duration,
    ) -> Asking<'a, Option<ListPage>> {
        unreachable!("nobody pages here")
    }

    fn count_users(&self, _: Duration) -> Asking<'_, u64> {
        unreachable!("nobody counts here")
    }

    fn entity<'a>(&'a self, _: &'a Entity, _: Duration) -> Asking<'a, Option<WholeEntity>> {
        self.asked.fetch_add(1, Relaxed);
        let answer = lock(&self.answer).clone();
        let as_of = self.clock.now();
        Box::pin(async move {
            let value = answer?.map(|user| WholeEntity::User(Box::new(user)));
            Ok(Answered { value, as_of })
        })
    }
}

fn user(name: &str, version: i64) -> User {
    User {
        id: "user_1".parse().expect("an id"),
        external_id: None,
        username: None,
        first_name: Some(name.into()),
        last_name: None,
        image_url: None,
        emails: Vec::<EmailAddress>::new(),
        banned: false,
        locked: false,
        deprovisioned: false,
        public_metadata: "{}".into(),
        created_at: Timestamp::from_unix_millis(1),
        updated_at: Timestamp::from_unix_millis(version),
        last_sign_in_at: None,
        source: "{}".into(),
    }
}

/// A store that holds one doubt, and whoever settles it.
struct Scene {
    _folder: tempfile::TempDir,
    store: SqlStore,
    settler: Settler,
    says: Says,
    clock: TestClock,
    instance: InstanceName,
}

impl Scene {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqlStore::sqlite(&folder.path().join("x.db"))
            .await
            .expect("a store");
        let clock = TestClock(Arc::new(Mutex::new(Timestamp::from_unix_seconds(
            1_900_000_000,
        ))));
        let instance: InstanceName = "default".parse().expect("a name");
        let effect = Effect {
            facts: ["Ada", "Eve"]
                .map(|name| Fact::User(Box::new(user(name, 5)), Origin::Event))
                .to_vec(),
            done: None,
        };
        store
            .apply(&instance, effect, clock.now())
            .await
            .expect("applied");
        let read = clock.clone();
        Self {
            settler: Settler::new(
                Arc::new(store.clone()),
                Arc::default(),
                "test".to_owned(),
                Arc::new(move || read.now()),
            ),
            says: Says {
                answer: Mutex::new(Ok(Some(user("Eve", 5)))),
                asked: AtomicU64::new(0),
                clock: clock.clone(),
            },
            _folder: folder,
            store,
            clock,
            instance,
        }
    }

    /// A round; how often Clerk has been asked so far.
    async fn round(&self) -> u64 {
        let settled = self.settler.settle(&self.instance, Some(&self.says)).await;
        settled.expect("a round");
        self.says.asked.load(Relaxed)
    }

    async fn is_open(&self) -> bool {
        let open = self
            .store
            .to_look_up(&self.instance, EntityKind::User, 10)
            .await;
        !open.expect("answered").is_empty()
    }

    fn count(&self, outcome: LookUpOutcome) -> u64 {
        self.settler.outcomes[outcome as usize].load(Relaxed)
    }
}

#[tokio::test]
async fn a_doubt_is_asked_for_once_and_settled() {
    let scene = Scene::start().await;
    assert_eq!(scene.round().await, 1);
    assert!(!scene.is_open().await);
    assert_eq!(scene.round().await, 1, "nothing is left to ask");
    assert_eq!(scene.count(LookUpOutcome::Settled), 1);
    assert!(lock(&scene.settler.waits).is_empty());
}

#[tokio::test]
async fn that_there_is_no_such_thing_settles_too() {
    let scene = Scene::start().await;
    *lock(&scene.says.answer) = Ok(None);
    scene.round().await;
    assert!(!scene.is_open().await);
    let entity = Entity::User("user_1".parse().expect("an id"));
    let head = scene.store.head(&scene.instance, &entity).await;
    assert!(head.expect("answered").expect("known").is_dead());
}

#[tokio::test]
async fn what_is_not_settled_is_asked_for_later_and_later() {
    let scene = Scene::start().await;
    // Older than what is in doubt: Clerk itself is behind.
    *lock(&scene.says.answer) = Ok(Some(user("Ada", 4)));
    assert_eq!(scene.round().await, 1);
    assert_eq!(scene.round().await, 1, "not again at once");
    scene.clock.step(BACKOFF.first);
    assert_eq!(scene.round().await, 2);
    scene.clock.step(BACKOFF.first / 2);
    assert_eq!(
        scene.round().await,
        2,
        "the wait is at least half of the double"
    );
    *lock(&scene.says.answer) = Err(DirectoryError::RateLimited {
        retry_after: Duration::ZERO,
    });
    scene.clock.step(2 * BACKOFF.first);
    assert_eq!(scene.round().await, 3);
    assert_eq!(
        [LookUpOutcome::Open, LookUpOutcome::Failed].map(|it| scene.count(it)),
        [2, 1]
    );
    assert!(scene.is_open().await);

    *lock(&scene.says.answer) = Ok(Some(user("Ada", 5)));
    scene.clock.step(BACKOFF.longest);
    scene.round().await;
    assert!(!scene.is_open().await);
}

#[tokio::test]
async fn another_replica_that_has_the_lease_is_left_to_it() {
    let scene = Scene::start().await;
    let now = scene.clock.now();
    let lease = scene
        .store
        .lease(&scene.instance, NAME, "other", now.plus(LEASE), now)
        .await;
    assert!(lease.expect("answered").is_some());
    assert_eq!(scene.round().await, 0);
    scene.clock.step(LEASE);
    assert_eq!(
        scene.round().await,
        1,
        "it is gone, and its lease has passed"
    );
}

#[tokio::test]
async fn without_a_secret_key_it_waits_and_is_said_once() {
    let scene = Scene::start().await;
    for _ in 0..2 {
        scene
            .settler
            .settle(&scene.instance, None)
            .await
            .expect("a round");
        assert!(scene.is_open().await);
        assert_eq!(lock(&scene.settler.said).len(), 1);
    }
    assert!(
        !lock(&scene.settler.said).insert(scene.instance.clone()),
        "no second time"
    );
}
