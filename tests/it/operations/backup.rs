//! Backups, and what heals what was restored from one.

use std::{path::Path, process::Stdio};

use clerk_authz::emulator::{Emulator, directory::Organization};

use super::{command, complaint, text};
use crate::support::{
    Fixture,
    database::{Database, Place, event_user, user},
    offline_clerk, postgres, settings_for,
    twins::{at_clerk, differences, in_mirror},
    webhook::{SECRET, user_updated},
};

fn variables(clerk: &Emulator, place: &Place) -> Vec<(&'static str, String)> {
    let instance = &clerk.instances()[0];
    vec![
        ("CLERK_SECRET_KEY", instance.secret_key()),
        ("CLERK_API_URL", instance.issuer().to_string()),
        ("CLERK_AUTHZ_API_BUDGET", "100000".to_owned()),
        ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned()),
        ("CLERK_AUTHZ_DATABASE_URL", place.url()),
    ]
}

async fn start(clerk: Emulator, place: &Place) -> Fixture {
    let variables = variables(&clerk, place);
    let variables: Vec<_> = variables.iter().map(|(name, it)| (*name, &**it)).collect();
    let settings = settings_for(&clerk, &variables);
    Fixture::start_on(clerk, &settings).await
}

/// `clerk-authz` with the settings of the service.
async fn with_settings(
    clerk: &Emulator,
    place: &Place,
    arguments: &[&str],
) -> std::process::Output {
    let variables = variables(clerk, place);
    let instance = &clerk.instances()[0];
    let mut variables: Vec<_> = variables.iter().map(|(name, it)| (*name, &**it)).collect();
    let (key, issuer) = (instance.publishable_key(), instance.issuer());
    variables.push(("CLERK_PUBLISHABLE_KEY", key.as_str()));
    variables.push(("CLERK_AUTHZ_ISSUER", issuer.as_str()));
    command(arguments, &variables).await
}

/// Some of everything changes at Clerk, and nobody tells the service.
fn the_world_goes_on(clerk: &Emulator) {
    let directory = clerk.instances()[0].directory();
    directory
        .change_user("user_bob", |user| {
            user.first_name = Some("Robert".to_owned())
        })
        .expect("changed");
    directory.delete_user("user_carol").expect("deleted");
    let organization = Organization {
        id: "org_new".to_owned(),
        ..Organization::named("New")
    };
    directory.create_organization(organization).expect("made");
    directory
        .add_member("org_new", "user_bob", "org:admin")
        .expect("a member");
}

/// What was restored is what it was, watchers begin anew, and one reconciliation makes it equal to Clerk.
async fn is_healed(clerk: Emulator, restored: Place, watched: &str) {
    let service = start(clerk, &restored).await;
    assert!(
        service.first_name("user_carol").await.is_some(),
        "as it was then"
    );
    service.begins_anew(watched).await;
    let database = Database::on(restored).await;
    let drift = differences(
        &at_clerk(&service.clerk.instances()[0]).await,
        &in_mirror(&database).await,
    );
    assert!(!drift.is_empty(), "time has passed");

    let healed = with_settings(&service.clerk, &database.place, &["reconcile", "--apply"]).await;

    assert_eq!(healed.status.code(), Some(1), "there was drift: {healed:?}");
    let drift = differences(
        &at_clerk(&service.clerk.instances()[0]).await,
        &in_mirror(&database).await,
    );
    assert!(drift.is_empty(), "{}", drift.join("\n"));
    service.is_called("user_bob", "Robert").await;
    assert_eq!(service.first_name("user_carol").await, None);
    service.stop().await;
}

/// SQLite, while the service takes webhooks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_sqlite_is_restored_and_healed() {
    const WEBHOOKS: i64 = 40;
    let place = Place::sqlite();
    let url = place.url();
    let service = start(offline_clerk().await, &place).await;
    let filled = with_settings(&service.clerk, &place, &["reconcile", "--apply"]).await;
    assert_eq!(filled.status.code(), Some(1), "{filled:?}");
    let watched = service.watched().await;
    let addr = service.service.http_addr();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("backup.db");
    let file = file.to_str().expect("UTF-8");

    let address = [("CLERK_AUTHZ_DATABASE_URL", &*url)];
    let arguments = ["store", "backup", file];
    let writing = async {
        for version in 0..WEBHOOKS {
            let id = format!("msg_{version}");
            let message = user_updated(&id, "user_busy", "Ada", version);
            assert_eq!(message.status(addr).await, 204, "the writer goes on");
        }
    };
    let ((), backup) = tokio::join!(writing, command(&arguments, &address));
    assert_eq!(backup.status.code(), Some(0), "{backup:?}");
    assert!(
        text(&backup.stdout).starts_with(&format!("{file}  ")),
        "{backup:?}"
    );
    is_for_its_owner_only(Path::new(file));
    let again = command(&arguments, &address).await;
    assert!(
        complaint(&again).contains("is there already; give the name of a new file"),
        "{again:?}"
    );
    the_world_goes_on(&service.clerk);
    let Fixture { clerk, service, .. } = service;
    service.stop().await;

    let restored = Place::sqlite();
    std::fs::copy(file, file_of(&restored)).expect("restored");
    is_healed(clerk, restored, &watched).await;
}

fn file_of(place: &Place) -> String {
    let url = place.url();
    url.strip_prefix("sqlite://").expect("SQLite").to_owned()
}

fn is_for_its_owner_only(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata().expect("its rights").permissions().mode();
    assert_eq!(mode & 0o077, 0, "{}", file.display());
}

/// PostgreSQL, with its own tools.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_postgres_is_restored_and_healed() {
    let place = Place::postgres().await;
    let service = start(offline_clerk().await, &place).await;
    let filled = with_settings(&service.clerk, &place, &["reconcile", "--apply"]).await;
    assert_eq!(filled.status.code(), Some(1), "{filled:?}");
    let watched = service.watched().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("backup.dump");
    let file = file.to_str().expect("UTF-8");

    let dump = [
        "--format=custom",
        "--schema=clerk_authz",
        "--file",
        file,
        &place.url(),
    ];
    tool("pg_dump", &dump).await;
    the_world_goes_on(&service.clerk);
    let Fixture { clerk, service, .. } = service;
    service.stop().await;

    let restored = Place::postgres().await;
    let url = restored.url();
    tool(
        "pg_restore",
        &["--no-owner", "--exit-on-error", "--dbname", &url, file],
    )
    .await;
    let said = command(
        &["store", "restored"],
        &[("CLERK_AUTHZ_DATABASE_URL", &url)],
    )
    .await;
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert!(
        text(&said.stdout).starts_with("watchers begin anew (1 feeds had been watched)"),
        "{said:?}"
    );
    is_healed(clerk, restored, &watched).await;
}

async fn tool(name: &str, arguments: &[&str]) {
    let ended = tokio::process::Command::new(postgres::binaries().join(name))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("it runs");
    assert!(ended.status.success(), "{name}: {ended:?}");
}

#[tokio::test]
async fn what_cannot_be_backed_up_says_what_to_do_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let sqlite = Database::on(Place::sqlite()).await;
    sqlite.apply([event_user(user("user_1", 5))]).await;
    let url = sqlite.place.url();
    let address = [("CLERK_AUTHZ_DATABASE_URL", &*url)];
    let in_a_file = format!("{}/backup.db", file_of(&sqlite.place));
    let output = command(&["store", "backup", &in_a_file], &address).await;
    assert!(
        complaint(&output).contains(".partial cannot be written: "),
        "{output:?}"
    );
    let postgres = Database::on(Place::postgres().await).await.place.url();
    let address = [("CLERK_AUTHZ_DATABASE_URL", &*postgres)];
    let file = folder.path().join("backup.db");
    let file = file.to_str().expect("UTF-8");
    let output = command(&["store", "backup", file], &address).await;
    assert!(
        complaint(&output).contains("pg_dump --format=custom --schema=clerk_authz"),
        "{output:?}"
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        0
    );
}
