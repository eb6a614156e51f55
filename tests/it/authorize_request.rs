//! Decisions about proxied requests: each kind of access, each state of a token, what cannot be told,
//! which organization, which browser goes where, and a policy that is only tried.

use std::{sync::Arc, time::Duration};

use clerk_authz::{
    authz::{
        Authorization, CookiesOnTheWayBack, Gatekeeper, Headers, Outcome, ProxiedRequest,
        ShadowStats,
    },
    emulator::{Emulator, Endpoint, Fault, Faults, TokenSpec},
    explain::Steps,
    identity::Timestamp,
    policy::{Access, Policy},
    server::{Asker, system_clock},
};

use crate::support::{offline_clerk, settings_for};

const POLICY: &str = r#"
version: 1
sign_in: {url: "https://accounts.example/sign-in", return_to: ["https://app.example"]}
routes:
  - {name: public, path: /public, access: public}
  - {name: content, path: /content, access: public, on_cannot_tell: allow}
  - {name: assets, path: /assets/**, access: public, credentials: ignored}
  - {name: me, path: /me, access: signed_in}
  - {name: self, path: /self, access: {signed_in: true, impersonation: deny}}
  - {name: nobody, path: /nobody, access: denied}
  - {name: admin, path: /admin, access: {role: admin}}
  - {name: fresh, path: /fresh, access: {role: admin}, consistency: {max_staleness: 10s}}
  - {name: transfer, path: /transfer, access: {reverification: strict}}
  - {name: page, path: /page/**, access: signed_in, browser: sign_in}
  - {name: invoices, path: "/orgs/{org}/invoices", organization: "{org}", access: {role: admin}}
  - {name: reports, path: /reports, organization: "header:x-org", access: {role: admin}}
  - {name: files, path: /files/**, access: public, permit: [encoded_slash]}
  - {name: secret, path: /files/a/b, access: denied}
"#;

/// A gatekeeper and the Clerk behind it.
struct Gate {
    clerk: Emulator,
    asker: Asker,
    gatekeeper: Gatekeeper,
}

/// A request with everything that may matter.
#[derive(Clone, Default)]
struct Asked {
    target: &'static str,
    authority: Option<&'static str>,
    authorization: Vec<String>,
    headers: Vec<(&'static str, &'static str)>,
    narrowing: Option<Access>,
    is_http: bool,
}

impl Headers for Asked {
    fn values<'h>(&'h self, name: &str) -> Vec<&'h str> {
        let of_it = self.headers.iter().filter(|(known, _)| *known == name);
        of_it.map(|(_, value)| *value).collect()
    }
}

fn get(target: &'static str) -> Asked {
    Asked {
        target,
        ..Asked::default()
    }
}

impl Asked {
    fn by(mut self, token: &str) -> Self {
        self.authorization.push(format!("Bearer {token}"));
        self
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn narrowed(mut self, pairs: &[(&str, &str)]) -> Self {
        self.narrowing = Access::narrowing(pairs.iter().copied()).expect("it can be read");
        self
    }
}

impl Gate {
    async fn start() -> Self {
        Self::start_with(Faults::default()).await
    }

    async fn start_with(of_jwks: Faults) -> Self {
        let clerk = offline_clerk().await;
        let instance = &clerk.instances()[0];
        instance.set_faults_for(Endpoint::Jwks, of_jwks);
        let (secret_key, url) = (instance.secret_key(), instance.issuer().to_string());
        let settings = settings_for(
            &clerk,
            &[("CLERK_SECRET_KEY", &secret_key), ("CLERK_API_URL", &url)],
        );
        let asker = Asker::start(&settings, system_clock(), None).await;
        let asker = asker.expect("it starts");
        let gatekeeper = Gatekeeper::new(Arc::clone(&asker.checker), policy(POLICY));
        Self {
            clerk,
            asker,
            gatekeeper,
        }
    }

    /// From after the memberships of the offline Clerk, which were made this very second.
    fn mint(&self, spec: TokenSpec) -> String {
        let spec = TokenSpec {
            issued_in_seconds: 2,
            ..spec
        };
        self.clerk.instances()[0].mint(&spec).expect("a token")
    }

    async fn ask(&self, asked: &Asked) -> Authorization {
        let request = ProxiedRequest {
            method: "GET",
            authority: asked.authority.unwrap_or("app.example").as_bytes(),
            target: asked.target.as_bytes(),
            is_https: !asked.is_http,
            authorization: &asked.authorization,
            cookie: &[],
            headers: asked,
            narrowing: asked.narrowing.as_ref(),
            patience: Duration::from_secs(5),
            cookies_on_the_way_back: CookiesOnTheWayBack::Set,
        };
        let now = Timestamp::from(std::time::SystemTime::now());
        self.gatekeeper
            .authorize(&request, now, &mut Steps::off())
            .await
    }

    async fn said(&self, asked: Asked) -> String {
        said(&self.ask(&asked).await)
    }

    async fn stop(self) {
        self.asker.stop().await;
        self.clerk.stop().await;
    }
}

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The status that a proxy answers with, and why.
fn said(authorization: &Authorization) -> String {
    let status = match &authorization.outcome {
        Outcome::Allowed { identity: None } => "200 nobody",
        Outcome::Allowed { identity: Some(_) } => "200",
        Outcome::Unauthenticated { sign_in: None } => "401",
        Outcome::Unauthenticated { sign_in: Some(_) } => "302",
        Outcome::Forbidden { step_up: None } => "403",
        Outcome::Forbidden { step_up: Some(_) } => "403 step-up",
        Outcome::Unavailable { .. } => "503",
    };
    format!("{status} {}", authorization.reason)
}

/// The states of a token, in the order of the columns below.
fn states(gate: &Gate) -> [(&'static str, Vec<String>); 8] {
    let bearer = |spec: TokenSpec| format!("Bearer {}", gate.mint(spec));
    let alice = || TokenSpec::session("user_alice").in_organization("acme");
    let expired = TokenSpec {
        expired: true,
        ..alice()
    };
    let expired = gate.clerk.instances()[0].mint(&expired).expect("a token");
    let forged = TokenSpec {
        forged: true,
        ..alice()
    };
    let impersonated = TokenSpec {
        impersonated_by: Some("user_bob".to_owned()),
        ..alice()
    };
    let bob = TokenSpec::session("user_bob").in_organization("acme");
    [
        ("none", vec![]),
        ("admin", vec![bearer(alice())]),
        ("member", vec![bearer(bob)]),
        ("in none", vec![bearer(TokenSpec::session("user_alice"))]),
        ("impersonated", vec![bearer(impersonated)]),
        ("expired", vec![format!("Bearer {expired}")]),
        ("forged", vec![bearer(forged)]),
        ("two", vec![bearer(alice()), bearer(alice())]),
    ]
}

/// Every access with every state of a token.
#[tokio::test]
async fn each_access_answers_each_state_of_a_token() {
    const GOOD: &str = "200 ALLOWED";
    const EXPIRED: &str = "401 TOKEN_EXPIRED";
    const FORGED: &str = "401 SIGNATURE_INVALID";
    const TWO: &str = "401 CREDENTIALS_AMBIGUOUS";
    const NONE: &str = "401 TOKEN_MISSING";
    const PUBLIC: &str = "200 ROUTE_PUBLIC";
    const NOBODY: &str = "200 nobody ROUTE_PUBLIC";
    const DENIED: &str = "403 ROUTE_DENIED";
    const OTHER: &str = "403 ROLE_MISMATCH";
    const NOWHERE: &str = "403 ORGANIZATION_MISSING";
    const ACTED: &str = "403 IMPERSONATION_NOT_ALLOWED";
    let gate = Gate::start().await;
    let states = states(&gate);

    #[rustfmt::skip]
    let table = [
        ("/public",   [NOBODY, PUBLIC, PUBLIC, PUBLIC, PUBLIC, EXPIRED, FORGED, TWO]),
        ("/content",  [NOBODY, PUBLIC, PUBLIC, PUBLIC, PUBLIC, EXPIRED, FORGED, TWO]),
        ("/assets/a", [NOBODY; 8]),
        ("/me",       [NONE, GOOD, GOOD, GOOD, GOOD, EXPIRED, FORGED, TWO]),
        ("/self",     [NONE, GOOD, GOOD, GOOD, ACTED, EXPIRED, FORGED, TWO]),
        ("/nobody",   [DENIED; 8]),
        ("/admin",    [NONE, GOOD, OTHER, NOWHERE, GOOD, EXPIRED, FORGED, TWO]),
        ("/other",    ["403 ROUTE_UNMATCHED"; 8]),
    ];
    for (target, expected) in table {
        for ((state, authorization), expected) in states.iter().zip(expected) {
            let asked = Asked {
                authorization: authorization.clone(),
                ..get(target)
            };
            assert_eq!(gate.said(asked).await, expected, "{target}, {state}");
        }
    }

    gate.stop().await;
}

/// What cannot be told is neither a yes nor a no, but where a route of public content says so; and a
/// bad token is never taken for none.
#[tokio::test]
async fn what_cannot_be_told_is_told_apart() {
    let gate = Gate::start_with(Faults::always(Fault::Down)).await;
    let token = gate.mint(TokenSpec::session("user_alice"));

    for (target, expected) in [
        ("/public", "503 KEYS_UNAVAILABLE"),
        ("/content", "200 nobody ROUTE_PUBLIC"),
        ("/assets/a", "200 nobody ROUTE_PUBLIC"),
        ("/me", "503 KEYS_UNAVAILABLE"),
        ("/admin", "503 KEYS_UNAVAILABLE"),
        ("/nobody", "403 ROUTE_DENIED"),
        ("/page/a", "503 KEYS_UNAVAILABLE"),
    ] {
        let said = gate.said(get(target).by(&token)).await;
        assert_eq!(said, expected, "{target}");
    }
    // Without a token nothing has to be told.
    assert_eq!(gate.said(get("/public")).await, "200 nobody ROUTE_PUBLIC");
    assert_eq!(gate.said(get("/me")).await, "401 TOKEN_MISSING");
    assert_eq!(
        gate.said(get("/content").by("junk")).await,
        "401 TOKEN_MALFORMED"
    );

    gate.stop().await;
}

#[tokio::test]
async fn the_organization_is_the_one_that_the_route_binds_and_never_another() {
    let gate = Gate::start().await;
    // Admin of acme and of globex, active in acme; member of acme.
    let alice = gate.mint(TokenSpec::session("user_alice").in_organization("acme"));
    let bob = gate.mint(TokenSpec::session("user_bob").in_organization("acme"));

    for (target, token, expected) in [
        ("/orgs/acme/invoices", &alice, "200 ALLOWED"),
        ("/orgs/org_globex/invoices", &alice, "200 ALLOWED"),
        ("/orgs/org_globex/invoices", &bob, "403 NOT_A_MEMBER"),
        ("/orgs/acme/invoices", &bob, "403 ROLE_MISMATCH"),
        (
            "/orgs/org_none/invoices",
            &alice,
            "403 ORGANIZATION_NOT_FOUND",
        ),
        ("/orgs/A%20b/invoices", &alice, "403 ORGANIZATION_MISSING"),
    ] {
        assert_eq!(gate.said(get(target).by(token)).await, expected, "{target}");
    }
    let by_header = |value| get("/reports").by(&alice).with("x-org", value);
    assert_eq!(gate.said(by_header("globex")).await, "200 ALLOWED");
    // Alice is admin of the active one; it is not asked about.
    for asked in [
        get("/reports").by(&alice),
        by_header("").clone(),
        by_header("acme").with("x-org", "globex"),
    ] {
        assert_eq!(gate.said(asked).await, "403 ORGANIZATION_MISSING");
    }
    // Who is not signed in hears that first.
    assert_eq!(gate.said(get("/reports")).await, "401 TOKEN_MISSING");

    // What the upstream is told is about the organization that was decided about.
    let asked = get("/orgs/globex/invoices").by(&alice);
    for asked in [asked.clone(), asked.narrowed(&[("access", "signed_in")])] {
        let Outcome::Allowed {
            identity: Some(identity),
        } = gate.ask(&asked).await.outcome
        else {
            panic!("an allow");
        };
        let person = identity.person().expect("somebody who is signed in");
        let id = person.organization_id().map(|id| id.as_str());
        assert_eq!(id, Some("org_globex"));
    }

    gate.stop().await;
}

#[tokio::test]
async fn narrowing_takes_away_and_never_gives() {
    let gate = Gate::start().await;
    let admin = gate.mint(TokenSpec::session("user_alice").in_organization("acme"));
    let member = gate.mint(TokenSpec::session("user_bob").in_organization("acme"));
    let stepped_up = TokenSpec {
        factor_ages: None,
        ..TokenSpec::session("user_alice")
    };
    let stepped_up = gate.mint(stepped_up.with_claim("fva", serde_json::json!([99, 99])));

    for (target, token, narrowing, expected) in [
        ("/me", Some(&member), ("role", "admin"), "403 ROLE_MISMATCH"),
        ("/me", Some(&admin), ("role", "admin"), "200 ALLOWED"),
        (
            "/me",
            Some(&admin),
            ("access", "denied"),
            "403 ROUTE_DENIED",
        ),
        (
            "/public",
            None,
            ("access", "signed_in"),
            "401 TOKEN_MISSING",
        ),
        ("/assets/a", None, ("role", "admin"), "401 TOKEN_MISSING"),
        (
            "/admin",
            Some(&member),
            ("access", "signed_in"),
            "403 ROLE_MISMATCH",
        ),
        (
            "/nobody",
            Some(&admin),
            ("access", "signed_in"),
            "403 ROUTE_DENIED",
        ),
        (
            "/me",
            Some(&stepped_up),
            ("reverification", "strict"),
            "403 step-up REVERIFICATION_REQUIRED",
        ),
    ] {
        let mut asked = get(target).narrowed(&[narrowing]);
        if let Some(token) = token {
            asked = asked.by(token);
        }
        assert_eq!(gate.said(asked).await, expected, "{target} {narrowing:?}");
    }
    let said = gate.said(get("/transfer").by(&stepped_up)).await;
    assert_eq!(said, "403 step-up REVERIFICATION_REQUIRED");

    gate.stop().await;
}

/// The policy file is refused where a route asks for fresh facts and for what only the token knows; what
/// the proxy adds cannot make such a route either.
#[tokio::test]
async fn narrowing_by_what_is_as_old_as_the_token_denies_where_facts_must_be_fresh() {
    let gate = Gate::start().await;
    let entitled = TokenSpec::session("user_alice").in_organization("acme");
    let token = gate.mint(entitled.with_claim("fea", "o:invoices,o:export".into()));

    for (target, narrowing, expected) in [
        ("/admin", ("feature", "org:export"), "200 ALLOWED"),
        ("/fresh", ("feature", "org:export"), "403 ROUTE_DENIED"),
        ("/fresh", ("plan", "org:free"), "403 ROUTE_DENIED"),
        ("/fresh", ("role", "admin"), "200 ALLOWED"),
    ] {
        let asked = get(target).by(&token).narrowed(&[narrowing]);
        assert_eq!(gate.said(asked).await, expected, "{target} {narrowing:?}");
    }
    let nobody = get("/fresh").narrowed(&[("feature", "org:export")]);
    assert_eq!(gate.said(nobody).await, "401 TOKEN_MISSING");

    gate.stop().await;
}

#[tokio::test]
async fn ambiguous_requests_are_denied_whoever_sends_them() {
    let gate = Gate::start().await;
    let token = gate.mint(TokenSpec::session("user_alice").in_organization("acme"));

    for target in [
        "/me/../nobody",
        "/assets/%2e%2e/nobody",
        "/assets/..%2fnobody",
        "//me",
        "/me;a",
        "/me#a",
        "/assets\\a",
        "",
        "me",
        "http://app.example/me",
        "/assets/%00",
        // Permitted in a route, but another route under another reading.
        "/files/a%2Fb",
    ] {
        let said = gate.said(get(target).by(&token)).await;
        assert_eq!(said, "403 PATH_AMBIGUOUS", "{target:?}");
    }
    assert_eq!(
        gate.said(get("/files/a%2Fc")).await,
        "200 nobody ROUTE_PUBLIC"
    );
    assert_eq!(
        gate.said(get("/me?a=/../b").by(&token)).await,
        "200 ALLOWED"
    );
    for authority in ["", "a b", "app.example:x", "user@app.example"] {
        let asked = Asked {
            authority: Some(authority),
            ..get("/me").by(&token)
        };
        assert_eq!(
            gate.said(asked).await,
            "403 PATH_AMBIGUOUS",
            "{authority:?}"
        );
    }

    gate.stop().await;
}

#[tokio::test]
async fn a_browser_is_sent_to_sign_in_from_configured_origins_only() {
    let gate = Gate::start().await;
    let document = || get("/page/a?b=c&d").with("sec-fetch-dest", "document");

    let Outcome::Unauthenticated { sign_in: Some(url) } = gate.ask(&document()).await.outcome
    else {
        panic!("a redirect");
    };
    assert_eq!(
        url.as_str(),
        "https://accounts.example/sign-in?redirect_url=https%3A%2F%2Fapp.example%2Fpage%2Fa%3Fb%3Dc%26d"
    );
    let by_accept = get("/page/a").with("accept", "text/html,*/*");
    assert_eq!(gate.said(by_accept).await, "302 TOKEN_MISSING");

    for (what, asked) in [
        (
            "another host",
            Asked {
                authority: Some("evil.example"),
                ..document()
            },
        ),
        (
            "another port",
            Asked {
                authority: Some("app.example:8443"),
                ..document()
            },
        ),
        (
            "another scheme",
            Asked {
                is_http: true,
                ..document()
            },
        ),
        ("a script", get("/page/a").with("sec-fetch-dest", "empty")),
        ("a client that says nothing", get("/page/a")),
        (
            "another route",
            get("/me").with("sec-fetch-dest", "document"),
        ),
    ] {
        assert_eq!(gate.said(asked).await, "401 TOKEN_MISSING", "{what}");
    }
    // Who is signed in and may not is not sent to sign in again.
    let token = gate.mint(TokenSpec::session("user_alice"));
    assert_eq!(gate.said(document().by(&token)).await, "200 ALLOWED");

    gate.stop().await;
}

#[tokio::test]
async fn a_shadow_policy_is_compared_and_never_asks_clerk() {
    let gate = Gate::start().await;
    let alice = gate.mint(TokenSpec::session("user_alice").in_organization("acme"));
    let shadow = POLICY
        .replace("path: /me, access: signed_in", "path: /me, access: denied")
        .replace(
            "{name: public, path: /public, access: public}",
            "{name: public, path: /public, access: {role: admin}, consistency: fully_consistent}",
        );
    gate.gatekeeper.set_shadow(Some(policy(&shadow)));
    let asked_before = gate.clerk.instances()[0].api_requests(Endpoint::Memberships);

    for (target, expected) in [
        ("/admin", "200 ALLOWED"),
        ("/me", "200 ALLOWED"),
        ("/public", "200 ROUTE_PUBLIC"),
    ] {
        let said = gate.said(get(target).by(&alice)).await;
        assert_eq!(said, expected, "the one in force decides");
    }

    let counts = ShadowStats {
        same: 1,
        different: 1,
        untold: 1,
    };
    assert_eq!(gate.gatekeeper.shadow().1, counts);
    let asked = gate.clerk.instances()[0].api_requests(Endpoint::Memberships) - asked_before;
    assert_eq!(asked, 0, "requests to Clerk");
    gate.gatekeeper.set_shadow(None);
    gate.said(get("/me").by(&alice)).await;
    assert_eq!(
        gate.gatekeeper.shadow().1,
        counts,
        "nothing is tried any more"
    );

    gate.stop().await;
}
