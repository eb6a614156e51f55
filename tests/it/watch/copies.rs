//! Copies that are kept through breaks equal the mirror.

use clerk_authz::mirror::Fact;

use super::{
    Keeper, Service, behind, membership_deleted, names_in, next, organization_deleted, roles_in,
    user_deleted,
};
use crate::support::database::{
    Database, event_membership, event_organization, event_user, membership, ms, on_each_engine,
    organization, user, user_with,
};

fn named(id: &str, name: &str, version: i64) -> Fact {
    event_user(user_with(id, version, |it| {
        it.first_name = Some(name.into())
    }))
}

/// More than several pages of users.
fn crowd() -> Vec<Fact> {
    (0..350)
        .map(|number| named(&format!("user_{number:03}"), "Ada", 5))
        .collect()
}

/// One random edit of a small world; `version` grows.
fn edit(chance: &mut fastrand::Rng, version: i64) -> Vec<Fact> {
    let user_id = format!("user_{}", chance.u8(0..12));
    let organization_id = format!("org_{}", chance.u8(0..3));
    vec![match chance.u8(0..10) {
        0..4 => named(&user_id, &format!("v{version}"), version),
        4 => user_deleted(&user_id, version),
        5..7 => {
            let mut it = membership(&organization_id, &user_id, version);
            it.membership.role = format!("org:v{version}").into();
            event_membership(it)
        }
        7 => membership_deleted(&organization_id, &user_id, version),
        8 => event_organization(organization(&organization_id, version)),
        _ if chance.u8(0..8) == 0 => organization_deleted(&organization_id, version),
        _ => Fact::RoleChanged {
            role: None,
            at: ms(version),
        },
    }]
}

on_each_engine! {
    async fn what_is_deleted_and_made_during_the_snapshot_is_right_in_the_end(database: Database) {
        database.apply(crowd()).await;
        let service = Service::on(&database.place).await;
        let mut keeper = Keeper::default();
        keeper.follow(&service, |it| it.users.len() == 150).await;
        database.apply([
            user_deleted("user_010", 6),            // told of already
            user_deleted("user_300", 6),            // still to come
            named("user_0005", "Eve", 6),           // in front of the cursor
            named("user_3005", "Eve", 6),           // behind it
            named("user_020", "Eve", 6),
            named("user_320", "Eve", 6),
        ]).await;

        keeper.follow(&service, |it| it.snapshot_is_complete).await;
        let expected = names_in(&database).await;
        assert_eq!(expected.len(), 350);
        keeper.follow(&service, |it| it.names() == expected).await;
        service.stop().await;
    }

    /// Whoever kept an old copy knows at the end of a new snapshot what to drop.
    async fn an_old_copy_is_mended_by_a_new_snapshot(database: Database) {
        database.apply(crowd()).await;
        let service = Service::on(&database.place).await;
        let mut keeper = Keeper::default();
        keeper.follow(&service, |it| it.snapshot_is_complete).await;
        database.apply((0..350).step_by(2).map(|n| user_deleted(&format!("user_{n:03}"), 6)).collect::<Vec<_>>()).await;

        keeper.begin_anew();
        // Broken off in the middle: what was marked stays marked.
        let mut left = 60;
        keeper.follow(&service, |_| { left -= 1; left == 0 }).await;
        assert!(!keeper.snapshot_is_complete);
        keeper.follow(&service, |it| it.snapshot_is_complete).await;
        assert_eq!(keeper.names(), names_in(&database).await);
        service.stop().await;
    }

    /// From each token of a history one goes on to the same end.
    async fn every_token_leads_to_the_same_copy(database: Database) {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut chance = fastrand::Rng::with_seed(seed);
        let service = Service::on(&database.place).await;
        let mut version = 10;
        for _ in 0..25 {
            version += 1;
            database.apply(edit(&mut chance, version)).await;
        }
        let mut stations = vec![Keeper::default()];
        let mut keeper = Keeper::default();
        let mut stream = service.open(behind("")).await.expect("it opens");
        for round in 0..60 {
            version += 1;
            database.apply(edit(&mut chance, version)).await;
            if round % 7 == 0 {
                let message = next(&mut stream).await.expect("the watch goes on");
                keeper.take(message);
                stations.push(keeper.clone());
            }
        }
        while !keeper.snapshot_is_complete {
            keeper.take(next(&mut stream).await.expect("the watch goes on"));
            stations.push(keeper.clone());
        }
        drop(stream);

        for (number, mut station) in stations.into_iter().enumerate() {
            station.follow(&service, |it| it.snapshot_is_complete).await;
            // What all that was before stands in front of.
            version += 1;
            database.apply([named("user_last", "Last", version)]).await;
            station.follow(&service, |it| it.has_reached("user_last")).await;
            assert_eq!(station.names(), names_in(&database).await, "seed {seed}, station {number}");
            assert_eq!(station.roles(), roles_in(&database).await, "seed {seed}, station {number}");
        }
        service.stop().await;
    }

    /// A consumer that breaks off at random, while the world changes, ends with what the mirror has.
    async fn a_copy_through_random_breaks_equals_the_mirror(database: Database) {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut chance = fastrand::Rng::with_seed(seed);
        let service = Service::on(&database.place).await;
        let mut keeper = Keeper::default();
        let mut version = 10;
        for _ in 0..40 {
            for _ in 0..chance.u8(1..12) {
                version += 1;
                database.apply(edit(&mut chance, version)).await;
            }
            // Each time there is something to take: it is of its own making.
            version += 1;
            database.apply([named("user_pulse", &format!("v{version}"), version)]).await;
            let mut left = chance.u8(1..8);
            keeper.follow(&service, |it| {
                left -= 1;
                let pulse = it.users.get("user_pulse");
                left == 0 || pulse.is_some_and(|(user, _)| user.first_name == format!("v{version}"))
            }).await;
            if chance.u8(0..10) == 0 {
                keeper.begin_anew();
            }
        }
        keeper.follow(&service, |it| it.snapshot_is_complete).await;
        version += 1;
        database.apply([named("user_last", "Last", version)]).await;

        keeper.follow(&service, |it| it.has_reached("user_last")).await;

        assert_eq!(keeper.names(), names_in(&database).await, "seed {seed}");
        assert_eq!(keeper.roles(), roles_in(&database).await, "seed {seed}");
        service.stop().await;
    }

    /// What is far behind is caught up with, page by page.
    async fn whoever_is_far_behind_catches_up(database: Database) {
        let service = Service::on(&database.place).await;
        let mut keeper = Keeper::default();
        keeper.follow(&service, |it| it.snapshot_is_complete).await;
        for round in 0..5 {
            // Nothing that is watched, and one user far behind it.
            let roles = (0..200).map(|n| Fact::RoleChanged { role: None, at: ms(round * 1_000 + n) });
            database.apply(roles.collect::<Vec<_>>()).await;
        }
        database.apply([event_user(user("user_a", 5))]).await;
        keeper.follow(&service, |it| it.users.len() == 1).await;
        service.stop().await;
    }
}
