//! Each class of drift, found, reported, mended, and not found again.

use clerk_authz::{
    mirror::{
        Effect, Entity, EntityKind, Fact, Listing, Mirror, Upkeep, User, UserKey, WholeEntity,
        Write,
    },
    sync::{Drift, ReconcileError, Report},
};
use serde_json::json;

use super::{Interposed, Scene};
use crate::support::{
    PATIENCE,
    database::{
        Database, event_membership, event_organization, event_user, membership, ms, on_each_engine,
        organization, user, user_id,
    },
    twins::in_mirror,
};

/// What a report says, by kind: missing, stale, ghost.
fn found(report: &Report) -> [[u64; 3]; 3] {
    EntityKind::ALL.map(|kind| Drift::ALL.map(|drift| report.kind(kind).drift(drift).found))
}

on_each_engine! {
    async fn an_empty_mirror_is_filled_and_then_in_step(database: Database) {
        let scene = Scene::start(database).await;

        let report = scene.reconcile(false).await;
        assert_eq!(found(&report), [[3, 0, 0], [2, 0, 0], [3, 0, 0]]);
        assert_eq!(report.kind(EntityKind::User).drift(Drift::Missing).mended, 0);
        let stats = scene.database.store.stats(&scene.database.instance).await;
        assert_eq!(stats.expect("answered").users, 0, "nothing is written without being told to");

        let report = scene.reconcile(true).await;
        assert_eq!(found(&report), [[3, 0, 0], [2, 0, 0], [3, 0, 0]]);
        let users = report.kind(EntityKind::User);
        assert_eq!(users.drift(Drift::Missing).mended, 3);
        assert_eq!(users.drift(Drift::Missing).examples, ["user_alice", "user_bob", "user_carol"]);
        let memberships = report.kind(EntityKind::Membership);
        assert_eq!(memberships.drift(Drift::Missing).examples[0], "org_acme/user_alice");
        scene.assert_equal().await;

        let report = scene.reconcile(false).await;
        assert!(report.is_in_step(), "{report:?}");
        assert_eq!(report.kind(EntityKind::User).in_step, 3);
        assert_eq!(scene.database.place.number("SELECT COUNT(*) FROM sightings").await, 0);
        scene.stop().await;
    }

    async fn what_is_stale_is_found_and_mended(database: Database) {
        let scene = Scene::in_step(database).await;
        let directory = scene.directory();
        directory.change_user("user_bob", |user| user.first_name = Some("Robert".to_owned())).expect("changed");
        directory.change_organization("org_acme", |it| it.name = "Acme & Sons".to_owned()).expect("changed");
        directory.set_role("org_acme", "user_bob", "org:admin").expect("changed");

        let report = scene.reconcile(false).await;
        assert_eq!(found(&report), [[0, 1, 0], [0, 1, 0], [0, 1, 0]]);
        assert_eq!(scene.differences().await.len(), 3);
        let report = scene.reconcile(true).await;
        assert_eq!(found(&report), [[0, 1, 0], [0, 1, 0], [0, 1, 0]]);
        assert_eq!(report.kind(EntityKind::Membership).drift(Drift::Stale).examples, ["org_acme/user_bob"]);
        scene.assert_equal().await;
        assert!(scene.reconcile(true).await.is_in_step());
        scene.stop().await;
    }

    /// No event follows for the members, and no `updated_at` moves.
    async fn what_a_role_permits_is_compared_too(database: Database) {
        let scene = Scene::in_step(database).await;
        scene.directory().set_role_permissions("org:member", ["org:reports:read"]).expect("changed");

        let report = scene.reconcile(true).await;
        assert_eq!(found(&report), [[0, 0, 0], [0, 0, 0], [0, 1, 0]]);
        scene.assert_equal().await;
        assert!(scene.reconcile(false).await.is_in_step());
        scene.stop().await;
    }

    async fn ghosts_are_asked_for_by_themselves_and_buried(database: Database) {
        let scene = Scene::in_step(database).await;
        let directory = scene.directory();
        directory.delete_user("user_alice").expect("deleted");
        directory.delete_organization("org_globex").expect("deleted");
        directory.remove_member("org_acme", "user_bob").expect("removed");

        for apply in [false, true] {
            let report = scene.reconcile(apply).await;
            // Alice's memberships go with her.
            assert_eq!(found(&report), [[0, 0, 1], [0, 0, 1], [0, 0, 1]], "{apply}");
            assert_eq!(report.kind(EntityKind::Membership).drift(Drift::Ghost).examples, ["org_acme/user_bob"]);
        }
        scene.assert_equal().await;
        assert!(scene.reconcile(false).await.is_in_step());
        scene.stop().await;
    }

    /// Fields that move by themselves, and a version without anything new under it, are no drift.
    async fn what_moves_by_itself_is_no_drift(database: Database) {
        let scene = Scene::in_step(database).await;
        let directory = scene.directory();
        directory.change_user("user_bob", |user| user.last_sign_in_at = Some(1_900_000_000_000)).expect("changed");
        directory.change_user("user_carol", |user| {
            user.private_metadata = json!({"note": 1}).as_object().expect("an object").clone();
        }).expect("changed");

        let report = scene.reconcile(false).await;
        assert!(report.is_in_step(), "{report:?}");
        assert_eq!((report.kind(EntityKind::User).touched, report.kind(EntityKind::User).in_step), (2, 1));
        // The whole object is brought up to date all the same.
        scene.reconcile(true).await;
        scene.assert_equal().await;
        let carol = scene.database.store.user(&scene.database.instance, UserKey::Id(&user_id("user_carol"))).await;
        assert!(carol.expect("answered").expect("there").value.source.contains("note"));
        scene.stop().await;
    }

    /// A deletion and an update come in between Clerk's answer and our writing it down.
    async fn a_change_that_arrives_meanwhile_is_not_undone(database: Database) {
        let scene = Scene::start(database).await;
        let (store, instance) = (scene.database.store.clone(), scene.database.instance.clone());
        let newer = i64::MAX / 1_000_000;
        let interposed = Interposed::new(&scene.api, move |kind, _| {
            let (store, instance) = (store.clone(), instance.clone());
            async move {
                if kind != EntityKind::User {
                    return Ok(());
                }
                let gone = Entity::User(user_id("user_carol"));
                let effect = Effect {
                    facts: vec![
                        event_user(user("user_bob", newer)),
                        Fact::Deleted { entity: gone, at: ms(newer) },
                    ],
                    done: None,
                };
                let applied = store.apply(&instance, effect, ms(newer)).await.expect("applied");
                assert_eq!(applied.outcomes.iter().map(|it| it.write).collect::<Vec<_>>(), [Write::Created, Write::Tombstoned]);
                Ok(())
            }
        });

        let report = scene.try_reconcile(&interposed, true).await.expect("it ends");

        let users = report.kind(EntityKind::User);
        assert_eq!((users.drift(Drift::Missing).found, users.overtaken), (1, 2), "{users:?}");
        let mirror = in_mirror(&scene.database).await;
        assert_eq!(mirror["user_bob"]["updated_at"], newer);
        assert!(!mirror.contains_key("user_carol"));
        scene.stop().await;
    }

    /// What Clerk tells apart from a doubt is settled by the walk, and is no drift.
    async fn a_doubt_is_settled(database: Database) {
        let scene = Scene::in_step(database).await;
        let found = scene.api_user("user_bob").await;
        let mut other = found.clone();
        other.first_name = Some("Bobby".into());
        // Two events of one version, newer than what is known, and Clerk has the first of them.
        let bob = scene.directory().change_user("user_bob", |user| user.first_name = Some("Rob".to_owned())).expect("changed");
        let mut first = found;
        first.first_name = Some("Rob".into());
        for user in [&mut first, &mut other] {
            user.updated_at = ms(bob.stamp.updated_at);
        }
        scene.database.apply([event_user(first), event_user(other)]).await;
        let doubtful = scene.database.store.to_look_up(&scene.database.instance, EntityKind::User, 10).await;
        assert_eq!(doubtful.expect("answered").len(), 1);

        assert!(scene.reconcile(true).await.is_in_step());
        let doubtful = scene.database.store.to_look_up(&scene.database.instance, EntityKind::User, 10).await;
        assert!(doubtful.expect("answered").is_empty());
        scene.assert_equal().await;
        scene.stop().await;
    }

    /// Or a key of another instance in the settings would empty the mirror.
    async fn a_mirror_of_another_clerk_is_left_alone(database: Database) {
        let scene = Scene::start(database).await;
        let strangers = |count: usize| (0..count).map(|number| event_user(user(&format!("user_x{number}"), 5)));
        scene.database.apply(strangers(20).collect::<Vec<_>>()).await;

        let refused = scene.try_reconcile(&scene.api, true).await;
        assert!(matches!(&refused, Err(ReconcileError::OtherInstance { users }) if users.len() == 20), "{refused:?}");
        let stats = scene.database.store.stats(&scene.database.instance).await;
        assert_eq!(stats.expect("answered").tombstones, 0);

        assert_eq!(stats_users(&scene).await, 20, "nobody was brought in either");

        // One whom both know is enough to show that it is the right one.
        scene.database.apply([event_user(user("user_alice", 5))]).await;
        let report = scene.reconcile(true).await;
        assert_eq!(report.kind(EntityKind::User).drift(Drift::Ghost).found, 20);
        scene.assert_equal().await;
        scene.stop().await;
    }

    async fn strangers_of_all_kinds_are_ghosts(database: Database) {
        let scene = Scene::in_step(database).await;
        scene.database.apply([
            event_user(user("user_x", 5)),
            event_organization(organization("org_x", 5)),
            event_membership(membership("org_x", "user_bob", 5)),
            event_membership(membership("org_acme", "user_x", 5)),
            event_membership(membership("org_acme", "user_carol", 5)),
        ]).await;
        let report = scene.reconcile(true).await;
        assert_eq!(found(&report), [[0, 0, 1], [0, 0, 1], [0, 0, 1]]);
        scene.assert_equal().await;
        scene.stop().await;
    }
}

async fn stats_users(scene: &Scene) -> u64 {
    let stats = scene.database.store.stats(&scene.database.instance).await;
    stats.expect("answered").users
}

impl Scene {
    async fn api_user(&self, id: &str) -> User {
        let entity = Entity::User(user_id(id));
        let found = self.api.entity(&entity, PATIENCE).await;
        match found.expect("answered").value {
            Some(WholeEntity::User(user)) => *user,
            other => panic!("{other:?}"),
        }
    }
}
