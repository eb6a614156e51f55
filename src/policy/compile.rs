//! From the file as it is written to routes, with everything that is wrong at once.

use std::{collections::HashMap, fmt::Display, str::FromStr, time::Duration};

use serde_saphyr::Spanned;
use url::Url;

use super::{
    Access, Ambiguities, Ambiguity, Browser, Case, HostPattern, OnCannotTell, OrganizationFrom,
    PathPattern, PolicyProblem, Route, RouteFreshness, SignIn, Upstream, cases,
    file::{
        AccessText, ConsistencyText, PolicyText, RequirementText, RouteText, SignInText, place,
        suggestion,
    },
    route::is_upstream_name,
};
use crate::{
    decision::{Impersonation, Requirement},
    identity::{TokenType, TokenTypes},
};

/// The version of the form of the file.
const VERSION: u32 = 1;
/// The longest method in bytes.
const MAX_METHOD_BYTES: usize = 32;
/// Of the address to come back to, where the file does not say.
const RETURN_PARAMETER: &str = "redirect_url";

/// What a file says, checked part by part.
pub(super) struct Compiled {
    pub routes: Vec<Route>,
    pub sign_in: Option<SignIn>,
    pub cases: Vec<Case>,
}

pub(super) fn compile(text: PolicyText) -> Result<Compiled, Vec<PolicyProblem>> {
    let mut compiler = Compiler::default();
    if text.version.value != VERSION {
        compiler.refuse(
            &text.version,
            format!("version is {}; expected {VERSION}", text.version.value),
        );
    }
    let sign_in = text.sign_in.and_then(|text| compiler.sign_in(text));
    let routes: Vec<Route> = text
        .routes
        .into_iter()
        .enumerate()
        .filter_map(|(index, text)| compiler.route(index, text, sign_in.is_some()))
        .collect();
    let mut all_cases = Vec::new();
    if compiler.problems.is_empty() {
        compiler.overlaps(&routes);
        // Where routes are wrong, cases name such as are not there.
        all_cases = cases::compile(&mut compiler, text.tests, &routes);
    }
    if compiler.problems.is_empty() {
        Ok(Compiled {
            routes,
            sign_in,
            cases: all_cases,
        })
    } else {
        Err(compiler.problems)
    }
}

/// Collects what is wrong.
#[derive(Default)]
pub(super) struct Compiler {
    pub(super) problems: Vec<PolicyProblem>,
    /// The names so far, with their lines.
    names: HashMap<Box<str>, u64>,
}

impl Compiler {
    pub(super) fn refuse<T>(&mut self, at: &Spanned<T>, message: impl Into<String>) {
        let problem = PolicyProblem::new(Some(place(at)), message);
        self.problems.push(problem);
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &str,
        text: Option<&Spanned<String>>,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = text?;
        let found = words.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            let known = words.iter().map(|(word, _)| *word);
            let nearest = suggestion(&text.value, known);
            self.refuse(text, format!("{key} is \"{}\"{nearest}", text.value));
        }
        found.map(|(_, value)| *value)
    }

    /// What reads itself from a text.
    pub(super) fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        key: &str,
        text: Option<Spanned<String>>,
    ) -> Option<T> {
        let text = text?;
        match text.value.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(&text, format!("{key} {error}"));
                None
            }
        }
    }

    fn sign_in(&mut self, text: SignInText) -> Option<SignIn> {
        let url = self.origin_or_page("sign_in.url", &text.url)?;
        if text.return_to.is_empty() {
            self.refuse(
                &text.url,
                "sign_in.return_to is empty; list the origins that people may come back to",
            );
        }
        let mut return_to = Vec::new();
        for origin in &text.return_to {
            let Some(url) = self.origin_or_page("sign_in.return_to", origin) else {
                continue;
            };
            if origin.value != url.origin().ascii_serialization() {
                self.refuse(
                    origin,
                    format!(
                        "\"{}\" is no origin; expected scheme and host alone, such as {}",
                        origin.value,
                        url.origin().ascii_serialization()
                    ),
                );
                continue;
            }
            return_to.push(origin.value.clone().into());
        }
        let parameter = text.return_parameter;
        let parameter = parameter.map_or_else(|| RETURN_PARAMETER.to_owned(), |text| text.value);
        Some(SignIn {
            url,
            return_parameter: parameter.into(),
            return_to,
        })
    }

    fn origin_or_page(&mut self, key: &str, text: &Spanned<String>) -> Option<Url> {
        let is_loopback = |url: &Url| {
            url.host_str()
                .is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"))
        };
        match Url::parse(&text.value) {
            Ok(url) if url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url) => {
                Some(url)
            }
            Ok(_) | Err(_) => {
                let value = &text.value;
                self.refuse(
                    text,
                    format!(
                        "{key} is \"{value}\"; expected an https:// address, or http:// on loopback"
                    ),
                );
                None
            }
        }
    }

    fn route(
        &mut self,
        index: usize,
        text: Spanned<RouteText>,
        has_sign_in: bool,
    ) -> Option<Route> {
        let before = self.problems.len();
        let line = place(&text).line();
        let RouteText {
            name,
            hosts,
            methods,
            path,
            access,
            organization,
            accept,
            scopes,
            consistency,
            credentials,
            on_cannot_tell,
            browser,
            upstream,
            permit,
        } = text.value;
        let at = access;
        let name = self.name(index, line, name);
        let hosts = self.each("hosts", &hosts, |host| {
            HostPattern::parse(host).map_err(ToOwned::to_owned)
        });
        let methods = self.each("methods", &methods, method);
        let pattern = match PathPattern::parse(&path.value) {
            Ok(pattern) => Some(pattern),
            Err(cause) => {
                self.refuse(&path, format!("path {cause}"));
                None
            }
        };
        let accepts = self.accepts(accept.as_ref());
        let ignores = self.word(
            "credentials",
            credentials.as_ref(),
            &[("verified", false), ("ignored", true)],
        );
        let is_public = matches!(&at.value, AccessText::Word(word) if word == "public");
        if let (Some(text), Some(true), false) = (&credentials, ignores, is_public) {
            self.refuse(text, "credentials can be ignored on public routes only");
        }
        let access = self.access(&at, ignores == Some(true));
        let scopes = self.scopes(&scopes, accepts, access.as_ref());
        if let (Some(accept), true, Some(Access::Required(_))) =
            (&accept, accepts.has_machines(), &access)
        {
            self.refuse(
                accept,
                "accept: a machine has no permission, role, feature, plan or factor; write access: \
                 signed_in, and what its token must have as scopes",
            );
        }
        let freshness = self.freshness(consistency);
        let on_cannot_tell_at = on_cannot_tell.as_ref();
        let on_cannot_tell = self
            .word(
                "on_cannot_tell",
                on_cannot_tell_at,
                &[("deny", OnCannotTell::Deny), ("allow", OnCannotTell::Allow)],
            )
            .unwrap_or_default();
        if let (Some(text), OnCannotTell::Allow, false) =
            (on_cannot_tell_at, on_cannot_tell, is_public)
        {
            self.refuse(text, "on_cannot_tell: allow is for public routes only");
        }
        let browser_at = browser.as_ref();
        let browser = self
            .word(
                "browser",
                browser_at,
                &[
                    ("unauthorized", Browser::Unauthorized),
                    ("sign_in", Browser::SignIn),
                ],
            )
            .unwrap_or_default();
        if let (Some(text), Browser::SignIn, false) = (browser_at, browser, has_sign_in) {
            self.refuse(
                text,
                "browser: sign_in needs sign_in at the top of the file",
            );
        }
        let organization = organization
            .and_then(|text| self.organization(text, pattern.as_ref(), access.as_ref()));
        if let (Some(Access::Required(requirement)), true) =
            (&access, freshness != RouteFreshness::MinimizeLatency)
            && let Some(entitlement) = requirement.entitlement()
        {
            self.refuse(
                &at,
                format!(
                    "consistency cannot be met beside {entitlement}, which is as old as the token; \
                     leave one out"
                ),
            );
        }
        let upstream_at = upstream.as_ref();
        let upstream = upstream_at.map(|text| self.upstream(text));
        let upstream = upstream.unwrap_or_default();
        if let (
            Some(text),
            Upstream::Named(_),
            Some(
                Access::Denied
                | Access::Public {
                    ignores_credentials: true,
                },
            ),
        ) = (upstream_at, &upstream, &access)
        {
            self.refuse(
                text,
                "upstream: on this route nobody is ever named to an upstream, and an assertion is \
                 about somebody; leave it out",
            );
        }
        let permittable = Ambiguity::ALL.iter().filter(|each| each.can_be_permitted());
        let names: Vec<_> = permittable.map(|each| (each.name(), *each)).collect();
        let permits: Ambiguities = permit
            .iter()
            .filter_map(|text| self.word("permit", Some(text), &names))
            .collect();
        if self.problems.len() > before {
            return None;
        }
        Some(Route {
            name,
            line,
            hosts,
            methods,
            path: pattern?,
            access: access?,
            accepts,
            scopes,
            organization,
            freshness,
            on_cannot_tell,
            browser,
            upstream,
            permits,
        })
    }

    fn upstream(&mut self, text: &Spanned<String>) -> Upstream {
        match &*text.value {
            "none" => Upstream::None,
            name if is_upstream_name(name) => Upstream::Named(name.into()),
            name => {
                self.refuse(
                    text,
                    format!(
                        "upstream is \"{name}\"; expected 1 to 255 letters, digits, and any of \
                         \"-._~:/\", or none"
                    ),
                );
                Upstream::None
            }
        }
    }

    fn accepts(&mut self, text: Option<&Spanned<Vec<Spanned<String>>>>) -> TokenTypes {
        let Some(text) = text else {
            return TokenTypes::default();
        };
        if text.value.is_empty() {
            self.refuse(
                text,
                "accept is empty; list the types of token, or leave it out",
            );
        }
        let words = TokenType::ALL.map(|each| (each.name(), each));
        let each = text.value.iter();
        each.filter_map(|kind| self.word("accept", Some(kind), &words))
            .collect()
    }

    /// Sessions have none: where they are accepted too, it would not be said what is asked of them.
    fn scopes(
        &mut self,
        texts: &[Spanned<String>],
        accepts: TokenTypes,
        access: Option<&Access>,
    ) -> Vec<Box<str>> {
        if let Some(first) = texts.first() {
            if !accepts.has_machines() || accepts.has(TokenType::Session) {
                self.refuse(
                    first,
                    "scopes are for routes that accept tokens of machines only; set accept to some \
                     of m2m_token, oauth_token and api_key",
                );
            } else if !matches!(access, Some(Access::SignedIn { .. }) | None) {
                self.refuse(first, "scopes are for routes with access: signed_in");
            }
        }
        self.each("scopes", texts, |scope| {
            let is_scope = !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic());
            match is_scope {
                true => Ok(scope.into()),
                false => Err("is no scope; expected visible ASCII characters".to_owned()),
            }
        })
    }

    fn name(&mut self, index: usize, line: u64, name: Option<Spanned<String>>) -> Box<str> {
        let Some(name) = name else {
            // No name that is written can be the same.
            return format!("#{}", index + 1).into();
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !(1..=64).contains(&name.value.len()) || !name.value.bytes().all(is_name) {
            self.refuse(
                &name,
                "name is no name; expected 1 to 64 letters, digits, \"-\", \"_\" and \".\"",
            );
        }
        let text: Box<str> = name.value.clone().into();
        if let Some(first) = self.names.insert(text.clone(), line) {
            self.refuse(
                &name,
                format!("name \"{text}\" stands in line {first} already"),
            );
        }
        text
    }

    fn each<T>(
        &mut self,
        key: &str,
        texts: &[Spanned<String>],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut values = Vec::with_capacity(texts.len());
        for text in texts {
            match parse(&text.value) {
                Ok(value) => values.push(value),
                Err(cause) => self.refuse(text, format!("{key}: \"{}\" {cause}", text.value)),
            }
        }
        values
    }

    fn access(&mut self, text: &Spanned<AccessText>, ignores_credentials: bool) -> Option<Access> {
        let required = match &text.value {
            AccessText::Required(required) => required,
            AccessText::Word(word) => {
                let words = ["public", "signed_in", "denied"];
                let access = match word.as_str() {
                    "public" => Access::Public {
                        ignores_credentials,
                    },
                    "signed_in" => Access::SignedIn {
                        denies_impersonation: false,
                    },
                    "denied" => Access::Denied,
                    _ => {
                        let nearest = suggestion(word, words.into_iter());
                        self.refuse(text, format!("access is \"{word}\"{nearest}"));
                        return None;
                    }
                };
                return Some(access);
            }
        };
        let RequirementText {
            signed_in,
            permission,
            role,
            feature,
            plan,
            reverification,
            impersonation,
        } = &**required;
        let impersonation = self
            .word(
                "impersonation",
                impersonation.as_ref(),
                &[
                    ("allow", Impersonation::Allowed),
                    ("deny", Impersonation::Denied),
                ],
            )
            .unwrap_or_default();
        let requirement = Requirement {
            permission: self.parsed("permission", permission.clone()),
            role: self.parsed("role", role.clone()),
            feature: self.parsed("feature", feature.clone()),
            plan: self.parsed("plan", plan.clone()),
            reverification: self.parsed("reverification", reverification.clone()),
            impersonation,
        };
        match signed_in {
            Some(flag) if !flag.value => {
                self.refuse(
                    flag,
                    "signed_in is false; leave it out, or write access: public",
                );
                None
            }
            Some(_) if requirement.asks_nothing() => Some(Access::SignedIn {
                denies_impersonation: impersonation == Impersonation::Denied,
            }),
            _ if requirement.asks_nothing() => {
                self.refuse(
                    text,
                    "access requires nothing; set permission, role, feature, plan, reverification \
                     or signed_in: true",
                );
                None
            }
            _ => Some(Access::Required(requirement)),
        }
    }

    fn freshness(&mut self, text: Option<Spanned<ConsistencyText>>) -> RouteFreshness {
        let Some(text) = text else {
            return RouteFreshness::default();
        };
        let age = match &text.value {
            ConsistencyText::MaxStaleness(age) => age,
            ConsistencyText::Word(word) => {
                let words = ["minimize_latency", "fully_consistent"];
                return match word.as_str() {
                    "minimize_latency" => RouteFreshness::MinimizeLatency,
                    "fully_consistent" => RouteFreshness::FullyConsistent,
                    _ => {
                        let nearest = suggestion(word, words.into_iter());
                        self.refuse(&text, format!("consistency is \"{word}\"{nearest}"));
                        RouteFreshness::default()
                    }
                };
            }
        };
        let parsed: Result<Duration, _> = humantime::parse_duration(&age.value);
        match parsed {
            Ok(age) => RouteFreshness::MaxStaleness(age),
            Err(_) => {
                let message = format!(
                    "max_staleness is \"{}\"; expected a duration such as 10s or 5m",
                    age.value
                );
                self.refuse(age, message);
                RouteFreshness::default()
            }
        }
    }

    fn organization(
        &mut self,
        text: Spanned<String>,
        path: Option<&PathPattern>,
        access: Option<&Access>,
    ) -> Option<OrganizationFrom> {
        if !matches!(access, Some(Access::Required(_)) | None) {
            self.refuse(&text, "organization is for routes that require something");
            return None;
        }
        if let Some(name) = text.value.strip_prefix("header:") {
            let is_name =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if name.is_empty() || !name.bytes().all(is_name) {
                self.refuse(
                    &text,
                    format!(
                        "organization: \"{name}\" is no header; expected lower-case letters, digits \
                         and \"-\""
                    ),
                );
                return None;
            }
            return Some(OrganizationFrom::Header(name.into()));
        }
        let name = text
            .value
            .strip_prefix('{')
            .and_then(|open| open.strip_suffix('}'));
        let Some(name) = name else {
            let message = format!(
                "organization is \"{}\"; expected a variable of the path, \"{{name}}\", or \
                 \"header:NAME\"",
                text.value
            );
            self.refuse(&text, message);
            return None;
        };
        // Where the path is wrong, its own fault is said.
        let known = path?.variables();
        if known.iter().any(|known| **known == *name) {
            return Some(OrganizationFrom::Variable(name.into()));
        }
        let nearest = match known {
            [] => "; the path has no variable".to_owned(),
            known => suggestion(name, known.iter().map(|name| &**name)),
        };
        self.refuse(
            &text,
            format!("organization: no variable {{{name}}}{nearest}"),
        );
        None
    }

    /// Two routes of one request must be told apart: one is part of the other.
    fn overlaps(&mut self, routes: &[Route]) {
        for (a, b) in super::precedence::undecided(routes) {
            let (first, second) = (&routes[a], &routes[b]);
            let message = format!(
                "route {second} overlaps route {first}, and neither is part of the other; a request \
                 can be both: narrow one by host, method or path"
            );
            self.problems.push(PolicyProblem {
                line: Some(second.line),
                column: Some(1),
                message,
            });
        }
    }
}

fn method(text: &str) -> Result<Box<str>, String> {
    let is_method = |byte: u8| byte.is_ascii_uppercase() || byte == b'-' || byte == b'_';
    if text.is_empty() || text.len() > MAX_METHOD_BYTES || !text.bytes().all(is_method) {
        return Err("is no method; expected upper-case letters, such as GET".to_owned());
    }
    Ok(text.into())
}
