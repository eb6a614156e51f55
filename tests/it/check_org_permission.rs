//! Decisions about organizations, through the gRPC door, with the offline Clerk behind.

use std::{process::Stdio, time::Duration};

use clerk_authz::{
    door::grpc::proto::{
        self, CheckOrgPermissionRequest as Request, CheckOrgPermissionResponse as Answer,
        DecisionSource, check_org_permission_request::Subject, consistency,
    },
    emulator::{Endpoint, Fault, Faults, TokenSpec},
};
use futures_util::future::join_all;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::ChildStderr,
};
use tonic::{Code, Status};

use crate::support::{Fixture, PATIENCE, Reason, client, eventually, reason_of};

/// A service with the emulator's secret key.
async fn fixture_with(more: &[(&str, &str)]) -> Fixture {
    let clerk = crate::support::offline_clerk().await;
    let instance = &clerk.instances()[0];
    let (secret_key, url) = (instance.secret_key(), instance.issuer().to_string());
    let mut variables = vec![("CLERK_SECRET_KEY", &*secret_key), ("CLERK_API_URL", &*url)];
    variables.extend(more);
    let settings = crate::support::settings_for(&clerk, &variables);
    Fixture::start_on(clerk, &settings).await
}

async fn fixture() -> Fixture {
    fixture_with(&[]).await
}

fn of_token(token: &str) -> Request {
    Request {
        subject: Some(Subject::Token(token.to_owned())),
        ..Request::default()
    }
}

fn of_user(user: &str, organization: &str) -> Request {
    Request {
        subject: Some(Subject::UserId(user.to_owned())),
        organization_id: organization.to_owned(),
        ..Request::default()
    }
}

trait Asking: Sized {
    fn may(self, permission: &str) -> Self;
    fn is(self, role: &str) -> Self;
    fn within(self, organization: &str) -> Self;
    fn fully_consistent(self) -> Self;
}

impl Asking for Request {
    fn may(self, permission: &str) -> Self {
        Self {
            permission: Some(permission.to_owned()),
            ..self
        }
    }

    fn is(self, role: &str) -> Self {
        Self {
            role: Some(role.to_owned()),
            ..self
        }
    }

    fn within(self, organization: &str) -> Self {
        Self {
            organization_id: organization.to_owned(),
            ..self
        }
    }

    fn fully_consistent(self) -> Self {
        let level = proto::ConsistencyLevel::FullyConsistent;
        Self {
            consistency: Some(proto::Consistency {
                requirement: Some(consistency::Requirement::Level(level.into())),
            }),
            ..self
        }
    }
}

async fn ask(fixture: &Fixture, request: Request) -> Result<Answer, Status> {
    let mut request = tonic::Request::new(request);
    request.set_timeout(Duration::from_secs(5));
    let answer = fixture.client.clone().check_org_permission(request).await?;
    Ok(answer.into_inner())
}

async fn decided(fixture: &Fixture, request: Request) -> Answer {
    ask(fixture, request).await.expect("a decision")
}

/// What is asked, and what is answered: by what, for what reason.
type Row = (&'static str, Request, Reason, DecisionSource);

#[tokio::test]
async fn each_question_is_answered_by_what_knows() {
    use DecisionSource::{Cache, Clerk, Token};
    let fixture = fixture().await;
    // The offline Clerk made its memberships this very second; these tokens are from after it.
    let later = |spec: TokenSpec| TokenSpec {
        issued_in_seconds: 2,
        ..spec
    };
    let alice = fixture.mint(&later(
        TokenSpec::session("user_alice").in_organization("acme"),
    ));
    let bob = fixture.mint(&later(
        TokenSpec::session("user_bob").in_organization("acme"),
    ));
    let nowhere = fixture.mint(&later(TokenSpec::session("user_alice")));
    let impersonated = fixture.mint(&TokenSpec {
        issued_in_seconds: 2,
        impersonated_by: Some("user_bob".into()),
        ..TokenSpec::session("user_alice").in_organization("acme")
    });
    let stale_factor = fixture.mint(&TokenSpec {
        issued_in_seconds: 2,
        factor_ages: Some([15, -1]),
        ..TokenSpec::session("user_alice")
    });
    let plan = |request: Request, plan: &str| Request {
        plan: Some(plan.into()),
        ..request
    };
    let feature = |request: Request, feature: &str| Request {
        feature: Some(feature.into()),
        ..request
    };
    let step_up = |request: Request| Request {
        reverification: Some(proto::Reverification {
            requirement: Some(proto::reverification::Requirement::Preset(
                proto::ReverificationPreset::Strict.into(),
            )),
        }),
        ..request
    };
    let alone = |request: Request| Request {
        allow_impersonation: Some(false),
        ..request
    };
    let rows: Vec<Row> = vec![
        (
            "a permission",
            of_token(&alice).may("org:invoices:create"),
            Reason::Allowed,
            Token,
        ),
        (
            "without its prefix",
            of_token(&alice).may("invoices:create"),
            Reason::Allowed,
            Token,
        ),
        (
            "of a member",
            of_token(&bob).may("org:invoices:create"),
            Reason::PermissionMissing,
            Token,
        ),
        (
            "a role",
            of_token(&bob).is("member"),
            Reason::Allowed,
            Token,
        ),
        (
            "another role",
            of_token(&bob).is("org:admin"),
            Reason::RoleMismatch,
            Token,
        ),
        (
            "no organization",
            of_token(&nowhere).is("admin"),
            Reason::OrganizationMissing,
            Token,
        ),
        (
            "named by its slug",
            of_token(&alice).is("admin").within("acme"),
            Reason::Allowed,
            Token,
        ),
        ("nothing", of_token(&alice), Reason::NoRequirement, Token),
        (
            "a plan",
            plan(of_token(&alice), "org:gold"),
            Reason::Allowed,
            Token,
        ),
        (
            "another plan",
            plan(of_token(&alice), "platinum"),
            Reason::PlanMismatch,
            Token,
        ),
        (
            "a feature",
            feature(of_token(&alice), "invoices"),
            Reason::Allowed,
            Token,
        ),
        (
            "one's own feature",
            feature(of_token(&nowhere), "user:beta"),
            Reason::Allowed,
            Token,
        ),
        (
            "another feature",
            feature(of_token(&alice), "audit"),
            Reason::FeatureMissing,
            Token,
        ),
        (
            "a fresh factor",
            step_up(of_token(&alice)),
            Reason::Allowed,
            Token,
        ),
        (
            "a stale factor",
            step_up(of_token(&stale_factor)),
            Reason::ReverificationRequired,
            Token,
        ),
        (
            "an impersonator",
            of_token(&impersonated).is("admin"),
            Reason::Allowed,
            Token,
        ),
        (
            "refused",
            alone(of_token(&impersonated).is("admin")),
            Reason::ImpersonationNotAllowed,
            Token,
        ),
        (
            "nobody else",
            alone(of_token(&alice).is("admin")),
            Reason::Allowed,
            Token,
        ),
        // From here on Clerk is asked, once for each membership.
        (
            "a system permission",
            of_token(&alice).may("org:sys_memberships:manage"),
            Reason::Allowed,
            Clerk,
        ),
        (
            "another",
            of_token(&alice).may("org:sys_nothing:manage"),
            Reason::PermissionMissing,
            Cache,
        ),
        (
            "elsewhere",
            of_token(&alice).may("reports:read").within("org_globex"),
            Reason::Allowed,
            Clerk,
        ),
        (
            "elsewhere, by id",
            of_user("user_alice", "org_globex").is("admin"),
            Reason::Allowed,
            Cache,
        ),
        (
            "elsewhere, by slug",
            of_user("user_alice", "globex").is("admin"),
            Reason::Allowed,
            Cache,
        ),
        (
            "a stranger",
            of_user("user_carol", "org_acme").is("admin"),
            Reason::NotAMember,
            Clerk,
        ),
        (
            "the same stranger",
            of_user("user_carol", "org_acme").is("member"),
            Reason::NotAMember,
            Cache,
        ),
        (
            "nobody",
            of_user("user_nobody", "org_acme").is("admin"),
            Reason::NotAMember,
            Clerk,
        ),
        (
            "a plan of another organization",
            plan(of_token(&alice).within("org_globex"), "org:gold"),
            Reason::OrganizationMismatch,
            Cache,
        ),
        (
            "and one's own",
            feature(of_token(&alice).within("org_globex"), "beta"),
            Reason::Allowed,
            Cache,
        ),
        (
            "asked now",
            of_token(&alice)
                .may("org:invoices:create")
                .fully_consistent(),
            Reason::Allowed,
            Clerk,
        ),
    ];
    for (name, request, reason, source) in rows {
        let answer = decided(&fixture, request).await;
        let expected = format!("REASON_{}", reason.name());
        assert_eq!(
            answer.reason().as_str_name(),
            expected,
            "{name}: {answer:?}"
        );
        assert_eq!(answer.allowed, reason == Reason::Allowed, "{name}");
        assert_eq!(answer.source(), source, "{name}");
        assert_eq!(answer.decision_id.len(), 16, "{name}");
        if answer.allowed && !answer.role.is_empty() {
            assert!(
                answer.organization_id.starts_with("org_"),
                "{name}: {answer:?}"
            );
        }
    }
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_no_decision_is_an_error_that_says_what_it_is() {
    let fixture = fixture().await;
    let expired = fixture.mint(&TokenSpec {
        expired: true,
        ..TokenSpec::session("user_alice").in_organization("acme")
    });
    for (request, code, reason) in [
        (
            of_token(&expired).is("admin"),
            Code::Unauthenticated,
            Reason::TokenExpired,
        ),
        (
            of_token("").is("admin"),
            Code::Unauthenticated,
            Reason::TokenMissing,
        ),
        (
            of_user("user_alice", "org_none").is("admin"),
            Code::NotFound,
            Reason::OrganizationNotFound,
        ),
        (
            of_user("user_alice", "none").is("admin"),
            Code::NotFound,
            Reason::OrganizationNotFound,
        ),
    ] {
        let status = ask(&fixture, request).await.expect_err("an error");
        assert_eq!((status.code(), &*reason_of(&status)), (code, reason.name()));
    }
    let malformed = ask(&fixture, of_user("user_alice", ""))
        .await
        .expect_err("an error");
    assert_eq!(malformed.code(), Code::InvalidArgument);
    assert!(
        malformed.message().contains("organization_id"),
        "{malformed:?}"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn without_a_secret_key_what_the_token_answers_is_answered_and_the_rest_cannot_be_told() {
    let fixture = Fixture::start().await;
    let token = fixture.mint(&TokenSpec::session("user_alice").in_organization("acme"));

    assert!(
        decided(&fixture, of_token(&token).is("admin"))
            .await
            .allowed
    );
    let status = ask(&fixture, of_token(&token).is("admin").within("org_globex"))
        .await
        .expect_err("nobody can be asked");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(reason_of(&status), Reason::ClerkUnavailable.name());
    fixture.stop().await;
}

#[tokio::test]
async fn a_batch_answers_in_order_and_asks_for_each_membership_once() {
    let fixture = fixture().await;
    let mut requests = Vec::new();
    for index in 0..1_000 {
        let user = ["user_alice", "user_bob", "user_carol"][index % 3];
        requests.push(match index % 7 {
            0 => of_user("x", "org_acme").is("admin"),
            1 => of_user(user, "org_none").is("admin"),
            _ => of_user(user, "org_acme").is("org:admin").fully_consistent(),
        });
    }
    let ask = |requests: Vec<Request>| {
        let mut client = fixture.client.clone();
        async move {
            let batch = proto::BatchCheckOrgPermissionRequest { requests };
            client.batch_check_org_permission(batch).await
        }
    };

    let answer = ask(requests.clone()).await.expect("an answer").into_inner();

    assert_eq!(answer.results.len(), requests.len());
    for (index, result) in answer.results.into_iter().enumerate() {
        use proto::batch_check_org_permission_result::Result as Of;
        match (index % 7, result.result.expect("always set")) {
            (0, Of::Status(status)) => assert_eq!(status.code, Code::InvalidArgument as i32),
            (1, Of::Status(status)) => assert_eq!(status.code, Code::NotFound as i32),
            (2.., Of::Response(answer)) => {
                let expected = [
                    proto::Reason::Allowed,
                    proto::Reason::RoleMismatch,
                    proto::Reason::NotAMember,
                ][index % 3];
                assert_eq!(answer.reason(), expected, "{index}");
                assert_eq!(answer.source(), DecisionSource::Clerk, "{index}");
            }
            (_, other) => panic!("{index}: {other:?}"),
        }
    }
    // Three users in the one organization, and three in the one that is not there.
    assert_eq!(fixture.instance().api_requests(Endpoint::Memberships), 6);

    let too_many = ask([requests.clone(), requests].concat())
        .await
        .expect_err("refused");
    assert_eq!(too_many.code(), Code::InvalidArgument);
    fixture.stop().await;
}

#[tokio::test]
async fn an_explanation_is_the_decision_with_its_rules() {
    let fixture = fixture().await;
    let token = fixture.mint(&TokenSpec::session("user_bob").in_organization("acme"));
    let explain = |request: Request| {
        let mut client = fixture.client.clone();
        async move {
            let decision = proto::explain_decision_request::Decision::CheckOrgPermission(request);
            let asked = proto::ExplainDecisionRequest {
                decision: Some(decision),
            };
            client
                .explain_decision(asked)
                .await
                .expect("an explanation")
                .into_inner()
        }
    };
    let outcome_of = |explained: &proto::ExplainDecisionResponse, rule: &str| {
        let step = explained.steps.iter().find(|step| step.rule == rule);
        step.unwrap_or_else(|| panic!("no {rule}")).outcome()
    };
    use proto::StepOutcome::{Failed, Passed, Skipped};

    let denied = explain(of_token(&token).may("org:invoices:create")).await;
    assert_eq!(denied.outcome(), proto::DecisionOutcome::Denied);
    assert_eq!(denied.reason(), proto::Reason::PermissionMissing);
    assert!(
        !denied
            .check_org_permission
            .as_ref()
            .expect("the answer")
            .allowed
    );
    for (rule, outcome) in [
        ("signature", Passed),
        ("organization", Passed),
        ("membership", Passed),
        ("role", Skipped),
        ("permission", Failed),
        ("reverification", Skipped),
    ] {
        assert_eq!(outcome_of(&denied, rule), outcome, "{rule}");
    }
    assert_eq!(
        denied.steps.len(),
        clerk_authz::explain::Rule::OF_CHECK.len()
    );

    let allowed = explain(of_user("user_bob", "acme").is("member")).await;
    assert_eq!(allowed.outcome(), proto::DecisionOutcome::Accepted);
    assert_eq!(allowed.reason(), proto::Reason::Allowed);
    assert_eq!(outcome_of(&allowed, "signature"), Skipped);
    assert_eq!(outcome_of(&allowed, "role"), Passed);

    fixture.instance().set_faults(Faults::always(Fault::Down));
    let unknown = explain(
        of_user("user_bob", "org_acme")
            .is("member")
            .fully_consistent(),
    )
    .await;
    assert_eq!(unknown.outcome(), proto::DecisionOutcome::CannotTell);
    assert_eq!(unknown.reason(), proto::Reason::ClerkUnavailable);
    assert!(unknown.check_org_permission.is_none());
    fixture.stop().await;
}

async fn next(lines: &mut Lines<BufReader<ChildStderr>>) -> String {
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    let line = line.expect("a line in time").expect("readable");
    line.expect("it goes on")
}

#[tokio::test]
async fn a_decision_is_found_in_the_log_by_its_id() {
    let clerk = crate::support::offline_clerk().await;
    let instance = &clerk.instances()[0];
    let mut service = tokio::process::Command::new(env!("CARGO_BIN_EXE_clerk-authz"))
        .args([
            "serve",
            "--grpc-addr",
            "127.0.0.1:0",
            "--http-addr",
            "127.0.0.1:0",
        ])
        .args(["--log", "debug", "--log-format", "json"])
        .env("CLERK_PUBLISHABLE_KEY", instance.publishable_key().as_str())
        .env("CLERK_AUTHZ_ISSUER", instance.issuer().as_str())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the service starts");
    let mut lines = BufReader::new(service.stderr.take().expect("piped")).lines();
    let addr: std::net::SocketAddr = loop {
        let line = next(&mut lines).await;
        let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        if let Some(addr) = event["grpc"].as_str() {
            break addr.parse().expect("an address");
        }
    };
    let mut client = client(addr).await;
    let token = instance
        .mint(&TokenSpec::session("user_bob").in_organization("acme"))
        .expect("a token");
    for (role, level) in [("admin", "INFO"), ("member", "DEBUG")] {
        let answer = client
            .check_org_permission(of_token(&token).is(role))
            .await
            .expect("a decision")
            .into_inner();

        let event = loop {
            let line = next(&mut lines).await;
            assert!(!line.contains(&token), "a token in the log");
            if line.contains(&answer.decision_id) {
                break serde_json::from_str::<serde_json::Value>(&line).expect("JSON");
            }
        };

        let reason = answer.reason().as_str_name().trim_start_matches("REASON_");
        assert_eq!(event["reason"], reason);
        assert_eq!(event["level"], level);
    }
    service.kill().await.expect("ended");
    clerk.stop().await;
}

// === facts that change, and their bounds ===

/// CVE-2021-41230: what changed at the identity provider did not show.
#[tokio::test]
async fn a_removed_member_is_denied_within_the_stated_bound() {
    let fixture = fixture_with(&[
        ("CLERK_AUTHZ_MEMBERSHIP_MAX_AGE", "1s"),
        ("CLERK_AUTHZ_MEMBERSHIP_NEGATIVE_MAX_AGE", "1s"),
    ])
    .await;
    let directory = fixture.instance().directory();
    let asked = || of_user("user_bob", "org_acme").is("member");
    assert!(decided(&fixture, asked()).await.allowed);

    directory
        .remove_member("org_acme", "user_bob")
        .expect("removed");

    // At once for who asks now, and for everybody once that is known.
    let now = decided(&fixture, asked().fully_consistent()).await;
    assert_eq!(now.reason(), proto::Reason::NotAMember);
    assert_eq!(
        decided(&fixture, asked()).await.reason(),
        proto::Reason::NotAMember
    );
    // And without anybody asking, when what is remembered is too old.
    directory
        .add_member("org_acme", "user_bob", "org:member")
        .expect("added");
    eventually("the new membership shows", || async {
        decided(&fixture, asked()).await.allowed
    })
    .await;
    directory
        .remove_member("org_acme", "user_bob")
        .expect("removed");
    eventually("the removal shows", || async {
        !decided(&fixture, asked()).await.allowed
    })
    .await;
    fixture.stop().await;
}

/// vm0#4372: a list's first page taken for the whole list.
#[tokio::test]
async fn a_member_among_hundreds_is_found_with_one_request() {
    let fixture = fixture().await;
    let directory = fixture.instance().directory();
    for index in 0..150 {
        let user = clerk_authz::emulator::directory::User::with_email(&format!(
            "member{index}@example.com"
        ));
        let user = directory.create_user(user).expect("created");
        directory
            .add_member("org_acme", &user.id, "org:member")
            .expect("added");
        let organization = directory
            .create_organization(clerk_authz::emulator::directory::Organization::named(
                &format!("More {index}"),
            ))
            .expect("created");
        directory
            .add_member(&organization.id, "user_alice", "org:member")
            .expect("added");
    }
    fixture.instance().reset_counts();

    let answer = decided(&fixture, of_user("user_alice", "org_acme").is("admin")).await;

    assert!(answer.allowed);
    assert_eq!(fixture.instance().api_requests_total(), 1);
    fixture.stop().await;
}

/// GHSA-qvp4-rpmr-xwrr: what was found for one question answered another.
#[tokio::test]
async fn one_remembered_membership_is_decided_anew_for_each_question() {
    let fixture = fixture().await;
    let member = || of_user("user_bob", "org_acme");
    for _ in 0..2 {
        assert!(decided(&fixture, member().is("member")).await.allowed);
        assert!(!decided(&fixture, member().is("admin")).await.allowed);
        assert!(
            decided(&fixture, member().may("invoices:read"))
                .await
                .allowed
        );
        assert!(
            !decided(&fixture, member().may("invoices:create"))
                .await
                .allowed
        );
        assert!(
            !decided(&fixture, member().may("invoices:read").is("admin"))
                .await
                .allowed
        );
    }
    assert_eq!(fixture.instance().api_requests_total(), 1);
    fixture.stop().await;
}

#[tokio::test]
async fn a_banned_member_is_denied() {
    let fixture = fixture().await;
    fixture
        .instance()
        .directory()
        .ban_user("user_bob")
        .expect("banned");
    let answer = decided(&fixture, of_user("user_bob", "org_acme").is("member")).await;
    assert_eq!(answer.reason(), proto::Reason::UserBanned);
    assert!(
        decided(&fixture, of_user("user_alice", "org_acme").is("admin"))
            .await
            .allowed
    );
    fixture.stop().await;
}

// === storms ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_equal_questions_are_one_request() {
    // A busy machine is not to give up on the one.
    let fixture = fixture_with(&[("CLERK_AUTHZ_API_TIMEOUT", "9s")]).await;
    fixture.instance().set_faults(Faults::slow(500));
    // A connection carries a thousand calls at once.
    let clients = join_all((0..6).map(|_| client(fixture.service.grpc_addr()))).await;

    let questions = (0..5_000).map(|index| {
        let mut client = clients[index % clients.len()].clone();
        async move {
            let request = of_user("user_alice", "org_acme").is("admin");
            client.check_org_permission(request).await
        }
    });
    let answers = join_all(questions).await;

    for answer in answers {
        assert!(answer.expect("a decision").into_inner().allowed);
    }
    assert_eq!(fixture.instance().api_requests_total(), 1);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_clerk_does_tokens_answer_and_the_rest_ends_as_cannot_tell() {
    const DEADLINE: Duration = Duration::from_millis(1_500);
    let fixture = fixture().await;
    let token = fixture.mint(&TokenSpec::session("user_alice").in_organization("acme"));
    for (name, faults, reason) in [
        ("429", Faults::rate_limited(30), Reason::ClerkRateLimited),
        (
            "500",
            Faults::always(Fault::ServerError),
            Reason::ClerkUnavailable,
        ),
        ("slow", Faults::slow(10_000), Reason::ClerkUnavailable),
        (
            "refused",
            Faults::always(Fault::Down),
            Reason::ClerkUnavailable,
        ),
        (
            "garbage",
            Faults::always(Fault::Garbage),
            Reason::ClerkUnavailable,
        ),
        (
            "something else",
            Faults::always(Fault::WrongContent),
            Reason::ClerkUnavailable,
        ),
        (
            "without end",
            Faults::always(Fault::Endless),
            Reason::ClerkUnavailable,
        ),
    ] {
        // Each fault meets a service of its own: a breaker that is open says nothing of the next.
        let fixture_of_fault = fixture_with(&[("CLERK_AUTHZ_API_BUDGET", "3000")]).await;
        let instance = fixture_of_fault.instance();
        instance.set_faults_for(Endpoint::Memberships, faults);
        let token = instance
            .mint(&TokenSpec::session("user_alice").in_organization("acme"))
            .expect("a token");

        let unknown = (0..100).map(|index| {
            let mut client = fixture_of_fault.client.clone();
            async move {
                let user = format!("user_{index}");
                let mut request = tonic::Request::new(of_user(&user, "org_acme").is("admin"));
                request.set_timeout(DEADLINE);
                client.check_org_permission(request).await
            }
        });
        let known = (0..100).map(|_| {
            let mut client = fixture_of_fault.client.clone();
            let request = of_token(&token).is("admin");
            async move { client.check_org_permission(request).await }
        });
        let (unknown, known) = tokio::join!(join_all(unknown), join_all(known));

        for answer in known {
            assert!(answer.expect("a decision").into_inner().allowed, "{name}");
        }
        for answer in unknown {
            let status = answer.expect_err("Clerk does not answer");
            assert_eq!(status.code(), Code::Unavailable, "{name}: {status:?}");
            assert_eq!(reason_of(&status), reason.name(), "{name}");
        }
        instance.clear_faults();
        if name != "429" {
            eventually("it recovers by itself", || async {
                let asked = of_user("user_alice", "org_acme").is("admin");
                ask(&fixture_of_fault, asked)
                    .await
                    .is_ok_and(|answer| answer.allowed)
            })
            .await;
        }
        fixture_of_fault.stop().await;
    }
    assert!(
        decided(&fixture, of_token(&token).is("admin"))
            .await
            .allowed
    );
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_is_never_exceeded_and_what_is_above_it_cannot_be_told() {
    // What a development key's budget allows by default, in ten seconds.
    const BUDGET: u64 = 90;
    let fixture = fixture().await;
    // Those above it are answered in the tenth of a second before their deadline, all at once.
    let questions = (0..120).map(|index| {
        let mut client = fixture.client.clone();
        async move {
            let user = format!("user_{index}");
            let mut request = tonic::Request::new(of_user(&user, "org_acme").is("admin"));
            request.set_timeout(Duration::from_secs(5));
            client.check_org_permission(request).await
        }
    });
    let mut told = 0;
    for answer in join_all(questions).await {
        match answer {
            Ok(answer) => {
                assert!(!answer.into_inner().allowed);
                told += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                assert_eq!(reason_of(&status), Reason::ClerkRateLimited.name());
            }
        }
    }
    let asked = fixture.instance().api_requests_total();
    assert!(told > 0 && asked == told, "{told} told, {asked} asked");
    assert!(fixture.instance().api_peaks().ten_seconds <= BUDGET);
    fixture.stop().await;
}

#[tokio::test]
async fn a_pause_that_clerk_asks_for_ends_by_itself() {
    let fixture = fixture().await;
    fixture.instance().set_faults_for(
        Endpoint::Memberships,
        Faults {
            times: Some(1),
            ..Faults::rate_limited(1)
        },
    );
    // Within the caller's deadline: it waits, and asks again.
    let answer = decided(&fixture, of_user("user_alice", "org_acme").is("admin")).await;
    assert!(answer.allowed);
    assert_eq!(fixture.instance().api_requests(Endpoint::Memberships), 2);
    fixture.stop().await;
}

#[tokio::test]
async fn a_refused_secret_key_is_a_fault_of_ours_and_no_answer() {
    let clerk = crate::support::offline_clerk().await;
    let (url, pem) = (
        clerk.instances()[0].issuer().to_string(),
        clerk.instances()[0].public_key_pem(),
    );
    // The keys are pinned, so that only the Backend API needs the secret key.
    let settings = crate::support::settings_for(
        &clerk,
        &[
            ("CLERK_SECRET_KEY", "sk_test_wrong"),
            ("CLERK_API_URL", &url),
            ("CLERK_JWT_KEY", &pem),
        ],
    );
    let fixture = Fixture::start_on(clerk, &settings).await;
    let token = fixture.mint(&TokenSpec::session("user_alice").in_organization("acme"));

    let status = ask(&fixture, of_user("user_alice", "org_acme").is("admin"))
        .await
        .expect_err("no answer");

    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(reason_of(&status), Reason::ClerkUnavailable.name());
    assert!(
        decided(&fixture, of_token(&token).is("admin"))
            .await
            .allowed
    );
    let channel = crate::support::channel(fixture.service.grpc_addr()).await;
    let health = tonic_health::pb::health_client::HealthClient::new(channel);
    let serving = |name: &'static str| {
        let mut health = health.clone();
        async move {
            let request = tonic_health::pb::HealthCheckRequest {
                service: name.to_owned(),
            };
            health
                .check(request)
                .await
                .expect("a status")
                .into_inner()
                .status()
        }
    };
    use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};
    eventually("health says so", || async {
        serving("clerk-backend-api").await == NotServing
    })
    .await;
    assert_eq!(serving("clerkauthz.v1.AuthzService").await, Serving);
    fixture.stop().await;
}
