//! How a decision came about: every rule in order, passed, failed or skipped, with why.
//!
//! The rooms that decide write steps as they go; when nobody asked they write nothing and the
//! details are not even built. Steps never hold token material.

use std::{borrow::Cow, fmt};

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A rule, in the order in which the rules are applied.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $($(#[$doc])* $variant,)*
        }

        impl Rule {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in explanations, such as `signature`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

rules! {
    /// The identity provider that is named is configured.
    Provider = "provider",
    /// There is exactly one credential.
    Credential = "credential",
    /// It is short enough.
    Size = "size",
    /// It is a compact JWS with JSON objects inside.
    Form = "form",
    /// The header's `alg` is one that is allowed: RS256, or those of an identity provider.
    Algorithm = "algorithm",
    /// The header's `typ` is absent or `JWT`, and there is no `crit`.
    Header = "header",
    /// `iss` names a configured instance.
    Issuer = "issuer",
    /// The instance has the key that `kid` names.
    Key = "key",
    /// The signature verifies.
    Signature = "signature",
    /// It is a session token.
    TokenType = "token_type",
    /// The claims have their types, and none stands twice.
    Claims = "claims",
    /// `aud` names an audience.
    Audience = "audience",
    /// `azp` is an authorized party.
    AuthorizedParty = "authorized_party",
    /// `exp` is to come.
    Expiry = "expiry",
    /// `nbf` has come.
    NotBefore = "not_before",
    /// `iat` has come.
    IssuedAt = "issued_at",
    /// The token of a cookie is not older than the browser's last sign-in or sign-out.
    ClientState = "client_state",
    /// The session is not pending.
    Status = "status",
    /// The user, the session and the active organization are not known to be gone.
    Revocation = "revocation",
    /// The assertion has the nonce with which its sign-in began.
    Nonce = "nonce",
    /// The user signed in at the identity provider recently enough.
    SignInAge = "sign_in_age",
    /// The user has shown a second factor there, where that is asked for.
    SecondFactor = "second_factor",
    /// The assertion leads to exactly one user.
    User = "user",
    /// The user may sign in.
    Standing = "standing",
    /// Something is asked for, so that there is something to allow.
    Requirement = "requirement",
    /// Nobody acts in the user's place, where that is not allowed.
    Impersonation = "impersonation",
    /// There is an organization that the decision is about.
    Organization = "organization",
    /// The user is a member of it, and may act.
    Membership = "membership",
    /// The user has the role.
    Role = "role",
    /// The user's role has the permission.
    Permission = "permission",
    /// The user or the organization has the feature.
    Feature = "feature",
    /// The user or the organization has the plan.
    Plan = "plan",
    /// A factor was verified recently enough.
    Reverification = "reverification",
    /// The token was not used before, where it may be used once.
    Replay = "replay",
}

impl Rule {
    /// The rules of a decision about an organization, token included. The token's replay is not among
    /// them, since a decision uses no token up.
    pub const OF_CHECK: &[Self] = &[
        Self::Credential,
        Self::Size,
        Self::Form,
        Self::Algorithm,
        Self::Header,
        Self::Issuer,
        Self::Key,
        Self::Signature,
        Self::TokenType,
        Self::Claims,
        Self::Audience,
        Self::AuthorizedParty,
        Self::Expiry,
        Self::NotBefore,
        Self::IssuedAt,
        Self::ClientState,
        Self::Status,
        Self::Revocation,
        Self::Requirement,
        Self::Impersonation,
        Self::Organization,
        Self::Membership,
        Self::Role,
        Self::Permission,
        Self::Feature,
        Self::Plan,
        Self::Reverification,
    ];

    /// The rules of an exchange of an identity provider's assertion.
    pub const OF_EXCHANGE: &[Self] = &[
        Self::Provider,
        Self::Size,
        Self::Form,
        Self::Algorithm,
        Self::Header,
        Self::Issuer,
        Self::Key,
        Self::Signature,
        Self::Claims,
        Self::Audience,
        Self::AuthorizedParty,
        Self::Expiry,
        Self::NotBefore,
        Self::IssuedAt,
        Self::Nonce,
        Self::SignInAge,
        Self::SecondFactor,
        Self::User,
        Self::Standing,
        Self::Membership,
        Self::Replay,
    ];

    /// The rules of a verification.
    pub const OF_VERIFICATION: &[Self] = &[
        Self::Credential,
        Self::Size,
        Self::Form,
        Self::Algorithm,
        Self::Header,
        Self::Issuer,
        Self::Key,
        Self::Signature,
        Self::TokenType,
        Self::Claims,
        Self::Audience,
        Self::AuthorizedParty,
        Self::Expiry,
        Self::NotBefore,
        Self::IssuedAt,
        Self::ClientState,
        Self::Status,
        Self::Revocation,
        Self::Reverification,
        Self::Replay,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What became of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not hold, or could not be told: the decision ended here.
    Failed,
    /// Not asked, or not reached.
    Skipped,
}

impl Outcome {
    /// `passed`, `failed` or `skipped`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One rule and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The rule.
    pub rule: Rule,
    /// What became of it.
    pub outcome: Outcome,
    /// The values that decided, for people.
    pub detail: Cow<'static, str>,
}

/// Collects steps, or nothing when nobody asked.
#[derive(Debug, Default)]
pub struct Steps(Option<Collected>);

#[derive(Debug)]
struct Collected {
    /// What the explanation lists, reached or not.
    rules: &'static [Rule],
    steps: Vec<Step>,
}

impl Steps {
    /// Collects nothing.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Collects every step; `rules` are those that the explanation lists, such as
    /// [`Rule::OF_CHECK`].
    pub fn on(rules: &'static [Rule]) -> Self {
        Self(Some(Collected {
            rules,
            steps: Vec::with_capacity(rules.len()),
        }))
    }

    /// Whether somebody asked.
    pub const fn wanted(&self) -> bool {
        self.0.is_some()
    }

    /// The rule holds; `detail` is built only if somebody asked.
    pub fn passed<D: Into<Cow<'static, str>>>(&mut self, rule: Rule, detail: impl FnOnce() -> D) {
        self.record(rule, Outcome::Passed, detail);
    }

    /// The rule does not hold.
    pub fn failed<D: Into<Cow<'static, str>>>(&mut self, rule: Rule, detail: impl FnOnce() -> D) {
        self.record(rule, Outcome::Failed, detail);
    }

    /// The rule was not asked.
    pub fn skipped<D: Into<Cow<'static, str>>>(&mut self, rule: Rule, detail: impl FnOnce() -> D) {
        self.record(rule, Outcome::Skipped, detail);
    }

    fn record<D: Into<Cow<'static, str>>>(
        &mut self,
        rule: Rule,
        outcome: Outcome,
        detail: impl FnOnce() -> D,
    ) {
        if let Some(Collected { steps, .. }) = &mut self.0 {
            steps.push(Step {
                rule,
                outcome,
                detail: detail().into(),
            });
        }
    }

    /// All rules in order: those that were not reached are skipped.
    pub fn finish(self) -> Vec<Step> {
        let Some(Collected { rules, mut steps }) = self.0 else {
            return Vec::new();
        };
        let failed = steps
            .iter()
            .find(|step| step.outcome == Outcome::Failed)
            .map(|s| s.rule);
        let detail: Cow<'static, str> = match failed {
            Some(rule) => format!("not reached: {rule} failed").into(),
            None => "not asked".into(),
        };
        for &rule in rules {
            if !steps.iter().any(|step| step.rule == rule) {
                steps.push(Step {
                    rule,
                    outcome: Outcome::Skipped,
                    detail: detail.clone(),
                });
            }
        }
        steps.sort_by_key(|step| step.rule);
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_not_built_when_nobody_asked() {
        let mut steps = Steps::off();
        steps.passed(Rule::Size, || -> String { unreachable!("nobody asked") });
        assert!(steps.finish().is_empty());
    }

    #[test]
    fn rules_after_a_failure_are_skipped_and_say_why() {
        let mut steps = Steps::on(Rule::OF_VERIFICATION);
        steps.passed(Rule::Credential, || "token field");
        steps.failed(Rule::Size, || "20000 bytes; at most 16384");

        let steps = steps.finish();

        assert_eq!(steps.len(), Rule::OF_VERIFICATION.len());
        assert_eq!(steps[1].outcome, Outcome::Failed);
        assert_eq!(steps[2].outcome, Outcome::Skipped);
        assert_eq!(steps[2].detail, "not reached: size failed");
    }
}
