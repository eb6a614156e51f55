use proptest::prelude::*;

use super::*;
use crate::identity::{Actor, FactorAge, FactorAges, ScopedSlug, Texts};

/// Facts that own what they say.
#[derive(Clone, Debug)]
struct Known {
    token: bool,
    features: Vec<(Scope, &'static str)>,
    plans: Vec<(Scope, &'static str)>,
    speaks_of_organization: bool,
    factor_ages: Option<FactorAges>,
    actor: bool,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    NoOrganization,
    NotAMember,
    Member {
        role: Option<&'static str>,
        permissions: Vec<&'static str>,
        of_role: Option<Vec<&'static str>>,
        standing: Standing,
    },
}

/// An admin of an organization, just signed in.
fn admin() -> Known {
    Known {
        token: true,
        features: vec![(Scope::Organization, "invoices"), (Scope::User, "beta")],
        plans: vec![(Scope::Organization, "gold")],
        speaks_of_organization: true,
        factor_ages: Some(FactorAges {
            first: FactorAge::from_minutes(0.0),
            second: None,
        }),
        actor: false,
        place: Place::Member {
            role: Some("org:admin"),
            permissions: vec!["org:invoices:read"],
            of_role: None,
            standing: Standing::Good,
        },
    }
}

impl Known {
    fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    fn decide(&self, requirement: &Requirement, steps: &mut Steps) -> Result<(), Reason> {
        let slugs = |list: &[(Scope, &'static str)]| -> ScopedSlugs {
            let scoped = list.iter().map(|&(scope, slug)| ScopedSlug { scope, slug });
            scoped.collect()
        };
        let (features, plans) = (slugs(&self.features), slugs(&self.plans));
        let actor = Actor {
            subject: "user_support".into(),
            issuer: None,
            session_id: None,
            kind: None,
        };
        let (held, further): (Texts, Option<Texts>) = match &self.place {
            Place::Member {
                permissions,
                of_role,
                ..
            } => (
                permissions.iter().collect(),
                of_role.as_ref().map(|list| list.iter().collect()),
            ),
            Place::NoOrganization | Place::NotAMember => (Texts::default(), None),
        };
        let facts = Facts {
            token: self.token.then_some(TokenFacts {
                features: &features,
                plans: &plans,
                speaks_of_organization: self.speaks_of_organization,
                factor_ages: self.factor_ages,
                actor: self.actor.then_some(&actor),
            }),
            membership: match &self.place {
                Place::NoOrganization => MembershipFacts::NoOrganization,
                Place::NotAMember => MembershipFacts::NotAMember,
                Place::Member { role, standing, .. } => MembershipFacts::Member {
                    role: *role,
                    permissions: &held,
                    of_role: further.as_ref(),
                    standing: *standing,
                },
            },
        };
        decide(requirement, &facts, steps)
    }

    fn reason(&self, requirement: &Requirement) -> Option<Reason> {
        self.decide(requirement, &mut Steps::off()).err()
    }
}

fn permission(name: &str) -> Requirement {
    Requirement {
        permission: Some(name.parse().expect("a permission")),
        ..Requirement::default()
    }
}

fn role(name: &str) -> Requirement {
    Requirement {
        role: Some(name.parse().expect("a role")),
        ..Requirement::default()
    }
}

fn feature(name: &str) -> Requirement {
    Requirement {
        feature: Some(name.parse().expect("a feature")),
        ..Requirement::default()
    }
}

fn plan(name: &str) -> Requirement {
    Requirement {
        plan: Some(name.parse().expect("a plan")),
        ..Requirement::default()
    }
}

fn step_up(name: &str) -> Requirement {
    Requirement {
        reverification: Some(name.parse().expect("a reverification")),
        ..Requirement::default()
    }
}

fn no_impersonator(requirement: Requirement) -> Requirement {
    Requirement {
        impersonation: Impersonation::Denied,
        ..requirement
    }
}

#[test]
fn nothing_asked_is_denied() {
    assert_eq!(
        admin().reason(&Requirement::default()),
        Some(Reason::NoRequirement)
    );
    assert_eq!(
        admin().reason(&no_impersonator(Requirement::default())),
        Some(Reason::NoRequirement),
        "a restriction asks for nothing"
    );
}

#[test]
fn each_condition_has_its_reason_and_its_nearest_allow() {
    for (requirement, reason) in [
        (permission("org:invoices:read"), None),
        (permission("invoices:read"), None),
        (permission("org:org:invoices:read"), None),
        (
            permission("org:invoices:create"),
            Some(Reason::PermissionMissing),
        ),
        (
            permission("org:Invoices:read"),
            Some(Reason::PermissionMissing),
        ),
        (
            permission("org:sys_profile:manage"),
            Some(Reason::PermissionMissing),
        ),
        (role("admin"), None),
        (role("org:admin"), None),
        (role("org:admins"), Some(Reason::RoleMismatch)),
        (feature("invoices"), None),
        (feature("org:invoices"), None),
        (feature("organization:invoices"), None),
        (feature("user:invoices"), Some(Reason::FeatureMissing)),
        (feature("u:beta"), None),
        (feature("o:beta"), Some(Reason::FeatureMissing)),
        (feature("invoice"), Some(Reason::FeatureMissing)),
        (plan("gold"), None),
        (plan("user:gold"), Some(Reason::PlanMismatch)),
        (step_up("strict"), None),
        (step_up("multi_factor:1"), None),
        (no_impersonator(role("admin")), None),
    ] {
        assert_eq!(admin().reason(&requirement), reason, "{requirement:?}");
    }
}

#[test]
fn who_has_no_organization_has_no_role_in_it() {
    let nowhere = admin().at(Place::NoOrganization);
    assert_eq!(
        nowhere.reason(&role("admin")),
        Some(Reason::OrganizationMissing)
    );
    assert_eq!(
        nowhere.reason(&permission("invoices:read")),
        Some(Reason::OrganizationMissing)
    );
    // A feature of one's own needs none.
    assert_eq!(nowhere.reason(&feature("user:beta")), None);
}

#[test]
fn a_membership_that_is_not_there_or_not_good_denies_everything() {
    let standing = |standing| Place::Member {
        role: Some("org:admin"),
        permissions: vec!["org:invoices:read"],
        of_role: None,
        standing,
    };
    for (place, reason) in [
        (Place::NotAMember, Some(Reason::NotAMember)),
        (standing(Standing::Banned), Some(Reason::UserBanned)),
        (
            standing(Standing::Deprovisioned),
            Some(Reason::UserDeprovisioned),
        ),
        (standing(Standing::Good), None),
    ] {
        let known = admin().at(place);
        for requirement in [role("admin"), permission("invoices:read"), step_up("lax")] {
            assert_eq!(
                known.reason(&requirement),
                reason,
                "{known:?} {requirement:?}"
            );
        }
    }
}

#[test]
fn a_role_without_a_name_is_no_role() {
    let known = admin().at(Place::Member {
        role: None,
        permissions: vec![],
        of_role: None,
        standing: Standing::Good,
    });
    assert_eq!(known.reason(&role("admin")), Some(Reason::RoleMismatch));
    assert_eq!(known.reason(&role("org:")), Some(Reason::RoleMismatch));
}

#[test]
fn permissions_of_the_role_that_were_looked_up_count() {
    let member = |of_role| {
        admin().at(Place::Member {
            role: Some("org:member"),
            permissions: vec!["org:invoices:read"],
            of_role,
            standing: Standing::Good,
        })
    };
    let asked = permission("org:sys_memberships:read");
    assert_eq!(
        member(Some(vec!["org:sys_memberships:read"])).reason(&asked),
        None
    );
    assert_eq!(
        member(Some(vec!["org:sys_billing:read"])).reason(&asked),
        Some(Reason::PermissionMissing)
    );
    assert_eq!(member(None).reason(&asked), Some(Reason::PermissionMissing));
}

#[test]
fn what_a_token_says_of_one_organization_is_not_said_of_another() {
    let elsewhere = Known {
        speaks_of_organization: false,
        ..admin()
    };
    for (requirement, reason) in [
        (feature("invoices"), Some(Reason::OrganizationMismatch)),
        (feature("org:invoices"), Some(Reason::OrganizationMismatch)),
        (plan("gold"), Some(Reason::OrganizationMismatch)),
        // The user's own go everywhere.
        (feature("beta"), None),
        (feature("user:beta"), None),
        (feature("user:other"), Some(Reason::FeatureMissing)),
    ] {
        assert_eq!(elsewhere.reason(&requirement), reason, "{requirement:?}");
    }
}

#[test]
fn without_a_token_nothing_is_believed_that_only_a_token_says() {
    let without = Known {
        token: false,
        ..admin()
    };
    for (requirement, reason) in [
        (role("admin"), None),
        (feature("user:beta"), Some(Reason::FeatureMissing)),
        (plan("gold"), Some(Reason::PlanMismatch)),
        (step_up("lax"), Some(Reason::ReverificationRequired)),
        (
            no_impersonator(role("admin")),
            Some(Reason::ImpersonationNotAllowed),
        ),
    ] {
        assert_eq!(without.reason(&requirement), reason, "{requirement:?}");
        let field = requirement.token_only();
        assert_eq!(field.is_some(), reason.is_some(), "{requirement:?}");
    }
}

#[test]
fn an_impersonator_is_denied_where_that_is_said_and_nowhere_else() {
    let impersonated = Known {
        actor: true,
        ..admin()
    };
    assert_eq!(
        impersonated.reason(&no_impersonator(role("admin"))),
        Some(Reason::ImpersonationNotAllowed)
    );
    assert_eq!(impersonated.reason(&role("admin")), None);
}

#[test]
fn names_that_ask_for_nothing_are_refused() {
    assert_eq!("".parse::<Permission>(), Err(InvalidName::Empty));
    assert_eq!("".parse::<Role>(), Err(InvalidName::Empty));
    assert_eq!("".parse::<Entitlement>(), Err(InvalidName::Empty));
    assert_eq!(
        "x".repeat(16 * 1024 + 1).parse::<Role>(),
        Err(InvalidName::TooLong)
    );
    for bad in ["x:gold", ":gold", "orgs:gold"] {
        assert_eq!(bad.parse::<Entitlement>(), Err(InvalidName::Scope), "{bad}");
    }
    for (text, shown) in [
        ("org:gold:more", "org:gold"),
        ("org:", "org:org"),
        ("u:x", "user:x"),
        ("gold", "gold"),
    ] {
        let entitlement: Entitlement = text.parse().expect(text);
        assert_eq!(entitlement.to_string(), shown);
    }
}

#[test]
fn an_explanation_names_every_condition() {
    let mut steps = Steps::on(Rule::OF_CHECK);
    let requirement = Requirement {
        permission: Some("invoices:create".parse().expect("a permission")),
        ..role("admin")
    };

    assert!(admin().decide(&requirement, &mut steps).is_err());

    let steps = steps.finish();
    let outcome = |rule| {
        let step = steps.iter().find(|step| step.rule == rule);
        step.expect("every rule is listed").outcome
    };
    use crate::explain::Outcome;
    assert_eq!(outcome(Rule::Role), Outcome::Passed);
    assert_eq!(outcome(Rule::Permission), Outcome::Failed);
    assert_eq!(outcome(Rule::Feature), Outcome::Skipped);
}

// === properties ===

fn some_place() -> impl Strategy<Value = Place> {
    let permissions = || {
        proptest::sample::subsequence(
            vec![
                "org:invoices:read",
                "org:a:b",
                "org:org:x:y",
                "org:sys_profile:manage",
            ],
            0..=4,
        )
    };
    prop_oneof![
        Just(Place::NoOrganization),
        Just(Place::NotAMember),
        (
            proptest::option::of(prop_oneof![
                Just("org:admin"),
                Just("org:member"),
                Just("org:")
            ]),
            permissions(),
            proptest::option::of(permissions()),
            prop_oneof![
                8 => Just(Standing::Good),
                1 => Just(Standing::Banned),
                1 => Just(Standing::Deprovisioned)
            ],
        )
            .prop_map(|(role, permissions, of_role, standing)| Place::Member {
                role,
                permissions,
                of_role,
                standing
            }),
    ]
}

fn some_facts() -> impl Strategy<Value = Known> {
    let slugs = || {
        let all = vec![
            (Scope::Organization, "gold"),
            (Scope::User, "gold"),
            (Scope::User, "beta"),
            (Scope::Organization, "org"),
        ];
        proptest::sample::subsequence(all, 0..=4)
    };
    let age = || proptest::option::of(0_u32..30);
    let ages = proptest::option::of((age(), age()));
    (any::<[bool; 3]>(), slugs(), slugs(), ages, some_place()).prop_map(
        |([token, speaks_of_organization, actor], features, plans, ages, place)| Known {
            token,
            features,
            plans,
            speaks_of_organization,
            factor_ages: ages.map(|(first, second)| {
                let age = |minutes: Option<u32>| {
                    minutes.and_then(|minutes| FactorAge::from_minutes(minutes.into()))
                };
                FactorAges {
                    first: age(first),
                    second: age(second),
                }
            }),
            actor,
            place,
        },
    )
}

fn some_requirement() -> impl Strategy<Value = Requirement> {
    fn some<T: std::str::FromStr + Clone + std::fmt::Debug + 'static>(
        names: &'static [&'static str],
    ) -> impl Strategy<Value = Option<T>> {
        let name = proptest::sample::select(names);
        proptest::option::of(name.prop_map(|name| name.parse().ok().expect("a good name")))
    }
    (
        some(&["invoices:read", "org:a:b", "org:x:y", "sys_profile:manage"]),
        some(&["admin", "org:org:member", "org:"]),
        some(&["gold", "org:gold", "user:beta", "org:"]),
        some(&["gold", "u:gold", "o:org"]),
        some(&["strict", "strict_mfa", "first_factor:5"]),
        any::<bool>(),
    )
        .prop_map(
            |(permission, role, feature, plan, reverification, denied)| Requirement {
                permission,
                role,
                feature,
                plan,
                reverification,
                impersonation: if denied {
                    Impersonation::Denied
                } else {
                    Impersonation::Allowed
                },
            },
        )
}

/// Each condition that is asked, alone, with the restriction that goes for all.
fn alone(requirement: &Requirement) -> Vec<Requirement> {
    let Requirement {
        permission,
        role,
        feature,
        plan,
        reverification,
        impersonation,
    } = requirement.clone();
    let only = |requirement: Requirement| Requirement {
        impersonation,
        ..requirement
    };
    [
        Requirement {
            permission,
            ..Requirement::default()
        },
        Requirement {
            role,
            ..Requirement::default()
        },
        Requirement {
            feature,
            ..Requirement::default()
        },
        Requirement {
            plan,
            ..Requirement::default()
        },
        Requirement {
            reverification,
            ..Requirement::default()
        },
    ]
    .into_iter()
    .filter(|each| !each.asks_nothing())
    .map(only)
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// GHSA-w24r-5266-9c3c: a condition that was skipped counted as one that passed.
    #[test]
    fn an_allow_means_that_every_condition_alone_allows(
        known in some_facts(),
        requirement in some_requirement(),
    ) {
        let each: Vec<_> = alone(&requirement);
        let allowed = known.reason(&requirement).is_none();
        let all = !each.is_empty() && each.iter().all(|one| known.reason(one).is_none());
        prop_assert_eq!(allowed, all, "{:?} {:?}", known, requirement);
    }

    #[test]
    fn asking_for_more_never_turns_a_denial_into_an_allow(
        known in some_facts(),
        requirement in some_requirement(),
        more in some_requirement(),
    ) {
        // What is asked already stays; what is not may be asked on top.
        let both = Requirement {
            permission: requirement.permission.clone().or(more.permission),
            role: requirement.role.clone().or(more.role),
            feature: requirement.feature.clone().or(more.feature),
            plan: requirement.plan.clone().or(more.plan),
            reverification: requirement.reverification.or(more.reverification),
            impersonation: match requirement.impersonation {
                Impersonation::Denied => Impersonation::Denied,
                Impersonation::Allowed => more.impersonation,
            },
        };
        if !requirement.asks_nothing() && known.reason(&requirement).is_some() {
            prop_assert!(known.reason(&both).is_some(), "{:?} {:?}", known, both);
        }
    }

    #[test]
    fn explaining_changes_no_decision(known in some_facts(), requirement in some_requirement()) {
        let mut steps = Steps::on(Rule::OF_CHECK);
        prop_assert_eq!(
            known.decide(&requirement, &mut steps),
            known.decide(&requirement, &mut Steps::off())
        );
    }
}
