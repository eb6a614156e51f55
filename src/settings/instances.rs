//! One instance from the variables, or several from a file.

use std::{fs, ops::RangeInclusive, path::Path};

use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::{
    ApiSettings, InstanceSettings, KeySource, Problem, Problems, masked,
    providers::{self, ProviderText},
    secret_key_environment, shown_file, toml_text, value,
    variables::Raw,
};
use crate::{
    identity::{Environment, InstanceName, Issuer, PublishableKey, is_safe_address},
    webhook::SigningSecret,
};

/// The most instances in a file.
const MAX_INSTANCES: usize = 1_000;

/// Requests in ten seconds: with fewer nothing could be asked at once, and Clerk gives nobody more.
const API_BUDGET_BOUNDS: RangeInclusive<u32> = 10..=100_000;
/// A tenth below what Clerk allows an instance, for the dashboard and for other back ends.
const PRODUCTION_API_BUDGET: u32 = 900;
const DEVELOPMENT_API_BUDGET: u32 = 90;

/// The most signing secrets of an instance: with two a secret is rotated, and each costs an HMAC for
/// every message that is not of it.
const MAX_WEBHOOK_SECRETS: usize = 8;

/// What is said of an instance, wherever it is said. Each problem names its own subject.
struct Said {
    name: InstanceName,
    publishable_key: Option<String>,
    issuer: Option<String>,
    jwks_url: Option<String>,
    api_url: String,
    api_budget: Option<u32>,
    secret_key: Option<String>,
    jwt_key: Option<String>,
    authorized_parties: Vec<String>,
    audiences: Vec<String>,
    webhook_secrets: Vec<String>,
}

/// How the settings of an instance are called where they were said.
struct Names {
    publishable_key: String,
    issuer: String,
    jwks_url: String,
    api_url: String,
    secret_key: String,
    authorized_parties: String,
    webhook_secrets: String,
}

pub(super) fn from_variables(raw: &Raw, problems: &mut Vec<Problem>) -> Option<InstanceSettings> {
    let said = Said {
        name: InstanceName::default_instance(),
        publishable_key: raw.text("CLERK_PUBLISHABLE_KEY"),
        issuer: raw.text("CLERK_AUTHZ_ISSUER"),
        jwks_url: raw.text("CLERK_AUTHZ_JWKS_URL"),
        api_url: raw.text("CLERK_API_URL").unwrap_or_default(),
        api_budget: raw.count("CLERK_AUTHZ_API_BUDGET", API_BUDGET_BOUNDS, problems),
        secret_key: raw.text("CLERK_SECRET_KEY"),
        jwt_key: raw.text("CLERK_JWT_KEY"),
        authorized_parties: raw
            .text("CLERK_AUTHORIZED_PARTIES")
            .map_or(vec![], |t| value::list(&t)),
        audiences: raw
            .text("CLERK_AUDIENCES")
            .map_or(vec![], |t| value::list(&t)),
        webhook_secrets: raw
            .text("CLERK_WEBHOOK_SIGNING_SECRET")
            .map_or(vec![], |t| value::list(&t)),
    };
    let names = Names {
        publishable_key: raw.subject("CLERK_PUBLISHABLE_KEY"),
        issuer: raw.subject("CLERK_AUTHZ_ISSUER"),
        jwks_url: raw.subject("CLERK_AUTHZ_JWKS_URL"),
        api_url: raw.subject("CLERK_API_URL"),
        secret_key: raw.subject("CLERK_SECRET_KEY"),
        authorized_parties: raw.subject("CLERK_AUTHORIZED_PARTIES"),
        webhook_secrets: raw.subject("CLERK_WEBHOOK_SIGNING_SECRET"),
    };
    check(said, &names, problems)
}

fn check(said: Said, names: &Names, problems: &mut Vec<Problem>) -> Option<InstanceSettings> {
    let before = problems.len();
    let mut wrong = |subject: &str, text: String| problems.push(Problem::new(subject, text));

    let publishable_key = said.publishable_key.as_deref().and_then(|text| {
        text.parse::<PublishableKey>()
            .map_err(|error| {
                // Whoever put a secret key here must not find it in a log.
                let is_secret = secret_key_environment(text).is_some();
                let shown = if is_secret {
                    masked(text)
                } else {
                    text.to_owned()
                };
                wrong(&names.publishable_key, format!("is {shown:?}: {error}"));
            })
            .ok()
    });
    // Whether they are used or not: they are shown, and nobody is asked with them.
    for (subject, address) in [
        (&names.issuer, said.issuer.as_deref()),
        (&names.jwks_url, said.jwks_url.as_deref()),
        (&names.api_url, Some(said.api_url.as_str())),
    ] {
        if let Some(address) = address.filter(|address| value::has_userinfo(address)) {
            let shown = value::shown_address(address);
            wrong(
                subject,
                format!(
                    "is {shown:?}; expected an address without a name or password before its host"
                ),
            );
        }
    }
    for party in &said.authorized_parties {
        if !value::is_origin(party) {
            let shown = value::shown_address(party);
            wrong(
                &names.authorized_parties,
                format!(
                    "has {shown:?}; expected an origin such as \"https://app.example.com\": scheme, \
                     host and port in lower case, without a path, a slash at the end or a wildcard"
                ),
            );
        }
    }
    let webhook_secrets = webhook_secrets(&said, names, &mut wrong);
    if let Some(secret) = &said.secret_key {
        let kind = secret_key_environment(secret);
        match (kind, &publishable_key) {
            (None, _) => wrong(
                &names.secret_key,
                format!(
                    "is {:?}; expected a key that starts with sk_test_ or sk_live_",
                    masked(secret)
                ),
            ),
            (Some(kind), Some(key)) if kind != key.environment() => wrong(
                &names.secret_key,
                format!(
                    "is a {kind} key, but {} is a {} key; take both from one instance",
                    names.publishable_key,
                    key.environment()
                ),
            ),
            (Some(_), _) => {}
        }
    }
    let issuer = issuer(&said, publishable_key.as_ref(), names, &mut wrong);
    let api = api(&said, names, &mut wrong);
    let keys = key_source(
        &said,
        api.as_ref(),
        publishable_key.as_ref(),
        names,
        &mut wrong,
    );
    if problems.len() > before {
        return None;
    }
    Some(InstanceSettings {
        name: said.name,
        issuer: issuer?,
        publishable_key,
        keys: keys?,
        api,
        authorized_parties: said.authorized_parties,
        audiences: said.audiences,
        webhook_secrets,
        providers: Vec::new(),
    })
}

/// No part of one is shown: what is not a secret by its form may still be one.
fn webhook_secrets(
    said: &Said,
    names: &Names,
    wrong: &mut impl FnMut(&str, String),
) -> Vec<SecretString> {
    let given = said.webhook_secrets.len();
    if given > MAX_WEBHOOK_SECRETS {
        let text = format!("has {given} secrets; expected at most {MAX_WEBHOOK_SECRETS}");
        wrong(&names.webhook_secrets, text);
    }
    let secrets = said.webhook_secrets.iter().cloned().map(SecretString::from);
    let secrets: Vec<_> = secrets.collect();
    for (index, secret) in secrets.iter().enumerate() {
        if let Err(invalid) = SigningSecret::parse(secret) {
            let which = if given > 1 {
                format!("number {} ", index + 1)
            } else {
                String::new()
            };
            let text = format!("{which}is not a webhook signing secret; {invalid}");
            wrong(&names.webhook_secrets, text);
        }
    }
    secrets
}

fn issuer(
    said: &Said,
    publishable_key: Option<&PublishableKey>,
    names: &Names,
    wrong: &mut impl FnMut(&str, String),
) -> Option<Issuer> {
    let Some(text) = &said.issuer else {
        if publishable_key.is_none() && said.publishable_key.is_none() {
            wrong(
                &names.publishable_key,
                format!(
                    "is not set; set it (Clerk dashboard, \"API keys\"), or {} to the Frontend API \
                     address",
                    names.issuer
                ),
            );
        }
        return publishable_key.and_then(PublishableKey::issuer);
    };
    let shown = value::shown_address(text);
    let Ok(issuer) = text.parse::<Issuer>() else {
        wrong(
            &names.issuer,
            format!(
                "is {shown:?}; expected an address such as \"https://clerk.example.com\", without a \
                 path or a slash at the end"
            ),
        );
        return None;
    };
    if !Url::parse(text).is_ok_and(|url| is_safe_address(&url)) {
        wrong(
            &names.issuer,
            format!("is {shown:?}; expected https, but for a host of this machine"),
        );
    }
    if let Some(key) = publishable_key
        && issuer.host() != key.frontend_api_host()
    {
        wrong(
            &names.issuer,
            format!(
                "is {shown:?}, but {} is of {:?}; take both from one instance",
                names.publishable_key,
                key.frontend_api_host()
            ),
        );
    }
    Some(issuer)
}

/// The Backend API can be asked with a secret key only.
fn api(said: &Said, names: &Names, wrong: &mut impl FnMut(&str, String)) -> Option<ApiSettings> {
    let secret_key = said.secret_key.as_ref()?;
    let text = &said.api_url;
    let shown = value::shown_address(text);
    let url = match Url::parse(text) {
        Ok(url) if is_safe_address(&url) && url.query().is_none() && url.fragment().is_none() => {
            url
        }
        Ok(url) if is_safe_address(&url) => {
            wrong(
                &names.api_url,
                format!("is {shown:?}; expected an address without parameters"),
            );
            return None;
        }
        Ok(_) => {
            wrong(
                &names.api_url,
                format!("is {shown:?}; expected https, but for a host of this machine"),
            );
            return None;
        }
        Err(error) => {
            wrong(
                &names.api_url,
                format!("is {shown:?}; expected an address: {error}"),
            );
            return None;
        }
    };
    let budget = match secret_key_environment(secret_key) {
        Some(Environment::Production) => PRODUCTION_API_BUDGET,
        // An unknown kind was reported.
        Some(Environment::Development) | None => DEVELOPMENT_API_BUDGET,
    };
    Some(ApiSettings {
        url,
        secret_key: SecretString::from(secret_key.clone()),
        budget: said.api_budget.unwrap_or(budget),
    })
}

/// What is pinned beats an address, an address beats the Backend API, that beats the Frontend API.
fn key_source(
    said: &Said,
    api: Option<&ApiSettings>,
    publishable_key: Option<&PublishableKey>,
    names: &Names,
    wrong: &mut impl FnMut(&str, String),
) -> Option<KeySource> {
    if let Some(pem) = &said.jwt_key {
        return Some(KeySource::Pinned(pem.clone()));
    }
    let (subject, text, authorization) = if let Some(url) = &said.jwks_url {
        (&names.jwks_url, url.clone(), None)
    } else if said.secret_key.is_some() {
        // An address that cannot be used was reported.
        let api = api?;
        let url = format!("{}/v1/jwks", api.url.as_str().trim_end_matches('/'));
        (&names.api_url, url, Some(api.secret_key.clone()))
    } else if let Some(issuer) = said
        .issuer
        .clone()
        .or_else(|| publishable_key.map(|key| format!("https://{}", key.frontend_api_host())))
    {
        (
            &names.issuer,
            format!("{issuer}/.well-known/jwks.json"),
            None,
        )
    } else {
        // No issuer either: reported there.
        return None;
    };
    let shown = value::shown_address(&text);
    match Url::parse(&text) {
        Ok(url) if is_safe_address(&url) => Some(KeySource::Jwks { url, authorization }),
        Ok(_) => {
            // Of an issuer it was said already.
            if *subject != names.issuer {
                wrong(
                    subject,
                    format!("leads to {shown:?}; expected https, but for a host of this machine"),
                );
            }
            None
        }
        Err(error) => {
            if *subject != names.issuer {
                wrong(
                    subject,
                    format!("leads to {shown:?}; expected an address: {error}"),
                );
            }
            None
        }
    }
}

/// The file as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    instance: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    publishable_key: Option<String>,
    issuer: Option<String>,
    jwks_url: Option<String>,
    api_url: Option<String>,
    api_budget: Option<u32>,
    secret_key_file: Option<String>,
    jwt_key: Option<String>,
    #[serde(default)]
    authorized_parties: Vec<String>,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    webhook_signing_secret_files: Vec<String>,
    #[serde(default)]
    provider: Vec<ProviderText>,
}

/// What is wrong with instances that take webhooks, or let in whom an identity provider vouches for,
/// where there is no database to keep in what came and what was used.
pub fn lacking_database(instances: &[InstanceSettings]) -> Vec<Problem> {
    let lacking = instances.iter().filter_map(|instance| {
        let what = if !instance.webhook_secrets.is_empty() {
            "has a webhook signing secret; set it to where messages are kept until they are applied"
        } else if !instance.providers.is_empty() {
            "has an identity provider; set it to where it is kept which assertions were exchanged"
        } else {
            return None;
        };
        Some(Problem::new(
            "CLERK_AUTHZ_DATABASE_URL",
            format!(
                "is not set, but instance \"{}\" {what}, such as \
                 \"sqlite:///var/lib/clerk-authz/clerk-authz.db\"",
                instance.name
            ),
        ))
    });
    lacking.collect()
}

/// What is missing where browsers are to be sent to Clerk, and none of these instances can do that.
pub fn lacking_for_handshakes(instances: &[InstanceSettings], from_file: bool) -> Option<Problem> {
    let lacking = |instance: &InstanceSettings| {
        let [key, secret, parties] = match from_file {
            true => ["publishable_key", "secret_key_file", "authorized_parties"],
            false => [
                "CLERK_PUBLISHABLE_KEY",
                "CLERK_SECRET_KEY",
                "CLERK_AUTHORIZED_PARTIES",
            ],
        };
        let missing = [
            (instance.publishable_key.is_none(), key),
            (instance.api.is_none(), secret),
            (instance.authorized_parties.is_empty(), parties),
        ];
        let missing = missing.iter().filter(|(is_missing, _)| *is_missing);
        missing.map(|(_, name)| *name).collect::<Vec<_>>()
    };
    let mut lacking = instances
        .iter()
        .map(|instance| (instance, lacking(instance)));
    let (instance, missing) = lacking.clone().next()?;
    if lacking.any(|(_, missing)| missing.is_empty()) {
        return None;
    }
    let of = match from_file {
        true => format!(" of instance \"{}\", or of another", instance.name),
        false => String::new(),
    };
    Some(Problem::new(
        "CLERK_AUTHZ_HANDSHAKE",
        format!(
            "is on, which needs {}{of}: it says where a browser is sent, with what Clerk is asked for its \
             cookies, and to where it may come back; set it, or leave the handshake off",
            missing.join(" and ")
        ),
    ))
}

/// Reads a file with several instances; all problems come back at once.
pub fn load_instances(path: &Path) -> Result<Vec<InstanceSettings>, Problems> {
    let shown = path.display();
    let one = |text: String| {
        Err(Problems::new(vec![Problem::new(
            "CLERK_AUTHZ_INSTANCES",
            text,
        )]))
    };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return one(format!("is \"{shown}\"; the file cannot be read: {error}")),
    };
    let file: File = match toml::from_str(&text) {
        Ok(file) => file,
        Err(error) => {
            return one(format!(
                "is \"{shown}\"; {}",
                toml_text::unreadable(&error, &text)
            ));
        }
    };
    if !(1..=MAX_INSTANCES).contains(&file.instance.len()) {
        let count = file.instance.len();
        return one(format!(
            "is \"{shown}\" with {count} instances; expected 1 to {MAX_INSTANCES}"
        ));
    }
    let mut problems = Vec::new();
    let mut instances: Vec<InstanceSettings> = Vec::with_capacity(file.instance.len());
    for entry in file.instance {
        let at = format!("{shown}: instance {:?}:", entry.name);
        let Some(instance) = entry.check(&text, &at, &mut problems) else {
            continue;
        };
        if let Some(other) = instances.iter().find(|other| other.name == instance.name) {
            problems.push(Problem::new(
                &at,
                format!("has the name of another: {:?}", other.name.as_str()),
            ));
        }
        if let Some(other) = instances
            .iter()
            .find(|other| other.issuer == instance.issuer)
        {
            problems.push(Problem::new(
                &at,
                format!(
                    "has the issuer of instance {:?}, {}",
                    other.name.as_str(),
                    instance.issuer
                ),
            ));
        }
        instances.push(instance);
    }
    if problems.is_empty() {
        Ok(instances)
    } else {
        Err(Problems::new(problems))
    }
}

impl Entry {
    fn check(self, text: &str, at: &str, problems: &mut Vec<Problem>) -> Option<InstanceSettings> {
        let providers = providers::read(self.provider, text, at, problems);
        let name = self
            .name
            .parse()
            .map_err(|error| problems.push(Problem::new(at, format!("name: {error}"))))
            .ok();
        let mut secret_of = |key: &str, file: &str| match fs::read_to_string(file) {
            Ok(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
            read => {
                let why = match read {
                    Ok(_) => "it is empty".to_owned(),
                    Err(error) => format!("it cannot be read: {error}"),
                };
                let text = format!("{key} is {:?}; {why}", shown_file(file));
                problems.push(Problem::new(at, text));
                None
            }
        };
        // One that cannot be read was reported.
        let said_no_secret_key = self.secret_key_file.is_none();
        let secret_key = self
            .secret_key_file
            .and_then(|file| secret_of("secret_key_file", &file));
        let webhook_secrets = self
            .webhook_signing_secret_files
            .iter()
            .filter_map(|file| secret_of("webhook_signing_secret_files", file))
            .collect();
        if let Some(found) = self.api_budget.filter(|it| !API_BUDGET_BOUNDS.contains(it)) {
            let expected = value::shown_bounds(&API_BUDGET_BOUNDS);
            let text = format!("api_budget is {found}; expected {expected}");
            problems.push(Problem::new(at, text));
        }
        let called = |name: &str| format!("{at} {name}");
        let names = Names {
            publishable_key: called("publishable_key"),
            issuer: called("issuer"),
            jwks_url: called("jwks_url"),
            api_url: called("api_url"),
            secret_key: called("secret_key_file"),
            authorized_parties: called("authorized_parties"),
            webhook_secrets: called("webhook_signing_secret_files"),
        };
        let said = Said {
            name: name?,
            publishable_key: self.publishable_key,
            issuer: self.issuer,
            jwks_url: self.jwks_url,
            api_url: self
                .api_url
                .unwrap_or_else(|| "https://api.clerk.com".to_owned()),
            api_budget: self.api_budget,
            secret_key,
            jwt_key: self.jwt_key,
            authorized_parties: self.authorized_parties,
            audiences: self.audiences,
            webhook_secrets,
        };
        if !providers.is_empty() && said.secret_key.is_none() && said_no_secret_key {
            let text = "is not set, but the instance has an identity provider; set it to a file with \
                        the secret key (Clerk dashboard, \"API keys\"), with which tickets are made";
            problems.push(Problem::new(&names.secret_key, text));
        }
        let instance = check(said, &names, problems)?;
        Some(InstanceSettings {
            providers,
            ..instance
        })
    }
}
