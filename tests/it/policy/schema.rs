//! docs/policy.schema.json: editors accept by it what the parser accepts.

use clerk_authz::{policy::Policy, reason::Reason};
use serde_json::Value;

const EXAMPLE: &str = include_str!("../../../deploy/policy.example.yaml");

fn schema() -> Value {
    serde_json::from_str(include_str!("../../../docs/policy.schema.json")).expect("JSON")
}

/// Both verdicts: the schema's and the parser's.
fn verdicts(text: &str) -> (bool, bool) {
    let validator = jsonschema::draft202012::new(&schema()).expect("a schema");
    let value: Value = serde_saphyr::from_str(text).expect("YAML");
    (validator.is_valid(&value), Policy::parse(text).is_ok())
}

fn route(keys: &str) -> String {
    format!("version: 1\nroutes:\n  - {{{keys}}}\n")
}

fn case(keys: &str) -> String {
    format!(
        "{}tests:\n  - {{{keys}}}\n",
        route("name: a, path: /a, access: public")
    )
}

#[test]
fn the_schema_accepts_what_the_parser_accepts() {
    for text in [
        EXAMPLE.to_owned(),
        "version: 1\nroutes: []\n".to_owned(),
        route("path: /, access: public"),
        route("path: /**, access: signed_in, hosts: ['*.example.com', '[::1]'], methods: [GET]"),
        route("path: '/a/{id}/**', access: {role: admin}, organization: '{id}'"),
        route("path: /a, access: {permission: 'org:a:b'}, organization: 'header:x-org'"),
        route("path: /a, access: {signed_in: true, impersonation: deny}"),
        route("path: /a, access: {reverification: 'second_factor:15'}"),
        route("path: /a, access: {role: a}, consistency: {max_staleness: 10s}"),
        route("path: /a, access: public, credentials: ignored, on_cannot_tell: allow"),
        route(
            "path: /a, access: public, permit: [semicolon, encoded_slash], accept: [session_token]",
        ),
        route("path: /a, access: public, accept: [session_token, oauth_token]"),
        route("path: /a, access: signed_in, accept: [m2m_token, api_key], scopes: ['read:all']"),
        route("path: /a, access: {signed_in: true}, accept: [oauth_token], scopes: [a, b]"),
        route("path: /a, access: {role: a}, accept: [session_token], scopes: []"),
        route("path: /a, access: signed_in, upstream: 'https://orders.internal/v1'"),
        route("path: /a, access: public, upstream: orders"),
        route("path: /a, access: denied, upstream: none"),
        case(
            "request: {path: /a}, token: {type: oauth_token, subject: user_1, client_id: c, scopes: [a]}, expect: {decision: allowed}",
        ),
        case(
            "request: {path: /a}, token: {type: session_token, user: user_1}, expect: {decision: allowed}",
        ),
        case("request: {path: /a}, token: none, expect: {decision: allowed}"),
        case(
            "request: {path: /a, method: PUT, scheme: http, headers: {x-a: b}}, token: {}, expect: {decision: allowed, reason: ALLOWED, route: a}",
        ),
        case(
            "request: {path: /a}, token: {user: user_1, organization: org_1, role: a, permissions: ['a:b'], features: ['org:x'], plans: ['user:y'], factor_ages: {first: 1, second: 2.5}, impersonated_by: x}, memberships: [{organization: org_2, role: b}], expect: {decision: step_up}",
        ),
    ] {
        assert_eq!(verdicts(&text), (true, true), "schema, parser:\n{text}");
    }
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    for text in [
        "version: 2\nroutes: []\n".to_owned(),
        "version: 1\n".to_owned(),
        "version: 1\nroutes: []\nmore: 1\n".to_owned(),
        "version: 1\nroutes: []\nsign_in: {url: 'http://x.com', return_to: ['https://x.com']}\n"
            .to_owned(),
        "version: 1\nroutes: []\nsign_in: {url: 'https://x.com', return_to: []}\n".to_owned(),
        "version: 1\nroutes: []\nsign_in: {url: 'https://x.com', return_to: ['https://x.com/a']}\n"
            .to_owned(),
        route("access: public"),
        route("path: /a"),
        route("path: a, access: public"),
        route("path: /a/, access: public"),
        route("path: /a//b, access: public"),
        route("path: '/a*', access: public"),
        route("path: '/a/**/b', access: public"),
        route("path: '/a/{B}', access: public"),
        route("path: /a%20b, access: public"),
        route("path: /a, access: pubic"),
        route("path: /a, access: {impersonation: deny}"),
        route("path: /a, access: {permision: x}"),
        route("path: /a, access: {role: ''}"),
        route("path: /a, access: {plan: 'team:x'}"),
        route("path: /a, access: {reverification: 'second_factor:0'}"),
        route("path: /a, access: public, hosts: [EXAMPLE.com]"),
        route("path: /a, access: public, hosts: ['a.*.com']"),
        route("path: /a, access: public, hosts: ['a.com:80']"),
        route("path: /a, access: public, methods: [get]"),
        route("path: /a, access: signed_in, on_cannot_tell: allow"),
        route("path: /a, access: signed_in, credentials: ignored"),
        route("path: /a, access: signed_in, organization: 'header:x-org'"),
        route("path: /a, access: {role: a}, organization: acme"),
        route("path: /a, access: {role: a}, consistency: fast"),
        route("path: /a, access: public, permit: [dot_segment]"),
        route("path: /a, access: public, accept: [m2m]"),
        route("path: /a, access: public, accept: []"),
        route("path: /a, access: {role: a}, accept: [session_token, m2m_token]"),
        route("path: /a, access: {signed_in: true, role: a}, accept: [api_key]"),
        route("path: /a, access: signed_in, scopes: [a]"),
        route("path: /a, access: signed_in, accept: [session_token, api_key], scopes: [a]"),
        route("path: /a, access: public, accept: [api_key], scopes: [a]"),
        route("path: /a, access: signed_in, accept: [api_key], scopes: ['a b']"),
        route("path: /a, access: signed_in, accept: [api_key], scopes: ['']"),
        route("path: /a, access: signed_in, upstream: ''"),
        route("path: /a, access: signed_in, upstream: 'my orders'"),
        route("path: /a, access: denied, upstream: orders"),
        route("path: /a, access: public, credentials: ignored, upstream: orders"),
        case("request: {path: /a}, token: {type: m2m}, expect: {decision: allowed}"),
        case(
            "request: {path: /a}, token: {type: m2m_token, user: user_1}, expect: {decision: allowed}",
        ),
        case(
            "request: {path: /a}, token: {type: api_key, factor_ages: {first: 1}}, expect: {decision: allowed}",
        ),
        case("request: {path: /a}, token: {scopes: [a]}, expect: {decision: allowed}"),
        case(
            "request: {path: /a}, token: {type: api_key, subject: sess_1}, expect: {decision: allowed}",
        ),
        route("path: /a, access: public, name: 'a b'"),
        case("request: {path: /a}, token: none, expect: {}"),
        case("request: {}, token: none, expect: {decision: allowed}"),
        case("request: {path: /a}, expect: {decision: allowed}"),
        case("request: {path: /a}, token: ALLOWED, expect: {decision: allowed}"),
        case("request: {path: /a}, token: {role: admin}, expect: {decision: allowed}"),
        case("request: {path: /a}, token: {features: [x]}, expect: {decision: allowed}"),
        case("request: {path: /a}, token: {factor_ages: {first: -1}}, expect: {decision: allowed}"),
        case("request: {path: /a}, token: none, expect: {decision: deny}"),
        case("request: {path: /a}, token: none, expect: {decision: allowed, reason: FINE}"),
        case(
            "request: {path: /a, headers: {authorization: x}}, token: none, expect: {decision: allowed}",
        ),
        case("request: {path: /a, headers: {X-A: x}}, token: none, expect: {decision: allowed}"),
    ] {
        assert_eq!(verdicts(&text), (false, false), "schema, parser:\n{text}");
    }
}

/// What only the parser can tell: it relates one part of a file to another.
#[test]
fn the_parser_sees_what_no_schema_can() {
    for text in [
        route("path: /a, access: public}\n  - {path: /a, access: signed_in"),
        route("path: '/a/{id}', access: {role: a}, organization: '{idd}'"),
        route("path: /a, access: signed_in, browser: sign_in"),
        route("path: /a, access: {plan: a}, consistency: fully_consistent"),
        case("request: {path: /a}, token: none, expect: {decision: allowed, route: b}"),
        case(
            "request: {path: /a}, token: {type: m2m_token, subject: user_1}, expect: {decision: allowed}",
        ),
    ] {
        assert_eq!(verdicts(&text), (true, false), "schema, parser:\n{text}");
    }
}

#[test]
fn the_schema_has_every_reason() {
    let schema = schema();
    let listed = &schema["properties"]["tests"]["items"]["properties"]["expect"]["properties"]["reason"]
        ["enum"];
    let listed: Vec<&str> = listed
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let all: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(listed, all, "docs/policy.schema.json");
}
