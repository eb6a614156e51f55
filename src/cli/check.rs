//! `clerk-authz check`

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::{
    DENIED, FAILED, SUCCESS,
    args::{TokenArgs, token},
    report,
};
use crate::{
    authz::{Checker, Consistency, Decision, OrgAnswer, OrgQuestion, OrganizationRef, Subject},
    credential::Credential,
    decision::{Entitlement, Impersonation, Permission, Requirement, Reverification, Role},
    door::grpc::new_decision_id,
    explain::{Rule, Steps},
    identity::{Timestamp, UserId},
    reason::Reason,
};

/// How long Clerk is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Decides about an organization as the service would, and prints every rule in order. What the token
/// does not answer takes CLERK_SECRET_KEY.
#[derive(Args)]
#[command(
    after_help = "Example: clerk-authz check --user user_2abc --organization acme --permission org:invoices:create\n\
                  Exit codes: 0 allowed, 1 denied, 2 could not tell\n\
                  The decision_id names what was printed, for notes of your own: it is in no log. Those \
                  of the service's decisions are in the service's log"
)]
#[group(id = "subject", required = true, multiple = false, args = ["token", "user"])]
pub(super) struct Check {
    /// Of whom: the token, or - to read it from standard input
    #[arg(long, value_name = "TOKEN|-", allow_hyphen_values = true)]
    token: Option<String>,
    /// Of whom: a user, whether signed in or not
    #[arg(long, value_name = "ID")]
    user: Option<UserId>,
    /// The instance that the user is of, where there are several
    #[arg(long, value_name = "NAME", requires = "user")]
    instance: Option<String>,
    /// In which organization, by id or slug; the token's active one where absent
    #[arg(long, value_name = "ID|SLUG", value_parser = organization)]
    organization: Option<OrganizationRef>,
    /// A permission that the user must have, such as org:invoices:create
    #[arg(long, value_name = "PERMISSION")]
    permission: Option<Permission>,
    /// A role that the user must have, such as org:admin
    #[arg(long, value_name = "ROLE")]
    role: Option<Role>,
    /// A feature that must be there: SLUG, org:SLUG or user:SLUG
    #[arg(long, value_name = "FEATURE")]
    feature: Option<Entitlement>,
    /// A plan that must be there: SLUG, org:SLUG or user:SLUG
    #[arg(long, value_name = "PLAN")]
    plan: Option<Entitlement>,
    /// A factor that must have been verified recently: strict_mfa, strict, moderate, lax or
    /// LEVEL:MINUTES
    #[arg(long, value_name = "PRESET|LEVEL:MINUTES")]
    reverification: Option<Reverification>,
    /// Deny who acts in the user's place
    #[arg(long)]
    deny_impersonation: bool,
    /// Take no membership that is older than this
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "fully_consistent")]
    max_staleness: Option<Duration>,
    /// Ask Clerk now
    #[arg(long)]
    fully_consistent: bool,
    #[command(flatten)]
    args: TokenArgs,
}

fn organization(text: &str) -> Result<OrganizationRef, String> {
    OrganizationRef::parse(text).map_err(str::to_owned)
}

impl Check {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        self.args
            .accepts_sessions_only("only somebody who is signed in is a member")?;
        let token = self.token.as_deref().map(token).transpose()?;
        let (asker, clock) = self.args.asker().await?;
        let question = OrgQuestion {
            subject: self.subject(token.as_deref(), &asker.checker)?,
            organization: self.organization.clone(),
            requirement: self.requirement(),
            consistency: match (self.fully_consistent, self.max_staleness) {
                (true, _) => Consistency::FullyConsistent,
                (false, Some(age)) => Consistency::MaxStaleness(age),
                (false, None) => Consistency::MinimizeLatency,
            },
            patience: PATIENCE,
            lookups: None,
        };
        if let Some(fault) = question.faults().first() {
            bail!("{} {fault}", fault.field());
        }
        let mut steps = Steps::on(Rule::OF_CHECK);
        let answer = asker
            .checker
            .check_org_permission(&question, clock(), &mut steps)
            .await;
        let steps = steps.finish();
        asker.stop().await;
        let (code, reason, decision) = match &answer {
            Ok(OrgAnswer::Decided(decision)) if decision.is_allowed() => {
                (SUCCESS, decision.reason, Some(decision))
            }
            Ok(OrgAnswer::Decided(decision)) => (DENIED, decision.reason, Some(decision)),
            Ok(OrgAnswer::TokenDenied(reason)) => (DENIED, *reason, None),
            Ok(OrgAnswer::OrganizationNotFound) => (DENIED, Reason::OrganizationNotFound, None),
            Err(cannot_tell) => (FAILED, cannot_tell.reason(), None),
        };
        let decision_id = decision.map(|_| new_decision_id());
        if self.args.json {
            let of = |get: fn(&Decision) -> Option<Timestamp>| {
                decision.and_then(get).map(|time| time.to_string())
            };
            let answer = json!({
                "allowed": code == SUCCESS,
                "reason": reason.name(),
                "organization_id": decision.and_then(Decision::organization_id).map(ToString::to_string),
                "role": decision.and_then(Decision::role),
                "source": decision.and_then(|decision| decision.source).map(|source| source.name()),
                "as_of": of(|decision| decision.as_of),
                "valid_until": of(|decision| decision.valid_until),
                "decision_id": decision_id,
                "steps": report::steps_json(&steps),
            });
            anstream::println!("{answer}");
        } else {
            report::print(code, "allowed", Some(reason), &steps);
            if let Some(id) = decision_id {
                anstream::println!("decision_id {id}");
            }
        }
        Ok(code)
    }

    fn requirement(&self) -> Requirement {
        Requirement {
            permission: self.permission.clone(),
            role: self.role.clone(),
            feature: self.feature.clone(),
            plan: self.plan.clone(),
            reverification: self.reverification,
            impersonation: if self.deny_impersonation {
                Impersonation::Denied
            } else {
                Impersonation::Allowed
            },
        }
    }

    fn subject<'a>(
        &self,
        token: Option<&'a str>,
        checker: &Arc<Checker>,
    ) -> anyhow::Result<Subject<'a>> {
        if let Some(token) = token {
            return Ok(Subject::Credential(Credential::Token(token)));
        }
        let user = self.user.clone().context("--token or --user is missing")?;
        let instances = checker.verifier().instances();
        let name = self.instance.as_deref().unwrap_or_default();
        let instance = instances
            .named(name)
            .with_context(|| format!("--instance is {name:?}; no instance has this name"))?;
        Ok(Subject::User(Arc::clone(instance), user))
    }
}
