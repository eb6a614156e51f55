//! Clerk's Backend API, as far as the offline Clerk has it: one table of operations, and one way
//! through which each request goes. docs/emulator.md has it as a table, and a test compares them.

mod faulty;
mod form;
mod handshakes;
mod lists;
mod machine_tokens;
mod memberships;
mod organizations;
mod people;
mod permissions;
mod problem;
mod query;
mod roles;
mod sessions;
mod sign_in_tokens;
mod user_form;
mod users;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{RawPathParams, State},
    http::{HeaderMap, Method, Uri, header},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use serde_json::Value;

pub(super) use self::faulty::failing;
pub(super) use self::problem::{error, not_found};
use self::{form::Form, problem::Problem, query::Query};
use super::{Directory, Endpoint, Instance, objects};

/// What an operation answers.
type Answer = Result<Value, Problem>;

/// One operation of the API.
#[derive(Clone)]
pub struct Operation {
    /// Its `operationId` in Clerk's OpenAPI file.
    pub id: &'static str,
    /// Its method.
    pub method: Method,
    /// Its path, with `/v1`.
    pub path: &'static str,
    /// What it is counted by, and which faults hit it.
    pub endpoint: Endpoint,
    run: fn(&mut Call<'_>) -> Answer,
}

/// One request.
struct Call<'a> {
    instance: &'a Instance,
    path: Vec<(String, String)>,
    query: Query,
    form: Form,
    version: Version,
}

/// Which version of the API was asked for, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// Updates take metadata, and replace it whole.
    MetadataInUpdates,
    /// Metadata has operations of its own.
    MetadataApart,
}

/// The first version whose updates take no metadata.
const METADATA_APART_SINCE: &str = "2026-05-12";

impl Version {
    /// Without the header the newest.
    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get("clerk-api-version");
        // Versions are dates, which order as texts do.
        match given.and_then(|value| value.to_str().ok()) {
            Some(version) if version < METADATA_APART_SINCE => Self::MetadataInUpdates,
            _ => Self::MetadataApart,
        }
    }
}

impl Call<'_> {
    fn directory(&self) -> &Directory {
        self.instance.directory()
    }

    /// What stands in the path under this name.
    fn id(&self, name: &str) -> &str {
        let found = self.path.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

/// All operations of the Backend API that the offline Clerk has.
pub fn operations() -> Vec<Operation> {
    [
        vec![operation(
            "GetJWKS",
            Method::GET,
            "/v1/jwks",
            Endpoint::Jwks,
            |call| Ok(call.instance.jwks()),
        )],
        users::operations(),
        organizations::operations(),
        memberships::operations(),
        roles::operations(),
        permissions::operations(),
        sessions::operations(),
        machine_tokens::operations(),
        sign_in_tokens::operations(),
    ]
    .concat()
}

fn operation(
    id: &'static str,
    method: Method,
    path: &'static str,
    endpoint: Endpoint,
    run: fn(&mut Call<'_>) -> Answer,
) -> Operation {
    Operation {
        id,
        method,
        path,
        endpoint,
        run,
    }
}

pub(super) fn router<S>(instance: &Arc<Instance>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let mut router = Router::new();
    // What Clerk's OpenAPI file does not describe is none of the operations that are held to it.
    for operation in operations().into_iter().chain([handshakes::payload()]) {
        let Ok(method) = MethodFilter::try_from(operation.method.clone()) else {
            continue;
        };
        let (path, operation_endpoint) = (operation.path, operation.endpoint);
        let handler = async move |State(instance): State<Arc<Instance>>,
                                  path: RawPathParams,
                                  uri: Uri,
                                  headers: HeaderMap,
                                  body: Bytes| {
            let path = path
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            serve(&operation, &instance, path, &uri, &headers, &body).await
        };
        router = router.route(path, on(method, handler.clone()));
        if operation_endpoint == Endpoint::MachineTokens
            && let Some(path) = path.strip_prefix("/v1")
        {
            // Clerk's SDK and guide leave the version out here; its OpenAPI file does not.
            router = router.route(path, on(method, handler));
        }
    }
    router
        .method_not_allowed_fallback(problem::method_not_allowed)
        .with_state(Arc::clone(instance))
}

/// Counted, let in, limited, made to fail, and only then answered.
async fn serve(
    operation: &Operation,
    instance: &Instance,
    path: Vec<(String, String)>,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    instance.count(operation.endpoint);
    let admitted = admit(operation.endpoint, instance, headers);
    if let Err(problem) = admitted {
        return problem.into_response();
    }
    let faults = instance.next_faults(operation.endpoint);
    failing(&faults, uri, || {
        let form = match Form::read(headers, body) {
            Ok(form) => form,
            Err(problem) => return problem.into_response(),
        };
        let mut call = Call {
            instance,
            path,
            query: Query::read(uri),
            form,
            version: Version::of(headers),
        };
        match (operation.run)(&mut call) {
            Ok(value) => Json(value).into_response(),
            Err(problem) => problem.into_response(),
        }
    })
    .await
}

fn admit(endpoint: Endpoint, instance: &Instance, headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::AUTHORIZATION);
    let given = given.ok_or_else(Problem::no_key)?;
    if *given != *format!("Bearer {}", instance.secret_key()) {
        return Err(Problem::wrong_key());
    }
    match endpoint {
        // Clerk does not limit key sets.
        Endpoint::Jwks => Ok(()),
        _ => instance.within_limit().map_err(Problem::too_many),
    }
}
