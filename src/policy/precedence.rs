//! Which of two routes that a request is counts: the one that is part of the other.

use std::collections::HashMap;

use super::{Route, Segment};

/// Pairs of routes that a request can be both of, of which neither is part of the other; or each is of
/// the other, and nothing tells them apart.
pub(super) fn undecided(routes: &[Route]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (a, b) in candidates(routes) {
        let (first, second) = (&routes[a], &routes[b]);
        if first.overlaps(second) && first.includes(second) == second.includes(first) {
            found.push((a, b));
        }
    }
    found.sort_unstable();
    found
}

/// The routes in an order in which one that is part of another comes before it.
pub(super) fn ordered(routes: Vec<Route>) -> Vec<Route> {
    // How many others a route is part of: more than any that it includes.
    let mut depths = vec![0_usize; routes.len()];
    for (a, b) in candidates(&routes) {
        if routes[a].includes(&routes[b]) {
            depths[b] += 1;
        } else if routes[b].includes(&routes[a]) {
            depths[a] += 1;
        }
    }
    let mut ordered: Vec<(usize, Route)> = depths.into_iter().zip(routes).collect();
    ordered.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
    ordered.into_iter().map(|(_, route)| route).collect()
}

/// Pairs that may have a request in common: those whose first two segments do not differ. The
/// smaller index first.
fn candidates(routes: &[Route]) -> Vec<(usize, usize)> {
    let start = |route: &'_ Route, place: usize| match route.path.segments().get(place) {
        Some(Segment::Literal(text)) => Some(text.to_string()),
        Some(Segment::Variable) | None => None,
    };
    let mut groups: HashMap<(Option<String>, Option<String>), Vec<usize>> = HashMap::new();
    for (index, route) in routes.iter().enumerate() {
        let key = (start(route, 0), start(route, 1));
        groups.entry(key).or_default().push(index);
    }
    let may_meet = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
    let keys: Vec<_> = groups.keys().collect();
    let mut pairs = Vec::new();
    for (place, key) in keys.iter().enumerate() {
        for other in &keys[place..] {
            if !may_meet(&key.0, &other.0) || !may_meet(&key.1, &other.1) {
                continue;
            }
            for &a in &groups[*key] {
                for &b in &groups[*other] {
                    if key == other && a >= b {
                        continue;
                    }
                    pairs.push((a.min(b), a.max(b)));
                }
            }
        }
    }
    pairs
}
