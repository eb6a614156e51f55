use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use shuttle::{
    future::{block_on, yield_now},
    sync::atomic::AtomicI64 as SharedCounter,
    thread,
};

use super::*;
use crate::{
    authz::asking::Freshness,
    identity::{OpaqueToken, SessionId},
    keys::{Keyring, VerifyingKey, tests::TestKey},
    mirror::{
        Ask, Asking, Credentials, DirectoryStats, HandshakeCookies, MachineAnswer, SessionAnswer,
    },
};

/// A Clerk in which one member is removed at some time; its clock goes on with each look at it.
#[derive(Debug, Default)]
struct World {
    clock: SharedCounter,
    removed: SharedCounter,
}

impl World {
    fn tick(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.clock.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

#[derive(Debug)]
struct Clerk(Arc<World>);

impl Directory for Clerk {
    /// What is so somewhere between the sending and the answer.
    fn membership<'a>(
        &'a self,
        organization: &'a OrganizationId,
        user: &'a UserId,
        _: Ask,
    ) -> Asking<'a, MembershipAnswer> {
        async move {
            let as_of = self.0.tick();
            yield_now().await;
            let removed = self.0.removed.load(Ordering::SeqCst) > 0;
            yield_now().await;
            yield_now().await;
            let value = if removed {
                MembershipAnswer::NotAMember
            } else {
                MembershipAnswer::Member(Membership {
                    organization: OrganizationRecord {
                        id: organization.clone(),
                        slug: None,
                    },
                    user_id: user.clone(),
                    role: "org:admin".into(),
                    permissions: Texts::default(),
                    standing: Standing::Good,
                    updated_at: Timestamp::from_unix_millis(0),
                })
            };
            Ok(Answered { value, as_of })
        }
        .boxed()
    }

    fn organization_by_slug<'a>(
        &'a self,
        _: &'a OrganizationSlug,
        _: Ask,
    ) -> Asking<'a, Option<OrganizationRecord>> {
        unreachable!("only memberships are asked for")
    }

    fn role_permissions<'a>(&'a self, _: &'a str, _: Ask) -> Asking<'a, Option<Texts>> {
        unreachable!("only memberships are asked for")
    }

    fn session<'a>(&'a self, _: &'a SessionId, _: Ask) -> Asking<'a, SessionAnswer> {
        unreachable!("only memberships are asked for")
    }

    fn machine_token<'a>(&'a self, _: &'a OpaqueToken, _: Ask) -> Asking<'a, MachineAnswer> {
        unreachable!("only memberships are asked for")
    }

    fn handshake<'a>(&'a self, _: &'a str, _: Ask) -> Asking<'a, Option<HandshakeCookies>> {
        unreachable!("only memberships are asked for")
    }

    fn credentials(&self) -> Credentials {
        Credentials::Unknown
    }

    fn stats(&self) -> DirectoryStats {
        DirectoryStats::default()
    }
}

struct Scene {
    world: Arc<World>,
    memberships: Memberships,
    instance: Instance,
    organization: OrganizationId,
    user: UserId,
}

impl Scene {
    fn is_member(&self, freshness: Freshness) -> bool {
        let look_up = LookUp {
            freshness,
            not_before: None,
            mirrored_not_before: None,
            patience: Duration::from_secs(1),
            now: self.world.tick(),
            lookups: None,
        };
        let mut steps = Steps::off();
        let found = self.memberships.membership(
            &self.instance,
            &self.organization,
            &self.user,
            look_up,
            &mut steps,
        );
        let found = block_on(found).expect("this Clerk answers");
        matches!(&*found.known.value, MembershipAnswer::Member(_))
    }
}

const AT_HAND: Freshness = Freshness::AtHand;

/// Three ask for what is at hand while a member is removed; whoever knows of it asks again.
fn removal(pem: &str) {
    let world = Arc::new(World::default());
    let key = VerifyingKey::from_pem(pem).expect("a PEM");
    let scene = Arc::new(Scene {
        memberships: Memberships::new(MembershipSettings::default(), {
            let world = Arc::clone(&world);
            Arc::new(move || world.tick())
        }),
        instance: Instance {
            serial: InstanceSerial::next(),
            name: "default".parse().expect("a name"),
            issuer: "https://clerk.example.com".parse().expect("an issuer"),
            publishable_key: None,
            authorized_parties: Vec::new(),
            audiences: Vec::new(),
            keyring: Arc::new(Keyring::pinned(key)),
            directory: Some(Arc::new(Clerk(Arc::clone(&world)))),
            user_directory: None,
            sign_ins: None,
            providers: Vec::new(),
            revocations: None,
            has_webhooks: false,
        },
        organization: "org_1".parse().expect("an id"),
        user: "user_1".parse().expect("an id"),
        world,
    });
    let mut threads: Vec<_> = (0..3)
        .map(|_| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || {
                scene.is_member(AT_HAND);
            })
        })
        .collect();
    threads.push({
        let scene = Arc::clone(&scene);
        thread::spawn(move || {
            scene.world.removed.store(1, Ordering::SeqCst);
            assert!(!scene.is_member(Freshness::Now), "asked after the removal");
            assert!(!scene.is_member(AT_HAND), "known, and forgotten again");
        })
    });
    for thread in threads {
        thread.join().expect("ended");
    }
    assert!(
        !scene.is_member(AT_HAND),
        "an older answer came last and won"
    );
}

/// Advisory 28, GHSA-4vrg-r928-h5vv: a race gave HAS. Under shuttle, in every order of questions and
/// answers: once somebody knows of a removal, nobody is told of a membership any more.
#[test]
fn a_removal_that_is_known_is_never_forgotten_for_an_older_answer() {
    let pem = TestKey::generate("k").pem();
    let again = pem.clone();
    shuttle::check_random(move || removal(&pem), 10_000);
    shuttle::check_pct(move || removal(&again), 5_000, 3);
}
