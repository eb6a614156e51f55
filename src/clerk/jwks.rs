//! Key sets from the Frontend API (open) or the Backend API (with the secret key).

use std::{future::Future, pin::Pin, time::Duration};

use reqwest::{Client, Url};
use secrecy::SecretString;

use super::transport::{self, BodyError, InsecureUrl, Manner};
use crate::keys::{FetchError, JwksSource, MAX_DOCUMENT_BYTES};

/// How long a whole fetch may take where nobody else says: the keyring does.
const FETCH_WITHIN: Duration = Duration::from_secs(10);

/// A JWKS document over HTTPS.
#[derive(Debug)]
pub struct HttpJwksSource {
    client: Client,
    url: Url,
}

impl HttpJwksSource {
    /// From `url`; `authorization` is the secret key for the Backend API.
    pub fn new(url: Url, authorization: Option<SecretString>) -> Result<Self, InsecureUrl> {
        let manner = Manner {
            accept: "application/json, application/jwk-set+json",
            within: FETCH_WITHIN,
            // One fetch a minute: an idle connection would only be found dead.
            idle_connections: 0,
        };
        let client = transport::client(&url, authorization.as_ref(), &manner)?;
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
        if !transport::is_json(&response) {
            return Err(FetchError::ContentType);
        }
        transport::body(&mut response, MAX_DOCUMENT_BYTES)
            .await
            .map_err(|error| match error {
                BodyError::TooLarge => FetchError::TooLarge,
                BodyError::Broken(error) => read_error(error),
            })
    }
}

impl JwksSource for HttpJwksSource {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + '_>> {
        Box::pin(self.document())
    }
}

fn read_error(error: reqwest::Error) -> FetchError {
    if error.is_timeout() {
        FetchError::Timeout(FETCH_WITHIN)
    } else {
        FetchError::Connect(transport::innermost_cause(error))
    }
}
