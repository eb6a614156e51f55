//! Requests at a pace, whether those before them are answered or not.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{net::TcpStream, sync::mpsc};

use crate::proxy::{HEADERS, PATH};

/// A client of HTTP/2 over one connection.
pub(super) struct Browser {
    send: h2::client::SendRequest<Bytes>,
    request: http::Request<()>,
}

impl Browser {
    pub(super) async fn connect(addr: SocketAddr, token: &str) -> Self {
        let stream = TcpStream::connect(addr).await.expect("connects");
        stream.set_nodelay(true).expect("a socket");
        let (send, connection) = h2::client::handshake(stream).await.expect("a handshake");
        tokio::spawn(connection);
        let request = http::Request::get(format!("http://app.example{PATH}"))
            .header("authorization", format!("Bearer {token}"));
        let request = HEADERS.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        Self {
            send,
            request: request.body(()).expect("a request"),
        }
    }

    /// The status.
    pub(super) async fn ask(&self) -> u16 {
        let mut send = self.send.clone().ready().await.expect("open");
        let (response, _) = send.send_request(self.request.clone(), true).expect("sent");
        let response = response.await.expect("answered");
        let status = response.status().as_u16();
        let mut body = response.into_body();
        while let Some(chunk) = body.data().await {
            let length = chunk.expect("data").len();
            let _ = body.flow_control().release_capacity(length);
        }
        status
    }

    async fn timed(&self) -> f64 {
        let sent = Instant::now();
        assert_eq!(self.ask().await, 200);
        sent.elapsed().as_secs_f64() * 1e6
    }

    /// Latencies in microseconds of `count` requests, `rate` a second.
    pub(super) async fn latencies(&self, rate: f64, count: usize) -> Vec<f64> {
        // A thread of its own: the runtime's clock ticks in milliseconds.
        let (due, mut dues) = mpsc::unbounded_channel();
        let pacer = std::thread::spawn(move || {
            let start = Instant::now();
            for number in 0..count {
                let at = start + Duration::from_secs_f64(number as f64 / rate);
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                let _ = due.send(());
            }
        });
        let mut latencies = Vec::with_capacity(count);
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                next = dues.recv(), if !dues.is_closed() || !dues.is_empty() => {
                    if next.is_some() {
                        open.push(self.timed());
                    }
                }
                Some(latency) = open.next() => latencies.push(latency),
                else => break,
            }
        }
        pacer.join().expect("it ends");
        assert_eq!(latencies.len(), count);
        latencies
    }
}
