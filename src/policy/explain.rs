//! Why a request is of one route and of none of the others.

use super::{Policy, Route};

/// Why a request is not of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch<'p> {
    /// The route is not about its host.
    pub host: bool,
    /// Nor about its method.
    pub method: bool,
    /// Nor about its path.
    pub path: bool,
    /// It is about all of them, but this one is, too, and is part of it.
    pub less_specific_than: Option<&'p str>,
}

impl Mismatch<'_> {
    /// In how many ways.
    pub const fn ways(&self) -> usize {
        self.host as usize + self.method as usize + self.path as usize
    }
}

impl Policy {
    /// Every route but the one that a request is, and why it is not; in the order in which they count.
    /// Looks at each: for people.
    pub fn mismatches<S: AsRef<str>>(
        &self,
        host: &str,
        method: &str,
        path: &[S],
    ) -> impl Iterator<Item = (&Route, Mismatch<'_>)> {
        let found = self.route(Some(host), method, path);
        let others = self
            .routes()
            .iter()
            .filter(move |route| !found.is_some_and(|found| std::ptr::eq(found, *route)));
        others.map(move |route| {
            let mismatch = Mismatch {
                host: !route.has_host(host),
                method: !route.has_method(method),
                path: !route.path.matches(path),
                less_specific_than: None,
            };
            let less_specific_than = found.filter(|_| mismatch.ways() == 0);
            let mismatch = Mismatch {
                less_specific_than: less_specific_than.map(|found| &*found.name),
                ..mismatch
            };
            (route, mismatch)
        })
    }
}
