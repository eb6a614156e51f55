use std::{fmt, str::FromStr};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose};
use thiserror::Error;

use super::Issuer;

/// Which kind of Clerk instance a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// `pk_test_`, `sk_test_`.
    Development,
    /// `pk_live_`, `sk_live_`.
    Production,
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Development => "development",
            Self::Production => "production",
        })
    }
}

/// A text that is not a publishable key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidPublishableKey {
    /// Neither `pk_test_` nor `pk_live_` stands at the start.
    #[error("does not start with \"pk_test_\" or \"pk_live_\"")]
    Prefix,
    /// What follows is not base64 of a host and `$`.
    #[error("does not hold a Frontend API host in base64 after the prefix")]
    Host,
}

/// A Clerk publishable key: names the instance's Frontend API host.
///
/// Source: `@clerk/shared`, `keys.ts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishableKey {
    text: Box<str>,
    environment: Environment,
    host: Box<str>,
}

impl PublishableKey {
    /// The key for a host, as Clerk writes it (without base64 padding).
    pub fn for_host(environment: Environment, host: &str) -> Result<Self, InvalidPublishableKey> {
        let prefix = match environment {
            Environment::Development => "pk_test_",
            Environment::Production => "pk_live_",
        };
        let body = general_purpose::STANDARD_NO_PAD.encode(format!("{host}$"));
        format!("{prefix}{body}").parse()
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is a development or a production key.
    pub fn environment(&self) -> Environment {
        self.environment
    }

    /// The Frontend API host, such as `clerk.example.com`.
    pub fn frontend_api_host(&self) -> &str {
        &self.host
    }

    /// The issuer of the instance's tokens: `https://` and the host.
    pub fn issuer(&self) -> Option<Issuer> {
        format!("https://{}", self.host).parse().ok()
    }

    /// The eight characters that Clerk appends to its cookies' names: the start of base64url of the
    /// SHA-1 of the key's literal text, so that padding changes it.
    pub fn cookie_suffix(&self) -> String {
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, self.text.as_bytes());
        let mut suffix = general_purpose::URL_SAFE_NO_PAD.encode(hash.as_ref());
        suffix.truncate(8);
        suffix
    }
}

impl FromStr for PublishableKey {
    type Err = InvalidPublishableKey;

    fn from_str(text: &str) -> Result<Self, InvalidPublishableKey> {
        let (environment, body) = if let Some(body) = text.strip_prefix("pk_test_") {
            (Environment::Development, body)
        } else if let Some(body) = text.strip_prefix("pk_live_") {
            (Environment::Production, body)
        } else {
            return Err(InvalidPublishableKey::Prefix);
        };
        let bytes = general_purpose::STANDARD_NO_PAD
            .decode(body.trim_end_matches('='))
            .map_err(|_| InvalidPublishableKey::Host)?;
        let decoded = String::from_utf8(bytes).map_err(|_| InvalidPublishableKey::Host)?;
        let host = decoded
            .strip_suffix('$')
            .ok_or(InvalidPublishableKey::Host)?;
        // `Issuer` refuses everything that is not a plain host with an optional port.
        let is_host = format!("https://{host}").parse::<Issuer>().is_ok();
        if host.contains('$') || !host.contains('.') || !is_host {
            return Err(InvalidPublishableKey::Host);
        }
        Ok(Self {
            text: text.into(),
            environment,
            host: host.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first two vectors are the SDK's own (`@clerk/shared`, `keys.spec.ts`).
    #[test]
    fn hosts_and_cookie_suffixes_are_those_of_the_sdk() {
        for (key, host, suffix) in [
            (
                "pk_test_Y2xlcmsuY2xlcmsuZGV2JA",
                "clerk.clerk.dev",
                "QvfNY2dr",
            ),
            (
                "pk_live_ZmFrZS1jbGVyay10ZXN0LmNsZXJrLmFjY291bnRzLmRldiQ=",
                "fake-clerk-test.clerk.accounts.dev",
                "qReyu04C",
            ),
            (
                "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k",
                "clerk.example.com",
                "naoXFJnI",
            ),
            (
                "pk_test_aGFwcHktb3R0ZXItMTIuY2xlcmsuYWNjb3VudHMuZGV2JA==",
                "happy-otter-12.clerk.accounts.dev",
                "GS7nYzmc",
            ),
        ] {
            let parsed: PublishableKey = key.parse().expect(key);
            assert_eq!(parsed.frontend_api_host(), host, "{key}");
            assert_eq!(parsed.cookie_suffix(), suffix, "{key}");
        }
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        for bad in [
            "",
            "sk_test_Y2xlcmsuY2xlcmsuZGV2JA",
            "pk_test_",
            "pk_test_***",
            "pk_test_Y2xlcms",                    // no `$`
            "pk_test_bG9jYWxob3N0JA",             // no dot
            "pk_live_ZXZpbC5jb20vcGF0aCQ",        // a path
            "pk_live_Y2xlcmsuZXhhbXBsZS5jb20kJA", // two `$`
        ] {
            assert!(bad.parse::<PublishableKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_made_for_a_host_names_it() {
        let key = PublishableKey::for_host(Environment::Development, "127.0.0.1:5050");
        assert_eq!(key.expect("valid").frontend_api_host(), "127.0.0.1:5050");
    }
}
