//! Assertions of identity providers, through the gRPC door: from what the provider says to a session of
//! Clerk's, and every way in which they are not exchanged.

mod exchange;
mod hostile;
mod secrets;

use std::time::Duration;

use clerk_authz::{
    door::grpc::proto::{self, explain_decision_request::Decision},
    emulator::{AssertionSpec, Emulator},
    server::{self, Running},
    settings::Settings,
};
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{
    Fixture, client,
    database::{Database, Place},
    http_client, offline_clerk, reason_of, settings,
};

const NONCE: &str = "n-0S6_WzA2Mj";

/// Whom the provider speaks for, and with what: the rest of its table.
const BY_EMAIL: &str = "match = \"verified_email\"\nemail_domains = [\"example.com\"]\n\
                        mfa = \"required\"\namr = [\"mfa\"]\nacr = [\"urn:strong\"]\n\
                        algorithms = [\"RS256\", \"ES256\"]\nmax_auth_age = \"1h\"\n";

/// The offline Clerk, the identity provider beside it, and the service on a database.
struct Scene {
    fixture: Fixture,
    settings: Settings,
    _database: Database,
    folder: TempDir,
}

/// The instances' file: one instance, and a provider "acme" with these lines.
fn instances_file(clerk: &Emulator, folder: &TempDir, provider: &str) -> String {
    let instance = &clerk.instances()[0];
    let secret = folder.path().join("secret");
    std::fs::write(&secret, instance.secret_key()).expect("written");
    let file = folder.path().join("instances.toml");
    let text = format!(
        "[[instance]]\nname = \"default\"\npublishable_key = \"{}\"\nissuer = \"{issuer}\"\n\
         api_url = \"{issuer}\"\nsecret_key_file = {secret:?}\n\
         authorized_parties = [\"http://localhost:3000\"]\n\n\
         [[instance.provider]]\nname = \"acme\"\nissuer = \"{}\"\n\
         client_ids = [\"emulator-client\"]\n{provider}",
        instance.publishable_key().as_str(),
        instance.identity_provider(),
        issuer = instance.issuer(),
    );
    std::fs::write(&file, text).expect("written");
    file.to_str().expect("text").to_owned()
}

impl Scene {
    async fn start(provider: &str) -> Self {
        Self::start_on(Database::on(Place::sqlite()).await, provider).await
    }

    async fn start_on(database: Database, provider: &str) -> Self {
        let clerk = offline_clerk().await;
        let folder = tempfile::tempdir().expect("a folder");
        let file = instances_file(&clerk, &folder, provider);
        let url = database.place.url();
        let settings = settings(&[
            ("CLERK_AUTHZ_INSTANCES", &file),
            ("CLERK_AUTHZ_DATABASE_URL", &url),
        ]);
        Self {
            fixture: Fixture::start_on(clerk, &settings).await,
            settings,
            _database: database,
            folder,
        }
    }

    /// Changes the instances' file while the service runs.
    fn rewrite(&self, old: &str, new: &str) {
        let file = self.folder.path().join("instances.toml");
        let text = std::fs::read_to_string(&file).expect("text");
        assert!(text.contains(old), "{text}");
        std::fs::write(&file, text.replace(old, new)).expect("written");
    }

    /// Another replica on the same database.
    async fn replica(&self) -> Running {
        let started = server::start(&self.settings, server::system_clock()).await;
        started.expect("it starts")
    }

    /// What the provider says; with the nonce that the call has.
    fn assertion(&self, spec: AssertionSpec) -> String {
        let spec = AssertionSpec {
            nonce: Some(NONCE.to_owned()),
            ..spec
        };
        self.fixture.instance().assertion(&spec).expect("made")
    }

    async fn exchange(
        &self,
        request: proto::ExchangeAssertionRequest,
    ) -> Result<proto::ExchangeAssertionResponse, Status> {
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_secs(10));
        let mut client = self.fixture.client.clone();
        Ok(client.exchange_assertion(request).await?.into_inner())
    }

    async fn explain(
        &self,
        request: proto::ExchangeAssertionRequest,
    ) -> proto::ExplainDecisionResponse {
        let request = proto::ExplainDecisionRequest {
            decision: Some(Decision::ExchangeAssertion(request)),
        };
        let mut client = self.fixture.client.clone();
        let answer = client.explain_decision(request).await;
        answer.expect("explained").into_inner()
    }

    /// Redeems a ticket at Clerk, as a browser does: the session's token, or the error's code.
    async fn redeem(&self, ticket: &str) -> Result<String, String> {
        let url = format!("{}/v1/client/sign_ins", self.fixture.instance().issuer());
        let form = format!("strategy=ticket&ticket={ticket}");
        let answer = http_client()
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .expect("an answer");
        let body = answer.text().await.expect("a body");
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        match body["client"]["sessions"][0]["last_active_token"]["jwt"].as_str() {
            Some(jwt) => Ok(jwt.to_owned()),
            None => Err(body["errors"][0]["code"]
                .as_str()
                .expect("a code")
                .to_owned()),
        }
    }

    async fn stop(self) {
        self.fixture.stop().await;
    }
}

fn exchanging(assertion: &str) -> proto::ExchangeAssertionRequest {
    proto::ExchangeAssertionRequest {
        provider: "acme".to_owned(),
        assertion: assertion.to_owned(),
        nonce: NONCE.to_owned(),
        ..Default::default()
    }
}

/// Status, reason, and the rule where one is named.
fn said(status: &Status) -> (Code, String, String) {
    let details = status.get_error_details();
    let info = details.error_info().expect("ErrorInfo");
    let rule = info.metadata.get("rule").cloned().unwrap_or_default();
    (status.code(), reason_of(status), rule)
}

fn denied(reason: &str, rule: &str) -> (Code, String, String) {
    (Code::Unauthenticated, reason.to_owned(), rule.to_owned())
}
