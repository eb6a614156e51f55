//! `clerk-authz dev`

mod guide;
mod policy;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::Context;
use clap::Args;
use secrecy::ExposeSecret;

use super::{
    SUCCESS, Signals, emulator,
    serve::{end_at_signal, set_up_telemetry, start},
};
use crate::{
    assertion::{FindBy, Nonce, Provider, SecondFactor},
    emulator::{self as offline, PRODUCTION_SECRET_KEY_PREFIX, SECRET_KEY_PREFIX, WebhookSettings},
    identity::SigningAlgorithms,
    settings::{
        EnvironmentVariables, ProviderKeys, ProviderSettings, Settings, SettingsArgs,
        process_environment,
    },
};

/// Runs the offline Clerk and the service, and prints what to try. With a CLERK_SECRET_KEY of Clerk's
/// the service asks the real Clerk instead. What is known of users is kept until the end, or in
/// CLERK_AUTHZ_DATABASE_URL where that is set.
#[derive(Args)]
#[command(after_help = "Example: clerk-authz dev\n\
                  Exit codes: 0 stopped, 2 could not start, 3 a second signal ended it at once")]
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
        let emulator = if is_for_the_real_clerk(&self.settings, &environment) {
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
                    ("CLERK_API_URL", instance.issuer().as_str()),
                    (
                        "CLERK_AUTHORIZED_PARTIES",
                        &instance.seed().authorized_party,
                    ),
                ] {
                    if self.settings.get(variable).is_none() {
                        self.settings.set(variable, value);
                    }
                }
                // Secrets have no flags of their own.
                for (variable, secret) in [
                    ("CLERK_SECRET_KEY", instance.secret_key()),
                    (WEBHOOK_SECRET, offline::new_webhook_secret()),
                ] {
                    if self.settings.get(variable).is_none() {
                        environment.insert(variable.to_owned(), secret.into());
                    }
                }
            }
            Some(emulator)
        };
        let _state = state(&self.settings, &mut environment)?;
        let policy = policy::policy(&self.settings, &mut environment)?;
        // Nobody balances over it who would have to see it leave.
        if !is_set(&environment, DRAIN_PAUSE) {
            environment.insert(DRAIN_PAUSE.to_owned(), "0s".into());
        }
        let mut settings = Settings::load(&self.settings, &environment)?;
        let offline = emulator.as_ref().map(|emulator| emulator.instances());
        if let Some(instance) = offline.and_then(|instances| instances.first()) {
            trust_its_provider(instance, &mut settings)?;
        }
        let telemetry = set_up_telemetry(&settings)?;
        let mut signals = Signals::listen()?;
        let Some(running) = start(&settings, &mut signals).await? else {
            telemetry.end().await;
            return Ok(SUCCESS);
        };
        match emulator
            .as_ref()
            .and_then(|emulator| emulator.instances().first())
        {
            Some(instance) => {
                tell_of_changes(instance, &settings, running.http_addr())?;
                guide::print(
                    instance,
                    running.grpc_addr(),
                    running.http_addr(),
                    policy.is_some(),
                );
            }
            None => anstream::println!(
                "asking the real Clerk; gRPC on {}, HTTP on {}",
                running.grpc_addr(),
                running.http_addr()
            ),
        }
        end_at_signal(signals, running, telemetry, async {
            if let Some(emulator) = emulator {
                emulator.stop().await;
            }
        })
        .await
    }
}

/// The name of the identity provider beside the offline Clerk.
const PROVIDER: &str = "acme";

/// Lets in whom the identity provider beside the offline Clerk vouches for, with a second factor.
fn trust_its_provider(instance: &offline::Instance, settings: &mut Settings) -> anyhow::Result<()> {
    let issuer = instance.identity_provider();
    let discovery = format!("{issuer}/.well-known/openid-configuration");
    let discovery = discovery.parse().context("not an address")?;
    let trusted = ProviderSettings {
        rules: Provider {
            name: PROVIDER.parse()?,
            issuer: issuer.into(),
            client_ids: vec![offline::CLIENT_ID.into()],
            algorithms: SigningAlgorithms::CLERKS,
            find_by: FindBy::VerifiedEmail(vec!["example.com".into()]),
            second_factor: SecondFactor::Required,
            amr: vec!["mfa".into()],
            acr: Vec::new(),
            max_sign_in_age: None,
            nonce: Nonce::Required,
            create_users: false,
        },
        keys: ProviderKeys::Discovery(discovery),
    };
    if let Some(first) = settings.instances.first_mut() {
        first.providers.push(trusted);
    }
    Ok(())
}

const DRAIN_PAUSE: &str = "CLERK_AUTHZ_DRAIN_PAUSE";
const DATABASE_URL: &str = "CLERK_AUTHZ_DATABASE_URL";
const WEBHOOK_SECRET: &str = "CLERK_WEBHOOK_SIGNING_SECRET";

/// Where no database is given, one in a folder that goes when it is dropped.
fn state(
    args: &SettingsArgs,
    environment: &mut EnvironmentVariables,
) -> anyhow::Result<Option<tempfile::TempDir>> {
    let is_given = is_set(environment, DATABASE_URL)
        || is_set(environment, "CLERK_AUTHZ_DATABASE_URL_FILE")
        || args.get(DATABASE_URL).is_some();
    if is_given {
        return Ok(None);
    }
    let folder = tempfile::Builder::new()
        .prefix("clerk-authz-dev-")
        .tempdir();
    let folder = folder.context("cannot make a folder for the database")?;
    let address = format!(
        "sqlite://{}",
        folder.path().join("clerk-authz.db").display()
    );
    environment.insert(DATABASE_URL.to_owned(), address.into());
    Ok(Some(folder))
}

/// The offline Clerk tells the service of every change from now on.
fn tell_of_changes(
    instance: &offline::Instance,
    settings: &Settings,
    mut http: SocketAddr,
) -> anyhow::Result<()> {
    let mut secrets = settings.instances.iter().flat_map(|it| &it.webhook_secrets);
    let Some(secret) = secrets.next() else {
        return Ok(());
    };
    // It listens on all addresses, and so on this one.
    if http.ip().is_unspecified() {
        http.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let webhooks = WebhookSettings {
        secret: secret.expose_secret().to_owned(),
        ..WebhookSettings::to(format!("http://{http}/webhooks/clerk"))
    };
    let told = instance.set_webhooks(webhooks);
    told.context("the offline Clerk cannot tell the service of changes")?;
    Ok(())
}

fn is_set(environment: &EnvironmentVariables, name: &str) -> bool {
    environment.get(name).is_some_and(|value| !value.is_empty())
}

/// Whether a secret key is given that is not the offline Clerk's own, which `dev` says to export: in
/// that shell it starts once more as it did.
fn is_for_the_real_clerk(args: &SettingsArgs, environment: &EnvironmentVariables) -> bool {
    let is_emulators = |key: &OsString| {
        key.to_str().map(str::trim).is_some_and(|key| {
            let prefixes = [SECRET_KEY_PREFIX, PRODUCTION_SECRET_KEY_PREFIX];
            prefixes.iter().any(|prefix| key.starts_with(prefix))
        })
    };
    let key = environment.get("CLERK_SECRET_KEY");
    key.is_some_and(|key| !key.is_empty() && !is_emulators(key))
        || is_set(environment, "CLERK_SECRET_KEY_FILE")
        || args.get("CLERK_SECRET_KEY").is_some()
}
