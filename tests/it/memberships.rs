//! Facts and their age: which question the token answers, which the memory, which Clerk; and that a
//! memory never turns a "no" into a "yes" beyond the age that is stated.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use clerk_authz::{
    authz::{
        Checker, Consistency, Decision, Lookups, MembershipSettings, OrgAnswer, OrgQuestion,
        OrganizationRef, Source, Subject,
    },
    credential::Credential,
    decision::{Impersonation, Requirement},
    emulator::{Emulator, TokenSpec, World},
    explain::Steps,
    identity::Timestamp,
    mirror::{DirectoryError, Join, Standing},
    reason::Reason,
};
use futures_util::FutureExt;

use crate::support::{
    directory::{MemoryDirectory, Place, TestClock, verifier_of},
    loopback,
};

const START: i64 = 1_800_000_000;
const SETTINGS: MembershipSettings = MembershipSettings {
    max_bytes: 1 << 20,
    max_age: Duration::from_secs(60),
    negative_max_age: Duration::from_secs(10),
    max_waiting: 3,
};

struct Scene {
    clock: TestClock,
    clerk: Emulator,
    directory: Arc<MemoryDirectory>,
    checker: Checker,
}

impl Scene {
    async fn with(settings: MembershipSettings) -> Self {
        let clock = TestClock::at(START);
        let clerk = Emulator::start(World::default_world(), loopback(), clock.as_clock())
            .await
            .expect("an offline Clerk");
        let directory = MemoryDirectory::new(&clock);
        let instance = &clerk.instances()[0];
        let verifier = verifier_of(
            &instance.public_key_pem(),
            instance.issuer().as_str(),
            Arc::clone(&directory) as _,
        );
        Self {
            checker: Checker::new(verifier, settings, clock.as_clock()),
            clock,
            clerk,
            directory,
        }
    }

    async fn start() -> Self {
        Self::with(SETTINGS).await
    }

    /// A token of Alice, who is an admin of Acme.
    fn token(&self, change: impl FnOnce(&mut TokenSpec)) -> String {
        let mut spec = TokenSpec::session("user_alice").in_organization("acme");
        spec.lifetime_seconds = Some(86_400);
        change(&mut spec);
        self.clerk.instances()[0].mint(&spec).expect("a token")
    }

    fn user(&self, question: Asked) -> OrgQuestion<'static> {
        let instances = self.checker.verifier().instances();
        let instance = Arc::clone(instances.named("").expect("the only one"));
        let user = "user_alice".parse().expect("an id");
        question.of(Subject::User(instance, user))
    }

    fn ask(&self, question: &OrgQuestion<'_>) -> Result<OrgAnswer, Reason> {
        self.checker
            .check_org_permission(question, self.clock.now(), &mut Steps::off())
            .now_or_never()
            .expect("this Clerk answers at once")
            .map_err(|cannot_tell| cannot_tell.reason())
    }

    fn decide(&self, question: &OrgQuestion<'_>) -> Decision {
        match self.ask(question) {
            Ok(OrgAnswer::Decided(decision)) => decision,
            other => panic!("not decided: {other:?}"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    permission: &'static str,
    organization: Option<&'static str>,
    consistency: Consistency,
}

impl Asked {
    fn permission(permission: &'static str) -> Self {
        Self {
            permission,
            organization: Some("org_acme"),
            consistency: Consistency::MinimizeLatency,
        }
    }

    fn of(self, subject: Subject<'_>) -> OrgQuestion<'_> {
        OrgQuestion {
            subject,
            organization: self
                .organization
                .map(|named| OrganizationRef::parse(named).expect("an organization")),
            requirement: Requirement {
                permission: Some(self.permission.parse().expect("a permission")),
                ..Requirement::default()
            },
            consistency: self.consistency,
            patience: Duration::from_secs(1),
            lookups: None,
        }
    }

    fn of_token(self, token: &str) -> OrgQuestion<'_> {
        self.of(Subject::Credential(Credential::Token(token)))
    }
}

fn admin_since(updated_at: Timestamp) -> Option<Place> {
    Some(Place {
        role: "org:admin",
        permissions: vec!["org:invoices:read", "org:invoices:create"],
        updated_at,
        standing: Standing::Good,
    })
}

fn unavailable() -> DirectoryError {
    DirectoryError::Unavailable {
        cause: "down".to_owned(),
        retry_after: Duration::from_secs(1),
    }
}

#[tokio::test]
async fn the_token_answers_for_its_own_organization_and_nobody_is_asked() {
    let scene = Scene::start().await;
    let token = scene.token(|_| {});

    for organization in [None, Some("org_acme"), Some("acme")] {
        let asked = Asked {
            organization,
            ..Asked::permission("org:invoices:read")
        };
        let decision = scene.decide(&asked.of_token(&token));
        assert_eq!(decision.reason, Reason::Allowed, "{organization:?}");
        assert_eq!(decision.source, Some(Source::Token));
        assert_eq!(decision.as_of, Some(scene.clock.now()));
        assert_eq!(decision.role(), Some("org:admin"));
    }
    assert_eq!(scene.directory.asked(), 0);
}

#[tokio::test]
async fn what_the_token_cannot_say_is_asked_of_clerk_and_remembered() {
    let scene = Scene::start().await;
    scene
        .directory
        .says(|said| said.membership = admin_since(Timestamp::from_unix_seconds(START - 1_000)));
    let token = scene.token(|_| {});
    let elsewhere = Asked {
        organization: Some("org_other"),
        ..Asked::permission("org:invoices:read")
    };

    let first = scene.decide(&elsewhere.of_token(&token));
    assert_eq!(
        (first.reason, first.source),
        (Reason::Allowed, Some(Source::Clerk))
    );
    let second = scene.decide(&elsewhere.of_token(&token));
    assert_eq!(
        (second.reason, second.source),
        (Reason::Allowed, Some(Source::Cache))
    );
    assert_eq!(
        second.organization_id().map(AsRef::as_ref),
        Some("org_other")
    );
    assert_eq!(second.as_of, first.as_of);
    assert_eq!(second.valid_until, first.valid_until);
    assert_eq!(
        first.valid_until,
        Some(scene.clock.now().plus(SETTINGS.max_age))
    );
    assert_eq!(scene.directory.asked(), 1, "one request and no more");

    // By another's question about the same membership, too.
    let of_user = scene.decide(&scene.user(elsewhere));
    assert_eq!(of_user.source, Some(Source::Cache));

    scene.clock.step(60);
    assert_eq!(
        scene.decide(&scene.user(elsewhere)).source,
        Some(Source::Clerk)
    );
}

#[tokio::test]
async fn a_system_permission_is_never_answered_by_a_token() {
    let scene = Scene::start().await;
    let token = scene.token(|_| {});
    let asked = Asked::permission("org:sys_memberships:read");
    let member = |permissions: Vec<&'static str>| {
        Some(Place {
            role: "org:admin",
            permissions,
            updated_at: Timestamp::from_unix_seconds(START - 1_000),
            standing: Standing::Good,
        })
    };

    scene
        .directory
        .says(|said| said.membership = member(vec!["org:sys_memberships:read"]));
    let decision = scene.decide(&asked.of_token(&token));
    assert_eq!(
        (decision.reason, decision.source),
        (Reason::Allowed, Some(Source::Clerk))
    );
    assert_eq!(scene.directory.asked(), 1);

    // Some are listed, and not this one: the role need not be asked.
    scene.clock.step(100);
    scene
        .directory
        .says(|said| said.membership = member(vec!["org:sys_profile:manage"]));
    assert_eq!(
        scene.decide(&asked.of_token(&token)).reason,
        Reason::PermissionMissing
    );
    assert_eq!(scene.directory.asked(), 2);

    // None is listed: that is not yet a "no".
    scene.clock.step(100);
    scene.directory.says(|said| {
        said.membership = member(vec![]);
        said.role_permissions = vec!["org:sys_memberships:read"];
    });
    assert_eq!(
        scene.decide(&asked.of_token(&token)).reason,
        Reason::Allowed
    );
    assert_eq!(scene.directory.asked(), 4);
}

#[tokio::test]
async fn a_token_older_than_a_known_change_is_not_believed() {
    let scene = Scene::start().await;
    let token = scene.token(|_| {});
    let asked = Asked::permission("org:invoices:create");
    assert_eq!(
        scene.decide(&asked.of_token(&token)).source,
        Some(Source::Token)
    );

    // Somebody else's question brings the news.
    scene.clock.step(5);
    scene.directory.says(|said| said.membership = None);
    let news = Asked {
        consistency: Consistency::FullyConsistent,
        ..asked
    };
    assert_eq!(scene.decide(&scene.user(news)).reason, Reason::NotAMember);

    let decision = scene.decide(&asked.of_token(&token));
    assert_eq!(decision.reason, Reason::NotAMember);
    assert_eq!(decision.source, Some(Source::Cache));
    // Whatever is asked of that organization: a plan of its, too.
    let plan = OrgQuestion {
        requirement: Requirement {
            plan: Some("gold".parse().expect("a plan")),
            ..Requirement::default()
        },
        ..asked.of_token(&token)
    };
    assert_eq!(scene.decide(&plan).reason, Reason::NotAMember);

    // A token from after the change is believed again.
    scene.clock.step(1);
    let later = scene.token(|_| {});
    assert_eq!(
        scene.decide(&asked.of_token(&later)).source,
        Some(Source::Token)
    );
}

#[tokio::test]
async fn a_removal_that_is_known_stays_known_for_as_long_as_tokens_live() {
    let scene = Scene::start().await;
    let token = scene.token(|_| {});
    let asked = Asked::permission("org:invoices:create");
    scene.clock.step(2);
    let news = Asked {
        consistency: Consistency::FullyConsistent,
        ..asked
    };
    assert_eq!(scene.decide(&scene.user(news)).reason, Reason::NotAMember);

    // The knowledge is too old to answer, and not too old to tell that the token is.
    for _ in 0..6 {
        scene.clock.step(11);
        let decision = scene.decide(&asked.of_token(&token));
        assert_eq!(decision.reason, Reason::NotAMember);
        assert_eq!(decision.source, Some(Source::Clerk));
    }
}

#[tokio::test]
async fn what_a_younger_membership_takes_away_counts_whatever_its_updated_at() {
    let long_ago = Timestamp::from_unix_seconds(START - 1_000_000);
    let place = |role: &'static str, permissions: &[&'static str], standing| Place {
        role,
        permissions: permissions.to_vec(),
        updated_at: long_ago,
        standing,
    };
    const ALL: [&str; 3] = [
        "org:invoices:read",
        "org:invoices:create",
        "org:reports:read",
    ];
    for (name, place, reason, source) in [
        (
            "the same",
            place("org:admin", &ALL, Standing::Good),
            Reason::Allowed,
            Source::Token,
        ),
        (
            "more",
            place(
                "org:admin",
                &[&ALL[..], &["org:more:x"]].concat(),
                Standing::Good,
            ),
            Reason::Allowed,
            Source::Token,
        ),
        (
            "a permission less",
            place("org:admin", &ALL[..1], Standing::Good),
            Reason::PermissionMissing,
            Source::Cache,
        ),
        (
            "another role",
            place("org:member", &ALL, Standing::Good),
            Reason::Allowed,
            Source::Cache,
        ),
        (
            "banned",
            place("org:admin", &ALL, Standing::Banned),
            Reason::UserBanned,
            Source::Cache,
        ),
    ] {
        let scene = Scene::start().await;
        let token = scene.token(|_| {});
        scene.clock.step(2);
        scene.directory.says(|said| said.membership = Some(place));
        let news = Asked {
            consistency: Consistency::FullyConsistent,
            ..Asked::permission("org:invoices:read")
        };
        scene.decide(&scene.user(news));

        let asked = Asked::permission("org:invoices:create");
        let decision = scene.decide(&asked.of_token(&token));
        assert_eq!(
            (decision.reason, decision.source),
            (reason, Some(source)),
            "{name}"
        );
    }
}

#[tokio::test]
async fn of_two_within_a_second_clerk_says_which_was_first() {
    let scene = Scene::start().await;
    let asked = Asked::permission("org:invoices:create");
    assert_eq!(scene.decide(&scene.user(asked)).reason, Reason::NotAMember);
    // Joined, and got a token, within the second.
    let joined_at = scene.clock.now();
    scene
        .directory
        .says(|said| said.membership = admin_since(joined_at));
    let token = scene.token(|_| {});

    let decision = scene.decide(&asked.of_token(&token));

    assert_eq!(decision.reason, Reason::Allowed);
    assert_eq!(decision.source, Some(Source::Clerk));
}

#[tokio::test]
async fn what_needs_no_membership_is_denied_without_asking_for_one() {
    let scene = Scene::start().await;
    scene
        .directory
        .says(|said| said.fault = Some(unavailable()));
    let token = scene.token(|spec| spec.impersonated_by = Some("user_bob".into()));
    let asked = Asked {
        organization: Some("org_other"),
        ..Asked::permission("org:invoices:read")
    };
    let question = OrgQuestion {
        requirement: Requirement {
            impersonation: Impersonation::Denied,
            ..asked.of_token(&token).requirement
        },
        ..asked.of_token(&token)
    };
    assert_eq!(
        scene.decide(&question).reason,
        Reason::ImpersonationNotAllowed
    );
    assert_eq!(scene.directory.asked(), 0);
    // Nor is it to be kept where what is new is asked for.
    for (consistency, may_be_kept) in [
        (Consistency::MinimizeLatency, true),
        (Consistency::FullyConsistent, false),
    ] {
        let question = OrgQuestion {
            consistency,
            ..question.clone()
        };
        let kept_until = scene.decide(&question).valid_until;
        assert_eq!(kept_until.is_some(), may_be_kept, "{consistency:?}");
    }
}

#[tokio::test]
async fn a_step_up_alone_is_answered_by_the_token_and_not_to_be_kept_where_that_is_asked() {
    let scene = Scene::start().await;
    let token = scene.token(|_| {});
    let question = OrgQuestion {
        organization: None,
        requirement: Requirement {
            reverification: Some("strict".parse().expect("a preset")),
            ..Requirement::default()
        },
        consistency: Consistency::FullyConsistent,
        ..Asked::permission("x").of_token(&token)
    };
    let decision = scene.decide(&question);
    assert_eq!(
        (decision.reason, decision.source),
        (Reason::Allowed, Some(Source::Token))
    );
    assert_eq!(decision.valid_until, None);
}

#[tokio::test]
async fn too_many_who_wait_for_clerk_are_turned_away_and_tokens_are_not() {
    let scene = Scene::start().await;
    let token = scene.token(|_| {});
    scene.directory.says(|said| said.never_answers = true);
    let asked = Asked::permission("org:invoices:read");
    let question = scene.user(asked);
    let now = scene.clock.now();
    let mut steps: Vec<_> = (0..4).map(|_| Steps::off()).collect();
    let mut waiting: Vec<_> = steps
        .iter_mut()
        .map(|steps| Box::pin(scene.checker.check_org_permission(&question, now, steps)))
        .collect();
    for (index, question) in waiting.iter_mut().enumerate() {
        let answer = question.now_or_never();
        assert_eq!(answer.is_some(), index == 3, "{index}: {answer:?}");
        if let Some(answer) = answer {
            let reason = answer.expect_err("turned away").reason();
            assert_eq!(reason, Reason::Overloaded);
        }
    }
    assert_eq!(
        scene.decide(&asked.of_token(&token)).reason,
        Reason::Allowed
    );
    drop(waiting);

    scene.directory.says(|said| said.never_answers = false);
    assert_eq!(scene.decide(&question).reason, Reason::NotAMember);
}

#[tokio::test]
async fn a_batch_shares_answers_that_are_as_fresh_as_the_strictest_asks() {
    let scene = Scene::start().await;
    let lookups = Lookups::default();
    for consistency in [Consistency::MinimizeLatency, Consistency::FullyConsistent] {
        let asked = Asked {
            consistency,
            ..Asked::permission("org:invoices:read")
        };
        let question = OrgQuestion {
            lookups: Some(&lookups),
            ..scene.user(asked)
        };
        assert_eq!(scene.decide(&question).source, Some(Source::Clerk));
    }
    assert_eq!(scene.directory.asked(), 1);
    assert!(
        scene
            .directory
            .joins()
            .iter()
            .all(|join| *join == Join::SentAfter)
    );
}

#[tokio::test]
async fn only_who_does_not_say_how_old_may_join_a_question_under_way() {
    let scene = Scene::start().await;
    for (consistency, join) in [
        (Consistency::MinimizeLatency, Join::Any),
        (
            Consistency::MaxStaleness(Duration::from_secs(5)),
            Join::SentAfter,
        ),
        (Consistency::FullyConsistent, Join::SentAfter),
    ] {
        scene.clock.step(100);
        let asked = Asked {
            consistency,
            ..Asked::permission("org:invoices:read")
        };
        scene.decide(&scene.user(asked));
        assert_eq!(
            scene.directory.joins().last(),
            Some(&join),
            "{consistency:?}"
        );
    }
}

#[tokio::test]
async fn answers_are_as_fresh_as_asked() {
    let scene = Scene::start().await;
    scene
        .directory
        .says(|said| said.membership = admin_since(Timestamp::from_unix_seconds(START - 1_000)));
    let token = scene.token(|_| {});
    scene.clock.step(20);
    let with = |consistency| {
        let asked = Asked {
            consistency,
            ..Asked::permission("org:invoices:read")
        };
        let decision = scene.decide(&asked.of_token(&token));
        (decision.source.expect("a source"), decision.valid_until)
    };
    let now = scene.clock.now();
    let seconds = Duration::from_secs;

    assert_eq!(
        with(Consistency::MaxStaleness(seconds(30))).0,
        Source::Token
    );
    assert_eq!(
        with(Consistency::MaxStaleness(seconds(30))).1,
        Some(now.plus(seconds(10))),
        "not past what was asked"
    );
    assert_eq!(
        with(Consistency::MaxStaleness(seconds(10))).0,
        Source::Clerk
    );
    assert_eq!(
        with(Consistency::MaxStaleness(seconds(10))).0,
        Source::Cache
    );
    assert_eq!(
        with(Consistency::MaxStaleness(Duration::ZERO)).0,
        Source::Clerk
    );
    assert_eq!(
        with(Consistency::FullyConsistent),
        (Source::Clerk, Some(now)),
        "an answer that must be fresh must not be kept"
    );
}

#[tokio::test]
async fn who_is_unknown_is_told_apart_from_who_is_no_member() {
    let scene = Scene::start().await;
    let asked = Asked::permission("org:invoices:read");
    assert_eq!(scene.decide(&scene.user(asked)).reason, Reason::NotAMember);

    scene.clock.step(60);
    scene.directory.says(|said| said.no_organization = true);
    for organization in ["org_acme", "acme"] {
        let question = scene.user(Asked {
            organization: Some(organization),
            ..asked
        });
        let answer = scene.ask(&question).expect("an answer");
        assert!(
            matches!(answer, OrgAnswer::OrganizationNotFound),
            "{organization}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn no_answer_is_never_no() {
    let scene = Scene::start().await;
    let token = scene.token(|_| {});
    let asked = Asked::permission("org:invoices:read");
    let second = Duration::from_secs(1);
    for (fault, reason) in [
        (unavailable(), Reason::ClerkUnavailable),
        (
            DirectoryError::RateLimited {
                retry_after: second,
            },
            Reason::ClerkRateLimited,
        ),
        (
            DirectoryError::CredentialsRefused {
                cause: "clerk_key_invalid".to_owned(),
                retry_after: second,
            },
            Reason::ClerkUnavailable,
        ),
        (
            DirectoryError::Rejected {
                cause: "form_param_invalid".to_owned(),
            },
            Reason::ClerkUnavailable,
        ),
    ] {
        scene
            .directory
            .says(|said| said.fault = Some(fault.clone()));
        assert_eq!(
            scene.ask(&scene.user(asked)).err(),
            Some(reason),
            "{fault:?}"
        );
        // What the token answers is untouched.
        let decision = scene.decide(&asked.of_token(&token));
        assert_eq!(decision.reason, Reason::Allowed, "{fault:?}");
    }
    scene.directory.says(|said| said.fault = None);
    assert_eq!(scene.decide(&scene.user(asked)).reason, Reason::NotAMember);
}

#[tokio::test]
async fn without_a_memory_every_question_is_asked() {
    let scene = Scene::with(MembershipSettings {
        max_bytes: 0,
        ..SETTINGS
    })
    .await;
    let asked = Asked::permission("org:invoices:read");
    for questions in 1..=3 {
        assert_eq!(scene.decide(&scene.user(asked)).source, Some(Source::Clerk));
        assert_eq!(scene.directory.asked(), questions);
    }
}

// === the memory against none, on random sequences ===

/// mulberry32, so that a seed names its sequence.
struct Chance(u32);

impl Chance {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x6d2b_79f5);
        let mut t = self.0;
        t = (t ^ (t >> 15)).wrapping_mul(t | 1);
        t ^= t.wrapping_add((t ^ (t >> 7)).wrapping_mul(t | 61));
        (t ^ (t >> 14)) % n
    }
}

/// OpenFGA's six: CVE-2024-56323, CVE-2025-25196, CVE-2025-46331, CVE-2025-48371, CVE-2026-48096,
/// GHSA-h6c8-cww8-35hf. A memory gave an allow that the source did not.
///
/// The truth at each moment is written down. An answer must be that of a moment within the age that
/// it may have, and say which; without a memory it is that of now. "Cannot tell" needs a fault.
#[tokio::test]
async fn with_and_without_a_memory_answers_agree_within_the_stated_age() {
    const SEED: u32 = 20_261_124;
    // Each begins with what the one before has left in the memory, or with its clock moved past it.
    const SEQUENCES: u32 = 1_000_000;
    const STEPS: u32 = 5;
    let mut scene = Scene::start().await;
    let tokens: Vec<(Timestamp, String)> = (0..40)
        .map(|index| {
            let token = scene.token(|spec| spec.issued_in_seconds = index * 10);
            (Timestamp::from_unix_seconds(START + index * 10), token)
        })
        .collect();
    let mut chance = Chance(SEED);
    let mut walk = Walk {
        truth: BTreeMap::new(),
        learnt: None,
        cached: 0,
        decided: 0,
        cannot_tell: 0,
    };
    walk.note(&scene);
    for sequence in 0..SEQUENCES {
        if chance.below(8) == 0 {
            scene.clock.step(i64::from(chance.below(3)) * 40);
            walk.note(&scene);
        }
        // The tokens' times are the scene's: another memory, at the same times.
        if scene.clock.now() > Timestamp::from_unix_seconds(START + 400) {
            scene.clock.set(Timestamp::from_unix_seconds(START));
            scene.checker = Checker::new(
                Arc::clone(scene.checker.verifier()),
                SETTINGS,
                scene.clock.as_clock(),
            );
            (walk.truth, walk.learnt) = (BTreeMap::new(), None);
            walk.note(&scene);
        }
        for _ in 0..STEPS {
            match chance.below(12) {
                0 => {
                    let place = match chance.below(3) {
                        0 => None,
                        1 => admin_since(scene.clock.now()),
                        _ => Some(Place {
                            role: "org:member",
                            permissions: vec!["org:invoices:read"],
                            updated_at: scene.clock.now(),
                            standing: Standing::Good,
                        }),
                    };
                    scene.directory.says(|said| said.membership = place);
                    walk.note(&scene);
                }
                1 => scene.directory.says(|said| {
                    said.fault = match said.fault {
                        Some(_) => None,
                        None => Some(unavailable()),
                    };
                }),
                2 => {
                    scene.clock.step(i64::from(chance.below(25)));
                    walk.note(&scene);
                }
                3 if chance.below(10) == 0 => {
                    scene.clock.step(-i64::from(chance.below(30)));
                    walk.note(&scene);
                }
                _ => walk.check(&scene, &tokens, &mut chance, sequence),
            }
        }
    }
    println!(
        "memberships: seed {SEED}, {SEQUENCES} sequences, {} decided, {} of them from the memory, {} \
         could not be told",
        walk.decided, walk.cached, walk.cannot_tell
    );
    assert!(walk.cached > 100_000 && walk.cannot_tell > 10_000);
}

struct Walk {
    /// What Clerk would have said while the clock stood there.
    truth: BTreeMap<Timestamp, Vec<Option<Place>>>,
    /// When the last change was, of which the checker has heard.
    learnt: Option<Timestamp>,
    cached: u64,
    decided: u64,
    cannot_tell: u64,
}

impl Walk {
    fn note(&mut self, scene: &Scene) {
        let place = scene
            .directory
            .said
            .lock()
            .expect("not poisoned")
            .membership
            .clone();
        let then = self.truth.entry(scene.clock.now()).or_default();
        if !then.contains(&place) {
            then.push(place);
        }
    }

    fn check(
        &mut self,
        scene: &Scene,
        tokens: &[(Timestamp, String)],
        chance: &mut Chance,
        sequence: u32,
    ) {
        let now = scene.clock.now();
        let consistency = match chance.below(4) {
            0 => Consistency::FullyConsistent,
            1 => Consistency::MaxStaleness(Duration::from_secs(chance.below(90).into())),
            _ => Consistency::MinimizeLatency,
        };
        let asked = Asked {
            consistency,
            ..Asked::permission("org:invoices:create")
        };
        let usable = tokens
            .iter()
            .take_while(|(issued_at, _)| *issued_at <= now)
            .count();
        let token = (chance.below(2) == 0 && usable > 0)
            .then(|| &tokens[chance.below(u32::try_from(usable).expect("few")) as usize]);
        let question = match token {
            Some((_, token)) => asked.of_token(token),
            None => scene.user(asked),
        };
        let decision = match scene.ask(&question) {
            Ok(OrgAnswer::Decided(decision)) => decision,
            Err(_) => {
                self.cannot_tell += 1;
                let fault = scene
                    .directory
                    .said
                    .lock()
                    .expect("not poisoned")
                    .fault
                    .is_some();
                assert!(
                    fault,
                    "sequence {sequence}: Clerk answers, and it could not be told"
                );
                return;
            }
            Ok(other) => panic!("sequence {sequence}: {other:?}"),
        };
        self.decided += 1;
        let as_of = decision.as_of.expect("every fact here has an age");
        let age = now.since(as_of);
        let what = || format!("sequence {sequence} at {now}: {consistency:?} {decision:?}");
        match (decision.source.expect("a source"), consistency) {
            (Source::Token, Consistency::FullyConsistent) => panic!("{}", what()),
            (Source::Token, consistency) => {
                let (issued_at, _) = token.expect("a token was asked about");
                if let Consistency::MaxStaleness(most) = consistency {
                    assert!(age <= most, "{}", what());
                }
                assert!(decision.is_allowed(), "{}", what());
                // A change that is known is never ignored, however old the knowledge is.
                if let Some(changed_at) = self.learnt {
                    assert!(changed_at < *issued_at, "{}", what());
                }
            }
            (source, consistency) => {
                self.cached += u64::from(source == Source::Cache);
                let most = match (source, consistency) {
                    (Source::Clerk, _) => Duration::ZERO,
                    (_, Consistency::MaxStaleness(most)) => most.min(SETTINGS.max_age),
                    (_, Consistency::MinimizeLatency) => SETTINGS.max_age,
                    (_, Consistency::FullyConsistent) => panic!("{}", what()),
                };
                assert!(
                    as_of <= now && (age < most || age == Duration::ZERO),
                    "{}",
                    what()
                );
                let states = &self.truth[&as_of];
                let says = |place: &Option<Place>| match place {
                    None => Reason::NotAMember,
                    Some(place) if place.permissions.contains(&"org:invoices:create") => {
                        Reason::Allowed
                    }
                    Some(_) => Reason::PermissionMissing,
                };
                assert!(
                    states.iter().any(|place| says(place) == decision.reason),
                    "{}",
                    what()
                );
                // Of several that fit, the one that says least.
                let fit = states.iter().filter(|place| says(place) == decision.reason);
                let changed_at = fit
                    .map(|place| place.as_ref().map_or(as_of, |place| place.updated_at))
                    .min()
                    .expect("one fits");
                self.learnt = Some(changed_at);
            }
        }
    }
}
