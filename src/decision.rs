//! May this subject do that? A pure function from a requirement and the facts to an answer with its
//! reason, as Clerk's `has()` decides it (`@clerk/shared`, `authorization.ts`).
//!
//! Called by `authz`, which finds the facts. May not touch I/O or a clock, and allocates nothing
//! unless somebody asked for an explanation.

mod facts;
mod requirement;
mod step_up;

pub use self::facts::{Facts, MembershipFacts, TokenFacts};
pub use self::requirement::{
    Entitlement, Impersonation, InvalidName, Permission, Requirement, Role, is_system_permission,
};
pub use self::step_up::{InvalidReverification, Level, Preset, Reverification, check};
use crate::{
    explain::{Rule, Steps},
    identity::{Scope, ScopedSlugs},
    mirror::Standing,
    reason::Reason,
};

/// A condition that was asked and holds. There is no other way to an allow than to hold one: a
/// condition that was not asked cannot be taken for one that holds (GHSA-w24r-5266-9c3c).
struct Holds;

/// `None` is a condition that was not asked.
type Condition = Result<Option<Holds>, Reason>;

/// Whether everything that is required holds; the first condition that does not is the answer.
pub fn decide(
    requirement: &Requirement,
    facts: &Facts<'_>,
    steps: &mut Steps,
) -> Result<(), Reason> {
    preconditions(requirement, facts.token.as_ref(), steps)?;
    conditions(requirement, facts, steps)
}

/// What comes first and takes no membership: that something is asked, and that nobody acts in the
/// user's place where that is refused. Nobody is to be asked for a membership in vain.
pub fn preconditions(
    requirement: &Requirement,
    token: Option<&TokenFacts<'_>>,
    steps: &mut Steps,
) -> Result<(), Reason> {
    if requirement.asks_nothing() {
        steps.failed(
            Rule::Requirement,
            || "none of permission, role, feature, plan and reverification is asked",
        );
        return Err(Reason::NoRequirement);
    }
    steps.passed(Rule::Requirement, || "something is asked");
    impersonation(requirement.impersonation, token, steps)
}

/// The rest, once the preconditions hold.
pub fn conditions(
    requirement: &Requirement,
    facts: &Facts<'_>,
    steps: &mut Steps,
) -> Result<(), Reason> {
    let member = member(requirement, &facts.membership, steps)?;
    let conditions = [
        role(requirement, member, steps)?,
        permission(requirement, member, steps)?,
        entitlement(&FEATURE, requirement.feature.as_ref(), facts, steps)?,
        entitlement(&PLAN, requirement.plan.as_ref(), facts, steps)?,
        reverification(requirement, facts, steps)?,
    ];
    if conditions.iter().any(Option::is_some) {
        Ok(())
    } else {
        Err(Reason::NoRequirement)
    }
}

fn impersonation(
    impersonation: Impersonation,
    token: Option<&TokenFacts<'_>>,
    steps: &mut Steps,
) -> Result<(), Reason> {
    match (impersonation, token) {
        (Impersonation::Allowed, _) => {
            steps.skipped(Rule::Impersonation, || "impersonation is allowed");
            Ok(())
        }
        (Impersonation::Denied, Some(token)) if token.actor.is_none() => {
            steps.passed(Rule::Impersonation, || "nobody acts in the user's place");
            Ok(())
        }
        (Impersonation::Denied, token) => {
            steps.failed(Rule::Impersonation, || {
                match token.and_then(|token| token.actor) {
                    Some(actor) => format!("{:?} acts in the user's place", actor.subject),
                    None => "only a token says who acts, and there is none".to_owned(),
                }
            });
            Err(Reason::ImpersonationNotAllowed)
        }
    }
}

/// The user's place in the organization, where the decision is about one.
#[derive(Clone, Copy)]
struct Member<'a> {
    role: Option<&'a str>,
    permissions: [Option<&'a crate::identity::Texts>; 2],
}

fn member<'a>(
    requirement: &Requirement,
    membership: &MembershipFacts<'a>,
    steps: &mut Steps,
) -> Result<Option<Member<'a>>, Reason> {
    match *membership {
        MembershipFacts::NoOrganization if requirement.asks_of_membership() => {
            steps.failed(
                Rule::Organization,
                || "none is named, and none is active in the session",
            );
            Err(Reason::OrganizationMissing)
        }
        MembershipFacts::NoOrganization => {
            steps.skipped(Rule::Organization, || "the decision is about none");
            steps.skipped(Rule::Membership, || "the decision is about no organization");
            Ok(None)
        }
        MembershipFacts::NotAMember => {
            steps.failed(Rule::Membership, || "the user is not a member");
            Err(Reason::NotAMember)
        }
        MembershipFacts::Member {
            standing: Standing::Banned,
            ..
        } => {
            steps.failed(Rule::Membership, || "the user is banned");
            Err(Reason::UserBanned)
        }
        MembershipFacts::Member {
            standing: Standing::Deprovisioned,
            ..
        } => {
            steps.failed(Rule::Membership, || "the user is deprovisioned");
            Err(Reason::UserDeprovisioned)
        }
        MembershipFacts::Member {
            role,
            permissions,
            of_role,
            standing: Standing::Good,
        } => {
            steps.passed(Rule::Membership, || "the user is a member");
            Ok(Some(Member {
                role,
                permissions: [Some(permissions), of_role],
            }))
        }
    }
}

fn role(requirement: &Requirement, member: Option<Member<'_>>, steps: &mut Steps) -> Condition {
    let Some(asked) = &requirement.role else {
        steps.skipped(Rule::Role, || "not asked for");
        return Ok(None);
    };
    let held = member.and_then(|member| member.role);
    if held.is_some_and(|held| asked.is(held)) {
        steps.passed(Rule::Role, || format!("the user is {asked}"));
        return Ok(Some(Holds));
    }
    steps.failed(Rule::Role, || {
        let held = held.unwrap_or("nothing");
        format!("the user is {held:?}; expected \"{asked}\"")
    });
    Err(Reason::RoleMismatch)
}

fn permission(
    requirement: &Requirement,
    member: Option<Member<'_>>,
    steps: &mut Steps,
) -> Condition {
    let Some(asked) = &requirement.permission else {
        steps.skipped(Rule::Permission, || "not asked for");
        return Ok(None);
    };
    let held = || {
        let lists = member
            .iter()
            .flat_map(|member| member.permissions)
            .flatten();
        lists.flat_map(crate::identity::Texts::iter)
    };
    if held().any(|held| asked.is(held)) {
        steps.passed(Rule::Permission, || format!("{asked} is granted"));
        return Ok(Some(Holds));
    }
    steps.failed(Rule::Permission, || {
        format!(
            "{asked} is not among the user's {} permissions",
            held().count()
        )
    });
    Err(Reason::PermissionMissing)
}

/// How features and plans differ.
struct EntitlementKind {
    rule: Rule,
    missing: Reason,
    of: for<'a> fn(&TokenFacts<'a>) -> &'a ScopedSlugs,
}

const FEATURE: EntitlementKind = EntitlementKind {
    rule: Rule::Feature,
    missing: Reason::FeatureMissing,
    of: |token| token.features,
};
const PLAN: EntitlementKind = EntitlementKind {
    rule: Rule::Plan,
    missing: Reason::PlanMismatch,
    of: |token| token.plans,
};

fn entitlement(
    kind: &EntitlementKind,
    asked: Option<&Entitlement>,
    facts: &Facts<'_>,
    steps: &mut Steps,
) -> Condition {
    let Some(asked) = asked else {
        steps.skipped(kind.rule, || "not asked for");
        return Ok(None);
    };
    let Some(token) = &facts.token else {
        steps.failed(kind.rule, || "only a token says it, and there is none");
        return Err(kind.missing);
    };
    let believed = |scope| scope == Scope::User || token.speaks_of_organization;
    if asked.is_in((kind.of)(token), believed) {
        steps.passed(kind.rule, || format!("{asked} is there"));
        return Ok(Some(Holds));
    }
    // What the token does not say of this organization may still be so.
    if asked.asks_organization() && !token.speaks_of_organization {
        steps.failed(kind.rule, || {
            format!("{asked}: the token speaks of another organization, and nothing else says it")
        });
        return Err(Reason::OrganizationMismatch);
    }
    steps.failed(kind.rule, || format!("{asked} is not there"));
    Err(kind.missing)
}

fn reverification(requirement: &Requirement, facts: &Facts<'_>, steps: &mut Steps) -> Condition {
    let ages = facts.token.as_ref().and_then(|token| token.factor_ages);
    check(requirement.reverification, ages, steps)?;
    Ok(requirement.reverification.map(|_| Holds))
}

#[cfg(test)]
mod tests;
