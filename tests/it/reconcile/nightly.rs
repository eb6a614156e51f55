//! Reconciliation at its time: by one replica, on record for all.

use std::{sync::Arc, time::Duration};

use clerk_authz::{
    identity::Timestamp,
    mirror::Listing,
    sync::{Listings, Nightly, ReconcileAt, RunOutcome},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Scene;
use crate::support::{
    Fixture,
    database::{Database, on_each_engine},
    directory::TestClock,
    eventually, get, settings_for,
};

/// 03:00 of a day some time after everything at the offline Clerk.
fn three_o_clock() -> Timestamp {
    let day = (super::clock()().unix_seconds() / 86_400 + 2) * 86_400;
    Timestamp::from_unix_seconds(day + 3 * 3_600)
}

/// A replica's, and its end.
fn replica(scene: &Scene, holder: &str, clock: &TestClock) -> (Arc<Nightly>, CancellationToken) {
    let listings = Arc::new(Listings::default());
    let api: Arc<dyn Listing> = Arc::new(scene.api.clone());
    listings.set(vec![(scene.database.instance.clone(), Some(api))]);
    let nightly = Arc::new(Nightly::new(
        Arc::new(scene.database.store.clone()),
        listings,
        ReconcileAt::Daily(180),
        holder.to_owned(),
        clock.as_clock(),
    ));
    let stop = CancellationToken::new();
    tokio::spawn(Arc::clone(&nightly).run(stop.clone()));
    (nightly, stop)
}

fn runs(nightly: &Nightly, outcome: RunOutcome) -> u64 {
    let runs = nightly.stats().runs;
    let found = runs.iter().find(|(known, _)| *known == outcome);
    found.expect("every outcome").1
}

on_each_engine! {
    async fn one_of_two_replicas_mends_the_mirror_at_its_time(database: Database) {
        let scene = Scene::start(database).await;
        let clock = TestClock::at(three_o_clock().unix_seconds());
        let replicas = [replica(&scene, "one", &clock), replica(&scene, "two", &clock)];
        let all_runs = || -> u64 {
            replicas.iter().map(|(nightly, _)| runs(nightly, RunOutcome::Drift)).sum()
        };
        eventually("one has mended it", || async { all_runs() > 0 }).await;
        scene.assert_equal().await;
        // Whoever comes now finds that it is done.
        let late = replica(&scene, "three", &clock);
        let watching = Arc::clone(&late.0).watch(late.1.clone());
        tokio::spawn(watching);
        eventually("it knows of the run", || async { late.0.stats().last_runs.len() == 1 }).await;
        let (_, last) = &late.0.stats().last_runs[0];
        assert_eq!(last.outcome(), Some(RunOutcome::Drift));
        assert_eq!(last.ended().map(|(_, applied)| applied), Some(true));
        assert_eq!(all_runs() + runs(&late.0, RunOutcome::Drift), 1);
        for (_, stop) in replicas.iter().chain([&late]) {
            stop.cancel();
        }
        scene.stop().await;
    }

    /// The last run, whoever made it, in `/readyz` and in the metrics of a service that makes none.
    async fn the_last_run_is_on_record_for_every_replica(database: Database) {
        let scene = Scene::start(database).await;
        scene.reconcile(true).await;
        let url = scene.database.place.url();
        let (secret_key, api_url) = (scene.instance().secret_key(), scene.instance().issuer().to_string());
        let settings = settings_for(&scene.clerk, &[
            ("CLERK_AUTHZ_DATABASE_URL", &url),
            ("CLERK_SECRET_KEY", &secret_key),
            ("CLERK_API_URL", &api_url),
        ]);
        let Scene { clerk, database, .. } = scene;
        let fixture = Fixture::start_on(clerk, &settings).await;
        let readyz = async || -> Value {
            let (status, body) = get(fixture.service.http_addr(), "/readyz").await;
            assert_eq!(status, 200, "{body}");
            serde_json::from_str(&body).expect("JSON")
        };
        eventually("it is known", || async { readyz().await["reconciliations"][0].is_object() }).await;

        let last = readyz().await["reconciliations"][0].clone();
        assert_eq!((&last["instance"], &last["outcome"]), (&"default".into(), &"drift".into()));
        assert_eq!(last["last_whole"]["drift"]["membership"]["missing"], 3);
        let metrics = fixture.metrics().await;
        for line in [
            "clerk_authz_reconcile_drift{instance=\"default\",kind=\"user\",class=\"missing\"} 3.0\n",
            "clerk_authz_reconcile_drift{instance=\"default\",kind=\"user\",class=\"ghost\"} 0.0\n",
            "clerk_authz_reconcile_failed{instance=\"default\"} 0.0\n",
            "clerk_authz_reconcile_runs_total{outcome=\"drift\"} 0.0\n",
        ] {
            assert!(metrics.contains(line), "{line}{metrics}");
        }
        fixture.stop().await;
        drop(database);
    }
}

/// A run that failed is made again, but not at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_run_is_on_record() {
    use clerk_authz::clerk::{ApiOptions, BackendApi};
    let mut scene =
        Scene::start(Database::on(crate::support::database::Place::sqlite()).await).await;
    let clock = TestClock::at(three_o_clock().unix_seconds());
    let options = ApiOptions {
        instance: scene.database.instance.clone(),
        url: scene.instance().issuer().as_str().parse().expect("a URL"),
        secret_key: "sk_test_emulatorother".into(),
        budget: 100_000,
        timeout: Duration::from_secs(5),
    };
    scene.api = BackendApi::new(options, clock.as_clock()).expect("an API");
    let (nightly, stop) = replica(&scene, "one", &clock);
    eventually("it fails", || async {
        runs(&nightly, RunOutcome::Failed) == 1
    })
    .await;
    eventually("it is on record", || async {
        let stats = nightly.stats();
        stats.last_runs.first().is_some_and(|(_, last)| {
            last.outcome() == Some(RunOutcome::Failed) && last.ended().is_none()
        })
    })
    .await;
    stop.cancel();
    scene.stop().await;
}
