//! `clerk-authz policy explain`

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::{
    super::{
        DENIED, FAILED, SUCCESS,
        args::{TokenArgs, token},
        report,
    },
    counted, read,
};
use crate::{
    authz::{Authorization, CookiesOnTheWayBack, Gatekeeper, Headers, ProxiedRequest},
    decision::{Impersonation, Requirement},
    explain::{Rule, Step, Steps},
    identity::TokenTypes,
    policy::{
        Access, Ambiguities, Browser, Effect, Host, Mismatch, OnCannotTell, OrganizationFrom, Path,
        Policy, Route, RouteFreshness, UNNAMED_HOST, Upstream,
    },
};

/// How long Clerk is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most other routes that are told of: those that differ least.
const MAX_OTHERS: usize = 20;

/// Says which route a request is of, why it is of none of the others, and what the route asks. With
/// --token, decides as the service would.
#[derive(Args)]
#[command(
    after_help = "Example: clerk-authz policy explain policy.yaml GET https://api.example.com/orgs/acme/invoices\n\
                  Exit codes: without --token 0 a route, 1 none or ambiguous; with it 0 allowed, 1 denied, 2 could not tell"
)]
pub(super) struct Explain {
    /// The policy
    file: PathBuf,
    /// The method, in upper case
    method: String,
    /// What is asked for, exactly as it would arrive: https://HOST/PATH, or /PATH of any host
    url: String,
    /// Who asks: the token, or - to read it from standard input
    #[arg(long, value_name = "TOKEN|-", allow_hyphen_values = true)]
    token: Option<String>,
    /// A header of the request; may be repeated
    #[arg(long, value_name = "NAME:VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    #[command(flatten)]
    args: TokenArgs,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| "expected NAME:VALUE".to_owned())?;
    let name = name.trim().to_ascii_lowercase();
    if matches!(&*name, "authorization" | "cookie") {
        return Err("give the token with --token".to_owned());
    }
    Ok((name, value.trim().to_owned()))
}

/// What is asked for, in parts, as it stands there.
struct Asked<'a> {
    is_https: bool,
    authority: &'a str,
    target: String,
}

impl<'a> Asked<'a> {
    /// Parsed by hand: a URL parser would mend what is ambiguous.
    fn parse(url: &'a str) -> anyhow::Result<Self> {
        let (is_https, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) if url.starts_with('/') => {
                return Ok(Self {
                    is_https: true,
                    authority: UNNAMED_HOST,
                    target: url.to_owned(),
                });
            }
            (None, None) => bail!("URL is {url:?}; expected https://HOST/PATH or /PATH"),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let target = match target {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            path => path.to_owned(),
        };
        Ok(Self {
            is_https,
            authority,
            target,
        })
    }
}

struct GivenHeaders(Vec<(String, String)>);

impl Headers for GivenHeaders {
    fn values<'h>(&'h self, name: &str) -> Vec<&'h str> {
        let named = self.0.iter().filter(|(known, _)| known == name);
        named.map(|(_, value)| &**value).collect()
    }
}

impl Explain {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let asked = Asked::parse(&self.url)?;
        let Some((policy, _)) = read(&self.file)? else {
            return Ok(FAILED);
        };
        let found = Found::of(&policy, &self.method, &asked);
        if !self.args.json {
            found.print();
        }
        let Some(argument) = self.token.as_deref() else {
            if self.args.json {
                anstream::println!("{}", found.as_json());
            }
            return Ok(if found.route.is_some() && found.refused.is_none() {
                SUCCESS
            } else {
                DENIED
            });
        };
        self.args
            .accepts_sessions_only("the route says what it accepts; leave it out")?;
        let found = found.as_json();
        let token = token(argument)?;
        let (asker, clock) = self.args.asker().await?;
        let gatekeeper = Gatekeeper::new(Arc::clone(&asker.checker), policy);
        let mut steps = Steps::on(Rule::OF_CHECK);
        let authorization = [format!("Bearer {token}")];
        let request = ProxiedRequest {
            method: &self.method,
            authority: asked.authority.as_bytes(),
            target: asked.target.as_bytes(),
            is_https: asked.is_https,
            authorization: &authorization,
            cookie: &[],
            headers: &GivenHeaders(self.header),
            narrowing: None,
            patience: PATIENCE,
            cookies_on_the_way_back: CookiesOnTheWayBack::ByRedirect,
        };
        let answer = gatekeeper.authorize(&request, clock(), &mut steps).await;
        let steps = steps.finish();
        asker.stop().await;
        let code = match answer.outcome.effect() {
            Effect::Allowed => SUCCESS,
            Effect::Unavailable => FAILED,
            Effect::Unauthenticated | Effect::SignIn | Effect::Forbidden | Effect::StepUp => DENIED,
        };
        if self.args.json {
            anstream::println!("{}", with_decision(found, &answer, &steps));
        } else {
            anstream::println!();
            report::print(code, "allowed", Some(answer.reason), &steps);
        }
        Ok(code)
    }
}

fn with_decision(mut found: Value, answer: &Authorization, steps: &[Step]) -> Value {
    found["decision"] = json!(answer.outcome.effect().name());
    found["reason"] = json!(answer.reason.name());
    found["steps"] = report::steps_json(steps);
    found
}

/// Which route a request is of, and what stands against it.
struct Found<'p> {
    route: Option<&'p Route>,
    /// What is ambiguous, and that no route may permit or this one does not.
    refused: Option<String>,
    others: Vec<(&'p Route, Mismatch<'p>)>,
    /// Routes that are not told of.
    left_out: usize,
    path: Option<String>,
}

impl<'p> Found<'p> {
    fn of(policy: &'p Policy, method: &str, asked: &Asked<'_>) -> Self {
        let nothing = |refused: String| Self {
            route: None,
            refused: Some(refused),
            others: Vec::new(),
            left_out: policy.routes().len(),
            path: None,
        };
        let host = match Host::parse(asked.authority.as_bytes()) {
            Ok(host) => host,
            Err(ambiguous) => {
                return nothing(format!(
                    "the host is ambiguous: {} ({ambiguous})",
                    ambiguous.name()
                ));
            }
        };
        let path = match Path::parse(asked.target.as_bytes()) {
            Ok(path) => path,
            Err(ambiguous) => {
                let named = named(ambiguous.ambiguities());
                return nothing(format!(
                    "the path is ambiguous: {named}; no route may permit it"
                ));
            }
        };
        let segments: Vec<&str> = path.segments().collect();
        let route = policy.route(Some(host.as_str()), method, &segments);
        let permits = route.map_or(Ambiguities::NONE, |route| route.permits);
        let unpermitted = path.ambiguities().without(permits);
        let refused = (!unpermitted.is_empty()).then(|| {
            format!(
                "the path is ambiguous: {}; the route does not permit it",
                named(unpermitted)
            )
        });
        let mut others: Vec<_> = policy
            .mismatches(host.as_str(), method, &segments)
            .collect();
        others.sort_by_key(|(_, mismatch)| mismatch.ways());
        let left_out = others.len().saturating_sub(MAX_OTHERS);
        others.truncate(MAX_OTHERS);
        Self {
            route,
            refused,
            others,
            left_out,
            path: Some(path.text().into_owned()),
        }
    }

    fn print(&self) {
        if let Some(path) = &self.path {
            anstream::println!("path   {path}");
        }
        match self.route {
            Some(route) => {
                anstream::println!("route  {route}: {}", matcher(route));
                for line in asks(route) {
                    anstream::println!("       {line}");
                }
            }
            None if self.refused.is_none() => {
                anstream::println!("route  none: the request is denied with ROUTE_UNMATCHED");
            }
            None => {}
        }
        if let Some(refused) = &self.refused {
            anstream::println!("denied with PATH_AMBIGUOUS: {refused}");
        }
        for (route, mismatch) in &self.others {
            anstream::println!("not    {route}: {}", why(route, mismatch));
        }
        if self.left_out > 0 {
            let left_out = counted(self.left_out, "other route");
            anstream::println!("not    {left_out}");
        }
    }

    fn as_json(&self) -> Value {
        let others = self.others.iter().map(|(route, mismatch)| {
            json!({
                "route": route.name,
                "line": route.line,
                "host": !mismatch.host,
                "method": !mismatch.method,
                "path": !mismatch.path,
                "less_specific_than": mismatch.less_specific_than,
            })
        });
        json!({
            "path": self.path,
            "route": self.route.map(|route| &route.name),
            "line": self.route.map(|route| route.line),
            "asks": self.route.map(asks),
            "ambiguous": self.refused,
            "others": others.collect::<Vec<_>>(),
            "others_left_out": self.left_out,
        })
    }
}

fn named(ambiguities: Ambiguities) -> String {
    let each = ambiguities
        .iter()
        .map(|each| format!("{} ({})", each.name(), each.found()));
    each.collect::<Vec<_>>().join(", ")
}

/// What a route is about.
fn matcher(route: &Route) -> String {
    let list = |texts: Vec<String>| texts.join(", ");
    let methods = list(route.methods.iter().map(ToString::to_string).collect());
    let hosts = list(route.hosts.iter().map(ToString::to_string).collect());
    let or = |text: String, any: &str| {
        if text.is_empty() {
            any.to_owned()
        } else {
            text
        }
    };
    format!(
        "{} {} {}",
        or(methods, "any method"),
        or(hosts, "any host"),
        route.path
    )
}

fn why(route: &Route, mismatch: &Mismatch<'_>) -> String {
    if let Some(other) = mismatch.less_specific_than {
        return format!("it would be, but \"{other}\" is more specific");
    }
    let parts = [
        (mismatch.host, "another host"),
        (mismatch.method, "another method"),
        (mismatch.path, "another path"),
    ];
    let parts = parts.into_iter().filter(|(differs, _)| *differs);
    let parts: Vec<_> = parts.map(|(_, part)| part).collect();
    format!("{} ({})", parts.join(", "), matcher(route))
}

/// What a route asks, a line each.
fn asks(route: &Route) -> Vec<String> {
    let mut lines = vec![match &route.access {
        Access::Public {
            ignores_credentials: true,
        } => "public; credentials are not looked at".to_owned(),
        Access::Public {
            ignores_credentials: false,
        } => "public; a credential that is there must be good".to_owned(),
        Access::SignedIn {
            denies_impersonation: false,
        } => "signed in".to_owned(),
        Access::SignedIn {
            denies_impersonation: true,
        } => "signed in, and nobody acts in the user's place".to_owned(),
        Access::Denied => "denied to everybody".to_owned(),
        Access::Required(requirement) => required(requirement),
    }];
    if route.accepts != TokenTypes::default() {
        lines.push(format!("by {}", route.accepts));
    }
    if !route.scopes.is_empty() {
        lines.push(format!("with scopes {}", route.scopes.join(", ")));
    }
    match &route.organization {
        None => {}
        Some(OrganizationFrom::Variable(name)) => {
            lines.push(format!(
                "in the organization that {{{name}}} of the path names"
            ));
        }
        Some(OrganizationFrom::Header(name)) => {
            lines.push(format!("in the organization that the header {name} names"));
        }
    }
    match route.freshness {
        RouteFreshness::MinimizeLatency => {}
        RouteFreshness::MaxStaleness(age) => {
            lines.push(format!("by facts that are at most {age:?} old"));
        }
        RouteFreshness::FullyConsistent => lines.push("by what Clerk says now".to_owned()),
    }
    if route.browser == Browser::SignIn {
        lines.push("a browser is sent to sign in".to_owned());
    }
    if route.on_cannot_tell == OnCannotTell::Allow {
        lines.push("allowed when it cannot be told".to_owned());
    }
    match &route.upstream {
        Upstream::Default => {}
        Upstream::Named(name) => lines.push(format!("vouched for to the upstream {name}")),
        Upstream::None => lines.push("vouched for to no upstream".to_owned()),
    }
    if !route.permits.is_empty() {
        lines.push(format!("puts up with {}", named(route.permits)));
    }
    lines
}

fn required(requirement: &Requirement) -> String {
    let Requirement {
        permission,
        role,
        feature,
        plan,
        reverification,
        impersonation,
    } = requirement;
    let mut parts = vec!["signed in".to_owned()];
    parts.extend(
        permission
            .as_ref()
            .map(|asked| format!("permission {asked}")),
    );
    parts.extend(role.as_ref().map(|asked| format!("role {asked}")));
    parts.extend(feature.as_ref().map(|asked| format!("feature {asked}")));
    parts.extend(plan.as_ref().map(|asked| format!("plan {asked}")));
    parts.extend(
        reverification
            .as_ref()
            .map(|asked| format!("reverification {asked}")),
    );
    if *impersonation == Impersonation::Denied {
        parts.push("nobody acts in the user's place".to_owned());
    }
    parts.join(", ")
}
