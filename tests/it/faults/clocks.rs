//! Our clock is stepped while Clerk's is right.

use clerk_authz::{
    door::grpc::proto::{DecisionSource, check_org_permission_request::Subject},
    emulator::TokenSpec,
};

use super::{Load, clerk_by, service_by};
use crate::support::{Reason, assert_denied, database::Place, directory::TestClock, settings_on};

const HOUR: i64 = 3_600;

/// Good tokens are denied, since nobody can tell them from bad ones then, and what is remembered does
/// not become immortal. A clock that is behind cannot know what has ended since, and accepts what was
/// good at its time; never longer than it is behind. With the clock right all is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_may_be_stepped_forth_and_back() {
    let (clock, clerks) = (TestClock::at_now(), TestClock::at_now());
    let clerk = clerk_by(&clerks).await;
    let settings = settings_on(&clerk, &Place::sqlite().url(), &[]);
    let fixture = service_by(&clock, clerk, &settings).await;
    let load = Load::on(&fixture);
    load.goes_on("the clock is right").await;
    load.end().await;
    let bob = || Subject::UserId("user_bob".to_owned());
    let source = async || {
        let answer = fixture.may(bob(), "org:invoices:read").await;
        answer.expect("answered").source()
    };
    assert_eq!(source().await, DecisionSource::Clerk);
    assert_eq!(source().await, DecisionSource::Cache);
    let token = fixture.mint(&TokenSpec::session("user_alice"));
    fixture.verify(&token).await.expect("good, and remembered");
    let issued_before = |seconds: i64| {
        let mut spec = TokenSpec::session("user_alice");
        spec.issued_in_seconds = -seconds;
        fixture.mint(&spec)
    };
    let of_then = issued_before(HOUR);
    let answer = fixture.verify(&of_then).await;
    assert_denied(answer, Reason::TokenExpired, "it ended long ago");

    clock.step(HOUR);
    let answer = fixture.verify(&token).await;
    assert_denied(answer, Reason::TokenExpired, "an hour ahead");
    let mut long = TokenSpec::session("user_alice");
    long.lifetime_seconds = Some(2 * HOUR);
    fixture
        .verify(&fixture.mint(&long))
        .await
        .expect("not over yet");
    assert_eq!(
        source().await,
        DecisionSource::Clerk,
        "what is remembered is too old"
    );

    clock.step(-2 * HOUR);
    let answer = fixture.verify(&token).await;
    assert_denied(answer, Reason::TokenNotYetValid, "an hour behind");
    fixture
        .verify(&of_then)
        .await
        .expect("good at the time of that clock");
    let answer = fixture.verify(&issued_before(2 * HOUR)).await;
    assert_denied(answer, Reason::TokenExpired, "by that clock, too");
    assert_eq!(
        source().await,
        DecisionSource::Clerk,
        "nothing is believed from the future"
    );

    clock.step(HOUR);
    fixture.verify(&token).await.expect("good as before");
    let answer = fixture.verify(&of_then).await;
    assert_denied(answer, Reason::TokenExpired, "the clock is right");
    clerks.step(HOUR);
    clock.step(HOUR);
    let answer = fixture.verify(&token).await;
    assert_denied(answer, Reason::TokenExpired, "an hour has really passed");
    let load = Load::on(&fixture);
    load.goes_on("the clock is right again").await;
    load.end().await;
}
