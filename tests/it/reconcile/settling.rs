//! What is in doubt is asked for in the background, and settled.

use clerk_authz::{
    emulator::{Endpoint, Fault, Faults},
    mirror::{Entity, EntityKind, Fact, Mirror, User, WholeEntity},
};

use super::Scene;
use crate::support::{
    Fixture,
    database::{
        Database, event_membership, event_organization, event_user, membership, ms, on_each_engine,
        organization, user_id,
    },
    eventually, settings_for,
    twins::{at_clerk, differences, in_mirror},
};

/// Two that nothing puts in an order.
fn doubt(user: &User) -> Vec<Fact> {
    let mut other = user.clone();
    other.first_name = Some("Somebody else".into());
    vec![event_user(other), event_user(user.clone())]
}

async fn of_api(scene: &Scene, id: &str) -> User {
    use clerk_authz::mirror::Listing;
    let entity = Entity::User(user_id(id));
    let found = scene.api.entity(&entity, crate::support::PATIENCE).await;
    match found.expect("answered").value {
        Some(WholeEntity::User(user)) => *user,
        other => panic!("{other:?}"),
    }
}

async fn open(database: &Database) -> usize {
    let mut open = 0;
    for kind in EntityKind::ALL {
        let entities = database
            .store
            .to_look_up(&database.instance, kind, 100)
            .await;
        open += entities.expect("answered").len();
    }
    open
}

/// The service on the scene's database, with a secret key.
async fn serve(scene: Scene) -> (Fixture, Database) {
    let Scene {
        clerk, database, ..
    } = scene;
    let instance = &clerk.instances()[0];
    let (secret_key, api_url) = (instance.secret_key(), instance.issuer().to_string());
    let url = database.place.url();
    let settings = settings_for(
        &clerk,
        &[
            ("CLERK_AUTHZ_DATABASE_URL", &url),
            ("CLERK_SECRET_KEY", &secret_key),
            ("CLERK_API_URL", &api_url),
        ],
    );
    (Fixture::start_on(clerk, &settings).await, database)
}

fn look_ups(metrics: &str, outcome: &str) -> f64 {
    let name = format!("clerk_authz_look_ups_total{{outcome=\"{outcome}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&*name));
    line.and_then(|count| count.parse().ok()).expect("a count")
}

on_each_engine! {
    async fn what_is_in_doubt_is_settled_by_clerks_word(database: Database) {
        let scene = Scene::in_step(database).await;
        let database = &scene.database;
        // A user of two minds, one who is newer than the tombstone, and one of whom nothing is left.
        let bob = scene.directory().change_user("user_bob", |user| user.first_name = Some("Rob".to_owned())).expect("changed");
        let mut newest = of_api(&scene, "user_bob").await;
        newest.updated_at = ms(bob.stamp.updated_at);
        database.apply(doubt(&newest)).await;
        let before = bob.stamp.updated_at - 1_000;
        let gone = Entity::User(user_id("user_gone"));
        database.apply([
            Fact::Deleted { entity: gone, at: ms(before) },
            event_user(crate::support::database::user("user_gone", before + 1)),
        ]).await;
        // The same of the other kinds.
        let of = |entity, at| Fact::Deleted { entity, at: ms(at) };
        let gone = organization("org_gone", before + 1);
        database.apply([of(Entity::Organization(gone.id.clone()), before), event_organization(gone)]).await;
        let left = membership("org_acme", "user_carol", before + 1);
        let pair = Entity::Membership(left.membership.organization.id.clone(), user_id("user_carol"));
        database.apply([of(pair, before), event_membership(left)]).await;
        assert_eq!(open(database).await, 4);

        let (fixture, database) = serve(scene).await;

        eventually("all is settled", || async { open(&database).await == 0 }).await;
        let differences = differences(&at_clerk(fixture.instance()).await, &in_mirror(&database).await);
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        assert!((look_ups(&fixture.metrics().await, "settled") - 4.0).abs() < f64::EPSILON);
        fixture.stop().await;
    }

    async fn while_clerk_is_down_a_doubt_waits(database: Database) {
        let scene = Scene::in_step(database).await;
        scene.database.apply(doubt(&{
            let mut user = of_api(&scene, "user_bob").await;
            user.updated_at = user.updated_at.plus(std::time::Duration::from_secs(1));
            user
        })).await;
        scene.directory().change_user("user_bob", |user| user.first_name = Some("Rob".to_owned())).expect("changed");
        scene.instance().set_faults_for(Endpoint::Users, Faults::always(Fault::ServerError));

        let (fixture, database) = serve(scene).await;

        eventually("Clerk was asked in vain", || async {
            look_ups(&fixture.metrics().await, "failed") > 0.0
        }).await;
        assert_eq!(open(&database).await, 1);
        fixture.instance().clear_faults();
        eventually("it is settled", || async {
            look_ups(&fixture.metrics().await, "settled") > 0.0 || look_ups(&fixture.metrics().await, "open") > 0.0
        }).await;
        fixture.stop().await;
    }
}
