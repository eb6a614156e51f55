//! `[[instance.provider]]`: the identity providers whose users an instance lets in (docs/sso.md).

use std::{
    ops::{Range, RangeInclusive},
    time::Duration,
};

use serde::Deserialize;
use toml::Spanned;
use url::Url;

use super::{Problem, toml_text, value, variables::nearest};
use crate::{
    assertion::{FindBy, Nonce, Provider, SecondFactor},
    identity::{SigningAlgorithm, SigningAlgorithms, is_safe_address},
};

/// The most providers of an instance: each keeps its keys fresh by itself.
const MAX_PROVIDERS: usize = 100;
/// The most values in one list.
const MAX_VALUES: usize = 100;
const AUTH_AGE_SECONDS: RangeInclusive<u64> = 1..=31_536_000;

/// An identity provider, and where its keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderSettings {
    /// What is asked of its assertions.
    pub rules: Provider,
    /// Where its keys come from.
    pub keys: ProviderKeys,
}

/// Where an identity provider says what it signs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderKeys {
    /// A discovery document, which names the key set.
    Discovery(Url),
    /// A key set.
    Jwks(Url),
}

/// One as it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderText {
    name: Spanned<String>,
    issuer: Spanned<String>,
    client_ids: Spanned<Vec<Box<str>>>,
    discovery: Option<Spanned<String>>,
    jwks_url: Option<Spanned<String>>,
    algorithms: Option<Spanned<Vec<String>>>,
    r#match: Spanned<String>,
    external_account: Option<Spanned<String>>,
    email_domains: Option<Spanned<Vec<Box<str>>>>,
    mfa: Spanned<String>,
    amr: Option<Spanned<Vec<Box<str>>>>,
    acr: Option<Spanned<Vec<Box<str>>>>,
    max_auth_age: Option<Spanned<String>>,
    nonce: Option<Spanned<String>>,
    create_users: Option<Spanned<bool>>,
}

/// Reads the providers of one instance, which is called `at` where something is wrong with it.
pub(super) fn read(
    providers: Vec<ProviderText>,
    text: &str,
    at: &str,
    problems: &mut Vec<Problem>,
) -> Vec<ProviderSettings> {
    let mut reader = Reader { text, at, problems };
    let mut read: Vec<ProviderSettings> = Vec::with_capacity(providers.len());
    for provider in providers {
        if read.len() == MAX_PROVIDERS {
            let why = format!("is one of more than {MAX_PROVIDERS} providers of the instance");
            reader.refuse("provider", &provider.name, why);
            break;
        }
        let place = provider.name.span();
        let finds_by = provider.finds_by();
        let Some(settings) = reader.provider(provider) else {
            continue;
        };
        if read
            .iter()
            .any(|other| other.rules.name == settings.rules.name)
        {
            let why = format!("is the name of another, {:?}", settings.rules.name.as_str());
            reader.refuse("name", &Spanned::new(place, ()), why);
        }
        for other in &read {
            if let Some((key, shared)) = shared_users(&settings.rules, &other.rules) {
                let [one, two] = [&settings, other].map(|it| it.rules.name.as_str());
                let why = format!(
                    "{shared} of provider {one:?}, and of provider {two:?} of another issuer: either \
                     could speak for the other's users; leave it to one of them, or put them in \
                     instances of their own"
                );
                reader.refuse(key, &Spanned::new(finds_by.clone(), ()), why);
            }
        }
        read.push(settings);
    }
    read
}

/// By what two issuers may mean one user, whoever of them it is that knows the user. An issuer vouches
/// for its own `sub` only, and nobody else's.
fn shared_users(one: &Provider, other: &Provider) -> Option<(&'static str, String)> {
    if one.issuer == other.issuer {
        return None;
    }
    match (&one.find_by, &other.find_by) {
        (FindBy::ExternalId, FindBy::ExternalId) => {
            Some(("match", "\"external_id\" is".to_owned()))
        }
        (FindBy::ExternalAccount(one), FindBy::ExternalAccount(other)) if one == other => {
            Some(("external_account", format!("{one:?} is")))
        }
        (FindBy::VerifiedEmail(ones), FindBy::VerifiedEmail(others)) => {
            let shared = ones.iter().find(|domain| others.contains(domain))?;
            Some(("email_domains", format!("{shared:?} is")))
        }
        (
            FindBy::ExternalId | FindBy::ExternalAccount(_) | FindBy::VerifiedEmail(_),
            FindBy::ExternalId | FindBy::ExternalAccount(_) | FindBy::VerifiedEmail(_),
        ) => None,
    }
}

impl ProviderText {
    /// Where it stands by what its users are found.
    fn finds_by(&self) -> Range<usize> {
        let domains = self.email_domains.as_ref().map(Spanned::span);
        let account = self.external_account.as_ref().map(Spanned::span);
        domains.or(account).unwrap_or_else(|| self.r#match.span())
    }
}

struct Reader<'a> {
    text: &'a str,
    at: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn refuse<T>(&mut self, key: &str, place: &Spanned<T>, why: impl AsRef<str>) {
        let place = toml_text::place(self.text, place.span().start);
        let subject = format!("{} provider.{key}", self.at);
        let text = format!("{place}: {}", why.as_ref());
        self.problems.push(Problem::new(&subject, text));
    }

    fn provider(&mut self, text: ProviderText) -> Option<ProviderSettings> {
        let before = self.problems.len();
        let name = text.name.get_ref().parse().ok();
        if name.is_none() {
            let found = text.name.get_ref();
            let expected = "expected lower-case letters, digits, \"-\" and \"_\", at most 63";
            self.refuse("name", &text.name, format!("is {found:?}; {expected}"));
        }
        let issuer = self.issuer(&text.issuer);
        let client_ids = self.texts("client_ids", Some(&text.client_ids));
        let algorithms = self.algorithms(text.algorithms.as_ref());
        let keys = self.keys(&text);
        let find_by = self.find_by(&text);
        let second_factor = self.one_of(
            "mfa",
            &text.mfa,
            &[
                ("required", SecondFactor::Required),
                ("if_enrolled", SecondFactor::IfEnrolled),
                ("off", SecondFactor::Off),
            ],
        );
        let amr = self.texts("amr", text.amr.as_ref());
        let acr = self.texts("acr", text.acr.as_ref());
        match second_factor {
            Some(SecondFactor::Required | SecondFactor::IfEnrolled)
                if text.amr.is_none() && text.acr.is_none() =>
            {
                let found = text.mfa.get_ref();
                let why = format!(
                    "is {found:?}, and nothing says what shows a second factor; set amr to the \
                     values that do, such as amr = [\"mfa\"], or acr"
                );
                self.refuse("mfa", &text.mfa, why);
            }
            Some(SecondFactor::Off) => {
                for (key, list) in [("amr", &text.amr), ("acr", &text.acr)] {
                    if let Some(list) = list {
                        let why = "does nothing while mfa is \"off\"; leave it out";
                        self.refuse(key, list, why);
                    }
                }
            }
            _ => {}
        }
        let max_sign_in_age = text
            .max_auth_age
            .as_ref()
            .and_then(|age| self.age("max_auth_age", age));
        let nonce = text.nonce.as_ref().map_or(Some(Nonce::Required), |nonce| {
            let known = [("required", Nonce::Required), ("optional", Nonce::Optional)];
            self.one_of("nonce", nonce, &known)
        });
        if let (Some(create), Some(FindBy::ExternalAccount(_))) = (&text.create_users, &find_by)
            && *create.get_ref()
        {
            let why = "does not go with match = \"external_account\": Clerk lets nobody make a user \
                       with one; match by \"external_id\" or \"verified_email\", or leave it out";
            self.refuse("create_users", create, why);
        }
        if self.problems.len() > before {
            return None;
        }
        let rules = Provider {
            name: name?,
            issuer: issuer?,
            client_ids,
            algorithms,
            find_by: find_by?,
            second_factor: second_factor?,
            amr,
            acr,
            max_sign_in_age,
            nonce: nonce?,
            create_users: text.create_users.is_some_and(Spanned::into_inner),
        };
        Some(ProviderSettings { rules, keys: keys? })
    }

    /// Compared as text: a slash more or less is another.
    fn issuer(&mut self, text: &Spanned<String>) -> Option<Box<str>> {
        let url = self.address("issuer", text)?;
        if url.query().is_some() || url.fragment().is_some() {
            let why = "has parameters or a fragment; expected the provider's issuer as it stands \
                       in its assertions";
            self.refuse("issuer", text, why);
            return None;
        }
        Some(text.get_ref().as_str().into())
    }

    fn address(&mut self, key: &str, text: &Spanned<String>) -> Option<Url> {
        let shown = value::shown_address(text.get_ref());
        let why = match Url::parse(text.get_ref()) {
            Ok(_) if value::has_userinfo(text.get_ref()) => {
                format!("is {shown:?}; expected an address without a name or password")
            }
            Ok(url) if is_safe_address(&url) => return Some(url),
            Ok(_) => format!("is {shown:?}; expected https, but for a host of this machine"),
            Err(error) => format!("is {shown:?}; expected an address: {error}"),
        };
        self.refuse(key, text, why);
        None
    }

    /// Where nothing is said it is asked at the place that the specification names.
    fn keys(&mut self, text: &ProviderText) -> Option<ProviderKeys> {
        match (&text.discovery, &text.jwks_url) {
            (Some(_), Some(jwks_url)) => {
                let why = "is set beside discovery, which names the key set; leave one of them out";
                self.refuse("jwks_url", jwks_url, why);
                None
            }
            (Some(discovery), None) => {
                let url = self.address("discovery", discovery)?;
                Some(ProviderKeys::Discovery(url))
            }
            (None, Some(jwks_url)) => {
                let url = self.address("jwks_url", jwks_url)?;
                Some(ProviderKeys::Jwks(url))
            }
            (None, None) => {
                let issuer = text.issuer.get_ref().trim_end_matches('/');
                // A wrong issuer was reported.
                let url = Url::parse(&format!("{issuer}/.well-known/openid-configuration"));
                url.ok().map(ProviderKeys::Discovery)
            }
        }
    }

    fn algorithms(&mut self, names: Option<&Spanned<Vec<String>>>) -> SigningAlgorithms {
        let Some(names) = names else {
            return SigningAlgorithms::only(SigningAlgorithm::Rs256);
        };
        let mut found = Vec::new();
        for name in names.get_ref() {
            match SigningAlgorithm::named(name) {
                Some(algorithm) => found.push(algorithm),
                None => {
                    let why = format!("has {name:?}; expected \"RS256\" or \"ES256\"");
                    self.refuse("algorithms", names, why);
                }
            }
        }
        if names.get_ref().is_empty() {
            let why = "is empty; expected \"RS256\" or \"ES256\", or both";
            self.refuse("algorithms", names, why);
        }
        found.into_iter().collect()
    }

    fn find_by(&mut self, text: &ProviderText) -> Option<FindBy> {
        #[derive(Clone, Copy, PartialEq)]
        enum By {
            Account,
            Id,
            Email,
        }
        let known = [
            ("external_account", By::Account),
            ("external_id", By::Id),
            ("verified_email", By::Email),
        ];
        let by = self.one_of("match", &text.r#match, &known)?;
        if let Some(account) = text.external_account.as_ref().filter(|_| by != By::Account) {
            let why = "goes with match = \"external_account\" only; leave it out";
            self.refuse("external_account", account, why);
        }
        if let Some(domains) = text.email_domains.as_ref().filter(|_| by != By::Email) {
            let why = "goes with match = \"verified_email\" only; leave it out";
            self.refuse("email_domains", domains, why);
        }
        match by {
            By::Id => Some(FindBy::ExternalId),
            By::Account => match &text.external_account {
                Some(name) if is_clerks_provider(name.get_ref()) => {
                    Some(FindBy::ExternalAccount(name.get_ref().as_str().into()))
                }
                Some(name) => {
                    let found = name.get_ref();
                    let why = format!(
                        "is {found:?}; expected Clerk's name of the provider, such as \
                         \"oauth_google\" or \"oauth_custom_acme\""
                    );
                    self.refuse("external_account", name, why);
                    None
                }
                None => {
                    let why = "is \"external_account\"; set external_account to Clerk's name of the \
                               provider, such as \"oauth_google\", too";
                    self.refuse("match", &text.r#match, why);
                    None
                }
            },
            By::Email => {
                let Some(domains) = &text.email_domains else {
                    let why = "is \"verified_email\"; set email_domains to the domains that the \
                               provider may speak for, too";
                    self.refuse("match", &text.r#match, why);
                    return None;
                };
                let found = self.texts("email_domains", Some(domains));
                for domain in found.iter().filter(|domain| !is_domain(domain)) {
                    let why = format!(
                        "has {domain:?}; expected a domain in lower case and ASCII, without \"@\" or a wildcard"
                    );
                    self.refuse("email_domains", domains, why);
                }
                Some(FindBy::VerifiedEmail(found))
            }
        }
    }

    /// What is given is neither empty nor has it empty values.
    fn texts(&mut self, key: &str, list: Option<&Spanned<Vec<Box<str>>>>) -> Vec<Box<str>> {
        let Some(list) = list else {
            return Vec::new();
        };
        let texts = list.get_ref();
        if !(1..=MAX_VALUES).contains(&texts.len()) || texts.iter().any(|text| text.is_empty()) {
            let why = format!(
                "has {} values; expected 1 to {MAX_VALUES}, none empty",
                texts.len()
            );
            self.refuse(key, list, why);
        }
        texts.clone()
    }

    fn one_of<T: Copy>(
        &mut self,
        key: &str,
        text: &Spanned<String>,
        known: &[(&str, T)],
    ) -> Option<T> {
        let found = text.get_ref();
        let value = known.iter().find(|(name, _)| name == found);
        if let Some((_, value)) = value {
            return Some(*value);
        }
        let names = known.iter().map(|(name, _)| *name);
        let why = match nearest(found, names.clone()) {
            Some(nearest) => format!("is {found:?}; did you mean {nearest:?}?"),
            None => {
                let names: Vec<_> = names.map(|name| format!("{name:?}")).collect();
                format!("is {found:?}; expected one of {}", names.join(", "))
            }
        };
        self.refuse(key, text, why);
        None
    }

    fn age(&mut self, key: &str, text: &Spanned<String>) -> Option<Duration> {
        let age = value::duration(text.get_ref());
        let age = age.filter(|age| AUTH_AGE_SECONDS.contains(&age.as_secs()));
        if age.is_none() {
            let found = text.get_ref();
            let why = format!(
                "is {found:?}; expected a duration with a unit from 1s to 365days, such as \"12h\""
            );
            self.refuse(key, text, why);
        }
        age
    }
}

/// Clerk's names: `oauth_` and what it is of.
fn is_clerks_provider(name: &str) -> bool {
    name.len() <= 255
        && name.strip_prefix("oauth_").is_some_and(|rest| {
            !rest.is_empty()
                && rest
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        })
}

fn is_domain(text: &str) -> bool {
    text.is_ascii()
        && text.len() <= 253
        && text.contains('.')
        && !text.starts_with('.')
        && !text.ends_with('.')
        && text == text.to_lowercase()
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "@*/:".contains(c))
}

#[cfg(test)]
mod tests;
