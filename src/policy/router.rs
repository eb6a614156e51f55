//! Which route a request is: a tree of segments for each host pattern, so that the cost goes with the
//! length of the path and not with the number of routes.

use std::collections::HashMap;

use super::{HostPattern, Route, Segment};

/// Routes by what they match.
#[derive(Debug, Default)]
pub(super) struct Router {
    by_host: HashMap<Box<str>, Tree>,
    by_parent: HashMap<Box<str>, Tree>,
    any_host: Tree,
}

#[derive(Debug)]
struct Tree(Vec<Node>);

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, usize>,
    variable: Option<usize>,
    /// Routes that end here.
    ends: Vec<Entry>,
    /// Routes that end here or anywhere below.
    prefixes: Vec<Entry>,
}

/// A route and the methods that it is about.
#[derive(Debug)]
struct Entry {
    route: usize,
    /// Empty is any.
    methods: Box<[Box<str>]>,
}

impl Default for Tree {
    fn default() -> Self {
        Self(vec![Node::default()])
    }
}

impl Router {
    /// Of routes in an order in which one that is part of another comes before it: of several that a
    /// request is, the first counts.
    pub(super) fn new(routes: &[Route]) -> Self {
        let mut router = Self::default();
        for (index, route) in routes.iter().enumerate() {
            if route.hosts.is_empty() {
                router.any_host.add(index, route);
            }
            for host in &route.hosts {
                let tree = match host {
                    HostPattern::Exact(name) => router.by_host.entry(name.clone()),
                    HostPattern::OneLabelBefore(name) => router.by_parent.entry(name.clone()),
                };
                tree.or_default().add(index, route);
            }
        }
        router
    }

    /// The index of the route that a request is.
    pub(super) fn find<S: AsRef<str>>(
        &self,
        host: Option<&str>,
        method: &str,
        path: &[S],
    ) -> Option<usize> {
        let exact = host.and_then(|host| self.by_host.get(host));
        let parent = host
            .and_then(|host| host.split_once('.'))
            .filter(|(label, _)| !label.is_empty())
            .and_then(|(_, parent)| self.by_parent.get(parent));
        let mut first = None;
        for tree in [exact, parent, Some(&self.any_host)].into_iter().flatten() {
            tree.find(0, method, path, &mut first);
        }
        first
    }
}

impl Tree {
    fn add(&mut self, index: usize, route: &Route) {
        let mut at = 0;
        for segment in route.path.segments() {
            let next = match segment {
                Segment::Literal(text) => self.0[at].literals.get(text).copied(),
                Segment::Variable => self.0[at].variable,
            };
            at = next.unwrap_or_else(|| {
                let new = self.0.len();
                self.0.push(Node::default());
                match segment {
                    Segment::Literal(text) => {
                        self.0[at].literals.insert(text.clone(), new);
                    }
                    Segment::Variable => self.0[at].variable = Some(new),
                }
                new
            });
        }
        let entry = Entry {
            route: index,
            methods: route.methods.clone().into(),
        };
        match route.path.is_prefix() {
            true => self.0[at].prefixes.push(entry),
            false => self.0[at].ends.push(entry),
        }
    }

    /// Lowers `first` to the smallest index below `at`.
    fn find<S: AsRef<str>>(&self, at: usize, method: &str, path: &[S], first: &mut Option<usize>) {
        let node = &self.0[at];
        Entry::first_of(&node.prefixes, method, first);
        let Some((segment, rest)) = path.split_first() else {
            Entry::first_of(&node.ends, method, first);
            return;
        };
        let segment = segment.as_ref();
        if let Some(&next) = node.literals.get(segment) {
            self.find(next, method, rest, first);
        }
        if let Some(next) = node.variable.filter(|_| !segment.is_empty()) {
            self.find(next, method, rest, first);
        }
    }
}

impl Entry {
    fn first_of(entries: &[Self], method: &str, first: &mut Option<usize>) {
        // In the order of the routes: the first that is about the method is the smallest.
        let found = entries.iter().find(|entry| {
            entry.methods.is_empty() || entry.methods.iter().any(|known| **known == *method)
        });
        if let Some(entry) = found {
            *first = Some(first.map_or(entry.route, |known| known.min(entry.route)));
        }
    }
}
