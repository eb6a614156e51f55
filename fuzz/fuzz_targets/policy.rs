//! Any text as a policy file: read whole or not at all, every problem at a place in the file, and a
//! policy that is read routes whatever is asked.
#![no_main]

use clerk_authz::policy::{Policy, Segment};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (policy, cases) = match Policy::parse_with_cases(text) {
        Ok(read) => read,
        Err(problems) => {
            // As YAML counts them.
            let is_break = |sign| matches!(sign, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
            let lines = text.matches(is_break).count() as u64 + 1;
            assert!(problems.iter().count() > 0, "refused for nothing");
            for problem in problems.iter() {
                assert!(!problem.message.is_empty());
                assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem}");
                assert_eq!(problem.line.is_some(), problem.column.is_some());
                assert!(problem.column.is_none_or(|column| column > 0));
            }
            return;
        }
    };
    assert_eq!(policy.version().len(), 12);
    for case in &cases {
        assert!(case.line > 0);
    }
    let route = |host, method, path: &[&str]| policy.route(host, method, path).map(|route| route.name.clone());
    for (method, path) in [("GET", &[][..]), ("POST", &["", ""]), ("", &["a", "b", "c"])] {
        for host in [None, Some(""), Some("a.example"), Some(".")] {
            route(host, method, path);
        }
    }
    // Each route has a request of its own or of a narrower one: nothing that is written is without effect.
    for (index, written) in policy.routes().iter().enumerate() {
        let path: Vec<&str> = written
            .path
            .segments()
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => &**text,
                Segment::Variable => "x",
            })
            .collect();
        let host = written.hosts.is_empty().then_some("no-such.invalid");
        let method = written.methods.first().map_or("GET", |method| &**method);
        if let Some(host) = host {
            let found = policy.route(Some(host), method, &path).expect("its own path");
            let at = policy.routes().iter().position(|each| std::ptr::eq(each, found));
            assert!(at.is_some_and(|at| at <= index), "a wider route in place of {written}");
        }
    }
});
