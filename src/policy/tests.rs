use proptest::prelude::*;

use super::*;

fn policy(routes: &str) -> Policy {
    Policy::parse(&format!("version: 1\nroutes:\n{routes}"))
        .unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems(text: &str) -> String {
    Policy::parse(text).expect_err("it is wrong").to_string()
}

/// The name of the route that a request is.
fn found<'p>(policy: &'p Policy, method: &str, url: &str) -> Option<&'p str> {
    let (host, path) = url.split_once('/').expect("a path");
    let segments: Vec<&str> = path.split('/').filter(|_| !path.is_empty()).collect();
    let host = Some(host).filter(|host| !host.is_empty());
    policy
        .route(host, method, &segments)
        .map(|route| &*route.name)
}

const SHOP: &str = r#"
  - {name: home, path: /, access: public}
  - {name: assets, path: /assets/**, access: public, credentials: ignored}
  - {name: orgs, path: "/orgs/{organization_id}/**", access: signed_in}
  - name: invoices
    methods: [GET]
    path: /orgs/{organization_id}/invoices/**
    organization: "{organization_id}"
    access: {permission: org:invoices:read, impersonation: deny}
  - {name: admin, hosts: [admin.example.com], path: /**, access: {role: admin}}
  - {name: tenant, hosts: ["*.example.com"], path: /t, access: signed_in}
  - {name: internal, path: /internal/**, access: denied}
"#;

#[test]
fn a_request_is_the_most_specific_of_its_routes() {
    // The admin's host and every path overlap with all others; they say which is meant.
    let shop = SHOP.replace("  - {name: home", "  - {name: home, hosts: [example.com]");
    let shop = shop
        .lines()
        .filter(|line| !line.contains("admin"))
        .collect::<Vec<_>>()
        .join("\n");
    let shop = policy(&shop);
    for (method, url, name) in [
        ("GET", "example.com/", Some("home")),
        ("GET", "/assets/a/b.css", Some("assets")),
        ("GET", "/assets", Some("assets")),
        ("GET", "/assetsx", None),
        ("GET", "/orgs/org_1/invoices/7", Some("invoices")),
        ("POST", "/orgs/org_1/invoices/7", Some("orgs")),
        ("GET", "/orgs/org_1", Some("orgs")),
        ("GET", "/orgs//invoices", None),
        ("GET", "/orgs", None),
        ("GET", "a.example.com/t", Some("tenant")),
        ("GET", "a.b.example.com/t", None),
        ("GET", "example.com/t", None),
        ("GET", "/t", None),
        ("GET", "/internal/x", Some("internal")),
        ("GET", "/nothing", None),
    ] {
        assert_eq!(found(&shop, method, url), name, "{method} {url}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_the_nearest_word() {
    for (text, expected) in [
        (
            "version: 2\nroutes: []\n",
            "line 1, column 10: version is 2; expected 1",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    acess: public\n",
            "line 4, column 5: unknown key \"acess\"; did you mean \"access\"?",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    access: pubic\n",
            "line 4, column 13: access is \"pubic\"; did you mean \"public\"?",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    access: {permision: x}\n",
            "unknown key \"permision\"; did you mean \"permission\"?",
        ),
        (
            "version: 1\nroutes:\n  - path: /a/{id\n    access: public\n",
            "line 3, column 11: path has the segment \"{id\"; a variable is a whole segment",
        ),
        (
            "version: 1\nroutes:\n  - path: /orgs/{organization_id}\n    access: {role: admin}\n    \
             organization: \"{organisation_id}\"\n",
            "line 5, column 19: organization: no variable {organisation_id}; did you mean \
             \"organization_id\"?",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    access: signed_in\n    upstream: my orders\n",
            "line 5, column 15: upstream is \"my orders\"; expected 1 to 255 letters",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    access: denied\n    upstream: orders\n",
            "line 5, column 15: upstream: on this route nobody is ever named to an upstream",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    access: {impersonation: deny}\n",
            "line 4, column 13: access requires nothing",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    access: signed_in\n    on_cannot_tell: allow\n",
            "line 5, column 21: on_cannot_tell: allow is for public routes only",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    access: signed_in\n    browser: sign_in\n",
            "line 5, column 14: browser: sign_in needs sign_in at the top of the file",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    access: {plan: pro}\n    consistency: fully_consistent\n",
            "consistency cannot be met beside plan",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    methods: [get]\n    access: public\n",
            "line 4, column 15: methods: \"get\" is no method",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    accept: [m2m_tokn]\n    access: signed_in\n",
            "line 4, column 14: accept is \"m2m_tokn\"; did you mean \"m2m_token\"?",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    accept: []\n    access: signed_in\n",
            "line 4, column 13: accept is empty",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    accept: [m2m_token]\n    access: {role: admin}\n",
            "line 4, column 13: accept: a machine has no permission",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    access: signed_in\n    scopes: [a]\n",
            "line 5, column 14: scopes are for routes that accept tokens of machines only",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    access: signed_in\n    accept: [session_token, api_key]\n    scopes: [a]\n",
            "line 6, column 14: scopes are for routes that accept tokens of machines only",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    access: public\n    accept: [api_key]\n    scopes: [a]\n",
            "line 6, column 14: scopes are for routes with access: signed_in",
        ),
        (
            "version: 1\nroutes:\n  - path: /a\n    access: signed_in\n    accept: [api_key]\n    scopes: ['a b']\n",
            "line 6, column 14: scopes: \"a b\" is no scope",
        ),
        (
            "version: 1\nroutes: []\ntests:\n  - request: {path: /a}\n    token: {type: m2m_token, user: user_1}\n    expect: {decision: allowed}\n",
            "says something of a session, beside the type of a machine's token",
        ),
        (
            "version: 1\nroutes: []\ntests:\n  - request: {path: /a}\n    token: {scopes: [a]}\n    expect: {decision: allowed}\n",
            "says something of a machine; set type",
        ),
        (
            "version: 1\nroutes: []\ntests:\n  - request: {path: /a}\n    token: {type: m2m_token, subject: user_1}\n    expect: {decision: allowed}\n",
            "subject: \"user_1\" is none that m2m_token may have",
        ),
        (
            "version: 1\nroutes:\n  - {name: a, path: /a, access: public}\n  - {name: a, path: /b, access: public}\n",
            "line 4, column 12: name \"a\" stands in line 3 already",
        ),
        ("version: 1\n", "routes"),
        ("routes: [", "line"),
    ] {
        let said = problems(text);
        assert!(
            said.contains(expected),
            "{text}\nsaid: {said}\nexpected: {expected}"
        );
    }
}

#[test]
fn routes_that_nothing_tells_apart_are_named_with_both_lines() {
    for (first, second, overlap) in [
        ("path: /a", "path: /a", true),
        ("path: '/a/{x}'", "path: '/a/{y}'", true),
        ("path: '/a/{x}/c'", "path: '/a/b/{y}'", true),
        ("path: '/a/{x}'", "path: /a/b", false),
        ("path: /a/**", "path: /a/b/**", false),
        ("path: '/{x}/b'", "path: /a/**", true),
        (
            "{path: /a, methods: [GET, POST]}",
            "{path: /a, methods: [POST, PUT]}",
            true,
        ),
        (
            "{path: /a, methods: [GET]}",
            "{path: /a, methods: [POST]}",
            false,
        ),
        ("{path: /a, methods: [GET]}", "path: /a", false),
        ("{path: /a, hosts: [x.com]}", "path: /**", false),
        ("{path: /**, hosts: [x.com]}", "path: /a", true),
        (
            "{path: /a, hosts: ['*.x.com']}",
            "{path: /a, hosts: [y.x.com]}",
            false,
        ),
        (
            "{path: /a, hosts: ['*.x.com', z.com]}",
            "{path: /a, hosts: [y.x.com, w.com]}",
            true,
        ),
    ] {
        let route = |text: &str| match text.strip_prefix('{') {
            Some(rest) => format!("  - {{access: public, {rest}\n"),
            None => format!("  - {{access: public, {text}}}\n"),
        };
        let text = format!("version: 1\nroutes:\n{}{}", route(first), route(second));
        let said = Policy::parse(&text)
            .err()
            .map(|problems| problems.to_string());
        assert_eq!(said.is_some(), overlap, "{first} and {second}: {said:?}");
        if let Some(said) = said {
            assert!(
                said.contains("(line 3)") && said.contains("(line 4)"),
                "{said}"
            );
        }
    }
}

/// A segment of a random pattern, and of a random path.
fn segment() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "{}"])
}

fn random_route() -> impl Strategy<Value = (Vec<&'static str>, bool, u8, u8)> {
    (
        prop::collection::vec(segment(), 1..4),
        any::<bool>(),
        0..4_u8,
        0..4_u8,
    )
}

proptest! {
    /// The tree finds what a look at every route finds, on whatever policy is no error; and where it is
    /// one, some request is both.
    #[test]
    fn the_tree_agrees_with_looking_at_every_route(
        routes in prop::collection::vec(random_route(), 1..8),
        requests in prop::collection::vec(
            (prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "d", ""]), 1..5), 0..3_usize, 0..3_usize),
            20,
        ),
    ) {
        const METHODS: [&str; 3] = ["GET", "POST", "PUT"];
        const HOSTS: [&str; 3] = ["x.com", "y.x.com", "z.org"];
        let text = routes.iter().map(|(segments, is_prefix, method, host)| {
            let path: String = segments.iter().enumerate().map(|(place, segment)| match *segment {
                "{}" => format!("/{{v{place}}}"),
                text => format!("/{text}"),
            }).collect();
            let tail = if *is_prefix { "/**" } else { "" };
            let methods = match method { 0 => String::new(), n => format!("methods: [{}], ", METHODS[usize::from(*n) - 1]) };
            let hosts = match host { 0 => String::new(), 1 => "hosts: [x.com], ".to_owned(), 2 => "hosts: ['*.x.com'], ".to_owned(), _ => "hosts: [y.x.com], ".to_owned() };
            format!("  - {{{methods}{hosts}path: '{path}{tail}', access: public}}\n")
        }).collect::<String>();
        let Ok(policy) = Policy::parse(&format!("version: 1\nroutes:\n{text}")) else {
            return Ok(());
        };
        for (path, method, host) in requests {
            let (method, host) = (METHODS[method], HOSTS[host]);
            let all: Vec<&Route> = policy.routes().iter()
                .filter(|route| route.has_host(host) && route.has_method(method) && route.path.matches(&path))
                .collect();
            // The one that is part of all the others.
            let expected = all.iter().find(|route| all.iter().all(|other| other.includes(route)));
            prop_assert_eq!(expected.is_some(), !all.is_empty());
            let found = policy.route(Some(host), method, &path);
            prop_assert_eq!(found.map(|route| &route.name), expected.map(|route| &route.name));
        }
    }
}

/// A policy of 10,000 routes is read while its users wait for a reload: in each of the shapes that
/// large policies have. Half of the routes share their first segments, which was quadratic once.
#[test]
fn ten_thousand_routes_are_read_in_time() {
    type Shape = fn(usize) -> String;
    let shapes: [(&str, Shape); 3] = [
        ("one service", |n| {
            format!("  - {{path: '/api/v1/r{n}/{{id}}', access: signed_in}}\n")
        }),
        ("many hosts", |n| {
            format!("  - {{hosts: [t{n}.example.com], path: '/**', access: signed_in}}\n")
        }),
        ("hosts and no hosts", |n| match n % 2 {
            0 => format!("  - {{hosts: [t{n}.example.com], path: /a, access: signed_in}}\n"),
            _ => format!("  - {{path: /b/r{n}, access: signed_in}}\n"),
        }),
    ];
    for (name, shape) in shapes {
        let routes: String = (0..10_000).map(shape).collect();
        let started = std::time::Instant::now();
        let policy = policy(&routes);
        let took = started.elapsed();
        assert_eq!(policy.routes().len(), 10_000);
        // Without optimisation; what is quadratic takes minutes.
        assert!(
            took < std::time::Duration::from_secs(30),
            "{name}: {took:?}"
        );
    }
}

#[test]
fn a_route_may_name_its_upstream_or_that_there_is_none() {
    let policy = policy(
        r#"
  - {name: orders, path: /orders, access: signed_in, upstream: orders}
  - {name: none, path: /none, access: signed_in, upstream: none}
  - {name: silent, path: /silent, access: signed_in}
"#,
    );
    let of = |name: &str| {
        let found = policy.routes().iter().find(|route| &*route.name == name);
        found.expect("it is there").upstream.clone()
    };
    assert_eq!(of("orders"), Upstream::Named("orders".into()));
    assert_eq!(of("none"), Upstream::None);
    assert_eq!(of("silent"), Upstream::Default);
    let asking = policy.asks_for_assertions().expect("one does");
    assert_eq!(&*asking.name, "orders");
}
