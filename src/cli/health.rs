//! `clerk-authz health`

mod tls;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{DENIED, FAILED, SUCCESS};
use crate::{door::grpc::SERVICE_NAME, settings::ListenAddr};

/// Asks a running service over grpc.health.v1 whether it serves.
#[derive(Args)]
#[command(after_help = "Example: clerk-authz health --service liveness\n\
                  Exit codes: 0 serving, 1 not serving, 2 no answer")]
pub(super) struct Health {
    /// Where the service answers gRPC: a host and a port, or unix:PATH
    #[arg(
        long,
        value_name = "ADDR",
        env = "CLERK_AUTHZ_GRPC_ADDR",
        default_value = "127.0.0.1:50051"
    )]
    addr: String,
    /// Which name to ask about: "" and clerkauthz.v1.AuthzService are ready to answer, liveness
    /// only says that the process lives
    #[arg(long, value_name = "NAME", default_value = SERVICE_NAME)]
    service: String,
    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    tls: tls::Tls,
}

impl Health {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let addr = &self.addr;
        let asked = async {
            let channel = match target(addr)? {
                Target::Socket(socket) => Endpoint::try_from(socket)?.connect().await?,
                Target::Port(port) if self.tls.is_on() => self.tls.connect(&port).await?,
                Target::Port(port) => {
                    Endpoint::try_from(format!("http://{port}"))?
                        .connect()
                        .await?
                }
            };
            let request = HealthCheckRequest {
                service: self.service.clone(),
            };
            anyhow::Ok(
                HealthClient::new(channel)
                    .check(request)
                    .await?
                    .into_inner()
                    .status(),
            )
        };
        let answer = tokio::time::timeout(self.timeout, asked).await;
        let status = match answer.with_context(|| format!("no answer within {:?}", self.timeout)) {
            Ok(Ok(status)) => status,
            Ok(Err(error)) | Err(error) => {
                anstream::eprintln!("{addr}: {error:#}");
                return Ok(FAILED);
            }
        };
        anstream::println!("{}", status.as_str_name());
        Ok(if status == ServingStatus::Serving {
            SUCCESS
        } else {
            DENIED
        })
    }
}

/// What is asked.
enum Target {
    /// A Unix socket, which has no TLS.
    Socket(String),
    /// A host and a port.
    Port(String),
}

/// An address that is none of ours may be a host's name.
fn target(addr: &str) -> anyhow::Result<Target> {
    let port = match addr.parse() {
        Ok(unix @ ListenAddr::Unix(_)) => return Ok(Target::Socket(unix.to_string())),
        // A service that listens on all addresses is asked on this machine's own.
        Ok(ListenAddr::Tcp(mut tcp)) if tcp.ip().is_unspecified() => {
            tcp.set_ip(match tcp.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
            tcp.to_string()
        }
        Ok(ListenAddr::Tcp(tcp)) => tcp.to_string(),
        Err(_) if addr.starts_with("unix:") => {
            anyhow::bail!("expected a path behind \"unix:\", of at most 107 bytes")
        }
        Err(_) => addr.to_owned(),
    };
    Ok(Target::Port(port))
}
