//! What an HTTP answer of the Backend API means: found, no such thing, or a fault of some kind.

use std::time::Duration;

use reqwest::{
    Response,
    header::{HeaderMap, RETRY_AFTER},
};
use serde::de::DeserializeOwned;

use super::{
    gate::Endpoint,
    model::{self, ClerkErrors, Unreadable},
    retry,
    transport::{self, BodyError},
};
use crate::{
    identity::Timestamp,
    mirror::{DirectoryError, RequestOutcome},
};

/// The largest answer in bytes that says what is wrong.
const MAX_ERRORS_BYTES: usize = 64 << 10;
/// When it is worth asking again after a fault that does not say.
const RETRY_AFTER_FAULT: Duration = Duration::from_secs(1);

/// Why one request brought no answer. Holds nothing of a body but Clerk's own error code and trace
/// id, and no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No connection, no whole answer, or a server's fault: the next attempt may go better.
    Failed {
        cause: String,
        retry_after: Option<Duration>,
    },
    /// An answer that cannot be used, and that would be the same again.
    Unusable(String),
    /// Clerk's rate limit; until then this class of endpoint is blocked.
    RateLimited { retry_after: Duration },
    /// Clerk does not let us: a fault of the configuration. `of_instance` says that every question
    /// would end so, not only this one.
    Refused { cause: String, of_instance: bool },
    /// Clerk calls the question malformed.
    Rejected(String),
}

impl Fault {
    pub(super) const fn outcome(&self) -> RequestOutcome {
        match self {
            Self::Failed { .. } | Self::Unusable(_) => RequestOutcome::Unavailable,
            Self::RateLimited { .. } => RequestOutcome::RateLimited,
            Self::Refused { .. } => RequestOutcome::CredentialsRefused,
            Self::Rejected(_) => RequestOutcome::Rejected,
        }
    }

    /// Whether the same question may be sent again: none changes anything, so the kind of the fault decides.
    pub(super) const fn may_be_repeated(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::RateLimited { .. } => true,
            Self::Unusable(_) | Self::Refused { .. } | Self::Rejected(_) => false,
        }
    }

    /// As the caller is told; `pause` is when it is worth asking again where the key is refused.
    pub(super) fn into_error(self, pause: Duration) -> DirectoryError {
        match self {
            Self::Failed { cause, retry_after } => DirectoryError::Unavailable {
                cause,
                retry_after: retry_after.unwrap_or(RETRY_AFTER_FAULT),
            },
            Self::Unusable(cause) => DirectoryError::Unavailable {
                cause,
                retry_after: RETRY_AFTER_FAULT,
            },
            Self::RateLimited { retry_after } => DirectoryError::RateLimited { retry_after },
            Self::Refused { cause, .. } => DirectoryError::CredentialsRefused {
                cause,
                retry_after: pause,
            },
            Self::Rejected(cause) => DirectoryError::Rejected { cause },
        }
    }

    /// A request that reqwest could not finish.
    pub(super) fn of_request(error: reqwest::Error) -> Self {
        let cause = if error.is_timeout() && error.is_connect() {
            "no connection in time".to_owned()
        } else if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            let what = if error.is_connect() {
                "cannot connect"
            } else {
                "the connection broke"
            };
            format!("{what}: {}", transport::innermost_cause(error))
        };
        Self::Failed {
            cause,
            retry_after: None,
        }
    }

    fn status(status: u16, retry_after: Option<Duration>) -> Self {
        Self::Failed {
            cause: format!("answered with status {status}"),
            retry_after,
        }
    }
}

/// Reads what was asked for; `None` when Clerk says that there is no such thing. That has to be
/// Clerk's own word: a proxy's 404 is a fault. Reading stops where the endpoint's answers do.
pub(super) async fn read<T: DeserializeOwned>(
    mut response: Response,
    endpoint: Endpoint,
    now: Timestamp,
) -> Result<Option<T>, Fault> {
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| retry::retry_after(value.to_str().ok()?, now));
    match status {
        200 => found(&mut response, endpoint.max_answer_bytes())
            .await
            .map(Some),
        429 => Err(Fault::RateLimited {
            retry_after: retry_after.unwrap_or(retry::PAUSE),
        }),
        408 | 500..=599 => Err(Fault::status(status, retry_after)),
        400..=499 => {
            let errors = errors(&mut response).await;
            refused(endpoint, status, errors.as_ref(), response.headers())
        }
        300..=399 => Err(Fault::Unusable(
            "answered with a redirect, which is not followed".to_owned(),
        )),
        _ => Err(Fault::Unusable(format!("answered with status {status}"))),
    }
}

async fn found<T: DeserializeOwned>(response: &mut Response, max_bytes: usize) -> Result<T, Fault> {
    let failed = |cause: &str| Fault::Failed {
        cause: cause.to_owned(),
        retry_after: None,
    };
    if !transport::is_json(response) {
        return Err(failed("answered with another content type than JSON"));
    }
    let body = transport::body(response, max_bytes)
        .await
        .map_err(|error| match error {
            BodyError::TooLarge => {
                Fault::Unusable(format!("answered with more than {max_bytes} bytes"))
            }
            BodyError::Broken(error) => Fault::of_request(error),
        })?;
    model::read(&body).map_err(|unreadable| match unreadable {
        Unreadable::NotJson => failed("answered with what is not JSON"),
        member @ Unreadable::Member(_) => member.into(),
    })
}

impl From<Unreadable> for Fault {
    fn from(unreadable: Unreadable) -> Self {
        Self::Unusable(match unreadable {
            Unreadable::NotJson => "answered with what is not JSON".to_owned(),
            Unreadable::Member(member) => format!("answered with what cannot be read: {member}"),
        })
    }
}

/// Clerk's errors, if that is what the body is.
async fn errors(response: &mut Response) -> Option<ClerkErrors> {
    if !transport::is_json(response) {
        return None;
    }
    let body = transport::body(response, MAX_ERRORS_BYTES).await.ok()?;
    model::read(&body).ok()
}

fn refused<T>(
    endpoint: Endpoint,
    status: u16,
    errors: Option<&ClerkErrors>,
    headers: &HeaderMap,
) -> Result<Option<T>, Fault> {
    let cause = cause(status, errors, headers);
    match (status, errors) {
        // Any browser can make up what is asked about there, and what Clerk answers to that is not
        // documented: it is an answer about the nonce, unless it names our key.
        (401 | 403 | 404, errors)
            if endpoint == Endpoint::HandshakePayload
                && !errors.is_some_and(|errors| errors.has(names_our_key)) =>
        {
            match status {
                404 => Ok(None),
                _ => Err(Fault::Rejected(cause)),
            }
        }
        (401, _) => Err(Fault::Refused {
            cause,
            of_instance: true,
        }),
        (403, Some(errors)) => Err(Fault::Refused {
            cause,
            // Any other may be about the one organization that somebody asked for. Then the other
            // questions go on, or whoever can choose an id could end them all.
            of_instance: errors.has(is_about_the_instance),
        }),
        (404, Some(errors))
            if endpoint.has_its_own_not_found()
                || errors.has(|code| code == "resource_not_found") =>
        {
            Ok(None)
        }
        // Of a path that is not Clerk's, say: whoever is asked about may well be there.
        (404, Some(_)) => Err(Fault::Unusable(format!(
            "answered with {cause}, which does not say that there is no such thing"
        ))),
        (403 | 404, None) => Err(Fault::Unusable(format!(
            "answered with {cause}, which is not Clerk's own"
        ))),
        _ => Err(Fault::Rejected(cause)),
    }
}

/// Error codes that say that the secret key is none.
fn names_our_key(code: &str) -> bool {
    ["clerk_key_invalid", "secret_key_invalid"].contains(&code)
}

/// Error codes that say that no question will be answered, whatever it asks for.
fn is_about_the_instance(code: &str) -> bool {
    [
        "authentication_invalid",
        "authorization_header_format_invalid",
        "clerk_key_invalid",
        "organization_not_enabled_in_instance",
        "secret_key_invalid",
    ]
    .contains(&code)
}

/// Status, Clerk's error code, and the id under which Clerk finds the request again.
fn cause(status: u16, errors: Option<&ClerkErrors>, headers: &HeaderMap) -> String {
    let is_id = |text: &&str| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let mut cause = format!("status {status}");
    if let Some(code) = errors.and_then(ClerkErrors::code) {
        cause = format!("{cause}, {code}");
    }
    let ray = || headers.get("cf-ray")?.to_str().ok();
    let trace_id = errors.and_then(ClerkErrors::trace_id).or_else(ray);
    if let Some(id) = trace_id.filter(is_id) {
        cause = format!("{cause}, trace id {id}");
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clerk_says_to_a_nonce_ends_no_other_questions() {
        let told = |endpoint, status, body: Option<&str>| {
            let errors = body.map(|body| model::read(body.as_bytes()).expect("errors"));
            refused::<()>(endpoint, status, errors.as_ref(), &HeaderMap::new())
        };
        let of = |code: &str| format!(r#"{{"errors":[{{"message":"x","code":"{code}"}}]}}"#);
        for body in [None, Some(&*of("authentication_invalid"))] {
            for status in [401, 403] {
                let answer = told(Endpoint::HandshakePayload, status, body);
                assert!(
                    matches!(answer, Err(Fault::Rejected(_))),
                    "{status}: {body:?}"
                );
            }
            let answer = told(Endpoint::HandshakePayload, 404, body);
            assert!(matches!(answer, Ok(None)), "{body:?}");
        }
        let of_the_key = of("clerk_key_invalid");
        for (endpoint, body) in [
            (Endpoint::HandshakePayload, Some(&*of_the_key)),
            (Endpoint::User, None),
        ] {
            let answer = told(endpoint, 401, body);
            let Err(Fault::Refused { of_instance, .. }) = answer else {
                panic!("{endpoint:?}");
            };
            assert!(of_instance, "{endpoint:?}");
        }
    }
}
