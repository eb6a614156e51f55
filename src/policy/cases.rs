//! The cases of a policy: requests with what is supposed of who sends them, and what must be answered.

mod text;

use serde_saphyr::Spanned;

pub(super) use self::text::CaseText;
use self::text::{ExpectText, MembershipText, RequestText, SessionText, TokenText};

use super::{
    Route,
    compile::Compiler,
    file::{place, suggestion},
};
use crate::{
    decision::{Permission, Role},
    identity::{
        Actor, FactorAge, FactorAges, MachineSubject, MachineType, Organization, OrganizationId,
        OrganizationSlug, Scope, ScopedSlug, ScopedSlugs, Texts, TokenType, UserId,
    },
    mirror::OrganizationRecord,
    reason::Reason,
};

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name; `#1` where it has none.
    pub name: Box<str>,
    /// Where it stands in the file, from 1.
    pub line: u64,
    /// The request.
    pub request: CaseRequest,
    /// What is supposed of who sends it.
    pub sender: Sender,
    /// All memberships of the user, for what the token does not answer; `None`: Clerk cannot be asked.
    pub memberships: Option<Vec<CaseMembership>>,
    /// What must be answered.
    pub expected: Expected,
}

/// The request of a case.
#[derive(Clone, Debug)]
pub struct CaseRequest {
    /// The method.
    pub method: Box<str>,
    /// The host, with its port.
    pub host: Box<str>,
    /// The path and the query, as they would arrive.
    pub path: Box<str>,
    /// Whether it came over TLS.
    pub is_https: bool,
    /// Headers by their lower-case names.
    pub headers: Vec<(Box<str>, Box<str>)>,
}

/// What is supposed of who sends a request.
#[derive(Clone, Debug)]
pub enum Sender {
    /// There is a credential that is denied, or none; or it cannot be told.
    Denied(Reason),
    /// Somebody is signed in.
    SignedIn(Box<CaseSession>),
    /// A machine, an OAuth client or an API key.
    Machine(Box<CaseMachine>),
}

/// What a token is supposed to say that is of no session.
#[derive(Clone, Debug)]
pub struct CaseMachine {
    /// Which type.
    pub machine_type: MachineType,
    /// For whom it stands.
    pub subject: MachineSubject,
    /// The OAuth client that holds it.
    pub client_id: Option<Box<str>>,
    /// What it is for.
    pub scopes: Texts,
}

/// What a token is supposed to say.
#[derive(Clone, Debug)]
pub struct CaseSession {
    /// The user.
    pub user_id: UserId,
    /// The active organization.
    pub organization: Option<Organization>,
    /// Of the user and of the organization.
    pub features: ScopedSlugs,
    /// Likewise.
    pub plans: ScopedSlugs,
    /// How long ago factors were verified.
    pub factor_ages: Option<FactorAges>,
    /// Who acts in the user's place.
    pub actor: Option<Actor>,
}

/// A membership that the token does not speak of.
#[derive(Clone, Debug)]
pub struct CaseMembership {
    /// In which organization.
    pub organization: OrganizationRecord,
    /// The role, with `org:`.
    pub role: Box<str>,
    /// What it permits, with `org:`.
    pub permissions: Texts,
}

/// What must be answered.
#[derive(Clone, Debug)]
pub struct Expected {
    /// What becomes of the request.
    pub effect: Effect,
    /// Why; `None` is any reason.
    pub reason: Option<Reason>,
    /// By which route; `None` is any, and none.
    pub route: Option<Box<str>>,
}

/// What becomes of a request, as its sender sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It goes on to the upstream.
    Allowed,
    /// 401.
    Unauthenticated,
    /// A redirect to the sign-in page.
    SignIn,
    /// 403.
    Forbidden,
    /// 403 with the factor that is to be verified again.
    StepUp,
    /// 503.
    Unavailable,
}

impl Effect {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Allowed,
        Self::Unauthenticated,
        Self::SignIn,
        Self::Forbidden,
        Self::StepUp,
        Self::Unavailable,
    ];

    /// The word in policy files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Unauthenticated => "unauthenticated",
            Self::SignIn => "sign_in",
            Self::Forbidden => "forbidden",
            Self::StepUp => "step_up",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Of a case that does not say.
const METHOD: &str = "GET";
/// The host of a request of which it does not matter; a name that nobody has.
pub const UNNAMED_HOST: &str = "host.invalid";
/// Of a token that does not say whose it is.
const USER: &str = "user_test";
/// The same of a machine.
const MACHINE: &str = "mch_test";

/// The cases as they are meant; what is wrong with them is said by `compiler`.
pub(super) fn compile(
    compiler: &mut Compiler,
    texts: Vec<Spanned<CaseText>>,
    routes: &[Route],
) -> Vec<Case> {
    let cases = texts.into_iter().enumerate();
    cases
        .filter_map(|(index, text)| case(compiler, index, text, routes))
        .collect()
}

fn case(
    compiler: &mut Compiler,
    index: usize,
    text: Spanned<CaseText>,
    routes: &[Route],
) -> Option<Case> {
    let line = place(&text).line();
    let CaseText {
        name,
        request,
        token,
        memberships,
        expect,
    } = text.value;
    let name = match name {
        Some(name) => name.value.into(),
        None => format!("#{}", index + 1).into(),
    };
    let request = self::request(compiler, request);
    let sender = sender(compiler, token);
    let memberships = memberships.map(|all| {
        let each = all.into_iter();
        each.filter_map(|text| membership(compiler, text)).collect()
    });
    let expected = expected(compiler, expect, routes);
    Some(Case {
        name,
        line,
        request: request?,
        sender: sender?,
        memberships,
        expected: expected?,
    })
}

fn request(compiler: &mut Compiler, text: RequestText) -> Option<CaseRequest> {
    let or = |text: Option<Spanned<String>>, default: &str| -> Box<str> {
        text.map_or_else(|| default.into(), |text| text.value.into())
    };
    let schemes = [("https", true), ("http", false)];
    let is_https = match &text.scheme {
        Some(scheme) => compiler.word("scheme", Some(scheme), &schemes)?,
        None => true,
    };
    let mut headers = Vec::with_capacity(text.headers.len());
    for (name, value) in text.headers {
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !name.bytes().all(is_name) {
            let message =
                format!("headers: \"{name}\" is no header; write its name in lower-case letters");
            compiler.refuse(&value, message);
        } else if matches!(&*name, "authorization" | "cookie") {
            let message = format!("headers: {name} is not read; say who sends it with token");
            compiler.refuse(&value, message);
        } else {
            headers.push((name.into(), value.value.into()));
        }
    }
    Some(CaseRequest {
        method: or(text.method, METHOD),
        host: or(text.host, UNNAMED_HOST),
        path: text.path.value.into(),
        is_https,
        headers,
    })
}

/// Why a token may be supposed to be denied, or not to be told.
fn denials() -> impl Iterator<Item = Reason> + Clone {
    let all = Reason::ALL.iter().copied();
    let is_first_of_the_others = |reason: &Reason| *reason == Reason::Allowed;
    let of_tokens = all.take_while(move |reason| !is_first_of_the_others(reason));
    of_tokens
        .filter(|reason| *reason != Reason::ReverificationRequired)
        .chain([
            Reason::KeysUnavailable,
            Reason::ClerkUnavailable,
            Reason::ClerkRateLimited,
            Reason::StoreUnavailable,
            Reason::Overloaded,
        ])
}

fn sender(compiler: &mut Compiler, text: Spanned<TokenText>) -> Option<Sender> {
    let says = match &text.value {
        TokenText::Says(says) => says,
        TokenText::Word(word) if word == "none" => {
            return Some(Sender::Denied(Reason::TokenMissing));
        }
        TokenText::Word(word) => {
            let found = denials().find(|reason| reason.name() == word);
            if found.is_none() {
                let known = ["none"].into_iter().chain(denials().map(Reason::name));
                let nearest = suggestion(word, known);
                compiler.refuse(&text, format!("token is \"{word}\"{nearest}"));
            }
            return found.map(Sender::Denied);
        }
    };
    let types = TokenType::ALL.map(|each| (each.name(), each));
    let token_type = match &says.r#type {
        Some(text) => compiler.word("type", Some(text), &types)?,
        None => TokenType::Session,
    };
    if let TokenType::Machine(machine_type) = token_type {
        return machine(compiler, says, machine_type).map(|says| Sender::Machine(Box::new(says)));
    }
    let of_machines = [&says.subject, &says.client_id];
    for text in of_machines.into_iter().flatten().chain(&says.scopes) {
        compiler.refuse(
            text,
            "says something of a machine; set type to m2m_token, oauth_token or api_key",
        );
    }
    let before = compiler.problems.len();
    let user_id = match says.user.clone() {
        Some(user) => compiler.parsed("user", Some(user)),
        None => USER.parse().ok(),
    };
    let organization = organization(compiler, says);
    let features = scoped(compiler, "features", &says.features);
    let plans = scoped(compiler, "plans", &says.plans);
    let mut age = |text: &Option<Spanned<f64>>| {
        let text = text.as_ref()?;
        let age = FactorAge::from_minutes(text.value);
        if age.is_none() {
            compiler.refuse(text, "factor_ages: expected minutes, such as 5");
        }
        age
    };
    let factor_ages = says.factor_ages.as_ref().map(|ages| FactorAges {
        first: age(&ages.first),
        second: age(&ages.second),
    });
    let actor = says.impersonated_by.as_ref().map(|by| Actor {
        subject: by.value.clone().into(),
        issuer: None,
        session_id: None,
        kind: None,
    });
    (compiler.problems.len() == before).then_some(Sender::SignedIn(Box::new(CaseSession {
        user_id: user_id?,
        organization,
        features,
        plans,
        factor_ages,
        actor,
    })))
}

fn machine(
    compiler: &mut Compiler,
    says: &SessionText,
    machine_type: MachineType,
) -> Option<CaseMachine> {
    let before = compiler.problems.len();
    let of_sessions = [
        &says.user,
        &says.organization,
        &says.organization_slug,
        &says.role,
        &says.impersonated_by,
    ];
    let lists = [&says.permissions, &says.features, &says.plans];
    let lists = lists.into_iter().flatten();
    for text in of_sessions.into_iter().flatten().chain(lists) {
        compiler.refuse(
            text,
            "says something of a session, beside the type of a machine's token",
        );
    }
    let ages = says.factor_ages.as_ref();
    for age in ages
        .into_iter()
        .flat_map(|ages| [&ages.first, &ages.second])
        .flatten()
    {
        compiler.refuse(
            age,
            "says something of a session, beside the type of a machine's token",
        );
    }
    let subject = match &says.subject {
        Some(text) => {
            let subject = MachineSubject::of(machine_type, &text.value);
            if subject.is_none() {
                let (name, value) = (machine_type.name(), &text.value);
                let message = format!("subject: \"{value}\" is none that {name} may have");
                compiler.refuse(text, message);
            }
            subject
        }
        None => {
            let subject = match machine_type {
                MachineType::M2m => MACHINE,
                MachineType::Oauth | MachineType::ApiKey => USER,
            };
            MachineSubject::of(machine_type, subject)
        }
    };
    (compiler.problems.len() == before).then_some(CaseMachine {
        machine_type,
        subject: subject?,
        client_id: says
            .client_id
            .as_ref()
            .map(|text| text.value.clone().into()),
        scopes: says.scopes.iter().map(|text| &*text.value).collect(),
    })
}

fn organization(compiler: &mut Compiler, says: &SessionText) -> Option<Organization> {
    let Some(id) = says.organization.clone() else {
        let of_it = [&says.organization_slug, &says.role];
        let of_it = of_it.into_iter().flatten().chain(&says.permissions);
        for text in of_it {
            compiler.refuse(text, "says something of an organization; set organization");
        }
        return None;
    };
    let slug: Option<OrganizationSlug> =
        compiler.parsed("organization_slug", says.organization_slug.clone());
    let role: Option<Role> = compiler.parsed("role", says.role.clone());
    let permissions = permissions(compiler, &says.permissions);
    let id: OrganizationId = compiler.parsed("organization", Some(id))?;
    Some(Organization {
        id,
        slug: slug.map(|slug| slug.as_str().into()),
        role: role.map(|role| role.to_string().into()),
        permissions,
    })
}

fn membership(compiler: &mut Compiler, text: MembershipText) -> Option<CaseMembership> {
    let id = compiler.parsed("organization", Some(text.organization));
    let slug = compiler.parsed("organization_slug", text.organization_slug);
    let role: Option<Role> = compiler.parsed("role", Some(text.role));
    let permissions = permissions(compiler, &text.permissions);
    Some(CaseMembership {
        organization: OrganizationRecord { id: id?, slug },
        role: role?.to_string().into(),
        permissions,
    })
}

fn permissions(compiler: &mut Compiler, texts: &[Spanned<String>]) -> Texts {
    let each = texts.iter().filter_map(|text| {
        let permission: Permission = compiler.parsed("permissions", Some(text.clone()))?;
        Some(permission.to_string())
    });
    each.collect()
}

fn scoped(compiler: &mut Compiler, key: &str, texts: &[Spanned<String>]) -> ScopedSlugs {
    let mut slugs = Vec::with_capacity(texts.len());
    for text in texts {
        let scopes = [("org:", Scope::Organization), ("user:", Scope::User)];
        let found = scopes.iter().find_map(|(prefix, scope)| {
            let slug = text.value.strip_prefix(prefix)?;
            (!slug.is_empty()).then_some(ScopedSlug {
                scope: *scope,
                slug,
            })
        });
        match found {
            Some(slug) => slugs.push(slug),
            None => {
                let value = &text.value;
                let message = format!(
                    "{key}: \"{value}\" does not say whose; expected org:SLUG or user:SLUG"
                );
                compiler.refuse(text, message);
            }
        }
    }
    slugs.into_iter().collect()
}

fn expected(compiler: &mut Compiler, text: ExpectText, routes: &[Route]) -> Option<Expected> {
    let effects = Effect::ALL.map(|effect| (effect.name(), effect));
    let effect = compiler.word("decision", Some(&text.decision), &effects);
    let reasons: Vec<_> = Reason::ALL
        .iter()
        .map(|each| (each.name(), *each))
        .collect();
    let reason = compiler.word("reason", text.reason.as_ref(), &reasons);
    if let Some(route) = &text.route {
        let known = routes.iter().map(|route| &*route.name);
        if !known.clone().any(|name| name == route.value) {
            let nearest = suggestion(&route.value, known);
            let message = format!("route: no route is \"{}\"{nearest}", route.value);
            compiler.refuse(route, message);
        }
    }
    Some(Expected {
        effect: effect?,
        reason,
        route: text.route.map(|route| route.value.into()),
    })
}
