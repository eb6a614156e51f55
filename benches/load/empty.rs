//! A tonic service with calls that do nothing, under the settings of the real one.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    task::{Context, Poll},
};

use tonic::{
    Request, Response, Status, body::Body, codegen::BoxFuture, server::NamedService,
    transport::Server,
};
use tonic_prost::ProstCodec;

/// The call that does nothing.
pub(crate) const EMPTY: &str = "/empty.Empty/Call";
/// Takes and gives as many bytes as a verification, and looks at none of them.
pub(crate) const SIZED: &str = "/empty.Empty/Sized";
/// Takes as many bytes as it is sent, and gives none.
pub(crate) const TAKES: &str = "/empty.Empty/Takes";
/// About what an answer about an organization's member has.
const ANSWER_BYTES: usize = 400;

#[derive(Clone)]
struct Empty;

struct Call;

impl tonic::server::UnaryService<()> for Call {
    type Response = ();
    type Future = Ready<Result<Response<()>, Status>>;

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

struct Sized;

impl tonic::server::UnaryService<Vec<u8>> for Sized {
    type Response = Vec<u8>;
    type Future = Ready<Result<Response<Vec<u8>>, Status>>;

    fn call(&mut self, _: Request<Vec<u8>>) -> Self::Future {
        ready(Ok(Response::new(vec![b'a'; ANSWER_BYTES])))
    }
}

struct Takes;

impl tonic::server::UnaryService<Vec<u8>> for Takes {
    type Response = ();
    type Future = Ready<Result<Response<()>, Status>>;

    fn call(&mut self, _: Request<Vec<u8>>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

impl NamedService for Empty {
    const NAME: &'static str = "empty.Empty";
}

impl tower::Service<http::Request<Body>> for Empty {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path() == SIZED {
                let codec = ProstCodec::<Vec<u8>, Vec<u8>>::default();
                return Ok(tonic::server::Grpc::new(codec).unary(Sized, request).await);
            }
            if request.uri().path() == TAKES {
                let codec = ProstCodec::<(), Vec<u8>>::default();
                return Ok(tonic::server::Grpc::new(codec).unary(Takes, request).await);
            }
            let codec = ProstCodec::<(), ()>::default();
            Ok(tonic::server::Grpc::new(codec).unary(Call, request).await)
        })
    }
}

pub(crate) fn serve(addr: SocketAddr) {
    serve_only(Empty, addr);
}

/// Nothing but this service, under the settings of the real one.
pub(crate) fn serve_only<S>(service: S, addr: SocketAddr)
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        Server::builder()
            .max_concurrent_streams(1_000)
            .tcp_nodelay(true)
            .add_service(service)
            .serve(addr)
            .await
            .expect("serves");
    });
}
