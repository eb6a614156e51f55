//! An external authorizer that allows everything, with an answer that it is given: what Envoy's question
//! costs at the least.

use std::{net::SocketAddr, path::Path};

use envoy_types::{
    ext_authz::v3::pb::{CheckRequest, CheckResponse},
    pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer},
};
use prost::Message;
use tonic::{Request, Response, Status, transport::Server};

struct Allow(CheckResponse);

#[tonic::async_trait]
impl Authorization for Allow {
    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }
}

/// Answers every `Check` with the message in this file.
pub(crate) fn serve(addr: SocketAddr, answer: &Path) {
    let answer = std::fs::read(answer).expect("an answer");
    let answer = CheckResponse::decode(&*answer).expect("an answer of Envoy's protocol");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        Server::builder()
            .max_concurrent_streams(1_000)
            .tcp_nodelay(true)
            .add_service(AuthorizationServer::new(Allow(answer)))
            .serve(addr)
            .await
            .expect("serves");
    });
}
