//! Which of two routes that a request is counts: the one that is part of the other.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
};

use super::{HostPattern, Route, Segment};

/// The most pairs that are told: whoever has more mends these first.
const MAX_UNDECIDED: usize = 100;

/// Pairs of routes that a request can be both of, of which neither is part of the other; or each is of
/// the other, and nothing tells them apart.
pub(super) fn undecided(routes: &[Route]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    each_meeting(routes, |a, b| {
        let (first, second) = (&routes[a], &routes[b]);
        if first.overlaps(second) && first.includes(second) == second.includes(first) {
            found.push((a, b));
        }
        match found.len() {
            MAX_UNDECIDED => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    found.sort_unstable();
    found
}

/// The routes in an order in which one that is part of another comes before it.
pub(super) fn ordered(routes: Vec<Route>) -> Vec<Route> {
    // How many others a route is part of: more than any that it includes.
    let mut depths = vec![0_usize; routes.len()];
    each_meeting(&routes, |a, b| {
        if routes[a].includes(&routes[b]) {
            depths[b] += 1;
        } else if routes[b].includes(&routes[a]) {
            depths[a] += 1;
        }
        ControlFlow::Continue(())
    });
    let mut ordered: Vec<(usize, Route)> = depths.into_iter().zip(routes).collect();
    ordered.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
    ordered.into_iter().map(|(_, route)| route).collect()
}

/// Calls `meet` once for each two routes that have a host and a path in common, the smaller index
/// first. The cost goes with their number, not with that of all pairs.
fn each_meeting(routes: &[Route], mut meet: impl FnMut(usize, usize) -> ControlFlow<()>) {
    let mut seen = Seen::default();
    let mut met = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        met.clear();
        seen.met_by(route, &mut met);
        // Where they share several hosts they meet at each.
        met.sort_unstable();
        met.dedup();
        for &other in &met {
            if meet(other, index).is_break() {
                return;
            }
        }
        seen.add(index, route);
    }
}

/// Routes by their hosts and paths.
#[derive(Default)]
struct Seen {
    any_host: Node,
    /// All that are about some hosts only, whichever.
    some_host: Node,
    by_host: HashMap<Box<str>, Node>,
    by_parent: HashMap<Box<str>, Node>,
    /// The exact hosts that are one label before this.
    children: HashMap<Box<str>, HashSet<Box<str>>>,
}

/// Routes by the segments of their paths.
#[derive(Default)]
struct Node {
    /// Those that end here, prefixes and others.
    routes: Vec<usize>,
    prefixes: Vec<usize>,
    literals: HashMap<Box<str>, Node>,
    variable: Option<Box<Node>>,
}

impl Seen {
    fn add(&mut self, index: usize, route: &Route) {
        if route.hosts.is_empty() {
            self.any_host.add(index, route);
        } else {
            self.some_host.add(index, route);
        }
        for host in &route.hosts {
            let node = match host {
                HostPattern::Exact(name) => {
                    if let Some((_, parent)) = name.split_once('.') {
                        let siblings = self.children.entry(parent.into()).or_default();
                        siblings.insert(name.clone());
                    }
                    self.by_host.entry(name.clone()).or_default()
                }
                HostPattern::OneLabelBefore(name) => {
                    self.by_parent.entry(name.clone()).or_default()
                }
            };
            node.add(index, route);
        }
    }

    /// The routes that were added and that meet `route`, some of them more than once.
    fn met_by(&self, route: &Route, met: &mut Vec<usize>) {
        let mut nodes = vec![&self.any_host];
        if route.hosts.is_empty() {
            nodes.push(&self.some_host);
        }
        for host in &route.hosts {
            match host {
                HostPattern::Exact(name) => {
                    nodes.extend(self.by_host.get(name));
                    let parent = name.split_once('.').map(|(_, parent)| parent);
                    nodes.extend(parent.and_then(|parent| self.by_parent.get(parent)));
                }
                HostPattern::OneLabelBefore(name) => {
                    nodes.extend(self.by_parent.get(name));
                    let hosts = self.children.get(name).into_iter().flatten();
                    nodes.extend(hosts.filter_map(|host| self.by_host.get(host)));
                }
            }
        }
        for node in nodes {
            node.met_by(route.path.segments(), route.path.is_prefix(), met);
        }
    }
}

impl Node {
    fn add(&mut self, index: usize, route: &Route) {
        let mut at = self;
        for segment in route.path.segments() {
            at = match segment {
                Segment::Literal(text) => at.literals.entry(text.clone()).or_default(),
                Segment::Variable => at.variable.get_or_insert_default(),
            };
        }
        at.routes.push(index);
        if route.path.is_prefix() {
            at.prefixes.push(index);
        }
    }

    fn met_by(&self, segments: &[Segment], is_prefix: bool, met: &mut Vec<usize>) {
        let Some((segment, rest)) = segments.split_first() else {
            match is_prefix {
                true => self.all(met),
                false => met.extend(&self.routes),
            }
            return;
        };
        met.extend(&self.prefixes);
        match segment {
            Segment::Literal(text) => {
                let same = self.literals.get(text);
                for node in same.into_iter().chain(self.variable.as_deref()) {
                    node.met_by(rest, is_prefix, met);
                }
            }
            Segment::Variable => {
                for node in self.literals.values().chain(self.variable.as_deref()) {
                    node.met_by(rest, is_prefix, met);
                }
            }
        }
    }

    fn all(&self, met: &mut Vec<usize>) {
        met.extend(&self.routes);
        for node in self.literals.values().chain(self.variable.as_deref()) {
            node.all(met);
        }
    }
}
