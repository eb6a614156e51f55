//! Calls without a client of gRPC's, which would keep rules of its own.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::net::TcpStream;

use super::{Fixture, grpc_port};

/// One call as raw bytes over a connection of its own: the gRPC status, or how it was refused.
pub async fn raw(fixture: &Fixture, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> String {
    let stream = TcpStream::connect(grpc_port(&fixture.service))
        .await
        .expect("connects");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("a handshake");
    let connection = tokio::spawn(connection);
    let mut request = Request::post(format!("http://{}{path}", fixture.service.grpc_addr()))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = async {
        let (response, mut send) = client
            .send_request(request.body(()).expect("a request"), false)
            .map_err(|error| format!("refused: {error}"))?;
        send.send_data(Bytes::from(body), true)
            .map_err(|error| format!("refused: {error}"))?;
        let response = response
            .await
            .map_err(|error| format!("refused: {error}"))?;
        if let Some(status) = response.headers().get("grpc-status") {
            return Ok(status.to_str().expect("ASCII").to_owned());
        }
        let http = response.status().as_u16();
        let mut body = response.into_body();
        while let Some(chunk) = body.data().await {
            chunk.map_err(|error| format!("refused: {error}"))?;
        }
        let trailers = body
            .trailers()
            .await
            .map_err(|error| format!("refused: {error}"))?;
        let status = trailers.and_then(|trailers| trailers.get("grpc-status").cloned());
        Ok::<_, String>(status.map_or(format!("HTTP {http}"), |status| {
            status.to_str().expect("ASCII").to_owned()
        }))
    };
    let answer = tokio::time::timeout(Duration::from_secs(15), answer)
        .await
        .expect("an answer in time");
    drop(client);
    connection.abort();
    answer.unwrap_or_else(|refused| refused)
}

/// A message as gRPC frames it.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
    body.extend(message);
    body
}
