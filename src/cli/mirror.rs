//! What commands about the mirror take alike: the service's database, and an instance's Clerk.

use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use secrecy::ExposeSecret;

use crate::{
    clerk::BackendApi,
    identity::InstanceName,
    keys::Clock,
    server::{backend_api, system_clock},
    settings::{DatabaseSettings, InstanceSettings, Settings, SettingsArgs, process_environment},
    store::SqlStore,
};

#[derive(Args)]
pub(super) struct DatabaseArgs {
    /// A file that holds the database's address [env: CLERK_AUTHZ_DATABASE_URL, or its _FILE]
    #[arg(long, value_name = "FILE", global = true)]
    database_url_file: Option<String>,
    /// The Clerk instance that it is about
    #[arg(long, value_name = "NAME", default_value = "default", global = true)]
    instance: String,
}

/// The service's database, and Clerk's Backend API of one instance.
pub(super) struct Mirror {
    pub(super) store: SqlStore,
    pub(super) instance: InstanceName,
    /// In the background's share of the budget.
    pub(super) clerk: BackendApi,
    pub(super) clock: Clock,
}

impl DatabaseArgs {
    pub(super) fn instance(&self) -> anyhow::Result<InstanceName> {
        parsed("--instance", &self.instance)
    }

    /// The database alone.
    pub(super) async fn open(&self) -> anyhow::Result<SqlStore> {
        open(Settings::load_database(
            &self.settings(),
            &process_environment(),
        )?)
        .await
    }

    /// The database, and Clerk as the service asks it.
    pub(super) async fn open_mirror(&self) -> anyhow::Result<Mirror> {
        let instance = self.instance()?;
        let (args, environment) = (self.settings(), process_environment());
        // Says so where there is none.
        let database = Settings::load_database(&args, &environment)?;
        let settings = Settings::load(&args, &environment)?;
        let clock = system_clock();
        let found = of_name(&settings.instances, &instance)?;
        let clerk = backend_api(found, settings.api_timeout, Arc::clone(&clock))
            .map_err(|problem| anyhow!("{problem}"))?
            .with_context(|| {
                format!(
                    "instance \"{instance}\" has no secret key, with which Clerk is asked; set \
                     CLERK_SECRET_KEY (secret_key_file in the instances' file)"
                )
            })?;
        Ok(Mirror {
            store: open(database).await?,
            instance,
            clerk: clerk.in_background(),
            clock,
        })
    }

    fn settings(&self) -> SettingsArgs {
        let mut args = SettingsArgs::default();
        if let Some(file) = &self.database_url_file {
            args.set("CLERK_AUTHZ_DATABASE_URL", file.clone());
        }
        args
    }
}

fn of_name<'a>(
    instances: &'a [InstanceSettings],
    name: &InstanceName,
) -> anyhow::Result<&'a InstanceSettings> {
    let found = instances.iter().find(|settings| settings.name == *name);
    found.with_context(|| {
        let names: Vec<String> = instances
            .iter()
            .map(|settings| format!("\"{}\"", settings.name))
            .collect();
        let names = names.join(", ");
        format!("--instance is \"{name}\"; expected one of the settings: {names}")
    })
}

async fn open(database: DatabaseSettings) -> anyhow::Result<SqlStore> {
    Ok(match database {
        DatabaseSettings::Sqlite { path } if !path.exists() => bail!(
            "CLERK_AUTHZ_DATABASE_URL names {}, where there is no file; is it the service's?",
            path.display()
        ),
        DatabaseSettings::Sqlite { path } => SqlStore::sqlite(&path).await?,
        DatabaseSettings::Postgres { url } => SqlStore::postgres(url.expose_secret()).await?,
    })
}

/// What an argument says, or what is wrong with it.
pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    what: &str,
    text: &str,
) -> anyhow::Result<T> {
    text.parse()
        .map_err(|error| anyhow!("{what} is {text:?}; {error}"))
}
