//! The good path, whom it leads to, and that it is walked once.

use clerk_authz::{
    door::grpc::proto::{self, Reverification, ReverificationPreset, reverification::Requirement},
    emulator::{
        AssertionSpec, Endpoint, Fault, Faults, TokenSpec,
        directory::{ExternalAccount, User},
    },
};
use futures_util::future::join_all;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{BY_EMAIL, Scene, client, denied, exchanging, said};
use crate::support::{
    Fixture, Reason, about, assert_denied,
    database::{Database, on_each_engine},
    offline_clerk, reason_of, settings_for,
};

const BY_ID: &str = "match = \"external_id\"\nmfa = \"off\"\n";

#[tokio::test]
async fn an_assertion_becomes_a_ticket_a_session_and_a_token_that_verifies() {
    let scene = Scene::start(BY_EMAIL).await;
    for spec in [
        AssertionSpec::of("user_alice"),
        AssertionSpec {
            es256: true,
            ..AssertionSpec::of("user_alice")
        },
    ] {
        let request = proto::ExchangeAssertionRequest {
            organization_id: "org_acme".to_owned(),
            ..exchanging(&scene.assertion(spec))
        };
        let before = std::time::SystemTime::now();
        let answer = scene.exchange(request).await.expect("a ticket");
        assert_eq!(answer.user_id, "user_alice");
        let expires_at = std::time::SystemTime::try_from(answer.expires_at.expect("set"));
        let lives = expires_at.expect("a time").duration_since(before);
        let lives = lives.expect("to come").as_secs();
        assert!((55..=61).contains(&lives), "{lives} s");

        let token = scene.redeem(&answer.ticket).await.expect("a session");
        let session = scene.fixture.verify(&token).await.expect("good");
        assert_eq!(session.user_id, "user_alice");
        let organization = session.organization.expect("active");
        assert_eq!(organization.id, "org_acme");

        let again = scene.redeem(&answer.ticket).await;
        assert_eq!(
            again,
            Err("ticket_invalid_code".to_owned()),
            "a ticket redeems once"
        );
    }
    scene.stop().await;
}

/// After the exchange factors are asked for where they count: by the session's own ages.
#[tokio::test]
async fn reverification_looks_at_the_session_and_not_at_what_the_provider_said() {
    let scene = Scene::start(BY_EMAIL).await;
    // The provider's sign-in is fresh, and shows a second factor; the session's factors grow old.
    let assertion = scene.assertion(AssertionSpec::of("user_alice"));
    let answer = scene
        .exchange(exchanging(&assertion))
        .await
        .expect("a ticket");
    let first = scene.redeem(&answer.ticket).await.expect("a session");
    let session = scene.fixture.verify(&first).await.expect("good");
    let strict = |token: &str| {
        let mut request = about(token);
        request.reverification = Some(Reverification {
            requirement: Some(Requirement::Preset(ReverificationPreset::Strict.into())),
        });
        request
    };
    assert!(scene.fixture.ask(strict(&first)).await.is_ok(), "fresh");
    for (what, ages) in [("the first", [15, -1]), ("the second", [0, 15])] {
        let later = scene.fixture.mint(&TokenSpec {
            session: Some(session.session_id.clone()),
            factor_ages: Some(ages),
            ..TokenSpec::session("user_alice")
        });
        assert!(scene.fixture.verify(&later).await.is_ok(), "{what}");
        assert_denied(
            scene.fixture.ask(strict(&later)).await,
            Reason::ReverificationRequired,
            what,
        );
    }
    scene.stop().await;
}

#[tokio::test]
async fn an_explanation_uses_nothing_up_and_says_every_rule() {
    let scene = Scene::start(BY_EMAIL).await;
    let assertion = scene.assertion(AssertionSpec::of("user_alice"));
    for _ in 0..2 {
        let explained = scene.explain(exchanging(&assertion)).await;
        assert_eq!(explained.outcome(), proto::DecisionOutcome::Accepted);
        assert_eq!(explained.user_id, "user_alice");
        let rules: Vec<_> = explained.steps.iter().map(|step| &*step.rule).collect();
        let expected: Vec<_> = clerk_authz::explain::Rule::OF_EXCHANGE
            .iter()
            .map(|rule| rule.name())
            .collect();
        assert_eq!(rules, expected);
    }
    assert_eq!(
        scene
            .fixture
            .instance()
            .api_requests(Endpoint::SignInTokens),
        0
    );
    assert!(scene.exchange(exchanging(&assertion)).await.is_ok());

    let weak = AssertionSpec {
        amr: Some(vec!["pwd".to_owned()]),
        ..AssertionSpec::of("user_alice")
    };
    let explained = scene.explain(exchanging(&scene.assertion(weak))).await;
    assert_eq!(explained.outcome(), proto::DecisionOutcome::Denied);
    assert_eq!(explained.reason(), proto::Reason::MfaRequired);
    let step = explained
        .steps
        .iter()
        .find(|step| step.rule == "second_factor");
    let step = step.expect("the rule");
    assert_eq!(step.outcome(), proto::StepOutcome::Failed);
    assert!(step.detail.contains("amr has \"pwd\""), "{}", step.detail);
    scene.stop().await;
}

on_each_engine! {
    async fn of_many_exchanges_through_two_replicas_one_is_made(database: Database) {
        let scene = Scene::start_on(database, BY_EMAIL).await;
        let replica = scene.replica().await;
        let clients = [scene.fixture.client.clone(), client(replica.grpc_addr()).await];
        for jti in [None, Some(serde_json::Value::Null)] {
            let mut spec = AssertionSpec::of("user_alice");
            if let Some(null) = jti {
                spec = spec.with_claim("jti", null);
            }
            let assertion = scene.assertion(spec);
            let before = scene.fixture.instance().api_requests(Endpoint::SignInTokens);
            let answers = join_all((0..20).map(|number| {
                let mut client = clients[number % 2].clone();
                let request = exchanging(&assertion);
                async move { client.exchange_assertion(request).await }
            }))
            .await;

            let made = answers.iter().filter(|answer| answer.is_ok()).count();
            assert_eq!(made, 1);
            for status in answers.into_iter().filter_map(Result::err) {
                assert_eq!(said(&status), denied("ASSERTION_REPLAYED", ""), "{status:?}");
            }
            let tickets = scene.fixture.instance().api_requests(Endpoint::SignInTokens);
            assert_eq!(tickets - before, 1, "no second ticket was made");
        }
        replica.stop().await;
        scene.stop().await;
    }
}

#[tokio::test]
async fn whoever_is_denied_has_used_nothing_up() {
    let scene = Scene::start(BY_EMAIL).await;
    let assertion = scene.assertion(AssertionSpec::of("user_bob"));
    let directory = scene.fixture.instance().directory();
    directory.lock_user("user_bob").expect("locked");
    let status = scene
        .exchange(exchanging(&assertion))
        .await
        .expect_err("locked");
    assert_eq!(said(&status), denied("USER_LOCKED", ""));
    let elsewhere = proto::ExchangeAssertionRequest {
        organization_id: "org_globex".to_owned(),
        ..exchanging(&assertion)
    };
    directory.unlock_user("user_bob").expect("unlocked");
    let status = scene.exchange(elsewhere).await.expect_err("no member");
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(reason_of(&status), "NOT_A_MEMBER");
    assert!(scene.exchange(exchanging(&assertion)).await.is_ok());
    scene.stop().await;
}

/// Whether the assertion is said to be used up, and whether it is said when to ask again.
fn left(status: &Status) -> (bool, bool) {
    let details = status.get_error_details();
    let info = details.error_info().expect("ErrorInfo");
    let used = info.metadata.get("assertion_used");
    (
        used.is_some_and(|used| used == "true"),
        details.retry_info().is_some(),
    )
}

/// It is used up before the ticket is made, so that nobody gets two; and no ticket is asked for twice
/// where it is not known whether the first was made.
#[tokio::test]
async fn where_clerk_fails_at_the_ticket_it_cannot_be_told_and_the_assertion_is_used() {
    let scene = Scene::start(BY_EMAIL).await;
    let instance = scene.fixture.instance();
    let assertion = scene.assertion(AssertionSpec::of("user_alice"));
    instance.set_faults_for(Endpoint::SignInTokens, Faults::always(Fault::ServerError));
    let status = scene
        .exchange(exchanging(&assertion))
        .await
        .expect_err("no ticket");
    assert_eq!(
        (status.code(), &*reason_of(&status)),
        (Code::Unavailable, "CLERK_UNAVAILABLE")
    );
    assert_eq!(left(&status), (true, false), "no use in asking again");
    assert_eq!(instance.api_requests(Endpoint::SignInTokens), 1);
    instance.clear_faults();
    let status = scene
        .exchange(exchanging(&assertion))
        .await
        .expect_err("used");
    assert_eq!(said(&status), denied("ASSERTION_REPLAYED", ""));

    // What fails before leaves it as it was.
    let assertion = scene.assertion(AssertionSpec::of("user_alice"));
    instance.set_faults_for(Endpoint::Users, Faults::always(Fault::Down));
    let status = scene
        .exchange(exchanging(&assertion))
        .await
        .expect_err("nobody to ask");
    assert_eq!(
        (status.code(), &*reason_of(&status)),
        (Code::Unavailable, "CLERK_UNAVAILABLE")
    );
    assert_eq!(left(&status), (false, true), "worth asking again");
    instance.clear_faults();
    assert!(scene.exchange(exchanging(&assertion)).await.is_ok());
    scene.stop().await;
}

#[tokio::test]
async fn an_external_account_and_an_external_id_lead_to_their_user() {
    let account = |id: &str, verified| ExternalAccount {
        id: "eac_1".to_owned(),
        provider: "oauth_custom_acme".to_owned(),
        provider_user_id: id.to_owned(),
        verified,
    };
    let by_account = "match = \"external_account\"\nexternal_account = \"oauth_custom_acme\"\n\
                      mfa = \"off\"\n";
    let scene = Scene::start(by_account).await;
    let change = |id: &str, accounts: Vec<ExternalAccount>| {
        let directory = scene.fixture.instance().directory();
        let changed = directory.change_user(id, |user| user.external_accounts = accounts);
        changed.expect("changed");
    };
    change("user_bob", vec![account("subject-1", true)]);
    change("user_carol", vec![account("subject-2", false)]);
    let subject = |subject: &str| {
        let spec = AssertionSpec {
            subject: Some(subject.to_owned()),
            ..AssertionSpec::default()
        };
        exchanging(&scene.assertion(spec))
    };
    let answer = scene
        .exchange(subject("subject-1"))
        .await
        .expect("a ticket");
    assert_eq!(answer.user_id, "user_bob");
    for unmatched in ["subject-2", "subject-3"] {
        let status = scene
            .exchange(subject(unmatched))
            .await
            .expect_err(unmatched);
        assert_eq!(said(&status), denied("USER_UNMATCHED", ""), "{unmatched}");
    }
    change("user_carol", vec![account("subject-1", true)]);
    let status = scene.exchange(subject("subject-1")).await.expect_err("two");
    assert_eq!(said(&status), denied("USER_UNMATCHED", ""));
    scene.stop().await;

    let scene = Scene::start(BY_ID).await;
    let directory = scene.fixture.instance().directory();
    // Clerk reads a sign before an id: it is part of this one.
    for (user, id) in [
        ("user_alice", "crm-1"),
        ("user_bob", "-crm-1"),
        ("user_carol", "+crm-1"),
    ] {
        let changed = directory.change_user(user, |it| it.external_id = Some(id.to_owned()));
        changed.expect("changed");
        let spec = AssertionSpec {
            subject: Some(id.to_owned()),
            ..AssertionSpec::default()
        };
        let answer = scene
            .exchange(exchanging(&scene.assertion(spec)))
            .await
            .expect(id);
        assert_eq!(answer.user_id, user, "{id}");
    }
    scene.stop().await;
}

#[tokio::test]
async fn who_is_new_is_made_once_where_that_is_configured() {
    let scene = Scene::start(&format!("{BY_EMAIL}create_users = true\n")).await;
    let stranger = || {
        let spec = AssertionSpec::default().with_claim("email", "dora@example.com".into());
        exchanging(&scene.assertion(spec))
    };
    let explained = scene.explain(stranger()).await;
    assert_eq!(explained.outcome(), proto::DecisionOutcome::Accepted);
    assert_eq!(explained.user_id, "", "nobody was made");

    let answers = join_all((0..8).map(|_| scene.exchange(stranger()))).await;
    let users: Vec<String> = answers
        .into_iter()
        .map(|answer| answer.expect("a ticket").user_id)
        .collect();
    assert!(
        users.iter().all(|user| *user == users[0]),
        "one user: {users:?}"
    );
    let directory = scene.fixture.instance().directory();
    let made = directory.user(&users[0]).expect("there");
    assert_eq!(made.email(), Some("dora@example.com"));
    scene.stop().await;

    let strict = Scene::start(BY_EMAIL).await;
    let spec = AssertionSpec::default().with_claim("email", "dora@example.com".into());
    let status = strict.exchange(exchanging(&strict.assertion(spec))).await;
    assert_eq!(
        said(&status.expect_err("nobody")),
        denied("USER_UNMATCHED", "")
    );
    strict.stop().await;
}

/// Somebody has the address and has not verified it: nobody is meant, and nobody can be made.
#[tokio::test]
async fn whom_clerk_refuses_to_make_is_unmatched_and_the_assertion_is_used() {
    let scene = Scene::start(&format!("{BY_EMAIL}create_users = true\n")).await;
    let directory = scene.fixture.instance().directory();
    let mut user = User::with_email("erin@example.com");
    user.emails[0].verified = false;
    directory.create_user(user).expect("made");
    let asked = |email: &str| {
        let spec = AssertionSpec::default().with_claim("email", email.into());
        exchanging(&scene.assertion(spec))
    };
    let erin = asked("erin@example.com");
    let status = scene.exchange(erin.clone()).await.expect_err("refused");
    assert_eq!(said(&status), denied("USER_UNMATCHED", ""));
    assert_eq!(left(&status), (true, false));
    let status = scene.exchange(erin).await.expect_err("used");
    assert_eq!(said(&status), denied("ASSERTION_REPLAYED", ""));
    assert!(scene.exchange(asked("fay@example.com")).await.is_ok());
    scene.stop().await;
}

#[tokio::test]
async fn if_enrolled_asks_of_whom_has_a_second_factor_at_clerk() {
    let provider = BY_EMAIL.replace("\"required\"", "\"if_enrolled\"");
    let scene = Scene::start(&provider).await;
    let weak = || {
        let amr = Some(vec!["pwd".to_owned()]);
        exchanging(&scene.assertion(AssertionSpec {
            amr,
            ..AssertionSpec::of("user_bob")
        }))
    };
    assert!(scene.exchange(weak()).await.is_ok(), "none is enrolled");
    let directory = scene.fixture.instance().directory();
    let enrolled = directory.change_user("user_bob", |user| user.totp = true);
    enrolled.expect("changed");
    let status = scene.exchange(weak()).await.expect_err("enrolled");
    assert_eq!(said(&status), denied("MFA_REQUIRED", ""));
    let strong = scene.assertion(AssertionSpec::of("user_bob"));
    assert!(scene.exchange(exchanging(&strong)).await.is_ok());
    scene.stop().await;
}

#[tokio::test]
async fn only_an_address_that_clerk_has_verified_leads_to_its_user() {
    let scene = Scene::start(BY_EMAIL).await;
    let directory = scene.fixture.instance().directory();
    let mut user = User::with_email("erin@example.com");
    user.emails[0].verified = false;
    let erin = directory.create_user(user).expect("made");
    let asked = || {
        let spec = AssertionSpec::default().with_claim("email", "ERIN@example.com".into());
        exchanging(&scene.assertion(spec))
    };
    let status = scene.exchange(asked()).await.expect_err("not verified");
    assert_eq!(said(&status), denied("USER_UNMATCHED", ""));
    let verified = directory.change_user(&erin.id, |user| user.emails[0].verified = true);
    verified.expect("changed");
    let answer = scene.exchange(asked()).await.expect("a ticket");
    assert_eq!(answer.user_id, erin.id);
    scene.stop().await;
}

#[tokio::test]
async fn what_is_missing_is_said_before_anything_is_looked_at() {
    let scene = Scene::start(BY_EMAIL).await;
    let good = exchanging(&scene.assertion(AssertionSpec::of("user_alice")));
    let changed = |change: fn(&mut proto::ExchangeAssertionRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    for (what, request) in [
        ("no provider", changed(|it| it.provider.clear())),
        ("no assertion", changed(|it| it.assertion.clear())),
        ("no id", changed(|it| it.organization_id = "acme".into())),
        (
            "another instance",
            changed(|it| it.instance = "other".into()),
        ),
    ] {
        let status = scene.exchange(request).await.expect_err(what);
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
    }
    assert!(scene.exchange(good).await.is_ok());
    scene.stop().await;

    let clerk = offline_clerk().await;
    let settings = settings_for(&clerk, &[]);
    let fixture = Fixture::start_on(clerk, &settings).await;
    let answer = fixture
        .client
        .clone()
        .exchange_assertion(exchanging("a.b.c"))
        .await;
    let status = answer.expect_err("no database");
    assert_eq!(
        (status.code(), &*reason_of(&status)),
        (Code::Unavailable, "STORE_UNAVAILABLE")
    );
    fixture.stop().await;
}

#[test]
fn the_document_has_every_rule_in_order() {
    let document = include_str!("../../../docs/sso.md");
    let (_, rules) = document.split_once("## The rules").expect("a section");
    let (rules, _) = rules.split_once("## Once").expect("another");
    let rows = rules.lines().filter_map(|line| {
        let (rule, _) = line.strip_prefix("| `")?.split_once("` |")?;
        Some(rule)
    });
    let expected = clerk_authz::explain::Rule::OF_EXCHANGE.iter();
    let expected: Vec<_> = expected.map(|rule| rule.name()).collect();
    assert_eq!(rows.collect::<Vec<_>>(), expected);
}
