//! Key sets of identity providers, by what their discovery documents say (OpenID Connect Discovery
//! 1.0 §4).

use std::{future::Future, pin::Pin};

use reqwest::Url;
use serde_json::{Map, Value};

use super::{HttpJwksSource, InsecureUrl};
use crate::{
    identity::{is_of_this_machine, is_safe_address},
    keys::{FetchError, JwksSource},
};

/// The key set that a discovery document names. Both are fetched each time: a provider may move its
/// keys.
#[derive(Debug)]
pub struct DiscoveredJwksSource {
    document: HttpJwksSource,
    issuer: Box<str>,
    /// Whether the document is of this machine.
    is_local: bool,
}

impl DiscoveredJwksSource {
    /// By the document at `url`, which must be that of `issuer`.
    pub fn new(url: Url, issuer: &str) -> Result<Self, InsecureUrl> {
        let is_local = is_of_this_machine(&url);
        Ok(Self {
            is_local,
            document: HttpJwksSource::new(url, None)?,
            issuer: issuer.into(),
        })
    }

    async fn keys(&self) -> Result<Vec<u8>, FetchError> {
        let document = self.document.fetch().await?;
        let url = jwks_uri(&document, &self.issuer, self.is_local)?;
        let source = HttpJwksSource::new(url, None);
        let source = source.map_err(|error| FetchError::Discovery(error.to_string()))?;
        source.fetch().await
    }
}

/// A document of another issuer is not looked at any further (§4.3), and one of elsewhere sends nobody to
/// this machine in plain text.
fn jwks_uri(document: &[u8], issuer: &str, is_local: bool) -> Result<Url, FetchError> {
    let wrong = |why: &str| FetchError::Discovery(why.to_owned());
    // Serde would take a list of both for a document.
    let document: Option<Map<String, Value>> = serde_json::from_slice(document).ok();
    let member = |name: &str| document.as_ref()?.get(name)?.as_str();
    let (Some(found), Some(jwks_uri)) = (member("issuer"), member("jwks_uri")) else {
        return Err(wrong("it has no issuer and jwks_uri that are strings"));
    };
    if found != issuer {
        return Err(wrong("it is of another issuer"));
    }
    match Url::parse(jwks_uri) {
        Ok(url) if is_safe_address(&url) && (is_local || url.scheme() == "https") => Ok(url),
        Ok(_) | Err(_) => Err(wrong(
            "its jwks_uri is not https, nor an address of this machine in a document of this machine",
        )),
    }
}

impl JwksSource for DiscoveredJwksSource {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + '_>> {
        Box::pin(self.keys())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_the_issuers_own_document_names_its_keys_and_only_at_a_safe_address() {
        let issuer = "https://idp.example.com";
        let named = |document: Value| {
            let url = jwks_uri(document.to_string().as_bytes(), issuer, false);
            url.map(|url| url.to_string()).ok()
        };
        let keys = "https://keys.example.com/jwks";
        let good = json!({"issuer": issuer, "jwks_uri": keys, "anything": [1]});
        assert_eq!(named(good), Some(keys.to_owned()));
        for (what, document) in [
            (
                "another issuer",
                json!({"issuer": "https://idp.example.com/", "jwks_uri": keys}),
            ),
            ("no issuer", json!({"jwks_uri": keys})),
            ("no address", json!({"issuer": issuer})),
            (
                "plain http",
                json!({"issuer": issuer, "jwks_uri": "http://keys.example.com"}),
            ),
            (
                "this machine, of elsewhere",
                json!({"issuer": issuer, "jwks_uri": "http://127.0.0.1:9/jwks"}),
            ),
            (
                "a file",
                json!({"issuer": issuer, "jwks_uri": "file:///etc/passwd"}),
            ),
            ("no url", json!({"issuer": issuer, "jwks_uri": "jwks"})),
            ("a list", json!([issuer, keys])),
        ] {
            assert_eq!(named(document), None, "{what}");
        }

        let local = json!({"issuer": issuer, "jwks_uri": "http://127.0.0.1:9/jwks"}).to_string();
        let url = jwks_uri(local.as_bytes(), issuer, true).expect("both of this machine");
        assert_eq!(url.as_str(), "http://127.0.0.1:9/jwks");
    }

    #[test]
    fn only_a_document_of_this_machine_is_local() {
        let is_local = |url: &str| {
            let url = Url::parse(url).expect("an address");
            let source = DiscoveredJwksSource::new(url, "issuer");
            source.expect("safe").is_local
        };
        assert!(is_local("http://127.0.0.1:9/x"));
        assert!(!is_local("https://idp.example.com/x"));
    }
}
