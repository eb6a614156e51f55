//! What Clerk says ended denies tokens that verify: through webhooks and the store, at every replica.

mod effects;
mod long_lived;
mod replay;
mod replicas;

use std::time::Duration;

use clerk_authz::{
    door::grpc::proto::{
        CheckOrgPermissionRequest, CheckOrgPermissionResponse,
        check_org_permission_request::Subject,
    },
    emulator::{Directory, TokenSpec, WebhookSettings},
    server::{self, Running},
    settings::Settings,
};
use tonic::Status;

use crate::support::{
    Fixture, PATIENCE, Reason, database::Database, eventually, offline_clerk, reason_of,
    settings_on, webhook::SECRET,
};

/// The offline Clerk, which tells the service of every change, and the service on a database.
struct Scene {
    fixture: Fixture,
    settings: Settings,
    database: Database,
}

impl Scene {
    async fn start(database: Database) -> Self {
        Self::start_with(database, &[]).await
    }

    async fn start_with(database: Database, more: &[(&str, &str)]) -> Self {
        let clerk = offline_clerk().await;
        let settings = settings_on(&clerk, &database.place.url(), more);
        let scene = Self {
            fixture: Fixture::start_on(clerk, &settings).await,
            settings,
            database,
        };
        scene.tell(|_| {});
        scene
    }

    /// Sends the webhooks of this Clerk to the service.
    fn tell(&self, change: impl FnOnce(&mut WebhookSettings)) {
        let url = format!("http://{}/webhooks/clerk", self.fixture.service.http_addr());
        let mut settings = WebhookSettings::to(url);
        settings.secret = SECRET.to_owned();
        change(&mut settings);
        let told = self.fixture.instance().set_webhooks(settings);
        told.expect("good settings");
    }

    fn directory(&self) -> &Directory {
        self.fixture.instance().directory()
    }

    /// Another replica on the same database.
    async fn replica(&self) -> Running {
        let started = server::start(&self.settings, server::system_clock()).await;
        started.expect("it starts")
    }

    /// A token of a session that this Clerk has.
    fn token(&self, user: &str, change: impl FnOnce(&mut TokenSpec)) -> (String, String) {
        let session = self.directory().create_session(user, None);
        let session = session.expect("signed in").id;
        let mut spec = TokenSpec::session(user);
        spec.session = Some(session.clone());
        change(&mut spec);
        (self.fixture.mint(&spec), session)
    }

    /// A token from before now, so that a change now is later than its second.
    fn old_token(&self, user: &str) -> String {
        self.token(user, |spec| spec.issued_in_seconds = -10).0
    }

    async fn reason(&self, token: &str) -> Option<String> {
        let answer = self.fixture.verify(token).await;
        answer.err().map(|status| reason_of(&status))
    }

    /// Waits until a token is denied so.
    async fn is_denied(&self, token: &str, reason: Reason) {
        eventually(reason.name(), || async {
            self.reason(token).await.as_deref() == Some(reason.name())
        })
        .await;
    }

    async fn check(
        &self,
        request: CheckOrgPermissionRequest,
    ) -> Result<CheckOrgPermissionResponse, Status> {
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_secs(5));
        let mut client = self.fixture.client.clone();
        Ok(client.check_org_permission(request).await?.into_inner())
    }

    async fn stop(self) {
        self.fixture.stop().await;
    }
}

/// Asks whether the token's user may create invoices in Acme.
fn may_create_invoices(token: &str) -> CheckOrgPermissionRequest {
    CheckOrgPermissionRequest {
        subject: Some(Subject::Token(token.to_owned())),
        permission: Some("org:invoices:create".to_owned()),
        ..Default::default()
    }
}

/// The longest that a test waits for something to be heard of.
const HEARD_WITHIN: Duration = PATIENCE;
