//! `CheckOrgPermission`: proto ↔ domain.

use std::{str::FromStr, sync::Arc, time::Duration};

use super::{reason, reverification_of, timestamp};
use crate::{
    authz::{
        Consistency, Decision, Instances, Lookups, OrgQuestion, OrganizationRef, Source, Subject,
    },
    credential::Credential,
    decision::{Impersonation, InvalidName, Requirement},
    door::grpc::{
        proto::{self, check_org_permission_request::Subject as Asked},
        status::Violation,
    },
    identity::UserId,
};

/// What every question of a call shares.
#[derive(Clone, Copy)]
pub(in crate::door::grpc) struct Circumstances<'a> {
    /// The instances that a user may be of.
    pub(in crate::door::grpc) instances: &'a Instances,
    /// How long the caller waits at most.
    pub(in crate::door::grpc) patience: Duration,
    /// What the batch has asked.
    pub(in crate::door::grpc) lookups: Option<&'a Lookups>,
}

/// Reads a request; `path` is where it stands, with a dot at the end, for the violations.
pub(in crate::door::grpc) fn org_question<'a>(
    request: &'a proto::CheckOrgPermissionRequest,
    circumstances: Circumstances<'a>,
    path: &str,
) -> Result<OrgQuestion<'a>, Vec<Violation>> {
    let mut violations = Violations {
        path,
        found: Vec::new(),
    };
    let requirement = requirement(request, &mut violations);
    let subject = subject(request, circumstances.instances, &mut violations);
    let organization = violations.value("organization_id", organization(&request.organization_id));
    let consistency = consistency(request, &requirement, &mut violations);
    if let Some(Asked::UserId(_)) = &request.subject {
        if request.organization_id.is_empty() {
            violations.add(
                "organization_id",
                "is empty; a user has no active organization",
            );
        }
        if let Some(field) = requirement.token_only() {
            violations.add(field, "is answered by a token only; ask with token or http");
        }
    }
    match (subject, violations.found.is_empty()) {
        (Some(subject), true) => Ok(OrgQuestion {
            subject,
            organization: organization.flatten(),
            requirement,
            consistency,
            patience: circumstances.patience,
            lookups: circumstances.lookups,
        }),
        _ => Err(violations.found),
    }
}

struct Violations<'a> {
    path: &'a str,
    found: Vec<Violation>,
}

impl Violations<'_> {
    fn add(&mut self, field: &str, description: impl Into<String>) {
        let field = format!("{}{field}", self.path);
        self.found.push(Violation::new(field, description));
    }

    fn value<T>(&mut self, field: &str, value: Result<T, String>) -> Option<T> {
        value
            .map_err(|description| self.add(field, description))
            .ok()
    }
}

fn requirement(
    request: &proto::CheckOrgPermissionRequest,
    violations: &mut Violations<'_>,
) -> Requirement {
    fn name<T: FromStr<Err = InvalidName>>(
        field: &str,
        text: &Option<String>,
        violations: &mut Violations<'_>,
    ) -> Option<T> {
        let parsed = text
            .as_deref()?
            .parse()
            .map_err(|e: InvalidName| e.to_string());
        violations.value(field, parsed)
    }
    let reverification = match request.reverification.as_ref().map(reverification_of) {
        None => None,
        Some(Ok(reverification)) => Some(reverification),
        Some(Err((field, description))) => {
            violations.add(field, description);
            None
        }
    };
    Requirement {
        permission: name("permission", &request.permission, violations),
        role: name("role", &request.role, violations),
        feature: name("feature", &request.feature, violations),
        plan: name("plan", &request.plan, violations),
        reverification,
        impersonation: match request.allow_impersonation {
            None | Some(true) => Impersonation::Allowed,
            Some(false) => Impersonation::Denied,
        },
    }
}

fn subject<'a>(
    request: &'a proto::CheckOrgPermissionRequest,
    instances: &Instances,
    violations: &mut Violations<'_>,
) -> Option<Subject<'a>> {
    let credential = match &request.subject {
        None => {
            violations.add("subject", "is not set; set token, http or user_id");
            return None;
        }
        Some(Asked::UserId(user)) => {
            let user = user
                .parse::<UserId>()
                .map_err(|invalid| invalid.to_string());
            let user = violations.value("user_id", user);
            let instance = violations.value("instance", instance(&request.instance, instances));
            return Some(Subject::User(instance?, user?));
        }
        Some(Asked::Token(token)) => Credential::Token(token),
        Some(Asked::Http(http)) => Credential::Http {
            authorization: &http.authorization,
            cookie: &http.cookie,
        },
    };
    if !request.instance.is_empty() {
        violations.add(
            "instance",
            "is set beside a token, which says it itself; leave it out",
        );
    }
    Some(Subject::Credential(credential))
}

fn instance(name: &str, instances: &Instances) -> Result<Arc<crate::authz::Instance>, String> {
    instances.named(name).map(Arc::clone).ok_or_else(|| {
        let known = instances
            .all()
            .iter()
            .map(|instance| instance.name.as_str());
        let known = known.collect::<Vec<_>>().join(", ");
        match name {
            "" => format!("is empty, and there are several instances; expected one of {known}"),
            name => format!("is {name:?}; expected one of {known}"),
        }
    })
}

/// An id has its prefix, which no slug can have: a slug has no capitals, but it may have `_`.
fn organization(text: &str) -> Result<Option<OrganizationRef>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(id) = text.parse() {
        return Ok(Some(OrganizationRef::Id(id)));
    }
    match text.parse() {
        Ok(slug) => Ok(Some(OrganizationRef::Slug(slug))),
        Err(_) => Err("is neither an id (\"org_\" and letters and digits) nor a slug".to_owned()),
    }
}

fn consistency(
    request: &proto::CheckOrgPermissionRequest,
    requirement: &Requirement,
    violations: &mut Violations<'_>,
) -> Consistency {
    use proto::consistency::Requirement as Of;
    let Some(asked) = &request.consistency else {
        return Consistency::MinimizeLatency;
    };
    let (field, consistency) = match &asked.requirement {
        None => {
            violations.add("consistency", "asks nothing; set level or max_staleness");
            return Consistency::MinimizeLatency;
        }
        Some(Of::Level(number)) => match proto::ConsistencyLevel::try_from(*number) {
            Ok(proto::ConsistencyLevel::MinimizeLatency) => return Consistency::MinimizeLatency,
            Ok(proto::ConsistencyLevel::FullyConsistent) => {
                ("consistency.level", Consistency::FullyConsistent)
            }
            Ok(proto::ConsistencyLevel::Unspecified) | Err(_) => {
                let description = format!("{number} is not a level that is known");
                violations.add("consistency.level", description);
                return Consistency::MinimizeLatency;
            }
        },
        Some(Of::MaxStaleness(age)) => match Duration::try_from(*age) {
            Ok(age) => ("consistency.max_staleness", Consistency::MaxStaleness(age)),
            Err(_) => {
                violations.add(
                    "consistency.max_staleness",
                    "is negative; expected zero or more",
                );
                return Consistency::MinimizeLatency;
            }
        },
    };
    if let Some(entitlement) = requirement.entitlement() {
        let description = format!(
            "cannot be met beside {entitlement}, which is as old as the token; leave one of them out"
        );
        violations.add(field, description);
    }
    consistency
}

pub(in crate::door::grpc) fn decision(
    decision: &Decision,
    decision_id: String,
) -> proto::CheckOrgPermissionResponse {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    proto::CheckOrgPermissionResponse {
        allowed: decision.is_allowed(),
        reason: reason(decision.reason).into(),
        organization_id: text(decision.organization_id().map(AsRef::as_ref)),
        role: text(decision.role()),
        source: match decision.source {
            None => proto::DecisionSource::Unspecified,
            Some(Source::Token) => proto::DecisionSource::Token,
            Some(Source::Cache) => proto::DecisionSource::Cache,
            Some(Source::Clerk) => proto::DecisionSource::Clerk,
        }
        .into(),
        as_of: decision.as_of.map(timestamp),
        valid_until: decision.valid_until.map(timestamp),
        decision_id,
    }
}

pub(in crate::door::grpc) fn batch_check_result(
    result: Result<proto::CheckOrgPermissionResponse, tonic_types::pb::Status>,
) -> proto::BatchCheckOrgPermissionResult {
    use proto::batch_check_org_permission_result::Result as Of;
    let result = match result {
        Ok(response) => Of::Response(response),
        Err(status) => Of::Status(status),
    };
    proto::BatchCheckOrgPermissionResult {
        result: Some(result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(change: impl FnOnce(&mut proto::CheckOrgPermissionRequest)) -> Vec<String> {
        let mut request = proto::CheckOrgPermissionRequest {
            subject: Some(Asked::Token("t".to_owned())),
            permission: Some("org:invoices:read".to_owned()),
            ..Default::default()
        };
        change(&mut request);
        let circumstances = Circumstances {
            instances: &Instances::default(),
            patience: Duration::from_secs(1),
            lookups: None,
        };
        match org_question(&request, circumstances, "") {
            Ok(_) => Vec::new(),
            Err(violations) => violations.into_iter().map(|each| each.field).collect(),
        }
    }

    fn level(level: proto::ConsistencyLevel) -> Option<proto::Consistency> {
        Some(proto::Consistency {
            requirement: Some(proto::consistency::Requirement::Level(level.into())),
        })
    }

    fn max_staleness(seconds: i64) -> Option<proto::Consistency> {
        let age = prost_types::Duration { seconds, nanos: 0 };
        Some(proto::Consistency {
            requirement: Some(proto::consistency::Requirement::MaxStaleness(age)),
        })
    }

    #[test]
    fn a_malformed_question_names_the_field() {
        use proto::ConsistencyLevel::{FullyConsistent, MinimizeLatency, Unspecified};
        assert_eq!(ask(|_| {}), [""; 0]);
        assert_eq!(ask(|r| r.subject = None), ["subject"]);
        assert_eq!(ask(|r| r.permission = Some(String::new())), ["permission"]);
        assert_eq!(ask(|r| r.role = Some(String::new())), ["role"]);
        assert_eq!(ask(|r| r.feature = Some("x:y".into())), ["feature"]);
        assert_eq!(ask(|r| r.plan = Some(String::new())), ["plan"]);
        assert_eq!(
            ask(|r| r.reverification = Some(proto::Reverification { requirement: None })),
            ["reverification"]
        );
        assert_eq!(ask(|r| r.instance = "a".into()), ["instance"]);
        for (id, fields) in [
            ("org_1", &[][..]),
            ("acme-2", &[]),
            ("org_", &[]),
            ("Acme", &["organization_id"]),
            ("../x", &["organization_id"]),
        ] {
            assert_eq!(ask(|r| r.organization_id = id.into()), fields, "{id}");
        }
        assert_eq!(
            ask(|r| r.consistency = Some(proto::Consistency { requirement: None })),
            ["consistency"]
        );
        assert_eq!(
            ask(|r| r.consistency = level(Unspecified)),
            ["consistency.level"]
        );
        assert_eq!(
            ask(|r| r.consistency = max_staleness(-1)),
            ["consistency.max_staleness"]
        );
        for (consistency, fields) in [
            (level(MinimizeLatency), &[][..]),
            (level(FullyConsistent), &["consistency.level"]),
            (max_staleness(0), &["consistency.max_staleness"]),
        ] {
            assert_eq!(ask(|r| r.consistency = consistency), [""; 0]);
            let with_plan = ask(|r| {
                r.consistency = consistency;
                r.plan = Some("gold".into());
            });
            assert_eq!(with_plan, fields, "{consistency:?}");
        }
    }

    #[test]
    fn a_user_id_asks_only_what_a_membership_answers() {
        let of_user = |change: fn(&mut proto::CheckOrgPermissionRequest)| {
            ask(|request| {
                request.subject = Some(Asked::UserId("user_1".into()));
                request.organization_id = "org_1".into();
                change(request);
            })
        };
        // There is no instance in this test, so that this one is always refused.
        assert_eq!(of_user(|_| {}), ["instance"]);
        assert_eq!(
            of_user(|r| r.subject = Some(Asked::UserId("x".into()))),
            ["user_id", "instance"]
        );
        for (fields, change) in [
            (
                "organization_id",
                (|r| r.organization_id.clear()) as fn(&mut proto::CheckOrgPermissionRequest),
            ),
            ("feature", |r| r.feature = Some("x".into())),
            ("plan", |r| r.plan = Some("x".into())),
            ("allow_impersonation", |r| {
                r.allow_impersonation = Some(false)
            }),
            ("reverification", |r| {
                use proto::reverification::Requirement;
                r.reverification = Some(proto::Reverification {
                    requirement: Some(Requirement::Preset(1)),
                });
            }),
        ] {
            assert_eq!(of_user(change), ["instance", fields]);
        }
    }
}
