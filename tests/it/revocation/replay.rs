//! `single_use`: a token passes once, in all replicas together.

use clerk_authz::door::grpc::proto::{Reverification, ReverificationPreset, reverification};
use futures_util::future::join_all;
use serde_json::Value;
use tonic::Code;

use super::Scene;
use crate::support::{
    Fixture, Reason, about, assert_denied, client,
    database::{Database, on_each_engine},
    reason_of,
};

/// Uses of one token at once.
const USES: usize = 1_000;

on_each_engine! {
    async fn a_token_is_used_up_by_the_first_use(database: Database) {
        let scene = Scene::start(database).await;
        let token = scene.token("user_alice", |spec| spec.factor_ages = Some([20, -1])).0;
        let once = || { let mut request = about(&token); request.single_use = true; request };

        // Whoever is denied by another rule has used nothing up.
        let mut strict = once();
        strict.reverification = Some(Reverification {
            requirement: Some(reverification::Requirement::Preset(ReverificationPreset::Strict.into())),
        });
        assert_denied(scene.fixture.ask(strict).await, Reason::ReverificationRequired, "step-up first");
        assert!(scene.fixture.ask(once()).await.is_ok());
        assert_denied(scene.fixture.ask(once()).await, Reason::TokenReplayed, "the second use");
        assert!(scene.fixture.ask(about(&token)).await.is_ok(), "without the flag it is as before");
        let other = scene.token("user_alice", |_| {}).0;
        let mut request = about(&other);
        request.single_use = true;
        assert!(scene.fixture.ask(request).await.is_ok(), "another token");
        scene.stop().await;
    }

    async fn a_token_without_a_jti_cannot_be_used_up(database: Database) {
        let scene = Scene::start(database).await;
        let token = scene.token("user_alice", |spec| { spec.claims.insert("jti".into(), Value::Null); }).0;
        let mut request = about(&token);
        request.single_use = true;
        assert_denied(scene.fixture.ask(request).await, Reason::ClaimInvalid, "no jti");
        scene.stop().await;
    }

    /// SQLite serves one replica; two processes' worth of connections are two all the same.
    async fn of_a_thousand_uses_through_two_replicas_one_passes(database: Database) {
        let scene = Scene::start(database).await;
        let replica = scene.replica().await;
        let clients = [scene.fixture.client.clone(), client(replica.grpc_addr()).await];
        let token = scene.token("user_alice", |_| {}).0;
        let uses = (0..USES).map(|number| {
            let mut client = clients[number % 2].clone();
            let mut request = about(&token);
            request.single_use = true;
            async move { client.verify_session(request).await }
        });

        let answers = join_all(uses).await;

        let accepted = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(accepted, 1);
        for status in answers.into_iter().filter_map(Result::err) {
            assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
            assert_eq!(reason_of(&status), Reason::TokenReplayed.name());
        }
        replica.stop().await;
        scene.stop().await;
    }
}

#[tokio::test]
async fn without_a_database_it_cannot_be_told() {
    let fixture = Fixture::start().await;
    let token = fixture.mint(&clerk_authz::emulator::TokenSpec::default());
    let mut request = about(&token);
    request.single_use = true;
    let status = fixture.ask(request).await.expect_err("no database");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(reason_of(&status), Reason::StoreUnavailable.name());
    fixture.stop().await;
}
