//! Clerk is down, or answers nonsense.

use clerk_authz::{
    door::grpc::proto::{DecisionSource, check_org_permission_request::Subject},
    emulator::{Endpoint, Fault, Faults, TokenSpec},
};
use tonic::Code;

use super::{Load, clerk_by, service_by};
use crate::support::{
    Reason, assert_denied, database::Place, directory::TestClock, eventually, reason_of,
    settings_on,
};

/// From one look to the next.
const STEP_SECONDS: i64 = 20;
/// Ten minutes, by the clock of the test.
const STEPS: i64 = 30;

fn bob() -> Subject {
    Subject::UserId("user_bob".to_owned())
}

/// What tokens say goes on; what was remembered answers for its minute; what has to be asked cannot be
/// told, and is never a "no". Nobody restarts anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clerk_may_be_down_for_ten_minutes() {
    let clock = TestClock::at_now();
    let clerk = clerk_by(&clock).await;
    let place = Place::sqlite();
    let settings = settings_on(&clerk, &place.url(), &[]);
    let fixture = service_by(&clock, clerk, &settings).await;
    let asked = fixture
        .may(bob(), "org:invoices:read")
        .await
        .expect("asked");
    assert!(
        asked.allowed && asked.source() == DecisionSource::Clerk,
        "{asked:?}"
    );
    let load = Load::on(&fixture);

    fixture.instance().set_faults(Faults::always(Fault::Down));
    let (mut remembered, mut cannot_tell) = (0, 0);
    for _ in 0..STEPS {
        load.goes_on("Clerk is down").await;
        match fixture.may(bob(), "org:invoices:read").await {
            Ok(answer) => {
                assert!(
                    answer.allowed && answer.source() == DecisionSource::Cache,
                    "{answer:?}"
                );
                assert_eq!(cannot_tell, 0, "it was too old already");
                remembered += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                assert_eq!(reason_of(&status), "CLERK_UNAVAILABLE");
                cannot_tell += 1;
            }
        }
        clock.step(STEP_SECONDS);
    }
    // Within CLERK_AUTHZ_MEMBERSHIP_MAX_AGE, 60 s.
    assert_eq!(
        remembered,
        60 / STEP_SECONDS,
        "{cannot_tell} could not be told"
    );
    assert_eq!(cannot_tell, STEPS - 60 / STEP_SECONDS);

    fixture.instance().clear_faults();
    eventually("Clerk is asked again by itself", || async {
        let answer = fixture.may(bob(), "org:invoices:read").await;
        answer.is_ok_and(|it| it.allowed && it.source() == DecisionSource::Clerk)
    })
    .await;
    load.end().await;
}

/// Keys that nobody can read change nothing; a token under a new key cannot be told until the keys are
/// there again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_set_may_be_garbage() {
    let clock = TestClock::at_now();
    let clerk = clerk_by(&clock).await;
    let settings = settings_on(&clerk, &Place::sqlite().url(), &[]);
    let fixture = service_by(&clock, clerk, &settings).await;
    let load = Load::on(&fixture);
    load.goes_on("all is well").await;
    let old = fixture.mint(&TokenSpec::session("user_alice"));

    for fault in [
        Fault::Garbage,
        Fault::WrongContent,
        Fault::NoKeys,
        Fault::Endless,
    ] {
        let clerk = fixture.instance();
        clerk.set_faults_for(Endpoint::Jwks, Faults::always(fault));
        let fetches = clerk.api_requests(Endpoint::Jwks);
        // A token that names no key of ours has the keys fetched.
        let mut stranger = TokenSpec::session("user_alice");
        stranger
            .header
            .insert("kid".to_owned(), format!("ins_{fault:?}").into());
        let stranger = fixture.mint(&stranger);
        clock.step(10);
        let status = fixture.verify(&stranger).await.expect_err("no such key");
        assert_eq!(status.code(), Code::Unavailable, "{fault:?}: {status:?}");
        assert_eq!(reason_of(&status), "KEYS_UNAVAILABLE", "{fault:?}");
        assert!(
            clerk.api_requests(Endpoint::Jwks) > fetches,
            "{fault:?} was seen"
        );
        load.goes_on(&format!("the key set is {fault:?}")).await;
    }
    load.end().await;
    assert!(
        fixture.verify(&old).await.is_ok(),
        "the last good keys stand"
    );

    fixture
        .instance()
        .rotate_key(false, false)
        .expect("rotated");
    let new = fixture.mint(&TokenSpec::session("user_alice"));
    fixture.instance().clear_faults();
    eventually("the new key is there", || async {
        clock.step(10);
        fixture.verify(&new).await.is_ok()
    })
    .await;
    let mut stranger = TokenSpec::session("user_alice");
    stranger.header.insert("kid".to_owned(), "ins_none".into());
    let answer = fixture.verify(&fixture.mint(&stranger)).await;
    assert_denied(answer, Reason::KeyUnknown, "now it can be told");
}
