//! Proto ↔ domain. Requests are checked here, once; answers destructure the domain types, so that a
//! new field does not compile until it has a place.

mod check;
mod user;
mod watch;

use std::time::Duration;

use prost_types::{Struct, Value, value::Kind};
use tonic_types::pb::Status;

pub(super) use self::check::{Circumstances, batch_check_result, decision, instance, org_question};
pub(super) use self::user::{max_staleness, synced, user, user_id, user_key};
pub(super) use self::watch::watch_message;
use super::{proto, status::Violation};
use crate::{
    authz::Question,
    credential::Credential,
    decision::{Level, Preset, Reverification},
    explain::{Outcome, Step},
    identity::{
        Actor, CustomClaims, FactorAges, Machine, MachineType, Organization, Scope, ScopedSlug,
        Session, SessionStatus, Timestamp, TokenType, TokenTypes,
    },
    reason::Reason,
};

/// The most values in a list of a request.
const MAX_VALUES: usize = 100;

/// Reads a request; `path` is where it stands, with a dot at the end, for the violations, and
/// `patience` how long its caller waits.
pub(super) fn question<'a>(
    request: &'a proto::VerifySessionRequest,
    patience: Duration,
    path: &str,
) -> Result<Question<'a>, Vec<Violation>> {
    let proto::VerifySessionRequest {
        credential,
        accepted_token_types,
        authorized_parties,
        audiences,
        reverification,
        single_use,
        instance,
    } = request;
    let mut violations = Vec::new();
    let mut refuse = |field: &str, description: String| {
        violations.push(Violation::new(format!("{path}{field}"), description));
    };
    for (field, count) in [
        ("accepted_token_types", accepted_token_types.len()),
        ("authorized_parties", authorized_parties.len()),
        ("audiences", audiences.len()),
    ] {
        if count > MAX_VALUES {
            refuse(field, format!("{count} values; at most {MAX_VALUES}"));
        }
    }
    for (field, values) in [
        ("authorized_parties", authorized_parties),
        ("audiences", audiences),
    ] {
        if values.iter().any(String::is_empty) {
            refuse(field, "an empty value; leave it out".to_owned());
        }
    }
    let mut accepted = TokenTypes::NONE;
    for &number in accepted_token_types.iter().take(MAX_VALUES) {
        let token_type = proto::TokenType::try_from(number).ok();
        match token_type.and_then(token_type_of) {
            Some(token_type) => accepted = accepted.with(token_type),
            None => refuse(
                "accepted_token_types",
                format!(
                    "{number} is not a type that is verified; expected TOKEN_TYPE_SESSION_TOKEN, \
                     TOKEN_TYPE_M2M_TOKEN, TOKEN_TYPE_OAUTH_TOKEN or TOKEN_TYPE_API_KEY"
                ),
            ),
        }
    }
    if accepted_token_types.is_empty() {
        accepted = TokenTypes::default();
    }
    let reverification = match reverification.as_ref().map(reverification_of) {
        None => None,
        Some(Ok(reverification)) => Some(reverification),
        Some(Err((field, description))) => {
            refuse(field, description);
            None
        }
    };
    let credential = match credential {
        None => {
            refuse("credential", "is not set; set token or http".to_owned());
            None
        }
        Some(proto::verify_session_request::Credential::Token(token)) => {
            Some(Credential::Token(token))
        }
        Some(proto::verify_session_request::Credential::Http(http)) => Some(Credential::Http {
            authorization: &http.authorization,
            cookie: &http.cookie,
        }),
    };
    match credential {
        Some(credential) if violations.is_empty() => Ok(Question {
            credential,
            accepted,
            instance,
            authorized_parties,
            audiences,
            reverification,
            single_use: *single_use,
            patience,
        }),
        _ => Err(violations),
    }
}

const fn token_type_of(token_type: proto::TokenType) -> Option<TokenType> {
    match token_type {
        proto::TokenType::Unspecified => None,
        proto::TokenType::SessionToken => Some(TokenType::Session),
        proto::TokenType::M2mToken => Some(TokenType::Machine(MachineType::M2m)),
        proto::TokenType::OauthToken => Some(TokenType::Machine(MachineType::Oauth)),
        proto::TokenType::ApiKey => Some(TokenType::Machine(MachineType::ApiKey)),
    }
}

fn reverification_of(
    asked: &proto::Reverification,
) -> Result<Reverification, (&'static str, String)> {
    use proto::reverification::Requirement;
    match &asked.requirement {
        None => Err((
            "reverification",
            "asks nothing; set preset or custom".to_owned(),
        )),
        Some(Requirement::Preset(number)) => {
            let preset = match proto::ReverificationPreset::try_from(*number) {
                Ok(proto::ReverificationPreset::StrictMfa) => Preset::StrictMfa,
                Ok(proto::ReverificationPreset::Strict) => Preset::Strict,
                Ok(proto::ReverificationPreset::Moderate) => Preset::Moderate,
                Ok(proto::ReverificationPreset::Lax) => Preset::Lax,
                Ok(proto::ReverificationPreset::Unspecified) | Err(_) => {
                    let description = format!("{number} is not a preset that is known");
                    return Err(("reverification.preset", description));
                }
            };
            Ok(preset.into())
        }
        Some(Requirement::Custom(custom)) => {
            let level = match proto::ReverificationLevel::try_from(custom.level) {
                Ok(proto::ReverificationLevel::FirstFactor) => Level::FirstFactor,
                Ok(proto::ReverificationLevel::SecondFactor) => Level::SecondFactor,
                Ok(proto::ReverificationLevel::MultiFactor) => Level::MultiFactor,
                Ok(proto::ReverificationLevel::Unspecified) | Err(_) => {
                    let description = format!("{} is not a level that is known", custom.level);
                    return Err(("reverification.custom.level", description));
                }
            };
            let max_age = custom.max_age.and_then(|age| Duration::try_from(age).ok());
            max_age
                .and_then(|age| Reverification::new(level, age).ok())
                .ok_or((
                    "reverification.custom.max_age",
                    "is absent, negative or zero; expected more than zero".to_owned(),
                ))
        }
    }
}

pub(super) fn session(session: &Session) -> proto::Session {
    let Session {
        user_id,
        session_id,
        token_id,
        token_version,
        issuer,
        authorized_party,
        audiences,
        issued_at,
        not_before: _, // judged, not told
        expires_at,
        status,
        organization,
        features,
        plans,
        factor_ages,
        actor,
        custom_claims,
    } = session;
    proto::Session {
        user_id: user_id.as_str().to_owned(),
        session_id: session_id.as_str().to_owned(),
        token_id: text(token_id),
        token_type: proto::TokenType::SessionToken.into(),
        token_version: *token_version,
        issuer: issuer.as_str().to_owned(),
        authorized_party: authorized_party.as_deref().unwrap_or_default().to_owned(),
        audiences: audiences.iter().map(str::to_owned).collect(),
        issued_at: issued_at.map(timestamp),
        expires_at: Some(timestamp(*expires_at)),
        status: match status {
            SessionStatus::Active => proto::SessionStatus::Active,
            SessionStatus::Pending => proto::SessionStatus::Pending,
        }
        .into(),
        organization: organization.as_deref().map(organization_message),
        features: features.iter().map(scoped_slug).collect(),
        plans: plans.iter().map(scoped_slug).collect(),
        factor_ages: factor_ages.map(factor_ages_message),
        actor: actor.as_deref().map(actor_message),
        custom_claims: custom_claims.as_ref().and_then(custom_claims_message),
    }
}

pub(super) fn machine(machine: &Machine) -> proto::Machine {
    let Machine {
        machine_type,
        form: _, // the same whatever it is
        token_id,
        issuer,
        subject,
        client_id,
        scopes,
        audiences: _, // judged, not told
        claims,
        issued_at,
        not_before: _, // judged, not told
        expires_at,
    } = machine;
    let token_type = match machine_type {
        MachineType::M2m => proto::TokenType::M2mToken,
        MachineType::Oauth => proto::TokenType::OauthToken,
        MachineType::ApiKey => proto::TokenType::ApiKey,
    };
    proto::Machine {
        token_type: token_type.into(),
        token_id: text(token_id),
        issuer: issuer.as_str().to_owned(),
        subject: subject.as_str().to_owned(),
        client_id: text(client_id),
        scopes: scopes.iter().map(str::to_owned).collect(),
        claims: claims.as_ref().and_then(custom_claims_message),
        issued_at: issued_at.map(timestamp),
        expires_at: expires_at.map(timestamp),
    }
}

fn text(text: &Option<Box<str>>) -> String {
    text.as_deref().unwrap_or_default().to_owned()
}

pub(super) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let nanos = time.unix_millis().rem_euclid(1_000) * 1_000_000;
    prost_types::Timestamp {
        seconds: time.unix_seconds(),
        nanos: nanos as i32,
    }
}

fn organization_message(organization: &Organization) -> proto::Organization {
    let Organization {
        id,
        slug,
        role,
        permissions,
    } = organization;
    proto::Organization {
        id: id.as_str().to_owned(),
        slug: text(slug),
        role: text(role),
        permissions: permissions.iter().map(str::to_owned).collect(),
    }
}

fn scoped_slug(scoped: ScopedSlug<'_>) -> proto::ScopedSlug {
    let ScopedSlug { scope, slug } = scoped;
    let scope = match scope {
        Scope::User => proto::Scope::User,
        Scope::Organization => proto::Scope::Organization,
    };
    proto::ScopedSlug {
        scope: scope.into(),
        slug: slug.to_owned(),
    }
}

fn factor_ages_message(ages: FactorAges) -> proto::FactorAges {
    let FactorAges { first, second } = ages;
    let message = |age: Option<crate::identity::FactorAge>| {
        age.and_then(|age| age.duration())
            .and_then(|age| age.try_into().ok())
    };
    proto::FactorAges {
        first: message(first),
        second: message(second),
    }
}

fn actor_message(actor: &Actor) -> proto::Actor {
    let Actor {
        subject,
        issuer,
        session_id,
        kind,
    } = actor;
    proto::Actor {
        subject: subject.as_ref().to_owned(),
        issuer: text(issuer),
        session_id: text(session_id),
        r#type: text(kind),
    }
}

fn custom_claims_message(claims: &CustomClaims) -> Option<Struct> {
    // The text was checked when the token was read.
    match serde_json::from_str(claims.as_json()).map(value) {
        Ok(Value {
            kind: Some(Kind::StructValue(object)),
        }) => Some(object),
        _ => None,
    }
}

fn value(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(bool) => Kind::BoolValue(bool),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.into_iter().map(value).collect(),
        }),
        serde_json::Value::Object(members) => Kind::StructValue(Struct {
            fields: members
                .into_iter()
                .map(|(name, member)| (name, value(member)))
                .collect(),
        }),
    };
    Value { kind: Some(kind) }
}

pub(super) fn reason(reason: Reason) -> proto::Reason {
    match reason {
        Reason::TokenMissing => proto::Reason::TokenMissing,
        Reason::TokenMalformed => proto::Reason::TokenMalformed,
        Reason::TokenTooLarge => proto::Reason::TokenTooLarge,
        Reason::CredentialsAmbiguous => proto::Reason::CredentialsAmbiguous,
        Reason::TokenTypeNotAccepted => proto::Reason::TokenTypeNotAccepted,
        Reason::AlgorithmNotAllowed => proto::Reason::AlgorithmNotAllowed,
        Reason::KeyUnknown => proto::Reason::KeyUnknown,
        Reason::SignatureInvalid => proto::Reason::SignatureInvalid,
        Reason::ClaimInvalid => proto::Reason::ClaimInvalid,
        Reason::IssuerMismatch => proto::Reason::IssuerMismatch,
        Reason::AuthorizedPartyMismatch => proto::Reason::AuthorizedPartyMismatch,
        Reason::AudienceMismatch => proto::Reason::AudienceMismatch,
        Reason::TokenExpired => proto::Reason::TokenExpired,
        Reason::TokenNotYetValid => proto::Reason::TokenNotYetValid,
        Reason::TokenIssuedInFuture => proto::Reason::TokenIssuedInFuture,
        Reason::SessionPending => proto::Reason::SessionPending,
        Reason::RoutePublic => proto::Reason::RoutePublic,
        Reason::RouteDenied => proto::Reason::RouteDenied,
        Reason::RouteUnmatched => proto::Reason::RouteUnmatched,
        Reason::PathAmbiguous => proto::Reason::PathAmbiguous,
        Reason::TokenReplayed => proto::Reason::TokenReplayed,
        Reason::SessionRevoked => proto::Reason::SessionRevoked,
        Reason::UserDeleted => proto::Reason::UserDeleted,
        Reason::OrganizationDeleted => proto::Reason::OrganizationDeleted,
        Reason::ReverificationRequired => proto::Reason::ReverificationRequired,
        Reason::UserBanned => proto::Reason::UserBanned,
        Reason::UserDeprovisioned => proto::Reason::UserDeprovisioned,
        Reason::ProviderUnknown => proto::Reason::ProviderUnknown,
        Reason::AssertionInvalid => proto::Reason::AssertionInvalid,
        Reason::AssertionReplayed => proto::Reason::AssertionReplayed,
        Reason::MfaRequired => proto::Reason::MfaRequired,
        Reason::UserUnmatched => proto::Reason::UserUnmatched,
        Reason::UserLocked => proto::Reason::UserLocked,
        Reason::Allowed => proto::Reason::Allowed,
        Reason::OrganizationMissing => proto::Reason::OrganizationMissing,
        Reason::OrganizationMismatch => proto::Reason::OrganizationMismatch,
        Reason::NotAMember => proto::Reason::NotAMember,
        Reason::PermissionMissing => proto::Reason::PermissionMissing,
        Reason::RoleMismatch => proto::Reason::RoleMismatch,
        Reason::FeatureMissing => proto::Reason::FeatureMissing,
        Reason::PlanMismatch => proto::Reason::PlanMismatch,
        Reason::ImpersonationNotAllowed => proto::Reason::ImpersonationNotAllowed,
        Reason::NoRequirement => proto::Reason::NoRequirement,
        Reason::OrganizationNotFound => proto::Reason::OrganizationNotFound,
        Reason::UserNotFound => proto::Reason::UserNotFound,
        Reason::ResumeTokenExpired => proto::Reason::ResumeTokenExpired,
        Reason::WatchTooSlow => proto::Reason::WatchTooSlow,
        Reason::Draining => proto::Reason::Draining,
        Reason::StoreUnavailable => proto::Reason::StoreUnavailable,
        Reason::CallerNotAllowed => proto::Reason::CallerNotAllowed,
        Reason::ClerkUnavailable => proto::Reason::ClerkUnavailable,
        Reason::ClerkRateLimited => proto::Reason::ClerkRateLimited,
        Reason::KeysUnavailable => proto::Reason::KeysUnavailable,
        Reason::Overloaded => proto::Reason::Overloaded,
    }
}

pub(super) fn step(step: Step) -> proto::ExplainedStep {
    let Step {
        rule,
        outcome,
        detail,
    } = step;
    let outcome = match outcome {
        Outcome::Passed => proto::StepOutcome::Passed,
        Outcome::Failed => proto::StepOutcome::Failed,
        Outcome::Skipped => proto::StepOutcome::Skipped,
    };
    proto::ExplainedStep {
        rule: rule.name().to_owned(),
        outcome: outcome.into(),
        detail: detail.into_owned(),
    }
}

pub(super) fn accepted(session: proto::Session) -> proto::VerifySessionResponse {
    response(proto::verify_session_response::Verified::Session(session))
}

pub(super) fn accepted_machine(machine: proto::Machine) -> proto::VerifySessionResponse {
    response(proto::verify_session_response::Verified::Machine(machine))
}

fn response(verified: proto::verify_session_response::Verified) -> proto::VerifySessionResponse {
    proto::VerifySessionResponse {
        verified: Some(verified),
    }
}

pub(super) fn batch_result(
    result: Result<proto::VerifySessionResponse, Status>,
) -> proto::BatchVerifySessionResult {
    use proto::batch_verify_session_result::Result as Of;
    let result = match result {
        Ok(response) => Of::Response(response),
        Err(status) => Of::Status(status),
    };
    proto::BatchVerifySessionResult {
        result: Some(result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::FactorAge;

    fn ask(request: proto::VerifySessionRequest) -> Vec<String> {
        match question(&request, Duration::from_secs(1), "requests[3].") {
            Ok(_) => Vec::new(),
            Err(violations) => violations
                .into_iter()
                .map(|violation| violation.field)
                .collect(),
        }
    }

    #[test]
    fn a_malformed_request_names_every_field() {
        let fields = ask(proto::VerifySessionRequest {
            credential: None,
            accepted_token_types: vec![7],
            authorized_parties: vec![String::new()],
            audiences: vec!["a".to_owned(); 101],
            reverification: Some(proto::Reverification { requirement: None }),
            single_use: false,
            instance: String::new(),
        });
        assert_eq!(
            fields,
            [
                "requests[3].audiences",
                "requests[3].authorized_parties",
                "requests[3].accepted_token_types",
                "requests[3].reverification",
                "requests[3].credential",
            ]
        );
    }

    #[test]
    fn a_reverification_that_cannot_be_asked_is_refused() {
        use proto::reverification::Requirement;
        let custom = |level, seconds| {
            Requirement::Custom(proto::CustomReverification {
                level,
                max_age: Some(prost_types::Duration { seconds, nanos: 0 }),
            })
        };
        for (requirement, field) in [
            (Requirement::Preset(0), Some("reverification.preset")),
            (Requirement::Preset(9), Some("reverification.preset")),
            (custom(0, 60), Some("reverification.custom.level")),
            (custom(1, 0), Some("reverification.custom.max_age")),
            (custom(1, -60), Some("reverification.custom.max_age")),
            (custom(1, 60), None),
            (Requirement::Preset(1), None),
        ] {
            let fields = ask(proto::VerifySessionRequest {
                credential: Some(proto::verify_session_request::Credential::Token("t".into())),
                reverification: Some(proto::Reverification {
                    requirement: Some(requirement),
                }),
                ..Default::default()
            });
            let expected: Vec<_> = field
                .map(|field| format!("requests[3].{field}"))
                .into_iter()
                .collect();
            assert_eq!(fields, expected, "{requirement:?}");
        }
    }

    #[test]
    fn ages_and_claims_keep_their_values() {
        let ages = FactorAges {
            first: FactorAge::from_minutes(3.0),
            second: None,
        };
        let message = factor_ages_message(ages);
        assert_eq!(message.first.map(|age| age.seconds), Some(180));
        assert_eq!(message.second, None);

        let claims = CustomClaims::from_object_text(r#"{"a":[1,null,{"b":"c"}]}"#.to_owned());
        let object = custom_claims_message(&claims).expect("an object");
        assert!(matches!(object.fields["a"].kind, Some(Kind::ListValue(_))));
    }
}
