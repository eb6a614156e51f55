//! An external authorizer that allows everything, with an answer that it is given: what Envoy's question
//! costs at the least.

use std::{net::SocketAddr, path::Path};

use envoy_types::{
    ext_authz::v3::pb::{CheckRequest, CheckResponse},
    pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer},
};
use prost::Message;
use tonic::{Request, Response, Status};

use crate::empty;

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
    empty::serve_only(AuthorizationServer::new(Allow(answer)), addr);
}
