//! Clerk's form of an error.

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::emulator::{directory::Refused, ids::random_id, requests::TooMany};

/// A request that is not answered with what it asked for.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// The parameter that is wrong.
    parameter: Option<String>,
    retry_after_seconds: Option<u64>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            parameter: None,
            retry_after_seconds: None,
        }
    }

    fn about(mut self, parameter: &str) -> Self {
        self.parameter = Some(parameter.to_owned());
        self
    }

    pub(super) fn no_key() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "authentication_invalid",
            "no secret key; expected \"authorization: Bearer sk_…\"",
        )
    }

    pub(super) fn wrong_key() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "clerk_key_invalid",
            "The provided Clerk Secret Key is invalid.",
        )
    }

    pub(super) fn too_many(too_many: TooMany) -> Self {
        Self {
            retry_after_seconds: Some(too_many.retry_after_seconds),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_requests",
                "Too many requests. Please try again in a bit.",
            )
        }
    }

    pub(super) fn told_to_fail() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "told to fail",
        )
    }

    /// A body that is not a JSON object.
    pub(super) fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "request_body_invalid", message)
    }

    pub(super) fn content_type(found: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_type_unsupported",
            format!("content type {found:?}; expected application/json"),
        )
    }

    /// A parameter that there is not.
    pub(super) fn unknown(parameter: &str) -> Self {
        let message = format!("{parameter} is not a valid parameter for this request.");
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "form_param_unknown",
            message,
        )
        .about(parameter)
    }

    pub(super) fn missing(parameter: &str) -> Self {
        let message = format!("{parameter} must be included.");
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "form_param_missing",
            message,
        )
        .about(parameter)
    }

    pub(super) fn invalid(parameter: &str, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "form_param_value_invalid",
            message,
        )
        .about(parameter)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "resource_not_found", message)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        let (status, code, parameter) = match refused {
            Refused::NotFound { .. } => (StatusCode::NOT_FOUND, "resource_not_found", None),
            Refused::Invalid { parameter, .. } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "form_param_value_invalid",
                Some(parameter),
            ),
            Refused::Taken { parameter, .. } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "form_identifier_exists",
                Some(parameter),
            ),
            Refused::AlreadyAMember { .. } => (
                StatusCode::BAD_REQUEST,
                "already_a_member_in_organization",
                None,
            ),
            Refused::Full { .. } => (
                StatusCode::FORBIDDEN,
                "organization_membership_quota_exceeded",
                None,
            ),
            Refused::AlreadyAssigned { .. } => {
                (StatusCode::CONFLICT, "permission_already_assigned", None)
            }
            Refused::InUse { .. } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "organization_role_used_by_members",
                None,
            ),
            Refused::System(_) => (
                StatusCode::FORBIDDEN,
                "organization_system_permission_not_modifiable",
                None,
            ),
        };
        let problem = Self::new(status, code, message);
        match parameter {
            Some(parameter) => problem.about(parameter),
            None => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut error = json!({
            "code": self.code, "message": self.message, "long_message": self.message,
        });
        if let Some(parameter) = self.parameter {
            error["meta"] = json!({ "param_name": parameter });
        }
        let body = json!({ "errors": [error], "clerk_trace_id": random_id() });
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after_seconds {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// An error outside the API, in the same form.
pub(in crate::emulator) fn error(
    status: StatusCode,
    code: &'static str,
    message: &str,
) -> Response {
    Problem::new(status, code, message).into_response()
}

pub(in crate::emulator) async fn not_found() -> Response {
    Problem::not_found("no such address; GET / lists them").into_response()
}

pub(super) async fn method_not_allowed() -> Response {
    let message = "no such method at this address; GET / lists them";
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
    .into_response()
}
