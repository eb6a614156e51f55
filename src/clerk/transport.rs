//! One way to speak HTTP with Clerk: TLS, no redirects, no secret in sight, bounded bodies.

use std::time::Duration;

use reqwest::{
    Client, Response, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

use super::API_VERSION;
use crate::identity::{is_of_this_machine, is_safe_address};

/// How long the start of a connection may take, its TLS included.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// An address or a secret that Clerk must not be asked with.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InsecureUrl {
    /// Plain HTTP to another machine: anybody on the way could read the secret or hand out keys.
    #[error("{0} is not https; plain http is for this machine only")]
    PlainHttp(Url),
    /// The secret has characters that cannot stand in a header.
    #[error("the secret key has characters that cannot be sent")]
    Secret,
    /// The HTTP client cannot be made.
    #[error("the HTTPS client cannot be made: {0}")]
    Client(String),
}

/// How a client behaves, beside what holds for all.
pub(super) struct Manner {
    /// The media types that it understands.
    pub accept: &'static str,
    /// How long a request may take, its answer's body included.
    pub within: Duration,
    /// Connections that are kept while nobody asks.
    pub idle_connections: usize,
}

/// A client for `url`, which sends `secret_key` in the header of each request and nowhere else.
pub(super) fn client(
    url: &Url,
    secret_key: Option<&SecretString>,
    manner: &Manner,
) -> Result<Client, InsecureUrl> {
    if !is_safe_address(url) {
        return Err(InsecureUrl::PlainHttp(url.clone()));
    }
    let mut headers = HeaderMap::new();
    headers.insert("clerk-api-version", HeaderValue::from_static(API_VERSION));
    headers.insert(ACCEPT, HeaderValue::from_static(manner.accept));
    if let Some(secret_key) = secret_key {
        let value = format!("Bearer {}", secret_key.expose_secret());
        let mut value = HeaderValue::try_from(value).map_err(|_| InsecureUrl::Secret)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let builder = Client::builder()
        .default_headers(headers)
        .user_agent(concat!("clerk-authz/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .connect_timeout(CONNECT_WITHIN)
        .timeout(manner.within)
        .pool_max_idle_per_host(manner.idle_connections);
    // A proxy in the environment is for the way out, not for a Clerk on this machine.
    let builder = if is_of_this_machine(url) {
        builder.no_proxy()
    } else {
        builder
    };
    builder
        .build()
        .map_err(|error| InsecureUrl::Client(error.to_string()))
}

/// Whether the answer says that it is JSON; parameters such as a charset do not count.
pub(super) fn is_json(response: &Response) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE);
    let Some(text) = content_type.and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let media_type = text.split(';').next().unwrap_or_default().trim();
    ["application/json", "application/jwk-set+json"]
        .iter()
        .any(|json| media_type.eq_ignore_ascii_case(json))
}

/// A body that was not read to its end.
#[derive(Debug)]
pub(super) enum BodyError {
    /// It has more bytes than the limit.
    TooLarge,
    /// It broke off, or took too long.
    Broken(reqwest::Error),
}

/// The body, if it has at most `limit` bytes; reading stops there.
pub(super) async fn body(response: &mut Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Broken)? {
        if body.len() + chunk.len() > limit {
            return Err(BodyError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The error's innermost cause; an address may hold a secret, so it is left out.
pub(super) fn innermost_cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
