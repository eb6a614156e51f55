//! What Envoy is told.

use envoy_types::{
    ext_authz::v3::pb::{
        CheckResponse, DeniedHttpResponse, HeaderAppendAction, HeaderValue, HeaderValueOption,
        HttpResponse, HttpStatus,
    },
    pb::google::{
        protobuf::{Struct, Value, value::Kind},
        rpc,
    },
};
use http::{
    HeaderName, HeaderValue as HttpValue,
    header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE},
};
use prost::Message;
use tonic::Code;

use super::{
    codec::Encoded,
    request::Http,
    yes::{self, Yes},
};
use crate::{
    authz::{Authorization, Identity, Outcome},
    door::{
        answer::{Answer, Refusal, answer, cookies_on_the_way_back},
        grpc::status,
    },
};

/// Under which the decision stands in the dynamic metadata of Envoy's filter.
const METADATA_KEY: &str = "clerk_authz";

/// The answer for what was decided under this id.
pub(super) fn response(
    authorization: &Authorization,
    assertion: Option<&str>,
    decision_id: &str,
    request: &Http,
) -> Encoded {
    let decision = decision(authorization, decision_id);
    let refusal = match answer(authorization, assertion, decision_id) {
        Answer::Forward(headers) => {
            return Yes {
                reason: authorization.reason.name(),
                removed: &headers.to_remove(request.names()),
                headers: &headers,
                cookies: cookies_on_the_way_back(authorization),
                metadata: (METADATA_KEY, &decision),
            }
            .encode();
        }
        Answer::Refuse(_) if request.is_grpc() => in_grpc(authorization),
        Answer::Refuse(refusal) => refusal,
    };
    let response = CheckResponse {
        status: Some(rpc::Status {
            code: code(&authorization.outcome) as i32,
            message: authorization.reason.name().to_owned(),
            details: Vec::new(),
        }),
        dynamic_metadata: Some(metadata(&decision)),
        http_response: Some(HttpResponse::DeniedResponse(denied(&refusal))),
    };
    Encoded(response.encode_to_vec())
}

const fn code(outcome: &Outcome) -> Code {
    match outcome {
        Outcome::Allowed { .. } => Code::Ok,
        Outcome::Unauthenticated { .. } => Code::Unauthenticated,
        Outcome::Forbidden { .. } => Code::PermissionDenied,
        Outcome::Unavailable { .. } => Code::Unavailable,
    }
}

/// A client of gRPC reads no status of HTTP and no body: both stand in headers.
fn in_grpc(authorization: &Authorization) -> Refusal {
    let retry_after = match &authorization.outcome {
        Outcome::Unavailable { retry_after } => Some(*retry_after),
        Outcome::Allowed { .. } | Outcome::Unauthenticated { .. } | Outcome::Forbidden { .. } => {
            None
        }
    };
    let status = status::of_a_proxied_request(
        code(&authorization.outcome),
        authorization.reason,
        retry_after,
    );
    let (parts, _) = status.into_http::<()>().into_parts();
    let mut headers: Vec<(HeaderName, HttpValue)> = parts
        .headers
        .iter()
        .filter(|(name, _)| **name != CONTENT_TYPE)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    headers.push((CONTENT_TYPE, HttpValue::from_static("application/grpc")));
    headers.push((CACHE_CONTROL, HttpValue::from_static("no-store")));
    Refusal {
        status: parts.status,
        headers,
        body: String::new(),
    }
}

fn denied(refusal: &Refusal) -> DeniedHttpResponse {
    DeniedHttpResponse {
        status: Some(HttpStatus {
            code: refusal.status.as_u16().into(),
        }),
        headers: refusal.headers.iter().map(option).collect(),
        body: refusal.body.clone(),
    }
}

/// In place of every value of that name; a cookie beside others.
fn option((name, value): &(HeaderName, HttpValue)) -> HeaderValueOption {
    let append_action = match *name == SET_COOKIE {
        true => HeaderAppendAction::AppendIfExistsOrAdd,
        false => HeaderAppendAction::OverwriteIfExistsOrAdd,
    };
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.as_str().to_owned(),
            // What we set is visible ASCII.
            value: value.to_str().unwrap_or_default().to_owned(),
            raw_value: Vec::new(),
        }),
        append_action: append_action.into(),
        ..HeaderValueOption::default()
    }
}

/// For access logs and rate limits.
fn decision<'a>(authorization: &'a Authorization, decision_id: &'a str) -> yes::Texts<'a> {
    let identity = match &authorization.outcome {
        Outcome::Allowed { identity } => identity.as_ref(),
        Outcome::Unauthenticated { .. }
        | Outcome::Forbidden { .. }
        | Outcome::Unavailable { .. } => None,
    };
    let person = identity.and_then(Identity::person);
    let machine = identity.and_then(|identity| match identity {
        Identity::Machine(verified) => Some(&verified.machine),
        Identity::Person(_) => None,
    });
    [
        ("decision_id", Some(decision_id)),
        ("reason", Some(authorization.reason.name())),
        ("route", authorization.route.as_deref()),
        ("policy_version", Some(&*authorization.policy_version)),
        (
            "user_id",
            person.map(|person| person.verified.session.user_id.as_str()),
        ),
        (
            "organization_id",
            person
                .and_then(|person| person.organization_id())
                .map(|id| id.as_str()),
        ),
        (
            "token_type",
            machine.map(|machine| machine.machine_type.name()),
        ),
        ("subject", machine.map(|machine| machine.subject.as_str())),
        (
            "client_id",
            machine.and_then(|machine| machine.client_id.as_deref()),
        ),
    ]
}

fn metadata(decision: &yes::Texts<'_>) -> Struct {
    let texts = decision.iter().filter_map(|(name, text)| {
        let kind = Some(Kind::StringValue((*text)?.to_owned()));
        Some(((*name).to_owned(), Value { kind }))
    });
    let decision = Struct {
        fields: texts.collect(),
    };
    let kind = Some(Kind::StructValue(decision));
    Struct {
        fields: [(METADATA_KEY.to_owned(), Value { kind })].into(),
    }
}
