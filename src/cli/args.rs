//! What `verify`, `check` and `policy explain` take alike: whose tokens, with which keys, at what time.

use std::{
    future::Future,
    io::{IsTerminal, Read},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use crate::{
    credential::MAX_TOKEN_BYTES,
    identity::{MachineType, Timestamp, TokenType, TokenTypes},
    keys::{Clock, FetchError, JwksSource, MAX_DOCUMENT_BYTES},
    server::{Asker, system_clock},
    settings::{KeySource, Settings, SettingsArgs, process_environment},
};

#[derive(Args)]
pub(super) struct TokenArgs {
    /// The instance's publishable key [env: CLERK_PUBLISHABLE_KEY]
    #[arg(long, value_name = "KEY")]
    publishable_key: Option<String>,
    /// The issuer; required unless the publishable key is set [env: CLERK_AUTHZ_ISSUER]
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// The keys: a JWKS document, as a file or an address
    #[arg(long, value_name = "FILE|URL")]
    jwks: Option<String>,
    /// An origin of which azp must be one; may be repeated [env: CLERK_AUTHORIZED_PARTIES]
    #[arg(long, value_name = "ORIGIN")]
    authorized_party: Vec<String>,
    /// An audience of which aud must name one; may be repeated [env: CLERK_AUDIENCES]
    #[arg(long, value_name = "VALUE")]
    audience: Vec<String>,
    /// A type of token that is accepted; may be repeated
    #[arg(long, value_name = "TYPE", default_value = "session_token")]
    accept: Vec<Accept>,
    /// The time to decide at: RFC 3339 or Unix seconds; now where absent
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// Open no connection: keys must come from --jwks FILE or CLERK_JWT_KEY
    #[arg(long)]
    offline: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Accept {
    SessionToken,
    M2mToken,
    OauthToken,
    ApiKey,
}

impl From<Accept> for TokenType {
    fn from(accept: Accept) -> Self {
        match accept {
            Accept::SessionToken => Self::Session,
            Accept::M2mToken => Self::Machine(MachineType::M2m),
            Accept::OauthToken => Self::Machine(MachineType::Oauth),
            Accept::ApiKey => Self::Machine(MachineType::ApiKey),
        }
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Timestamp::from_unix_seconds(seconds));
    }
    humantime::parse_rfc3339(text)
        .map(Timestamp::from)
        .map_err(|_| "expected RFC 3339, such as 2026-11-24T10:00:00Z, or Unix seconds".to_owned())
}

impl TokenArgs {
    /// The use cases, and the clock that they go by.
    pub(super) async fn asker(&self) -> anyhow::Result<(Asker, Clock)> {
        let (settings, source) = self.settings()?;
        let clock: Clock = match self.at {
            Some(at) => Arc::new(move || at),
            None => system_clock(),
        };
        let asker = Asker::start(&settings, Arc::clone(&clock), source).await?;
        Ok((asker, clock))
    }

    /// The types of token that are accepted.
    pub(super) fn accepted(&self) -> TokenTypes {
        self.accept.iter().map(|accept| (*accept).into()).collect()
    }

    /// Fails where something else than session tokens is accepted, and `why` says that it cannot be.
    pub(super) fn accepts_sessions_only(&self, why: &str) -> anyhow::Result<()> {
        if self.accepted().has_machines() {
            bail!("--accept {}: {why}", self.accepted());
        }
        Ok(())
    }

    fn settings(&self) -> anyhow::Result<(Settings, Option<Arc<dyn JwksSource>>)> {
        let mut args = SettingsArgs::default();
        let mut set = |variable, value: &Option<String>| {
            if let Some(value) = value {
                args.set(variable, value.clone());
            }
        };
        let list = |values: &[String]| (!values.is_empty()).then(|| values.join(","));
        set("CLERK_PUBLISHABLE_KEY", &self.publishable_key);
        set("CLERK_AUTHZ_ISSUER", &self.issuer);
        set("CLERK_AUTHORIZED_PARTIES", &list(&self.authorized_party));
        set("CLERK_AUDIENCES", &list(&self.audience));
        let mut source: Option<Arc<dyn JwksSource>> = None;
        let mut environment = process_environment();
        if let Some(jwks) = &self.jwks {
            if jwks.starts_with("http://") || jwks.starts_with("https://") {
                set("CLERK_AUTHZ_JWKS_URL", &Some(jwks.clone()));
            } else {
                source = Some(Arc::new(JwksFile(PathBuf::from(jwks))));
            }
            // What is said on the command line beats a key in the environment.
            environment.remove("CLERK_JWT_KEY");
            environment.remove("CLERK_JWT_KEY_FILE");
        }
        if self.offline {
            // Without it nobody can be asked but the token.
            environment.remove("CLERK_SECRET_KEY");
            environment.remove("CLERK_SECRET_KEY_FILE");
        }
        let mut settings = Settings::load(&args, &environment)?;
        if self.offline {
            // The instances' file names secret keys too.
            for instance in &mut settings.instances {
                instance.api = None;
            }
        }
        let pinned = settings
            .instances
            .iter()
            .all(|i| matches!(i.keys, KeySource::Pinned(_)));
        if self.offline && source.is_none() && !pinned {
            bail!("--offline needs keys that are here: give --jwks FILE, or set CLERK_JWT_KEY");
        }
        Ok((settings, source))
    }
}

/// The token that an argument gives: itself, or - for standard input.
pub(super) fn token(argument: &str) -> anyhow::Result<String> {
    if argument != "-" {
        return Ok(argument.trim().to_owned());
    }
    if std::io::stdin().is_terminal() {
        anstream::eprintln!("reading the token from standard input; end with Ctrl-D");
    }
    let mut text = String::new();
    // One more than is accepted, so that what is too long is seen to be.
    let limit = MAX_TOKEN_BYTES as u64 + 2;
    std::io::stdin()
        .take(limit)
        .read_to_string(&mut text)
        .context("cannot read the token")?;
    Ok(text.trim().to_owned())
}

/// A JWKS document in a file.
struct JwksFile(PathBuf);

impl JwksSource for JwksFile {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + '_>> {
        Box::pin(async {
            let document = tokio::fs::read(&self.0).await;
            let document = document.map_err(|error| {
                FetchError::Connect(format!("{} cannot be read: {error}", self.0.display()))
            })?;
            if document.len() > MAX_DOCUMENT_BYTES {
                Err(FetchError::TooLarge)
            } else {
                Ok(document)
            }
        })
    }
}
