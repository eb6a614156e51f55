//! The route policy: which requests there are, and what is asked of each.
//!
//! Called by `authz`, which finds out whether it holds, and by `cli`. Pure: no I/O, no async, no
//! clock. A policy is read whole or not at all; everything that no route is about is denied.

mod cases;
mod compile;
mod explain;
mod file;
mod narrowing;
mod pattern;
mod precedence;
mod problem;
mod route;
mod router;
mod target;

pub use self::cases::{
    Case, CaseMachine, CaseMembership, CaseRequest, CaseSession, Effect, Expected, Sender,
    UNNAMED_HOST,
};
pub use self::explain::Mismatch;
pub use self::narrowing::InvalidNarrowing;
pub use self::pattern::{HostPattern, PathPattern, Segment};
pub use self::problem::{PolicyProblem, PolicyProblems};
pub use self::route::{
    Access, Browser, OnCannotTell, OrganizationFrom, Route, RouteFreshness, Upstream,
};
use self::router::Router;
pub use self::target::{
    Ambiguities, Ambiguity, AmbiguousHost, AmbiguousPath, Host, MAX_HOST_BYTES, MAX_PATH_BYTES,
    Path, Reading, Segments,
};

use url::Url;

/// A policy that is in force, or could be.
#[derive(Debug)]
pub struct Policy {
    /// One that is part of another before it.
    routes: Vec<Route>,
    router: Router,
    sign_in: Option<SignIn>,
    version: Box<str>,
}

/// Where people sign in, and to where they come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// The page.
    pub url: Url,
    /// Its parameter for the address to come back to.
    pub return_parameter: Box<str>,
    /// Origins to which people may come back.
    pub return_to: Vec<Box<str>>,
}

impl Policy {
    /// From the text of a file; or everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PolicyProblems> {
        Self::parse_with_cases(text).map(|(policy, _)| policy)
    }

    /// The same, with the cases that are written beside the routes.
    pub fn parse_with_cases(text: &str) -> Result<(Self, Vec<Case>), PolicyProblems> {
        let text_of_file =
            file::read(text).map_err(|problem| PolicyProblems::new(vec![problem]))?;
        let compiled = compile::compile(text_of_file).map_err(PolicyProblems::new)?;
        let routes = precedence::ordered(compiled.routes);
        let policy = Self {
            router: Router::new(&routes),
            routes,
            sign_in: compiled.sign_in,
            version: Self::version_of(text),
        };
        Ok((policy, compiled.cases))
    }

    /// Tells one text from another: the first 12 hexadecimal digits of its SHA-256.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What [`Policy::version`] of this text is.
    pub fn version_of(text: &str) -> Box<str> {
        use std::fmt::Write;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        let mut version = String::with_capacity(12);
        for byte in &digest.as_ref()[..6] {
            // Writing to a string does not fail.
            let _ = write!(version, "{byte:02x}");
        }
        version.into()
    }

    /// The routes, one that is part of another before it.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// A route that names the upstream for which an assertion is to be made, if one does.
    pub fn asks_for_assertions(&self) -> Option<&Route> {
        let mut routes = self.routes.iter();
        routes.find(|route| matches!(route.upstream, Upstream::Named(_)))
    }

    /// Where people sign in.
    pub fn sign_in(&self) -> Option<&SignIn> {
        self.sign_in.as_ref()
    }

    /// The route that a request is; `None` where no route is about it. `path` are its segments, in the
    /// form in which they are matched; a request without a host is of no route that names one.
    pub fn route<S: AsRef<str>>(
        &self,
        host: Option<&str>,
        method: &str,
        path: &[S],
    ) -> Option<&Route> {
        let index = self.router.find(host, method, path)?;
        self.routes.get(index)
    }
}

#[cfg(test)]
mod tests;
