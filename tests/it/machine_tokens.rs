//! Tokens that are of no session: machines', OAuth clients' and API keys, as JWTs and opaque. Only
//! the type that is asked for passes, from the header only, and what cannot be told is never "no".

mod matrix;
mod opaque;
mod storms;

use clerk_authz::{
    door::grpc::proto::{self, verify_session_response::Verified},
    emulator::{Emulator, Kind, TokenSpec},
    settings::Settings,
};
use tonic::{Code, Status};

use crate::support::{Fixture, about, offline_clerk, reason_of, settings_for};

const M2M: proto::TokenType = proto::TokenType::M2mToken;
const OAUTH: proto::TokenType = proto::TokenType::OauthToken;
const API_KEY: proto::TokenType = proto::TokenType::ApiKey;
const SESSION: proto::TokenType = proto::TokenType::SessionToken;

/// Settings with which Clerk's API can be asked.
fn asking_clerk(clerk: &Emulator, more: &[(&str, &str)]) -> Settings {
    let instance = &clerk.instances()[0];
    let (key, url) = (instance.secret_key(), instance.issuer().to_string());
    let mut variables = vec![("CLERK_SECRET_KEY", &*key), ("CLERK_API_URL", &*url)];
    variables.extend(more);
    settings_for(clerk, &variables)
}

async fn start(more: &[(&str, &str)]) -> Fixture {
    let clerk = offline_clerk().await;
    let settings = asking_clerk(&clerk, more);
    Fixture::start_on(clerk, &settings).await
}

/// Asks about a token where these types are accepted.
fn accepting(token: &str, types: &[proto::TokenType]) -> proto::VerifySessionRequest {
    proto::VerifySessionRequest {
        accepted_token_types: types.iter().map(|each| (*each).into()).collect(),
        ..about(token)
    }
}

async fn ask(fixture: &Fixture, request: proto::VerifySessionRequest) -> Result<Verified, Status> {
    let response = fixture.client.clone().verify_session(request).await?;
    Ok(response.into_inner().verified.expect("an answer"))
}

async fn machine(fixture: &Fixture, token: &str, token_type: proto::TokenType) -> proto::Machine {
    match ask(fixture, accepting(token, &[token_type])).await {
        Ok(Verified::Machine(machine)) => machine,
        other => panic!("{token_type:?}: {other:?}"),
    }
}

fn assert_said(answer: Result<Verified, Status>, expected: (Code, &str), what: &str) {
    match answer {
        Ok(verified) => panic!("{what}: accepted {verified:?}; expected {expected:?}"),
        Err(status) => assert_eq!(
            (status.code(), &*reason_of(&status)),
            expected,
            "{what}: {status:?}"
        ),
    }
}

fn api_key() -> TokenSpec {
    TokenSpec::of(Kind::ApiKey)
}
