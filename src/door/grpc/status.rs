//! Domain outcome → gRPC status and `google.rpc` details: the only place. A new reason does not
//! compile until it has its code here.

use std::{collections::HashMap, time::Duration};

use prost::Message;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt, pb};

use crate::{
    assertion::Denial,
    authz::{CannotTell, Left, NoAnswer},
    callers::Refused,
    reason::Reason,
};

/// `google.rpc.ErrorInfo.domain` of every error of ours.
pub(crate) const DOMAIN: &str = "clerk-authz";

/// When a call that was turned away for load is worth repeating.
const OVERLOADED_RETRY_AFTER: Duration = Duration::from_millis(100);

const fn code(reason: Reason) -> Code {
    match reason {
        Reason::TokenMissing
        | Reason::TokenMalformed
        | Reason::TokenTooLarge
        | Reason::CredentialsAmbiguous
        | Reason::TokenTypeNotAccepted
        | Reason::AlgorithmNotAllowed
        | Reason::KeyUnknown
        | Reason::SignatureInvalid
        | Reason::ClaimInvalid
        | Reason::IssuerMismatch
        | Reason::AuthorizedPartyMismatch
        | Reason::AudienceMismatch
        | Reason::TokenExpired
        | Reason::TokenNotYetValid
        | Reason::TokenIssuedInFuture
        | Reason::TokenReplayed
        | Reason::SessionPending
        | Reason::SessionRevoked
        | Reason::UserDeleted
        | Reason::OrganizationDeleted
        | Reason::ReverificationRequired
        | Reason::UserBanned
        | Reason::UserDeprovisioned
        | Reason::ProviderUnknown
        | Reason::AssertionInvalid
        | Reason::AssertionReplayed
        | Reason::MfaRequired
        | Reason::UserUnmatched
        | Reason::UserLocked => Code::Unauthenticated,
        Reason::Allowed | Reason::RoutePublic => Code::Ok,
        Reason::OrganizationMissing
        | Reason::OrganizationMismatch
        | Reason::NotAMember
        | Reason::PermissionMissing
        | Reason::RoleMismatch
        | Reason::FeatureMissing
        | Reason::PlanMismatch
        | Reason::ImpersonationNotAllowed
        | Reason::NoRequirement
        | Reason::RouteDenied
        | Reason::RouteUnmatched
        | Reason::PathAmbiguous
        | Reason::CallerNotAllowed => Code::PermissionDenied,
        Reason::OrganizationNotFound | Reason::UserNotFound => Code::NotFound,
        Reason::ResumeTokenExpired => Code::OutOfRange,
        Reason::WatchTooSlow => Code::Aborted,
        Reason::KeysUnavailable
        | Reason::ClerkUnavailable
        | Reason::ClerkRateLimited
        | Reason::StoreUnavailable
        | Reason::Draining => Code::Unavailable,
        Reason::Overloaded => Code::ResourceExhausted,
    }
}

/// A token was denied.
pub(crate) fn denied(reason: Reason) -> Status {
    with_reason(reason, None)
}

/// An identity provider's assertion was denied; of one that cannot be believed it is said which rule it
/// breaks.
pub(crate) fn assertion_denied(denial: Denial, left: Left) -> Status {
    let Denial { reason, rule } = denial;
    let mut metadata = what_is_left(left);
    if reason == Reason::AssertionInvalid {
        metadata.insert("rule".to_owned(), rule.name().to_owned());
    }
    let message = match reason {
        Reason::AssertionInvalid => format!("{reason}: {}; rule {rule}", reason.description()),
        _ => format!("{reason}: {}", reason.description()),
    };
    let details = ErrorDetails::with_error_info(reason.name(), DOMAIN, metadata);
    Status::with_error_details(code(reason), message, details)
}

/// Of an assertion that is used up it is said: there is no use in the same call.
fn what_is_left(left: Left) -> HashMap<String, String> {
    match left {
        Left::Good => HashMap::new(),
        Left::Used => HashMap::from([("assertion_used".to_owned(), "true".to_owned())]),
    }
}

/// It cannot be told whether an assertion gets a ticket; when to ask again is said where that can help.
pub(crate) fn cannot_tell_of_assertion(no_answer: NoAnswer) -> Status {
    let NoAnswer { cannot_tell, left } = no_answer;
    match left {
        Left::Good => self::cannot_tell(cannot_tell),
        Left::Used => {
            let reason = cannot_tell.reason();
            let details = ErrorDetails::with_error_info(reason.name(), DOMAIN, what_is_left(left));
            let message = format!(
                "{reason}: {}; the assertion is used up",
                reason.description()
            );
            Status::with_error_details(code(reason), message, details)
        }
    }
}

/// It cannot be told.
pub(crate) fn cannot_tell(cannot_tell: CannotTell) -> Status {
    with_reason(cannot_tell.reason(), Some(cannot_tell.retry_after()))
}

/// It cannot be told for a reason that lies beyond tokens and keys.
pub(crate) fn unavailable(reason: Reason, retry_after: Duration) -> Status {
    with_reason(reason, Some(retry_after))
}

/// A limit of ours was reached.
pub(crate) fn overloaded() -> Status {
    with_reason(Reason::Overloaded, Some(OVERLOADED_RETRY_AFTER))
}

/// The caller may not, or asks too much.
pub(crate) fn refused_caller(refused: &Refused, rpc: &'static str) -> Status {
    let (caller, reason, message, retry_after) = match refused {
        Refused::NotAllowed { caller, why } => {
            let reason = Reason::CallerNotAllowed;
            (caller, reason, format!("{reason}: {why}"), None)
        }
        Refused::OverLimit {
            caller,
            retry_after,
        } => {
            let reason = Reason::Overloaded;
            let message = format!("{reason}: caller {caller:?} is over its limit; retry");
            (caller, reason, message, Some(*retry_after))
        }
    };
    let metadata = [("caller", &**caller), ("rpc", rpc)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut details = ErrorDetails::with_error_info(reason.name(), DOMAIN, metadata);
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    Status::with_error_details(code(reason), message, details)
}

/// A request that a proxy asked about does not go on. A permission that is missing is a status there,
/// and no answer.
pub(crate) fn of_a_proxied_request(
    code: Code,
    reason: Reason,
    retry_after: Option<Duration>,
) -> Status {
    with_code(code, reason, retry_after)
}

fn with_reason(reason: Reason, retry_after: Option<Duration>) -> Status {
    with_code(code(reason), reason, retry_after)
}

fn with_code(code: Code, reason: Reason, retry_after: Option<Duration>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason.name(), DOMAIN, HashMap::new());
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    Status::with_error_details(code, format!("{reason}: {}", reason.description()), details)
}

/// A field of the request that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Its path, such as `requests[3].credential`.
    pub(crate) field: String,
    /// What was found, what is expected.
    pub(crate) description: String,
}

impl Violation {
    pub(crate) fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
        }
    }
}

/// The request is malformed.
pub(crate) fn invalid(violations: Vec<Violation>) -> Status {
    let message = violations
        .iter()
        .map(|violation| format!("{}: {}", violation.field, violation.description))
        .collect::<Vec<_>>()
        .join("; ");
    let violations: Vec<FieldViolation> = violations
        .into_iter()
        .map(|violation| FieldViolation::new(violation.field, violation.description))
        .collect();
    Status::with_error_details(
        Code::InvalidArgument,
        message,
        ErrorDetails::with_bad_request(violations),
    )
}

/// A status as a message, its details included, for the results of a batch.
pub(crate) fn as_message(status: &Status) -> pb::Status {
    // The details of our own statuses are an encoded `google.rpc.Status`, as gRPC wants them.
    pb::Status::decode(status.details()).unwrap_or_else(|_| pb::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cannot_tell_is_never_unauthenticated_and_says_when_to_retry() {
        let retry_after = Duration::from_secs(3);
        let status = cannot_tell(CannotTell::KeysUnavailable { retry_after });

        assert_eq!(status.code(), Code::Unavailable);
        let details = status.get_error_details();
        assert_eq!(
            details.error_info().expect("present").reason,
            "KEYS_UNAVAILABLE"
        );
        assert_eq!(
            details.retry_info().expect("present").retry_delay,
            Some(retry_after)
        );
    }

    #[test]
    fn a_status_in_a_batch_keeps_its_details() {
        let message = as_message(&denied(Reason::TokenExpired));
        assert_eq!(message.code, Code::Unauthenticated as i32);
        assert_eq!(message.details.len(), 1);
    }

    #[test]
    fn every_proto_reason_is_one_of_ours_and_back() {
        use crate::door::grpc::proto;
        for reason in Reason::ALL {
            let name = format!("REASON_{reason}");
            assert!(
                proto::Reason::from_str_name(&name).is_some(),
                "{name} is not in reason.proto"
            );
        }
        let known = (0..1_000)
            .filter(|&number| proto::Reason::try_from(number).is_ok())
            .count();
        assert_eq!(
            known,
            Reason::ALL.len() + 1,
            "reason.proto has reasons that src/reason.rs lacks"
        );
    }
}
