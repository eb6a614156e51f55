//! The mirror of users through the gRPC door, with the offline Clerk behind and SQLite.

use std::time::Duration;

use clerk_authz::{
    door::grpc::proto::{self, SyncOutcome, get_user_request::Key, sync_user_request::Subject},
    emulator::{Endpoint, Fault, Faults, TokenSpec, directory::User},
};
use futures_util::future::join_all;
use tonic::{Code, Status};

use crate::support::{Fixture, Reason, reason_of};

struct Scene {
    fixture: Fixture,
    _database: tempfile::TempDir,
}

impl Scene {
    async fn start() -> Self {
        let clerk = crate::support::offline_clerk().await;
        let instance = &clerk.instances()[0];
        let database = tempfile::tempdir().expect("a directory");
        let address = format!("sqlite://{}", database.path().join("mirror.db").display());
        let (secret_key, url) = (instance.secret_key(), instance.issuer().to_string());
        let settings = crate::support::settings_for(
            &clerk,
            &[
                ("CLERK_SECRET_KEY", &secret_key),
                ("CLERK_API_URL", &url),
                ("CLERK_AUTHZ_DATABASE_URL", &address),
            ],
        );
        Self {
            fixture: Fixture::start_on(clerk, &settings).await,
            _database: database,
        }
    }

    async fn sync(&self, user: &str) -> Result<proto::SyncUserResponse, Status> {
        self.ask_sync(proto::SyncUserRequest {
            subject: Some(Subject::UserId(user.to_owned())),
            ..Default::default()
        })
        .await
    }

    async fn ask_sync(
        &self,
        request: proto::SyncUserRequest,
    ) -> Result<proto::SyncUserResponse, Status> {
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_secs(5));
        let answer = self.fixture.client.clone().sync_user(request).await?;
        Ok(answer.into_inner())
    }

    async fn get(&self, key: Key) -> Result<proto::User, Status> {
        let request = proto::GetUserRequest {
            key: Some(key),
            ..Default::default()
        };
        let answer = self.fixture.client.clone().get_user(request).await?;
        Ok(answer.into_inner().user.expect("always set"))
    }
}

#[tokio::test]
async fn a_user_is_brought_in_changed_left_alone_and_buried() {
    let scene = Scene::start().await;
    let directory = scene.fixture.instance().directory();

    let created = scene.sync("user_alice").await.expect("synced");
    assert_eq!(created.outcome(), SyncOutcome::Created);
    let user = created.user.expect("a user");
    assert_eq!(user.id, "user_alice");
    assert_eq!(created.source_updated_at, user.updated_at);
    assert!(user.seen_at.is_some());

    let unchanged = scene.sync("user_alice").await.expect("synced");
    assert_eq!(unchanged.outcome(), SyncOutcome::Unchanged);

    directory
        .change_user("user_alice", |user| user.first_name = Some("Alicia".into()))
        .expect("changed");
    let updated = scene.sync("user_alice").await.expect("synced");
    assert_eq!(updated.outcome(), SyncOutcome::Updated);
    assert_eq!(updated.user.expect("a user").first_name, "Alicia");

    // A membership is a change of the user's too.
    directory
        .remove_member("org_globex", "user_alice")
        .expect("removed");
    let left = scene.sync("user_alice").await.expect("synced");
    assert_eq!(left.outcome(), SyncOutcome::Updated);

    directory.delete_user("user_alice").expect("deleted");
    let deleted = scene.sync("user_alice").await.expect("synced");
    assert_eq!(deleted.outcome(), SyncOutcome::Deleted);
    assert_eq!(deleted.user, None);
    let gone = scene
        .get(Key::UserId("user_alice".into()))
        .await
        .expect_err("gone");
    assert_eq!(
        (gone.code(), &*reason_of(&gone)),
        (Code::NotFound, Reason::UserNotFound.name())
    );
    scene.fixture.stop().await;
}

#[tokio::test]
async fn a_user_is_found_by_id_external_id_and_verified_address() {
    let scene = Scene::start().await;
    let directory = scene.fixture.instance().directory();
    let user = directory
        .create_user(User {
            external_id: Some("crm-7".into()),
            ..User::with_email("Dora@Example.com")
        })
        .expect("created");
    scene.sync(&user.id).await.expect("synced");

    for key in [
        Key::UserId(user.id.clone()),
        Key::ExternalId("crm-7".into()),
        Key::Email("dora@example.com".into()),
        Key::Email("DORA@EXAMPLE.COM".into()),
    ] {
        assert_eq!(
            scene.get(key.clone()).await.expect("found").id,
            user.id,
            "{key:?}"
        );
    }
    for key in [
        Key::UserId("user_nobody".into()),
        Key::ExternalId("CRM-7".into()),
        Key::Email("dora@example.org".into()),
        Key::Email("' OR 1=1 --".into()),
    ] {
        let status = scene.get(key.clone()).await.expect_err("nobody");
        assert_eq!(status.code(), Code::NotFound, "{key:?}");
    }
    scene.fixture.stop().await;
}

#[tokio::test]
async fn the_mirror_answers_where_it_is_fresh_enough() {
    let scene = Scene::start().await;
    let instance = scene.fixture.instance();
    scene.sync("user_bob").await.expect("synced");
    instance.reset_counts();
    let within = |seconds| proto::SyncUserRequest {
        subject: Some(Subject::UserId("user_bob".into())),
        max_staleness: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    };

    let fresh = scene.ask_sync(within(3_600)).await.expect("an answer");
    assert_eq!(fresh.outcome(), SyncOutcome::Unchanged);
    assert_eq!(instance.api_requests(Endpoint::Users), 0);

    scene.ask_sync(within(0)).await.expect("an answer");
    assert_eq!(instance.api_requests(Endpoint::Users), 1);
    scene.fixture.stop().await;
}

#[tokio::test]
async fn a_token_syncs_its_own_user_and_a_bad_one_nobody() {
    let scene = Scene::start().await;
    let by_token = |token: String| proto::SyncUserRequest {
        subject: Some(Subject::Token(token)),
        ..Default::default()
    };
    let good = scene.fixture.mint(&TokenSpec::session("user_bob"));
    let synced = scene.ask_sync(by_token(good)).await.expect("synced");
    assert_eq!(synced.user.expect("a user").id, "user_bob");

    let forged = scene.fixture.mint(&TokenSpec {
        forged: true,
        ..TokenSpec::session("user_alice")
    });
    let status = scene.ask_sync(by_token(forged)).await.expect_err("denied");
    assert_eq!(status.code(), Code::Unauthenticated);
    let status = scene
        .get(Key::UserId("user_alice".into()))
        .await
        .expect_err("nobody");
    assert_eq!(status.code(), Code::NotFound);
    scene.fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_ask_at_once_cost_few_requests_and_write_one_user() {
    let scene = Scene::start().await;
    let instance = scene.fixture.instance();
    instance.set_faults_for(Endpoint::Users, Faults::slow(300));
    instance.reset_counts();

    let answers = join_all((0..100).map(|_| scene.sync("user_alice"))).await;

    let outcomes: Vec<SyncOutcome> = answers
        .into_iter()
        .map(|answer| answer.expect("synced").outcome())
        .collect();
    let created = outcomes
        .iter()
        .filter(|outcome| **outcome == SyncOutcome::Created);
    assert_eq!(created.count(), 1, "{outcomes:?}");
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome != SyncOutcome::Deleted)
    );
    // One under way, and one behind it for those who came later.
    let requests = instance.api_requests(Endpoint::Users);
    assert!(requests <= 3, "{requests} requests");
    scene.fixture.stop().await;
}

#[tokio::test]
async fn what_clerk_does_not_say_is_not_written() {
    let scene = Scene::start().await;
    let instance = scene.fixture.instance();
    scene.sync("user_alice").await.expect("synced");
    for (endpoint, fault) in [
        (Endpoint::Users, Fault::ServerError),
        (Endpoint::Users, Fault::Garbage),
        (Endpoint::Memberships, Fault::WrongContent),
    ] {
        instance.clear_faults();
        instance.set_faults_for(endpoint, Faults::always(fault));
        let status = scene.sync("user_alice").await.expect_err("no answer");
        assert_eq!(status.code(), Code::Unavailable, "{fault:?}");
        assert_eq!(reason_of(&status), Reason::ClerkUnavailable.name());
        // What is known stays.
        let user = scene.get(Key::UserId("user_alice".into())).await;
        assert_eq!(user.expect("still there").id, "user_alice");
    }
    scene.fixture.stop().await;
}

#[tokio::test]
async fn malformed_questions_name_their_field() {
    let scene = Scene::start().await;
    let named = |status: Status| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        status
            .message()
            .split(':')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    for (request, field) in [
        (proto::SyncUserRequest::default(), "subject"),
        (
            proto::SyncUserRequest {
                subject: Some(Subject::UserId("bob".into())),
                ..Default::default()
            },
            "user_id",
        ),
        (
            proto::SyncUserRequest {
                subject: Some(Subject::UserId("user_bob".into())),
                instance: "other".into(),
                ..Default::default()
            },
            "instance",
        ),
        (
            proto::SyncUserRequest {
                subject: Some(Subject::UserId("user_bob".into())),
                max_staleness: Some(prost_types::Duration {
                    seconds: -1,
                    nanos: 0,
                }),
                ..Default::default()
            },
            "max_staleness",
        ),
    ] {
        assert_eq!(
            named(scene.ask_sync(request).await.expect_err("refused")),
            field
        );
    }
    for (key, field) in [
        (Key::UserId("x".into()), "user_id"),
        (Key::ExternalId(String::new()), "external_id"),
        (Key::Email("x".repeat(400)), "email"),
    ] {
        assert_eq!(named(scene.get(key).await.expect_err("refused")), field);
    }
    scene.fixture.stop().await;
}

#[tokio::test]
async fn without_a_database_nothing_is_known_and_that_is_said() {
    let fixture = Fixture::start().await;
    let request = proto::GetUserRequest {
        key: Some(Key::UserId("user_alice".into())),
        ..Default::default()
    };
    let status = fixture
        .client
        .clone()
        .get_user(request)
        .await
        .expect_err("no database");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(reason_of(&status), Reason::StoreUnavailable.name());
    fixture.stop().await;
}
