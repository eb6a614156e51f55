//! Server processes on a core of their own.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::client::Client;

/// A server process, ended with this value.
pub(crate) struct Server {
    process: Child,
    addr: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

impl Server {
    /// On core 0, which is for what is measured.
    pub(crate) fn start(
        program: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        addr: SocketAddr,
    ) -> Self {
        Self::start_on("0", program, arguments, environment, addr)
    }

    pub(crate) fn start_on(
        core: &str,
        program: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        addr: SocketAddr,
    ) -> Self {
        let process = Command::new("taskset")
            .args(["-c", core, program])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("taskset starts the server");
        Self { process, addr }
    }

    pub(crate) async fn accepts(&self) {
        self.accepts_within(10).await;
    }

    pub(crate) async fn accepts_within(&self, seconds: u32) {
        for _ in 0..200 * seconds {
            if TcpStream::connect(self.addr).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{} does not accept", self.addr);
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// CPU time per call in microseconds, for these calls.
    pub(crate) async fn cpu_per_call(&self, client: &Client, path: &str, frames: &[Bytes]) -> f64 {
        let before = self.cpu();
        client.drive(path, frames, 50, "0").await;
        (self.cpu() - before).as_secs_f64() * 1e6 / frames.len() as f64
    }

    /// CPU time per call in microseconds, while `calls` of them are made.
    pub(crate) fn cpu_while(&self, calls: usize, make: impl FnOnce()) -> f64 {
        let before = self.cpu();
        make();
        (self.cpu() - before).as_secs_f64() * 1e6 / calls as f64
    }

    /// CPU time of all its threads.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("Linux");
        let nanoseconds = tasks
            .filter_map(|task| {
                let schedstat =
                    std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
                schedstat.split(' ').next()?.parse::<u64>().ok()
            })
            .sum();
        Duration::from_nanos(nanoseconds)
    }

    /// Resident bytes.
    pub(crate) fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("Linux");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .expect("there");
        let number = line.split_whitespace().nth(1).expect("a number");
        number.parse::<u64>().expect("a number") * 1024
    }
}
