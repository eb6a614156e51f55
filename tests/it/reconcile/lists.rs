//! Clerk's lists: long ones, and such as move while they are read.

use clerk_authz::{emulator::Endpoint, mirror::EntityKind, sync::Drift};

use super::{Interposed, Scene};
use crate::support::database::{Database, on_each_engine};

/// Behind the three users of the offline Clerk's world, and three pages long.
const CROWD: usize = 1_201;

on_each_engine! {
    async fn long_lists_are_read_to_their_end(database: Database) {
        let scene = Scene::start(database).await;
        scene.crowd(CROWD);
        let interposed = Interposed::new(&scene.api, |_, _| async { Ok(()) });

        let report = scene.try_reconcile(&interposed, true).await.expect("it ends");

        for kind in [EntityKind::User, EntityKind::Membership] {
            assert_eq!(report.kind(kind).at_clerk, CROWD as u64 + 3);
            assert_eq!(report.kind(kind).drift(Drift::Missing).mended, CROWD as u64 + 3);
            assert_eq!(report.kind(kind).drift(Drift::Missing).examples.len(), 20);
        }
        // 500, 500 and 204 users, one page of organizations, memberships from 0, 480 and 960.
        assert_eq!(interposed.pages(), 7);
        scene.assert_equal().await;
        scene.stop().await;
    }

    /// What is deleted before a page moves what is behind it forward.
    async fn a_list_that_moves_leaves_nothing_out(database: Database) {
        let scene = Scene::start(database).await;
        let crowd = scene.crowd(CROWD);
        let instance = std::sync::Arc::clone(scene.instance());
        let leaving = crowd[..100].to_vec();
        let interposed = Interposed::new(&scene.api, move |kind, page| {
            // The first page of memberships has been answered, and they were on it.
            if kind == EntityKind::Membership && page == 4 {
                for user in &leaving {
                    instance.directory().remove_member("org_crowd", user).expect("removed");
                }
            }
            async { Ok(()) }
        });

        let report = scene.try_reconcile(&interposed, true).await.expect("it ends");

        assert_eq!(report.kind(EntityKind::Membership).at_clerk, CROWD as u64 + 3, "all were seen");
        assert_eq!(scene.differences().await.len(), 100, "those that left meanwhile");
        scene.instance().reset_counts();
        let report = scene.reconcile(true).await;
        assert_eq!(report.kind(EntityKind::Membership).drift(Drift::Ghost).mended, 100);
        assert_eq!(scene.instance().api_requests(Endpoint::Memberships), 3 + 100, "each ghost is asked for by itself");
        scene.assert_equal().await;
        scene.stop().await;
    }

    /// The user behind whom the next page begins is gone when it is asked for.
    async fn a_place_that_is_gone_is_gone_back_from(database: Database) {
        let scene = Scene::start(database).await;
        let crowd = scene.crowd(CROWD);
        let instance = std::sync::Arc::clone(scene.instance());
        // Three others are before them.
        let last_two = crowd[495..497].to_vec();
        let interposed = Interposed::new(&scene.api, move |kind, page| {
            if kind == EntityKind::User && page == 0 {
                for user in &last_two {
                    instance.directory().delete_user(user).expect("deleted");
                }
            }
            async { Ok(()) }
        });

        let report = scene.try_reconcile(&interposed, true).await.expect("it ends");

        assert_eq!(report.kind(EntityKind::User).at_clerk, CROWD as u64 + 3);
        let report = scene.reconcile(true).await;
        assert_eq!(report.kind(EntityKind::User).drift(Drift::Ghost).mended, 2);
        scene.assert_equal().await;
        scene.stop().await;
    }
}
