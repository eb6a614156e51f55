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
    let organization = match &*request.organization_id {
        "" => None,
        named => violations.value(
            "organization_id",
            OrganizationRef::parse(named).map_err(str::to_owned),
        ),
    };
    let consistency = consistency(request, &mut violations);
    let Some(subject) = subject else {
        return Err(violations.found);
    };
    let question = OrgQuestion {
        subject,
        organization,
        requirement,
        consistency,
        patience: circumstances.patience,
        lookups: circumstances.lookups,
    };
    // What names an organization badly has not left it out.
    if violations.found.is_empty() {
        for fault in question.faults() {
            violations.add(fault.field(), fault.to_string());
        }
    }
    if violations.found.is_empty() {
        Ok(question)
    } else {
        Err(violations.found)
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

pub(in crate::door::grpc) fn instance(
    name: &str,
    instances: &Instances,
) -> Result<Arc<crate::authz::Instance>, String> {
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

fn consistency(
    request: &proto::CheckOrgPermissionRequest,
    violations: &mut Violations<'_>,
) -> Consistency {
    use proto::consistency::Requirement as Of;
    let consistency = match request.consistency.as_ref().map(|asked| &asked.requirement) {
        None => return Consistency::MinimizeLatency,
        Some(None) => Err((
            "consistency",
            "asks nothing; set level or max_staleness".to_owned(),
        )),
        Some(Some(Of::Level(number))) => match proto::ConsistencyLevel::try_from(*number) {
            Ok(proto::ConsistencyLevel::MinimizeLatency) => Ok(Consistency::MinimizeLatency),
            Ok(proto::ConsistencyLevel::FullyConsistent) => Ok(Consistency::FullyConsistent),
            Ok(proto::ConsistencyLevel::Unspecified) | Err(_) => Err((
                "consistency.level",
                format!("{number} is not a level that is known"),
            )),
        },
        Some(Some(Of::MaxStaleness(age))) => Duration::try_from(*age)
            .map(Consistency::MaxStaleness)
            .map_err(|_| {
                let description = "is negative; expected zero or more".to_owned();
                ("consistency.max_staleness", description)
            }),
    };
    consistency.unwrap_or_else(|(field, description)| {
        violations.add(field, description);
        Consistency::MinimizeLatency
    })
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
            Some(Source::Mirror) => proto::DecisionSource::Mirror,
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
            (level(FullyConsistent), &["consistency"]),
            (max_staleness(0), &["consistency"]),
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
    fn a_user_is_of_an_instance_that_there_is() {
        let fields = ask(|request| request.subject = Some(Asked::UserId("x".into())));
        assert_eq!(fields, ["user_id", "instance"]);
    }
}
