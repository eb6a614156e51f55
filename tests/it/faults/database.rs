//! The database hangs: it takes connections and answers nothing in time; or it is slow.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clerk_authz::door::grpc::proto::{GetUserRequest, GetUserResponse, get_user_request::Key};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};
use tonic::{Code, Request, Response, Status};

use super::{AT_ONCE, Load, clerk_by, service_by};
use crate::support::{
    Fixture, PATIENCE, database::Place, directory::TestClock, eventually, get, postgres, reason_of,
    settings_on, webhook::user_updated,
};

/// A lock on all that is asked for, as a migration by hand takes it; a dead disk looks the same.
const HANG: &str = "BEGIN; LOCK TABLE users, inbox IN ACCESS EXCLUSIVE MODE";
/// Each answer of a slow database comes so much later.
const SLOW: Duration = Duration::from_millis(250);

async fn get_user(fixture: &Fixture) -> Result<Response<GetUserResponse>, Status> {
    let mut request = Request::new(GetUserRequest {
        key: Some(Key::UserId("user_1".to_owned())),
        ..Default::default()
    });
    request.set_timeout(PATIENCE);
    fixture.client.clone().get_user(request).await
}

async fn is_called(fixture: &Fixture, first_name: &str) {
    eventually(&format!("it is {first_name}"), || async {
        let answer = get_user(fixture).await;
        answer.is_ok_and(|it| {
            let user = it.into_inner().user;
            user.is_some_and(|it| it.first_name == first_name)
        })
    })
    .await;
}

/// A service under load on this database, which has a user.
async fn all_is_well(url: &str) -> (Arc<Fixture>, Load) {
    let clock = TestClock::at_now();
    let clerk = clerk_by(&clock).await;
    let settings = settings_on(&clerk, url, &[]);
    let fixture = service_by(&clock, clerk, &settings).await;
    let addr = fixture.service.http_addr();
    let sent = user_updated("msg_1", "user_1", "Ada", 5).status(addr).await;
    assert_eq!(sent, 204);
    is_called(&fixture, "Ada").await;
    let load = Load::on(&fixture);
    load.goes_on("all is well").await;
    (fixture, load)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_may_hang() {
    let place = Place::postgres().await;
    let url = place.url();
    let (fixture, load) = all_is_well(&url).await;
    let addr = fixture.service.http_addr();

    let mut beside = postgres::beside(&url).await;
    sqlx::raw_sql(HANG)
        .execute(&mut beside)
        .await
        .expect("locked");
    let begun = Instant::now();
    let later = user_updated("msg_2", "user_1", "Grace", 9);
    let (asked, taken) = tokio::join!(get_user(&fixture), later.status(addr));
    let status = asked.expect_err("nobody answers");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(reason_of(&status), "STORE_UNAVAILABLE");
    assert_eq!(taken, 503, "it comes again");
    assert!(
        begun.elapsed() > AT_ONCE,
        "they waited: 5 s for a lock, 10 s for a statement"
    );
    load.goes_on("the database hangs").await;
    assert_eq!(get(addr, "/livez").await.0, 200);
    assert_eq!(
        get(addr, "/readyz").await.0,
        200,
        "tokens are verified all the same"
    );

    sqlx::raw_sql("ROLLBACK")
        .execute(&mut beside)
        .await
        .expect("released");
    eventually("the webhook is taken", || async {
        later.status(addr).await == 204
    })
    .await;
    is_called(&fixture, "Grace").await;
    load.end().await;
}

/// Hands on what a server says so much later.
async fn later(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    milliseconds: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length) = from.read(&mut buffer).await {
        tokio::time::sleep(Duration::from_millis(milliseconds.load(Relaxed))).await;
        if length == 0 || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// A socket in `folder` that leads to the one in `server`.
fn slow_road(folder: &Path, server: &str, milliseconds: &Arc<AtomicU64>) {
    const NAME: &str = ".s.PGSQL.5432";
    let listener = UnixListener::bind(folder.join(NAME)).expect("a socket");
    let (server, milliseconds) = (Path::new(server).join(NAME), Arc::clone(milliseconds));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = UnixStream::connect(&server).await else {
                continue;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(later(from_client, to_server, Arc::default()));
            tokio::spawn(later(from_server, to_client, Arc::clone(&milliseconds)));
        }
    });
}

/// Answers come later, and are right; what asks the database not at all is as fast as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_may_be_slow() {
    let url = Place::postgres().await.url();
    let (address, server) = url.split_once("?host=").expect("a socket");
    let folder = tempfile::tempdir().expect("a folder");
    let milliseconds = Arc::<AtomicU64>::default();
    slow_road(folder.path(), server, &milliseconds);
    let url = format!("{address}?host={}", folder.path().display());
    let (fixture, load) = all_is_well(&url).await;
    let addr = fixture.service.http_addr();

    milliseconds.store(SLOW.as_millis() as u64, Relaxed);
    let begun = Instant::now();
    get_user(&fixture).await.expect("it answers, later");
    assert!(begun.elapsed() >= SLOW);
    let sent = user_updated("msg_2", "user_1", "Grace", 9)
        .status(addr)
        .await;
    assert_eq!(sent, 204, "it is taken, later");
    is_called(&fixture, "Grace").await;
    load.goes_on("the database is slow").await;

    milliseconds.store(0, Relaxed);
    let sent = user_updated("msg_3", "user_1", "Alan", 10)
        .status(addr)
        .await;
    assert_eq!(sent, 204);
    is_called(&fixture, "Alan").await;
    load.end().await;
}
