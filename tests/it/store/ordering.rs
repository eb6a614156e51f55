//! The ordering rules, through SQL.

use clerk_authz::mirror::{
    Entity, EntityKind, Fact, Head, KnownMembership, MAX_FACTS, Mirror, Origin, StoreError,
    UserKey, Write,
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use crate::support::database::{
    Database, NOW, api_membership, api_user, event_membership, event_organization, event_user,
    membership, ms, on_each_engine, organization, organization_id, user, user_id, user_with,
};

/// What comes in about one entity: content, a deletion, or the API's word that it is not there.
#[derive(Clone, Copy, Debug)]
enum Step {
    Event(i64, u8),
    Api(i64, u8, i64),
    Deleted(i64),
    Absent(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let time = 1_i64..20;
    prop_oneof![
        (time.clone(), 0_u8..3).prop_map(|(version, content)| Step::Event(version, content)),
        (time.clone(), 0_u8..3, time.clone())
            .prop_map(|(version, content, as_of)| Step::Api(version, content, as_of)),
        time.clone().prop_map(Step::Deleted),
        time.prop_map(Step::Absent),
    ]
}

fn fact(entity: &Entity, step: Step) -> Fact {
    let origin =
        |as_of: Option<i64>| as_of.map_or(Origin::Event, |as_of| Origin::Api { as_of: ms(as_of) });
    let (version, content, origin) = match step {
        Step::Event(version, content) => (version, content, origin(None)),
        Step::Api(version, content, as_of) => (version, content, origin(Some(as_of))),
        Step::Deleted(at) => {
            return Fact::Deleted {
                entity: entity.clone(),
                at: ms(at),
            };
        }
        Step::Absent(as_of) => {
            return Fact::Absent {
                entity: entity.clone(),
                as_of: ms(as_of),
            };
        }
    };
    let name = format!("name {content}");
    match entity {
        Entity::User(id) => {
            let user = user_with(id.as_str(), version, |user| {
                user.first_name = Some(name.into());
            });
            Fact::User(Box::new(user), origin)
        }
        Entity::Organization(id) => {
            let mut organization = organization(id.as_str(), version);
            organization.name = name.into();
            Fact::Organization(Box::new(organization), origin)
        }
        Entity::Membership(organization, user) => {
            let mut membership = membership(organization.as_str(), user.as_str(), version);
            membership.membership.role = name.into();
            Fact::Membership(Box::new(membership), origin)
        }
    }
}

/// What a reader sees of it: version and name.
async fn seen(database: &Database, entity: &Entity) -> Option<(i64, String)> {
    let (store, instance) = (&database.store, &database.instance);
    match entity {
        Entity::User(id) => {
            let found = store
                .user(instance, UserKey::Id(id))
                .await
                .expect("answered");
            found.map(|seen| {
                let name = seen.value.first_name.expect("a name").into();
                (seen.value.updated_at.unix_millis(), name)
            })
        }
        Entity::Organization(id) => {
            let found = store.organization(instance, id).await.expect("answered");
            found.map(|seen| (seen.value.updated_at.unix_millis(), seen.value.name.into()))
        }
        Entity::Membership(organization, user) => {
            let found = store.membership(instance, organization, user).await;
            match found.expect("answered") {
                KnownMembership::Member(seen) => {
                    let membership = seen.value.membership;
                    Some((membership.updated_at.unix_millis(), membership.role.into()))
                }
                KnownMembership::NotAMember { .. }
                | KnownMembership::NoOrganization { .. }
                | KnownMembership::Unknown => None,
            }
        }
    }
}

on_each_engine! {
    /// Every rule of docs/mirror.md, whatever comes in which order: the store does to each kind of
    /// entity what the rules say.
    async fn the_store_decides_as_the_rules_do(database: Database) {
        let mut runner = TestRunner::deterministic();
        let steps = prop::collection::vec(step(), 1..8);
        for round in 0..40 {
            let steps = steps.new_tree(&mut runner).expect("steps").current();
            let user = user_id(&format!("user_{round}"));
            let organization = organization_id(&format!("org_{round}"));
            for entity in [
                Entity::User(user.clone()),
                Entity::Organization(organization.clone()),
                Entity::Membership(organization_id(&format!("org_m{round}")), user_id(&format!("user_m{round}"))),
            ] {
                let mut head = Head::default();
                for (index, step) in steps.iter().enumerate() {
                    let what = format!("{entity:?}, step {index} of {steps:?}");
                    let fact = fact(&entity, *step);
                    let (_, incoming) = fact.incoming().expect("it says something");
                    let applied = database.apply([fact]).await;

                    let before = head;
                    let write = head.take(incoming);

                    let stored = database.store.head(&database.instance, &entity).await;
                    assert_eq!(stored.expect("answered"), Some(head), "{what}");
                    assert_eq!(applied.outcomes[0].write, write, "{what}");
                    assert_eq!(applied.outcomes[0].look_up, head.wants_look_up(), "{what}");
                    let is_told = write.is_visible() || head.has_ended_since(&before);
                    assert_eq!(applied.position.is_some(), is_told, "{what}");
                    let seen = seen(&database, &entity).await;
                    assert_eq!(seen.is_some(), head.is_live(), "{what}");
                    if let Some((version, _)) = seen {
                        assert_eq!(Some(ms(version)), head.version, "{what}");
                    }
                }
            }
        }
    }

    async fn a_late_update_does_not_raise_the_dead_and_the_api_does(database: Database) {
        let id = user_id("user_1");
        let entity = Entity::User(id.clone());
        let write = async |fact| database.apply([fact]).await.outcomes[0].write;
        assert_eq!(write(event_user(user("user_1", 5))).await, Write::Created);
        let deleted = Fact::Deleted { entity: entity.clone(), at: ms(10) };
        assert_eq!(write(deleted).await, Write::Deleted);

        assert_eq!(write(event_user(user("user_1", 9))).await, Write::Tombstoned);
        assert_eq!(write(event_user(user("user_1", 11))).await, Write::HeldBack);
        assert_eq!(seen(&database, &entity).await, None);
        let to_look_up = database.store.to_look_up(&database.instance, EntityKind::User, 10).await;
        assert_eq!(to_look_up.expect("answered"), std::slice::from_ref(&entity));

        assert_eq!(write(api_user(user("user_1", 11), NOW)).await, Write::Created);
        assert!(seen(&database, &entity).await.is_some());
        let to_look_up = database.store.to_look_up(&database.instance, EntityKind::User, 10).await;
        assert!(to_look_up.expect("answered").is_empty());
    }

    async fn a_deletion_leaves_nothing_of_a_user(database: Database) {
        database.apply([event_user(user("user_1", 5))]).await;

        let entity = Entity::User(user_id("user_1"));
        database.apply([Fact::Deleted { entity, at: ms(10) }]).await;

        let left = "SELECT COUNT(*) FROM users WHERE external_id IS NOT NULL OR first_name IS NOT NULL \
                    OR emails IS NOT NULL OR public_metadata IS NOT NULL OR source IS NOT NULL";
        assert_eq!(database.place.number(left).await, 0);
        assert_eq!(database.place.number("SELECT COUNT(*) FROM user_emails").await, 0);
        assert_eq!(database.place.number("SELECT COUNT(*) FROM users").await, 1, "the tombstone");
    }

    async fn an_organization_takes_its_memberships_with_it(database: Database) {
        let (here, there) = (organization_id("org_here"), organization_id("org_there"));
        let member = user_id("user_1");
        let known = async |organization| {
            let known = database.store.membership(&database.instance, organization, &member).await;
            known.expect("answered")
        };
        database.apply([
            event_organization(organization("org_here", 1)),
            event_membership(membership("org_here", "user_1", 2)),
            event_membership(membership("org_there", "user_1", 2)),
        ]).await;
        assert!(matches!(known(&here).await, KnownMembership::Member(_)));

        let entity = Entity::Organization(here.clone());
        let applied = database.apply([Fact::Deleted { entity, at: ms(10) }]).await;

        assert_eq!(known(&here).await, KnownMembership::NoOrganization { since: ms(10) });
        assert!(matches!(known(&there).await, KnownMembership::Member(_)));
        assert_eq!(applied.position.map(clerk_authz::mirror::Position::number), Some(5), "an entry for each");
        let of_user = database.store.memberships_of(&database.instance, &member, None, 10).await;
        assert_eq!(of_user.expect("answered").len(), 1);

        let late = database.apply([event_membership(membership("org_here", "user_2", 9))]).await;
        assert_eq!(late.outcomes[0].write, Write::Tombstoned, "one that arrives later is gone too");
    }

    async fn a_user_takes_the_memberships_along(database: Database) {
        let (organization, member) = (organization_id("org_1"), user_id("user_1"));
        database.apply([event_membership(membership("org_1", "user_1", 2))]).await;

        let entity = Entity::User(member.clone());
        database.apply([Fact::Deleted { entity, at: ms(10) }]).await;

        let known = database.store.membership(&database.instance, &organization, &member).await;
        assert_eq!(known.expect("answered"), KnownMembership::NotAMember { since: ms(10) });
        let entity = Entity::Membership(organization, member);
        let head = database.store.head(&database.instance, &entity).await.expect("answered");
        assert!(head.expect("known").is_dead(), "it died itself, not only its user");
    }

    async fn somebody_who_leaves_and_joins_again_is_a_member_once_clerk_says_so(database: Database) {
        let (organization, member) = (organization_id("org_1"), user_id("user_1"));
        let entity = Entity::Membership(organization.clone(), member.clone());
        let known = async || {
            let known = database.store.membership(&database.instance, &organization, &member).await;
            known.expect("answered")
        };
        database.apply([event_membership(membership("org_1", "user_1", 2))]).await;
        database.apply([Fact::Deleted { entity: entity.clone(), at: ms(10) }]).await;
        assert_eq!(known().await, KnownMembership::NotAMember { since: ms(10) });

        database.apply([event_membership(membership("org_1", "user_1", 12))]).await;
        assert_eq!(known().await, KnownMembership::Unknown, "neither a yes nor a no");

        database.apply([api_membership(membership("org_1", "user_1", 12), 20)]).await;
        assert!(matches!(known().await, KnownMembership::Member(_)));

        database.apply([Fact::Deleted { entity, at: ms(10) }]).await;
        assert!(matches!(known().await, KnownMembership::Member(_)), "the deletion comes once more");
    }

    async fn an_effect_of_too_many_facts_is_refused_whole(database: Database) {
        let facts = |count: usize| (0..count).map(|number| event_user(user(&format!("user_{number}"), 5))).collect::<Vec<_>>();
        let refused = database.try_apply(facts(MAX_FACTS + 1), None).await;
        assert_eq!(refused, Err(StoreError::TooManyFacts { facts: MAX_FACTS + 1 }));
        assert_eq!(database.place.number("SELECT COUNT(*) FROM users").await, 0);

        database.apply(facts(MAX_FACTS)).await;
        assert_eq!(database.place.number("SELECT COUNT(*) FROM users").await, 4_000);
    }

    /// Two replicas write one user at once; whoever comes last, the newest stands.
    async fn of_racing_writers_the_newest_version_wins(database: Database) {
        let other = database.replica().await;
        let mut tasks = tokio::task::JoinSet::new();
        for version in 1..=40 {
            let store = if version % 2 == 0 { other.clone() } else { database.store.clone() };
            let instance = database.instance.clone();
            tasks.spawn(async move {
                let version = (version * 17) % 41;
                let effect = clerk_authz::mirror::Effect {
                    facts: vec![event_user(user_with("user_1", version, |user| {
                        user.first_name = Some(format!("name {version}").into());
                    }))],
                    done: None,
                };
                store.apply(&instance, effect, ms(NOW)).await
            });
        }
        while let Some(applied) = tasks.join_next().await {
            applied.expect("it ran").expect("applied");
        }

        let seen = seen(&database, &Entity::User(user_id("user_1"))).await;
        assert_eq!(seen, Some((40, "name 40".to_owned())));
    }

    /// One effect that is too large for locks of its own, beside many small ones.
    async fn a_large_effect_and_small_ones_exclude_each_other(database: Database) {
        let other = database.replica().await;
        let mut tasks = tokio::task::JoinSet::new();
        for version in 1..=12 {
            let store = if version % 2 == 0 { other.clone() } else { database.store.clone() };
            let instance = database.instance.clone();
            tasks.spawn(async move {
                let version = (version * 5) % 13;
                let count = if version % 4 == 0 { 600 } else { 3 };
                let facts = (0..count).map(|number| event_user(user(&format!("user_{number}"), version)));
                let effect = clerk_authz::mirror::Effect { facts: facts.collect(), done: None };
                store.apply(&instance, effect, ms(NOW)).await
            });
        }
        while let Some(applied) = tasks.join_next().await {
            applied.expect("it ran").expect("applied");
        }
        let stale = "SELECT COUNT(*) FROM users WHERE version_ms <> 12";
        assert_eq!(database.place.number(stale).await, 0);
    }

    /// Members come in while their organization is deleted: none survives it.
    async fn no_membership_slips_past_the_deletion_of_its_organization(database: Database) {
        let other = database.replica().await;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..30 {
            let store = if number % 2 == 0 { other.clone() } else { database.store.clone() };
            let instance = database.instance.clone();
            tasks.spawn(async move {
                let fact = if number == 15 {
                    Fact::Deleted { entity: Entity::Organization(organization_id("org_1")), at: ms(100) }
                } else {
                    event_membership(membership("org_1", &format!("user_{number}"), 50))
                };
                let effect = clerk_authz::mirror::Effect { facts: vec![fact], done: None };
                store.apply(&instance, effect, ms(NOW)).await
            });
        }
        while let Some(applied) = tasks.join_next().await {
            applied.expect("it ran").expect("applied");
        }
        let alive = "SELECT COUNT(*) FROM memberships WHERE live = 1";
        assert_eq!(database.place.number(alive).await, 0);
    }
}
