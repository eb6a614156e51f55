//! Many at once: the budget is kept, one token is one question, and what anybody can make up takes
//! nothing of what others need.

use std::time::Duration;

use clerk_authz::{
    door::grpc::proto,
    emulator::{Endpoint, Faults, RateLimit},
};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use tonic::{Code, Request};

use super::{API_KEY, Verified, accepting, api_key, ask, start};
use crate::support::reason_of;

#[tokio::test]
async fn one_token_that_many_ask_about_is_one_question() {
    let fixture = start(&[]).await;
    let slow = Faults {
        slow_milliseconds: 300,
        ..Faults::default()
    };
    fixture
        .instance()
        .set_faults_for(Endpoint::MachineTokens, slow);
    let good = fixture.mint(&api_key());
    let revoked = fixture.mint(&api_key());
    fixture.instance().revoke_machine_token(&revoked);
    let each = (0..200).map(|number| {
        let token = if number % 2 == 0 { &good } else { &revoked };
        let request = accepting(token, &[API_KEY]);
        let fixture = &fixture;
        async move { (number % 2 == 0, ask(fixture, request).await) }
    });
    for (is_good, answer) in join_all(each).await {
        match answer {
            Ok(Verified::Machine(_)) => assert!(is_good),
            Err(status) => {
                assert!(!is_good, "{status:?}");
                assert_eq!(reason_of(&status), "SESSION_REVOKED");
            }
            Ok(Verified::Session(_)) => panic!("a session"),
        }
    }
    let asked = fixture.instance().api_requests(Endpoint::MachineTokens);
    assert_eq!(asked, 2, "one for each token");
    fixture.stop().await;
}

#[tokio::test]
async fn made_up_tokens_keep_to_the_budget_and_leave_others_theirs() {
    let fixture = start(&[("CLERK_AUTHZ_API_BUDGET", "30")]).await;
    fixture.instance().set_rate_limit(Some(RateLimit {
        requests: 30,
        seconds: 10,
    }));
    fixture.instance().reset_counts();
    let each = (0..300).map(|number| {
        let mut client = fixture.client.clone();
        async move {
            let mut request = Request::new(accepting(&format!("ak_made_up_{number}"), &[API_KEY]));
            request.set_timeout(Duration::from_secs(3));
            client.verify_session(request).await
        }
    });
    let storm = join_all(each);
    let check = async {
        // In the midst of it.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let began = Instant::now();
        let question = proto::CheckOrgPermissionRequest {
            subject: Some(proto::check_org_permission_request::Subject::UserId(
                "user_bob".into(),
            )),
            organization_id: "org_acme".into(),
            role: Some("member".into()),
            ..Default::default()
        };
        let answer = fixture.client.clone().check_org_permission(question).await;
        (
            answer.expect("it is told").into_inner().allowed,
            began.elapsed(),
        )
    };
    let (answers, (allowed, took)) = timeout(Duration::from_secs(20), async {
        tokio::join!(storm, check)
    })
    .await
    .expect("it ends");
    assert!(allowed, "the nearest allow");
    assert!(
        took < Duration::from_secs(1),
        "it did not stand in line: {took:?}"
    );

    let mut told = 0;
    for answer in answers {
        let status = answer.expect_err("none of them is good");
        match status.code() {
            Code::Unauthenticated => {
                assert_eq!(reason_of(&status), "TOKEN_MALFORMED");
                told += 1;
            }
            Code::Unavailable => assert_eq!(reason_of(&status), "CLERK_RATE_LIMITED"),
            Code::ResourceExhausted => assert_eq!(reason_of(&status), "OVERLOADED"),
            Code::DeadlineExceeded | Code::Cancelled => {}
            other => panic!("{other:?}: {status:?}"),
        }
    }
    assert!(told > 0, "some were asked about");
    let peaks = fixture.instance().api_peaks();
    assert!(peaks.ten_seconds <= 30, "{peaks:?}");
    fixture.stop().await;
}
