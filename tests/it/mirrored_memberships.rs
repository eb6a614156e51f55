//! Where the mirror answers in Clerk's place, and where it may not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use clerk_authz::{
    authz::{
        AskMirror, Checker, Consistency, Decision, MembershipSettings, OrgAnswer, OrgQuestion,
        OrganizationRef, Source, Subject,
    },
    decision::{Impersonation, Requirement},
    emulator::{Emulator, World},
    explain::Steps,
    identity::Timestamp,
    mirror::{Entity, Fact, Mirror, Standing},
    reason::Reason,
    store::SqlStore,
};

use crate::support::{
    database::{
        Database, api_membership, api_user, event_membership, membership, on_each_engine,
        organization_id, user_id, user_with,
    },
    directory::{MemoryDirectory, Place, TestClock, verifier_of},
    loopback,
};

const START: i64 = 1_800_000_000;
/// How long the mirror is believed here.
const MAX_AGE: Duration = Duration::from_secs(3_600);

struct Scene {
    /// In milliseconds; 0 where no reconciliation is known.
    compared_at: Arc<AtomicI64>,
    clock: TestClock,
    clerk: Arc<MemoryDirectory>,
    checker: Checker,
    database: Database,
}

impl Scene {
    async fn start(database: Database) -> Self {
        let store = database.store.clone();
        Self::with(database, store, MAX_AGE).await
    }

    async fn with(database: Database, store: SqlStore, max_age: Duration) -> Self {
        let clock = TestClock::at(START);
        let emulator = Emulator::start(World::default_world(), loopback(), clock.as_clock())
            .await
            .expect("an offline Clerk");
        let instance = &emulator.instances()[0];
        let clerk = MemoryDirectory::new(&clock);
        let verifier = verifier_of(
            &instance.public_key_pem(),
            instance.issuer().as_str(),
            Arc::clone(&clerk) as _,
        );
        let settings = MembershipSettings::default();
        let compared_at = Arc::new(AtomicI64::new(0));
        let known = Arc::clone(&compared_at);
        let checker = Checker::new(verifier, settings, clock.as_clock()).with_mirror(
            asking(store),
            Arc::new(move |_| {
                Some(at(known.load(Ordering::Relaxed))).filter(|known| *known > at(0))
            }),
            max_age,
        );
        emulator.stop().await;
        Self {
            compared_at,
            clock,
            clerk,
            checker,
            database,
        }
    }

    fn ms(&self, seconds_ago: i64) -> i64 {
        self.clock.now().unix_millis() - seconds_ago * 1_000
    }

    async fn ask(&self, consistency: Consistency) -> Result<Decision, Reason> {
        let instances = self.checker.verifier().instances();
        let instance = Arc::clone(instances.named("").expect("the only one"));
        let question = OrgQuestion {
            subject: Subject::User(instance, user_id("user_1")),
            organization: Some(OrganizationRef::parse("org_1").expect("an id")),
            requirement: Requirement {
                permission: Some("org:invoices:read".parse().expect("a permission")),
                role: None,
                feature: None,
                plan: None,
                reverification: None,
                impersonation: Impersonation::Allowed,
            },
            consistency,
            patience: Duration::from_secs(5),
            lookups: None,
        };
        let answer = self
            .checker
            .check_org_permission(&question, self.clock.now(), &mut Steps::off())
            .await
            .map_err(|cannot_tell| cannot_tell.reason())?;
        match answer {
            OrgAnswer::Decided(decision) => Ok(decision),
            other => panic!("not decided: {other:?}"),
        }
    }

    async fn at_hand(&self) -> Decision {
        self.ask(Consistency::MinimizeLatency).await.expect("told")
    }
}

/// Asks a store.
fn asking(store: SqlStore) -> AskMirror {
    let store = Arc::new(store);
    Arc::new(move |instance, organization, user| {
        let store = Arc::clone(&store);
        Box::pin(async move { store.membership(instance, organization, user).await })
    })
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(millis)
}

on_each_engine! {
    async fn the_mirror_answers_without_clerk_and_says_since_when(database: Database) {
        let scene = Scene::start(database).await;
        let seen = scene.ms(600);
        scene.database.apply([api_membership(membership("org_1", "user_1", 5), seen)]).await;

        let decision = scene.at_hand().await;
        assert_eq!((decision.reason, decision.source), (Reason::Allowed, Some(Source::Mirror)));
        assert_eq!(decision.as_of, Some(at(seen)));
        // To be kept no longer than what Clerk says.
        let minute = scene.clock.now().plus(Duration::from_secs(60));
        assert_eq!(decision.valid_until, Some(minute));
        assert_eq!(decision.role(), Some("org:admin"));
        // Remembered, as old as it is.
        let again = scene.at_hand().await;
        assert_eq!((again.source, again.as_of), (Some(Source::Cache), Some(at(seen))));
        assert_eq!(scene.clerk.asked(), 0);
    }

    async fn what_an_event_said_counts_from_its_change_on(database: Database) {
        let scene = Scene::start(database).await;
        let changed = scene.ms(10);
        scene.database.apply([event_membership(membership("org_1", "user_1", changed))]).await;

        let decision = scene.at_hand().await;
        assert_eq!((decision.source, decision.as_of), (Some(Source::Mirror), Some(at(changed))));
    }

    async fn a_reconciliation_knows_all_that_it_left(database: Database) {
        let scene = Scene::start(database).await;
        scene.database.apply([event_membership(membership("org_1", "user_1", 5))]).await;
        let compared = scene.ms(600);
        scene.compared_at.store(compared, Ordering::Relaxed);
        let decision = scene.at_hand().await;
        assert_eq!((decision.source, decision.as_of), (Some(Source::Mirror), Some(at(compared))));
    }

    async fn what_is_in_doubt_is_asked_at_clerk(database: Database) {
        let scene = Scene::start(database).await;
        let seen = scene.ms(10);
        let entity = Entity::Membership(organization_id("org_1"), user_id("user_1"));
        // In whole seconds, and inside the second of a version that the API has confirmed.
        scene.database.apply([
            api_membership(membership("org_1", "user_1", 5_500), seen),
            Fact::Deleted { entity, at: at(5_000) },
        ]).await;
        assert_eq!(scene.at_hand().await.source, Some(Source::Clerk));
    }

    /// A change whose webhook was lost: the mirror is younger than it may be, and older than the answer.
    async fn what_clerk_said_later_is_not_undone_by_the_mirror(database: Database) {
        let scene = Scene::start(database).await;
        let seen = scene.ms(30);
        scene.database.apply([api_membership(membership("org_1", "user_1", 5), seen)]).await;
        let now = scene.ask(Consistency::FullyConsistent).await.expect("told");
        assert_eq!((now.reason, now.source), (Reason::NotAMember, Some(Source::Clerk)));

        // A "no" answers for ten seconds, and is known for longer.
        scene.clock.step(11);
        let later = scene.at_hand().await;
        assert_eq!((later.reason, later.source), (Reason::NotAMember, Some(Source::Clerk)));
        // Until the mirror has seen what is younger.
        scene.clock.step(11);
        let seen = scene.ms(0);
        scene.database.apply([api_membership(membership("org_1", "user_1", 5), seen)]).await;
        assert_eq!(scene.at_hand().await.source, Some(Source::Mirror));
    }

    /// What the mirror said before is no reason to ask Clerk again.
    async fn what_the_mirror_said_it_says_again(database: Database) {
        let scene = Scene::start(database).await;
        let seen = scene.ms(30);
        scene.database.apply([api_membership(membership("org_1", "user_1", 5), seen)]).await;
        assert_eq!(scene.at_hand().await.source, Some(Source::Mirror));
        scene.clock.step(61);
        assert_eq!(scene.at_hand().await.source, Some(Source::Mirror));
        assert_eq!(scene.clerk.asked(), 0);
    }

    async fn what_is_too_old_or_from_the_future_is_asked_at_clerk(database: Database) {
        let scene = Scene::start(database).await;
        let old = scene.ms(3_600);
        scene.database.apply([api_membership(membership("org_1", "user_1", 5), old)]).await;
        let decision = scene.at_hand().await;
        assert_eq!((decision.reason, decision.source), (Reason::NotAMember, Some(Source::Clerk)));

        // Some time later, when what Clerk said is forgotten, and the mirror has a newer look.
        scene.clock.step(60);
        let future = scene.ms(-1);
        scene.database.apply([api_membership(membership("org_1", "user_1", 5), future)]).await;
        assert_eq!(scene.at_hand().await.source, Some(Source::Clerk));
        assert_eq!(scene.clerk.asked(), 2);
    }

    async fn who_wants_it_fresher_gets_it_fresher(database: Database) {
        let scene = Scene::start(database).await;
        let seen = scene.ms(30);
        scene.database.apply([api_membership(membership("org_1", "user_1", 5), seen)]).await;

        let within = |seconds| Consistency::MaxStaleness(Duration::from_secs(seconds));
        let decision = scene.ask(within(31)).await.expect("told");
        assert_eq!(decision.source, Some(Source::Mirror));
        // "Not a member", by Clerk.
        for consistency in [within(30), Consistency::FullyConsistent] {
            let decision = scene.ask(consistency).await.expect("told");
            assert_eq!((decision.reason, decision.source), (Reason::NotAMember, Some(Source::Clerk)));
        }
    }

    async fn that_somebody_is_no_member_only_clerk_says(database: Database) {
        let scene = Scene::start(database).await;
        let removed = scene.ms(10);
        let entity = Entity::Membership(organization_id("org_1"), user_id("user_1"));
        scene.database.apply([
            event_membership(membership("org_1", "user_1", 5)),
            Fact::Deleted { entity, at: at(removed) },
        ]).await;
        scene.clerk.says(|said| said.membership = Some(Place {
            role: "org:admin",
            permissions: vec!["org:invoices:read"],
            updated_at: at(removed),
            standing: Standing::Good,
        }));
        let decision = scene.at_hand().await;
        assert_eq!((decision.reason, decision.source), (Reason::Allowed, Some(Source::Clerk)));
    }

    async fn a_banned_user_is_banned_by_the_mirror_too(database: Database) {
        let scene = Scene::start(database).await;
        let seen = scene.ms(10);
        scene.database.apply([
            api_membership(membership("org_1", "user_1", 5), seen),
            api_user(user_with("user_1", 6, |user| user.banned = true), seen),
        ]).await;
        let decision = scene.at_hand().await;
        assert_eq!((decision.reason, decision.source), (Reason::UserBanned, Some(Source::Mirror)));
    }

    async fn a_mirror_that_fails_leaves_it_to_clerk(database: Database) {
        let seen = (START - 10) * 1_000;
        database.apply([api_membership(membership("org_1", "user_1", 5), seen)]).await;
        let gone = database.replica().await;
        gone.close().await;
        let scene = Scene::with(database, gone, MAX_AGE).await;
        let decision = scene.at_hand().await;
        assert_eq!((decision.reason, decision.source), (Reason::NotAMember, Some(Source::Clerk)));
    }

    async fn a_mirror_that_is_not_believed_is_not_asked(database: Database) {
        let seen = (START - 10) * 1_000;
        database.apply([api_membership(membership("org_1", "user_1", 5), seen)]).await;
        let store = database.store.clone();
        let scene = Scene::with(database, store, Duration::ZERO).await;
        assert_eq!(scene.at_hand().await.source, Some(Source::Clerk));
    }
}
