//! The corpus of docs/paths.md through the real Envoy: for no line may the upstream serve what the
//! policy denies.

use envoy_types::ext_authz::v3::pb::CheckResponse;
use tonic::{client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use super::{Envoy, SetUp, proxy::request, service};
use crate::{
    paths::corpus::{self, POLICY},
    support::{channel, upstream::Upstream},
};

/// Envoy's message on the wire, with bytes where its protos say text.
#[derive(Clone, PartialEq, prost::Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attributes {
    #[prost(message, optional, tag = "4")]
    request: Option<Asked>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    #[prost(message, optional, tag = "2")]
    http: Option<Http>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Http {
    #[prost(bytes = "vec", tag = "2")]
    method: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    path: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    host: Vec<u8>,
}

/// Without Envoy between, which mends or refuses some: each line is answered as it says.
#[tokio::test]
async fn each_line_of_the_corpus_is_checked_as_it_says() {
    let (fixture, _policy) = service(POLICY).await;
    let mut client = Grpc::new(channel(fixture.service.grpc_addr()).await);
    let method = PathAndQuery::from_static("/envoy.service.auth.v3.Authorization/Check");
    for line in corpus::lines() {
        let (path, host) = line.target_and_host();
        let http = Http {
            method: b"GET".to_vec(),
            path: path.to_vec(),
            host: host.to_vec(),
        };
        let asked = Some(Asked { http: Some(http) });
        let attributes = Some(Attributes { request: asked });
        client.ready().await.expect("it is connected");
        let codec = ProstCodec::<CheckRequest, CheckResponse>::default();
        let request = tonic::Request::new(CheckRequest { attributes });
        let answer = client.unary(request, method.clone(), codec).await;
        let answer = answer.expect("an answer").into_inner();
        let said = answer.status.expect("a status").message;
        assert_eq!(said, line.reason(), "corpus.txt:{}", line.number);
    }
    fixture.stop().await;
}

#[tokio::test]
async fn no_line_of_the_corpus_serves_what_the_policy_denies() {
    let (fixture, _policy) = service(POLICY).await;
    for set_up in [SetUp::Bare, SetUp::Shipped] {
        let upstream = Upstream::start().await;
        let envoy = Envoy::start(set_up, fixture.service.grpc_addr(), upstream.addr).await;
        let (mut served, mut lines) = (0, 0);
        for line in corpus::lines() {
            lines += 1;
            let (target, host) = line.target_and_host();
            let before = upstream.served();
            let answer = envoy.raw(&request(target, &[("host", host)])).await;
            let what = format!("{set_up:?}: corpus.txt:{}: {answer:?}", line.number);
            assert_eq!(
                upstream.served() - before,
                u64::from(answer.status == 200),
                "{what}"
            );
            if answer.status != 200 {
                assert!((400..500).contains(&answer.status), "{what}");
                continue;
            }
            served += 1;

            // The path that is served is one that the policy lets through, in every reading.
            let json = answer.json();
            let received = json["request_line"].as_str().expect("a line");
            let mut words = received.split(' ');
            let received = words.nth(1).unwrap_or_default();
            corpus::assert_is_for_everybody(received, &what);
            // What Envoy does not mend is served only where the corpus says so.
            let hosts = answer.received("host");
            let sent_on = match line.is_host {
                true => hosts.first().map_or("", String::as_str),
                false => received,
            };
            if sent_on.as_bytes() == line.input {
                assert_eq!(line.reason(), "ROUTE_PUBLIC", "{what}");
            }
        }
        assert!(
            lines > 200 && served > 50,
            "{set_up:?}: {served} of {lines}"
        );
    }
    fixture.stop().await;
}
