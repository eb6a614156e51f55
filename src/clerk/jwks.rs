//! Key sets from the Frontend API (open) or the Backend API (with the secret key).

use std::{future::Future, pin::Pin, time::Duration};

use reqwest::{
    Client, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

use super::API_VERSION;
use crate::keys::{FetchError, JwksSource, MAX_DOCUMENT_BYTES};

/// How long a connection may take; how long a whole fetch may take is the keyring's to say.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// How long a whole fetch may take where nobody else says.
const FETCH_WITHIN: Duration = Duration::from_secs(10);

/// An address or a secret that a key set must not be fetched with.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InsecureUrl {
    /// Plain HTTP to another machine: anybody on the way could hand out keys.
    #[error("{0} is not https; plain http is for this machine only")]
    PlainHttp(Url),
    /// The secret has characters that cannot stand in a header.
    #[error("the secret key has characters that cannot be sent")]
    Secret,
    /// The HTTP client cannot be made.
    #[error("the HTTPS client cannot be made: {0}")]
    Client(String),
}

/// A JWKS document over HTTPS.
#[derive(Debug)]
pub struct HttpJwksSource {
    client: Client,
    url: Url,
}

impl HttpJwksSource {
    /// From `url`; `authorization` is the secret key for the Backend API.
    pub fn new(url: Url, authorization: Option<SecretString>) -> Result<Self, InsecureUrl> {
        let is_loopback = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback) {
            return Err(InsecureUrl::PlainHttp(url));
        }
        let mut headers = HeaderMap::new();
        headers.insert("clerk-api-version", HeaderValue::from_static(API_VERSION));
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/json, application/jwk-set+json"),
        );
        if let Some(secret) = authorization {
            let value = format!("Bearer {}", secret.expose_secret());
            let mut value = HeaderValue::try_from(value).map_err(|_| InsecureUrl::Secret)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let builder = Client::builder()
            .default_headers(headers)
            .user_agent(concat!("clerk-authz/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .timeout(FETCH_WITHIN)
            // One fetch a minute: an idle connection would only be found dead.
            .pool_max_idle_per_host(0);
        // A proxy in the environment is for the way out, not for a Clerk on this machine.
        let builder = if is_loopback {
            builder.no_proxy()
        } else {
            builder
        };
        let client = builder
            .build()
            .map_err(|error| InsecureUrl::Client(error.to_string()))?;
        Ok(Self { client, url })
    }

    async fn document(&self) -> Result<Vec<u8>, FetchError> {
        let mut response = self
            .client
            .get(self.url.clone())
            .send()
            .await
            .map_err(read_error)?;
        let status = response.status();
        if status.is_redirection() {
            return Err(FetchError::Redirect);
        }
        if status.as_u16() != 200 {
            return Err(FetchError::Status(status.as_u16()));
        }
        if !response.headers().get(CONTENT_TYPE).is_some_and(is_json) {
            return Err(FetchError::ContentType);
        }
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(read_error)? {
            if document.len() + chunk.len() > MAX_DOCUMENT_BYTES {
                return Err(FetchError::TooLarge);
            }
            document.extend_from_slice(&chunk);
        }
        Ok(document)
    }
}

impl JwksSource for HttpJwksSource {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + '_>> {
        Box::pin(self.document())
    }
}

fn is_json(content_type: &HeaderValue) -> bool {
    let Ok(text) = content_type.to_str() else {
        return false;
    };
    let media_type = text.split(';').next().unwrap_or_default().trim();
    ["application/json", "application/jwk-set+json"]
        .iter()
        .any(|json| media_type.eq_ignore_ascii_case(json))
}

/// The error's kind and its innermost cause; an address may hold a secret, so it is left out.
fn read_error(error: reqwest::Error) -> FetchError {
    if error.is_timeout() {
        return FetchError::Timeout(FETCH_WITHIN);
    }
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    FetchError::Connect(cause.to_string())
}
