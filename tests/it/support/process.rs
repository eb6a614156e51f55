//! The service as a process of its own: the real binary, which can be killed.

use std::{
    net::SocketAddr,
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

use super::{PATIENCE, secrets};

/// A running `clerk-authz serve`; killed when dropped.
pub struct Service {
    child: Child,
    pub http_addr: SocketAddr,
    pub grpc_addr: SocketAddr,
    /// Lines that came behind the one that said where it listens, and the ones before it; each was looked
    /// at for secrets.
    log: JoinHandle<String>,
}

impl Service {
    /// With these variables and no others.
    pub async fn start(variables: &[(&str, &str)]) -> Self {
        Self::start_behind(&[], variables).await
    }

    /// Behind a command that becomes what stands behind it.
    pub async fn start_behind(command: &[&str], variables: &[(&str, &str)]) -> Self {
        let service = [env!("CARGO_BIN_EXE_clerk-authz"), "serve"];
        let words = [command, &service].concat();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs([
                ("CLERK_AUTHZ_GRPC_ADDR", "127.0.0.1:0"),
                ("CLERK_AUTHZ_HTTP_ADDR", "127.0.0.1:0"),
                ("CLERK_AUTHZ_RECONCILE_AT", "off"),
                ("CLERK_AUTHZ_DRAIN_PAUSE", "0s"),
            ])
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it runs");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut log = String::new();
        let listening = async {
            loop {
                let line = lines.next_line().await.expect("text");
                let line = line.unwrap_or_else(|| panic!("it ended: {log}"));
                keep(&mut log, &line);
                if line.contains(" listening ") {
                    return (addr_in(&line, "grpc="), addr_in(&line, "http="));
                }
            }
        };
        let (grpc_addr, http_addr) = tokio::time::timeout(PATIENCE, listening)
            .await
            .expect("it starts");
        let log = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                keep(&mut log, &line);
            }
            log
        });
        Self {
            child,
            http_addr,
            grpc_addr,
            log,
        }
    }

    /// The process's id, which stays that of the command in front of it.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("Linux");
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.expect("there").trim().trim_end_matches(" kB");
        kibibytes.parse::<u64>().expect("a number") * 1_024
    }

    /// Sends it a signal, such as `-TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = std::process::Command::new("kill")
            .args([name, &id])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// How it ended by itself, and what it had logged.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = ended.expect("it ends in time").expect("it ran");
        (status, self.log.await.expect("read"))
    }

    /// SIGTERM, and its end; what it had logged, to the last line.
    pub async fn end(self) -> String {
        self.signal("-TERM");
        self.ended().await.1
    }

    /// `kill -9`, whatever it is doing. Lines that it had not written yet are lost: [`Self::end`] is for who
    /// reads the log.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("killed");
        self.log.await.expect("no secret is in the log");
    }
}

fn keep(log: &mut String, line: &str) {
    secrets::none_in("the log", line);
    log.push_str(line);
    log.push('\n');
}

fn addr_in(line: &str, name: &str) -> SocketAddr {
    let addr = line.split_once(name).expect("its address").1;
    let addr = addr.split(' ').next().unwrap_or(addr);
    addr.parse().expect("an address")
}
