//! Migrations, and databases that cannot be used.

use clerk_authz::{
    mirror::{Mirror, StoreError, Upkeep, UserKey},
    store::SqlStore,
};

use crate::support::database::{Database, Place, event_user, on_each_engine, user, user_id};

on_each_engine! {
    async fn a_second_start_finds_what_the_first_one_wrote(database: Database) {
        database.apply([event_user(user("user_1", 5))]).await;
        database.store.close().await;

        let again = database.replica().await;

        let id = user_id("user_1");
        let found = again.user(&database.instance, UserKey::Id(&id)).await.expect("answered");
        assert!(found.is_some());
        assert_eq!(database.place.number("SELECT COUNT(*) - MAX(version) FROM schema_version").await, 0);
        let closed = database.store.ping().await;
        assert!(matches!(closed, Err(StoreError::Unavailable { .. })), "{closed:?}");
    }

    async fn a_database_of_a_newer_version_is_refused(database: Database) {
        database.place.run("INSERT INTO schema_version (version) VALUES (99)").await;

        let error = database.place.open().await.expect_err("refused");

        assert!(matches!(error, StoreError::NewerSchema { found: 99, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("version 99") && text.contains("at least as new"), "{text}");
    }

    async fn its_size_is_known(database: Database) {
        assert!(database.store.size_bytes().await.expect("answered") > 4_096);
        database.store.ping().await.expect("it answers");
    }
}

async fn starts_at_once(place: Place) {
    let starts = (0..6).map(|_| place.open());
    for started in futures_util::future::join_all(starts).await {
        started.expect("it starts");
    }
    assert_eq!(
        place
            .number("SELECT COUNT(*) - MAX(version) FROM schema_version")
            .await,
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_at_once_migrate_sqlite_once() {
    starts_at_once(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_at_once_migrate_postgres_once() {
    starts_at_once(Place::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_postgres_cut_are_replaced() {
    let database = Database::on(Place::postgres().await).await;
    database.apply([event_user(user("user_1", 5))]).await;
    for _ in 0..3 {
        database
            .place
            .run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE application_name = 'clerk-authz' AND datname = current_database()",
            )
            .await;

        let id = user_id("user_1");
        let found = database.store.user(&database.instance, UserKey::Id(&id));
        assert!(found.await.expect("it answers").is_some());
        database.apply([event_user(user("user_1", 6))]).await;
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_says_so_without_its_password() {
    let url = "postgres://someone:hushhush@127.0.0.1:1/none";
    let error = SqlStore::postgres(url).await.expect_err("nobody listens");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("hushhush"));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("notes.txt");
    let text = "not a database at all, but long enough to look at: ".repeat(40);
    std::fs::write(&file, &text).expect("written");

    let error = SqlStore::sqlite(&file).await.expect_err("refused");

    assert!(matches!(error, StoreError::Broken { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&file).expect("read"), text);
    let error = SqlStore::sqlite(folder.path()).await.expect_err("a folder");
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_new_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("deep/down/clerk-authz.db");
    let store = SqlStore::sqlite(&file)
        .await
        .expect("made, with its folders");
    store.ping().await.expect("it answers");
    for entry in std::fs::read_dir(file.parent().expect("a folder")).expect("a listing") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("its rights").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", entry.file_name());
    }
}
