//! A service that knows nothing of Clerk: it answers every request with what it received.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use percent_encoding::{CONTROLS, percent_encode};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The longest head of a request that it reads, in bytes.
const MAX_HEAD_BYTES: usize = 256 * 1024;

/// What it says of a request.
#[derive(Serialize)]
struct Received<'a> {
    request_line: &'a str,
    /// Each header by its name as received, with its value.
    headers: Vec<(&'a str, &'a str)>,
}

/// A running upstream; ends when dropped.
pub struct Upstream {
    pub addr: SocketAddr,
    served: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(super::loopback()).await.expect("a port");
        let addr = listener.local_addr().expect("bound");
        let served = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn({
            let served = Arc::clone(&served);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(answer(stream, Arc::clone(&served)));
                }
            }
        });
        Self { addr, served, task }
    }

    /// Requests that reached it.
    pub fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers one request after another; they have no bodies.
async fn answer(mut stream: TcpStream, served: Arc<AtomicU64>) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = find(&buffer, b"\r\n\r\n") {
                break end;
            }
            if stream.read_buf(&mut buffer).await? == 0 || buffer.len() > MAX_HEAD_BYTES {
                return Ok(());
            }
        };
        served.fetch_add(1, Relaxed);
        let head: Vec<u8> = buffer.drain(..end + 4).collect();
        let line = &head[..find(&head, b"\r\n").unwrap_or_default()];
        // Of bytes that are no text none is lost.
        let line = match std::str::from_utf8(line) {
            Ok(text) => text.to_owned(),
            Err(_) => percent_encode(line, CONTROLS).to_string(),
        };
        let head = String::from_utf8_lossy(&head);
        let lines = head.trim_end().split("\r\n").skip(1);
        let received = Received {
            request_line: &line,
            headers: lines
                .filter_map(|line| line.split_once(": ").or(line.split_once(':')))
                .collect(),
        };
        let body = serde_json::to_string(&received).expect("JSON");
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let mut windows = haystack.windows(needle.len());
    windows.position(|window| window == needle)
}
