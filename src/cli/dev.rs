//! `clerk-authz dev`

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{SUCCESS, emulator, serve::set_up_logs, until_signal};
use crate::{
    emulator::Instance,
    server,
    settings::{Settings, SettingsArgs, process_environment},
};

/// Runs the offline Clerk and the service, and prints what to try. With CLERK_SECRET_KEY set the
/// service asks the real Clerk instead.
#[derive(Args)]
#[command(after_help = "Example: clerk-authz dev\n\
                  Exit codes: 0 stopped, 2 could not start")]
pub(super) struct Dev {
    /// Where the offline Clerk listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5050")]
    emulator_addr: SocketAddr,
    /// A TOML file that says who lives in the offline Clerk; see docs/emulator.md
    #[arg(long, value_name = "FILE")]
    world: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Dev {
    pub(super) async fn run(mut self) -> anyhow::Result<u8> {
        let mut environment = process_environment();
        let is_set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
        let real = is_set("CLERK_SECRET_KEY")
            || is_set("CLERK_SECRET_KEY_FILE")
            || self.settings.get("CLERK_SECRET_KEY").is_some();
        let emulator = if real {
            None
        } else {
            let emulator = emulator::start(self.world, self.emulator_addr).await?;
            if let Some(instance) = emulator.instances().first() {
                // The offline Clerk stands for whatever Clerk the environment names.
                environment.retain(|name, _| {
                    !name.starts_with("CLERK_") || name.starts_with("CLERK_AUTHZ_")
                });
                for (variable, value) in [
                    ("CLERK_PUBLISHABLE_KEY", instance.publishable_key().as_str()),
                    ("CLERK_AUTHZ_ISSUER", instance.issuer().as_str()),
                    (
                        "CLERK_AUTHORIZED_PARTIES",
                        &instance.seed().authorized_party,
                    ),
                ] {
                    if self.settings.get(variable).is_none() {
                        self.settings.set(variable, value);
                    }
                }
            }
            Some(emulator)
        };
        let settings = Settings::load(&self.settings, &environment)?;
        let _guard = set_up_logs(&settings)?;
        let running = server::start(&settings, server::system_clock()).await?;
        match emulator
            .as_ref()
            .and_then(|emulator| emulator.instances().first())
        {
            Some(instance) => {
                print_guide(instance, running.grpc_addr(), running.http_addr());
            }
            None => anstream::println!(
                "asking the real Clerk; gRPC on {}, HTTP on {}",
                running.grpc_addr(),
                running.http_addr()
            ),
        }
        until_signal().await?;
        running.stop().await;
        if let Some(emulator) = emulator {
            emulator.stop().await;
        }
        Ok(SUCCESS)
    }
}

/// What `make setup` installs, or what is on the path.
fn tool(name: &str) -> String {
    let here = format!(".venv/bin/{name}");
    if Path::new(&here).exists() {
        here
    } else {
        name.to_owned()
    }
}

fn print_guide(instance: &Instance, grpc: SocketAddr, http: SocketAddr) {
    let clerk = instance.issuer();
    let (grpcurl, python) = (tool("grpcurl"), tool("python"));
    let binary = std::env::args()
        .next()
        .unwrap_or_else(|| "clerk-authz".to_owned());
    let user = instance.seed().users.first().map_or("", |user| &*user.id);
    let organization = instance
        .seed()
        .organizations
        .first()
        .map_or("", |org| &*org.id);
    let impersonator = instance.seed().users.get(1).map_or("", |user| &*user.id);
    let bold = anstyle::Style::new().bold();
    anstream::println!(
        "{bold}clerk-authz{bold:#}     gRPC {grpc}, HTTP http://{http} (/readyz, /metrics)\n\
         {bold}offline Clerk{bold:#}   {clerk}  (GET / lists what it can do)\n\n\
         Paste into another terminal (make setup installs grpcurl and the Python client):\n"
    );
    let token = |query: &str| format!("curl -s '{clerk}/_emulator/token?user={user}{query}'");
    for (title, query) in [
        (
            "an allow: a user in an organization",
            format!("&organization={organization}"),
        ),
        ("denied, TOKEN_EXPIRED", "&expired=true".to_owned()),
        (
            "denied, SIGNATURE_INVALID: forged",
            "&forged=true".to_owned(),
        ),
        (
            "an allow that shows who acts: impersonated",
            format!("&impersonated_by={impersonator}"),
        ),
    ] {
        let token = token(&query);
        anstream::println!(
            "{bold}# {title}{bold:#}\n\
             TOKEN=$({token})\n\
             {grpcurl} -plaintext -d \"{{\\\"token\\\":\\\"$TOKEN\\\"}}\" {grpc} clerkauthz.v1.AuthzService/VerifySession\n\
             {grpcurl} -plaintext -d \"{{\\\"verify_session\\\":{{\\\"token\\\":\\\"$TOKEN\\\"}}}}\" {grpc} clerkauthz.v1.AuthzService/ExplainDecision\n"
        );
    }
    anstream::println!(
        "{bold}# the same from Python, and from the command line{bold:#}\n\
         TOKEN=$({})\n\
         CLERK_AUTHZ_ADDR={grpc} {python} examples/python/verify.py \"$TOKEN\"\n\
         {binary} verify --issuer {clerk} \"$TOKEN\"\n\n\
         {bold}# Clerk goes down: tokens keep verifying{bold:#}\n\
         curl -s -X PUT {clerk}/_emulator/faults -H 'content-type: application/json' -d '{{\"fault\":\"down\"}}'\n\n\
         Ctrl-C ends both.",
        token("")
    );
}
