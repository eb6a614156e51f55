//! The database hangs: it takes connections and answers nothing in time.

use std::time::Instant;

use clerk_authz::door::grpc::proto::{GetUserRequest, get_user_request::Key};
use tonic::{Code, Request};

use super::{AT_ONCE, Load, clerk_by, service_by, settings_on};
use crate::support::{
    PATIENCE, database::Place, directory::TestClock, eventually, get, postgres, reason_of,
    webhook::user_updated,
};

/// A lock on all that is asked for, as a migration by hand takes it; a slow disk looks the same.
const HANG: &str = "BEGIN; LOCK TABLE users, inbox IN ACCESS EXCLUSIVE MODE";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_may_hang() {
    let clock = TestClock::at_now();
    let place = Place::postgres().await;
    let url = place.url();
    let clerk = clerk_by(&clock).await;
    let settings = settings_on(&clerk, &url, &[]);
    let fixture = service_by(&clock, clerk, &settings).await;
    let addr = fixture.service.http_addr();
    let sent = user_updated("msg_1", "user_1", "Ada", 5).status(addr).await;
    assert_eq!(sent, 204);
    let get_user = async || {
        let mut request = Request::new(GetUserRequest {
            key: Some(Key::UserId("user_1".to_owned())),
            ..Default::default()
        });
        request.set_timeout(PATIENCE);
        fixture.client.clone().get_user(request).await
    };
    eventually("it is applied", || async { get_user().await.is_ok() }).await;
    let load = Load::on(&fixture);
    load.goes_on("all is well").await;

    let mut beside = postgres::beside(&url).await;
    sqlx::raw_sql(HANG)
        .execute(&mut beside)
        .await
        .expect("locked");
    let begun = Instant::now();
    let later = user_updated("msg_2", "user_1", "Grace", 9);
    let (asked, taken) = tokio::join!(get_user(), later.status(addr));
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
    eventually("it is applied", || async {
        let answer = get_user().await;
        answer.is_ok_and(|it| {
            it.into_inner()
                .user
                .is_some_and(|it| it.first_name == "Grace")
        })
    })
    .await;
    load.end().await;
}
