//! Runs that break off, and runs that meet.

use std::{sync::Arc, time::Duration};

use clerk_authz::{
    emulator::{Endpoint, Faults},
    mirror::{Coordination, DirectoryError, EntityKind},
    server,
    sync::{Drift, ReconcileError, ReconcileJob, Reconciler},
};
use serde_json::Value;
use tokio::{process::Command, time::Instant};

use super::{Interposed, Scene, clock, commands::variables};
use crate::support::{
    database::{Database, on_each_engine},
    eventually, get,
    process::Service,
};

const CROWD: usize = 1_201;
/// What works in the background is cut off after 6 s.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Breaks the run off at its first page of memberships.
fn breaking_off(scene: &Scene) -> Interposed {
    Interposed::new(&scene.api, |kind, _| async move {
        match kind {
            EntityKind::Membership => Err(DirectoryError::Rejected {
                cause: "enough".to_owned(),
            }),
            EntityKind::User | EntityKind::Organization => Ok(()),
        }
    })
}

on_each_engine! {
    async fn a_run_that_broke_off_goes_on_where_it_was(database: Database) {
        let scene = Scene::start(database).await;
        scene.crowd(CROWD);
        let ended = scene.try_reconcile(&breaking_off(&scene), true).await;
        assert!(matches!(ended, Err(ReconcileError::Clerk(DirectoryError::Rejected { .. }))), "{ended:?}");

        let counting = Interposed::new(&scene.api, |_, _| async { Ok(()) });
        let report = scene.try_reconcile(&counting, true).await.expect("it ends");

        assert_eq!(counting.pages(), 3, "the pages of memberships alone");
        let missing = |kind| report.kind(kind).drift(Drift::Missing).mended;
        assert_eq!([missing(EntityKind::User), missing(EntityKind::Membership)], [CROWD as u64 + 3; 2]);
        scene.assert_equal().await;
        scene.stop().await;
    }

    async fn a_run_of_another_kind_begins_anew(database: Database) {
        let scene = Scene::start(database).await;
        scene.try_reconcile(&breaking_off(&scene), false).await.expect_err("it breaks off");

        let counting = Interposed::new(&scene.api, |_, _| async { Ok(()) });
        let report = scene.try_reconcile(&counting, true).await.expect("it ends");

        assert_eq!(counting.pages(), 3);
        assert_eq!(report.kind(EntityKind::User).drift(Drift::Missing).mended, 3);
        scene.assert_equal().await;
        scene.stop().await;
    }

    /// The real command, killed while it waits for memberships.
    async fn a_killed_command_is_gone_on_with(database: Database) {
        let scene = Scene::start(database).await;
        scene.crowd(CROWD);
        scene.instance().set_faults_for(Endpoint::Memberships, Faults::slow(60_000));
        let command = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_clerk-authz"));
            command.args(["reconcile", "--apply"]).env_clear().envs(variables(&scene)).kill_on_drop(true);
            command
        };
        let mut child = command().stderr(std::process::Stdio::null()).spawn().expect("it runs");
        eventually("it asks for memberships", || async {
            scene.instance().api_requests(Endpoint::Memberships) > 0
        }).await;
        child.kill().await.expect("killed");
        scene.instance().clear_faults();
        scene.instance().reset_counts();

        let busy = command().output().await.expect("it runs");
        assert_eq!(busy.status.code(), Some(2));
        let said = String::from_utf8_lossy(&busy.stderr);
        assert!(said.contains("another process is reconciling this instance"), "{said}");
        // The dead one's lease passes within a minute.
        scene.database.place.run("UPDATE leases SET until_ms = 0").await;
        let output = command().output().await.expect("it runs");

        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(scene.instance().api_requests(Endpoint::Users), 0, "users were done with");
        let table = String::from_utf8_lossy(&output.stdout);
        assert!(table.contains("drift: 2411 found and mended"), "{table}");
        scene.assert_equal().await;
        scene.stop().await;
    }

    /// As when replicas are exchanged: the next one does not wait until the lease has passed, a minute.
    async fn a_service_that_ends_leaves_its_run_to_the_next_at_once(database: Database) {
        let scene = Scene::start(database).await;
        scene.crowd(CROWD);
        // Somebody was there when it was due, and came no further than to begin.
        let broken = Interposed::new(&scene.api, |_, _| async {
            Err(DirectoryError::Rejected { cause: "enough".to_owned() })
        });
        let job = ReconcileJob { instance: &scene.database.instance, clerk: &broken, apply: true, holder: "test" };
        let store = Arc::new(scene.database.store.clone());
        Reconciler::new(store, server::system_clock()).run(&job, &|_| {}).await.expect_err("it breaks off");
        let due = server::system_clock()().unix_seconds() / 60 - 1;
        let due = format!("{:02}:{:02}", due / 60 % 24, due % 60);
        let variables = variables(&scene);
        let mut variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
        variables.push(("CLERK_AUTHZ_RECONCILE_AT", &due));
        scene.instance().set_faults_for(Endpoint::Memberships, Faults::slow(60_000));
        scene.instance().reset_counts();
        let first = Service::start(&variables).await;
        eventually("it has read users, and asks for memberships", || async {
            scene.instance().api_requests(Endpoint::Memberships) > 0
        }).await;
        assert!(scene.instance().api_requests(Endpoint::Users) > 0);
        let meanwhile = scene.try_reconcile(&scene.api, true).await;
        assert_eq!(meanwhile, Err(ReconcileError::Busy), "it has the lease");

        let begun = Instant::now();
        first.signal("-TERM");
        let (status, log) = first.ended().await;

        assert_eq!(status.code(), Some(0), "{log}");
        assert!(begun.elapsed() < ENDS_WITHIN && !log.contains("still under way"), "{log}");
        scene.instance().clear_faults();
        scene.instance().reset_counts();
        let second = Service::start(&variables).await;
        eventually("it is done", || async {
            let said: Value = serde_json::from_str(&get(second.http_addr, "/readyz").await.1).expect("JSON");
            said["reconciliations"][0]["last_whole"]["applied"] == true
        }).await;
        assert_eq!(scene.instance().api_requests(Endpoint::Users), 0, "users were done with");
        scene.assert_equal().await;
        let log = second.end().await;
        assert!(log.contains("going on with a run"), "{log}");
        scene.stop().await;
    }

    async fn one_runs_at_a_time(database: Database) {
        let scene = Scene::start(database).await;
        let (store, instance) = (&scene.database.store, &scene.database.instance);
        let now = clock()();
        let lease = store.lease(instance, "reconcile", "other", now.plus(Duration::from_secs(60)), now).await;
        assert!(lease.expect("answered").is_some());

        let refused = scene.try_reconcile(&scene.api, true).await;
        assert_eq!(refused, Err(ReconcileError::Busy));
        store.release(instance, "reconcile", "other").await.expect("released");
        scene.reconcile(true).await;
        scene.assert_equal().await;
        scene.stop().await;
    }

    /// Another process has taken it, since this one was silent for too long.
    async fn a_lost_lease_ends_the_run(database: Database) {
        let scene = Scene::start(database).await;
        let (store, instance) = (scene.database.store.clone(), scene.database.instance.clone());
        let stolen = Interposed::new(&scene.api, move |_, _| {
            let (store, instance) = (store.clone(), instance.clone());
            async move {
                store.release(&instance, "reconcile", "test").await.expect("released");
                let now = clock()();
                let lease = store.lease(&instance, "reconcile", "other", now.plus(Duration::from_secs(60)), now).await;
                assert!(lease.expect("answered").is_some());
                std::future::pending().await
            }
        });
        let job = ReconcileJob { instance: &scene.database.instance, clerk: &stolen, apply: true, holder: "test" };
        let reconciler = scene.reconciler().with_lease(Duration::from_millis(300));

        let ended = reconciler.run(&job, &|_| {}).await;

        assert_eq!(ended, Err(ReconcileError::LeaseLost));
        let still = scene.try_reconcile(&scene.api, true).await;
        assert_eq!(still, Err(ReconcileError::Busy), "the other keeps it");
        scene.stop().await;
    }

    /// One that is renewed stays, however long a page takes.
    async fn a_lease_is_renewed_while_a_run_waits(database: Database) {
        let scene = Scene::start(database).await;
        let lease = Duration::from_millis(300);
        let (store, instance) = (scene.database.store.clone(), scene.database.instance.clone());
        let slow = Interposed::new(&scene.api, move |kind, _| {
            let (store, instance) = (store.clone(), instance.clone());
            async move {
                if kind != EntityKind::User {
                    return Ok(());
                }
                let end = tokio::time::Instant::now() + 4 * lease;
                while tokio::time::Instant::now() < end {
                    let now = clock()();
                    let taken = store.lease(&instance, "reconcile", "other", now.plus(lease), now).await;
                    assert_eq!(taken.expect("answered"), None);
                    tokio::time::sleep(lease / 10).await;
                }
                Ok(())
            }
        });
        let job = ReconcileJob { instance: &scene.database.instance, clerk: &slow, apply: true, holder: "test" };

        scene.reconciler().with_lease(lease).run(&job, &|_| {}).await.expect("it ends");
        scene.assert_equal().await;
        scene.stop().await;
    }
}
