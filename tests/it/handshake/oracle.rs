//! What Clerk's SDK makes of a browser's cookies is what we make of them, except where a row of
//! docs/differences.md, "The handshake", says otherwise; and none of those lets more through.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use clerk_authz::{
    authz::{
        Authorization, Checker, CookiesOnTheWayBack, Gatekeeper, HandshakeOutcome, Headers,
        Instance, InstanceSerial, Instances, MembershipSettings, Outcome, ProxiedRequest,
        TokenCache, Verifier,
    },
    explain::Steps,
    identity::{PublishableKey, Timestamp},
    keys::{Keyring, VerifyingKey},
    policy::Policy,
    reason::Reason,
};
use futures_util::FutureExt;
use serde::Deserialize;

use crate::support::conformance::generate;

/// More seeds by `CONFORMANCE_SEEDS=1,2,3`.
const DEFAULT_SEEDS: &str = "1";
const CASES: &str = "4000";

/// The rows of docs/differences.md, "The handshake".
const ROWS: &[&str] = &[
    "dev-browser",
    "refresh",
    "counter",
    "header-token",
    "issued-at",
    "token-type",
    "clock-skew",
    "development",
];

const POLICY: &str = "
version: 1
routes:
  - {name: all, path: /**, access: signed_in}
";

#[derive(Deserialize)]
struct Header {
    pem: String,
    instances: BTreeMap<String, InstanceLine>,
}

#[derive(Deserialize)]
struct InstanceLine {
    host: String,
    key: String,
}

#[derive(Debug, Deserialize)]
struct Case {
    id: u64,
    instance: String,
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    authorization: Option<String>,
    cookies: Vec<String>,
    tags: Vec<String>,
    now: i64,
    sdk: Said,
}

#[derive(Debug, Deserialize)]
struct Said {
    status: String,
    reason: Option<String>,
    location: Option<String>,
    cookies: Vec<String>,
}

impl Headers for Case {
    fn values<'h>(&'h self, name: &str) -> Vec<&'h str> {
        self.headers
            .get(name)
            .map(String::as_str)
            .into_iter()
            .collect()
    }
}

impl Case {
    fn is_development(&self) -> bool {
        self.instance == "development"
    }

    fn has(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own == tag)
    }
}

/// How we answered, in the SDK's words.
struct Ours {
    status: &'static str,
    why: Option<&'static str>,
    location: Option<String>,
    cookies: Vec<String>,
    reason: Reason,
    handshake: Option<HandshakeOutcome>,
}

fn ours(authorization: &Authorization) -> Ours {
    let browser = authorization.browser.as_deref();
    let handshake = browser.map(|browser| browser.handshake);
    let status = match (&authorization.outcome, handshake) {
        (_, Some(HandshakeOutcome::Sent)) => "handshake",
        (Outcome::Allowed { .. }, _) => "signed-in",
        (Outcome::Unauthenticated { .. }, _) => "signed-out",
        (other, _) => panic!("{other:?}"),
    };
    Ours {
        status,
        why: browser.map(|browser| browser.why),
        location: browser.and_then(|browser| Some(browser.location.as_deref()?.to_owned())),
        cookies: browser.map_or_else(Vec::new, |browser| {
            let cookies = browser.cookies.iter();
            cookies.map(|cookie| cookie.as_str().to_owned()).collect()
        }),
        reason: authorization.reason,
        handshake,
    }
}

fn gatekeeper(header: &Header, name: &str) -> Gatekeeper {
    let line = &header.instances[name];
    let key = VerifyingKey::from_pem(&header.pem).expect("a PEM");
    let instance = Instance {
        serial: InstanceSerial::next(),
        name: "default".parse().expect("a name"),
        issuer: format!("https://{}", line.host).parse().expect("an issuer"),
        publishable_key: Some(line.key.parse::<PublishableKey>().expect("a key")),
        authorized_parties: vec![
            "https://app.example.com".into(),
            "http://localhost:3000".into(),
        ],
        audiences: Vec::new(),
        keyring: Arc::new(Keyring::pinned(key)),
        directory: None,
        user_directory: None,
        sign_ins: None,
        providers: Vec::new(),
        revocations: None,
        has_webhooks: false,
    };
    let verifier = Verifier::new(
        Instances::new(vec![Arc::new(instance)]).expect("one instance"),
        TokenCache::new(0),
        Duration::from_secs(5),
    );
    let checker = Checker::new(
        Arc::new(verifier),
        MembershipSettings::default(),
        Arc::new(|| Timestamp::from_unix_seconds(0)),
    );
    let policy = Policy::parse(POLICY).expect("a policy");
    Gatekeeper::new(Arc::new(checker), policy).with_handshakes()
}

fn ask(gatekeeper: &Gatekeeper, case: &Case) -> Ours {
    let authorization: Vec<String> = case.authorization.iter().cloned().collect();
    let cookie: Vec<String> = match &case.cookies[..] {
        [] => Vec::new(),
        cookies => vec![cookies.join("; ")],
    };
    let request = ProxiedRequest {
        method: &case.method,
        authority: b"app.example.com",
        target: case.target.as_bytes(),
        is_https: true,
        authorization: &authorization,
        cookie: &cookie,
        headers: case,
        narrowing: None,
        patience: Duration::from_secs(1),
        cookies_on_the_way_back: CookiesOnTheWayBack::Set,
    };
    let now = Timestamp::from_unix_seconds(case.now);
    let mut steps = Steps::off();
    let answered = gatekeeper
        .authorize(&request, now, &mut steps)
        .now_or_never();
    ours(&answered.expect("nobody waits for anybody"))
}

fn bears_a_token(case: &Case) -> bool {
    let value = case.authorization.as_deref();
    value.is_some_and(|value| !value.starts_with("Basic "))
}

/// `Ok` with the row that a difference is of, if it is one.
fn compare(case: &Case, ours: &Ours) -> Result<Option<&'static str>, String> {
    let sdk = &case.sdk;
    let reason = sdk.reason.as_deref().unwrap_or_default();
    let same = |what: &str, ours: &dyn std::fmt::Debug, theirs: &dyn std::fmt::Debug| {
        let (ours, theirs) = (format!("{ours:?}"), format!("{theirs:?}"));
        match ours == theirs {
            true => Ok(()),
            false => Err(format!("{what}: the SDK has {theirs}, we have {ours}")),
        }
    };
    let is_resolved = ours.handshake == Some(HandshakeOutcome::Resolved);
    match (&*sdk.status, ours.status) {
        ("signed-in", _) if case.has("carried:template") && !is_resolved => Ok(Some("token-type")),
        // The SDK forgives a day in development, where we say that the clocks do not agree.
        ("signed-in", "signed-out")
            if ours.handshake == Some(HandshakeOutcome::Failed)
                && case.is_development()
                && ours.reason == Reason::TokenExpired =>
        {
            Ok(Some("clock-skew"))
        }
        // There the SDK fails for the handshake's own token, and goes on for the session's in it.
        ("signed-in" | "handshake", "signed-out")
            if ours.handshake == Some(HandshakeOutcome::Failed) && case.is_development() =>
        {
            Ok(Some("development"))
        }
        ("signed-in", "signed-out" | "handshake")
            if case.has("no_iat") && ours.reason == Reason::TokenExpired =>
        {
            Ok(Some("issued-at"))
        }
        ("signed-in", "signed-in") => {
            same("cookies", &ours.cookies, &sdk.cookies)?;
            Ok(None)
        }
        // In development what was brought is put in place by one more redirect, and not by this answer.
        ("signed-in" | "signed-out", "signed-out") if is_resolved && sdk.location.is_some() => {
            same("cookies", &ours.cookies, &sdk.cookies)?;
            same("location", &ours.location, &sdk.location)?;
            Ok(None)
        }
        ("signed-out", "signed-out") => {
            if is_resolved {
                same("cookies", &ours.cookies, &sdk.cookies)?;
                same("why", &ours.why.unwrap_or_default(), &reason)?;
            }
            Ok(None)
        }
        ("throws", "signed-out") if !is_resolved => Ok(None),
        ("handshake", "handshake") => {
            same("cookies", &ours.cookies, &sdk.cookies)?;
            let why = ours.why.unwrap_or_default();
            if reason.starts_with("session-token-expired-refresh-")
                && why == "session-token-expired-refresh-missing-api-client"
            {
                let theirs = sdk.location.as_ref().map(|url| url.replace(reason, why));
                same("location", &ours.location, &theirs)?;
                return Ok(Some("refresh"));
            }
            same("why", &why, &reason)?;
            same("location", &ours.location, &sdk.location)?;
            Ok(None)
        }
        ("handshake" | "signed-out", "signed-in") if reason.starts_with("dev-browser-") => {
            Ok(Some("dev-browser"))
        }
        // What a header token is told, and nothing beside it.
        ("handshake", "signed-out") if bears_a_token(case) => Ok(Some("header-token")),
        ("handshake", "signed-out") if ours.handshake == Some(HandshakeOutcome::Stopped) => {
            Ok(Some("counter"))
        }
        (theirs, us) => Err(format!(
            "the SDK says {theirs} ({reason}), we say {us} ({}, {:?})",
            ours.reason, ours.why
        )),
    }
}

#[test]
fn browsers_are_told_what_the_sdk_tells_them_but_for_the_documented_rows() {
    let seeds = std::env::var("CONFORMANCE_SEEDS").unwrap_or_else(|_| DEFAULT_SEEDS.to_owned());
    let mut hits: BTreeMap<&str, u64> = ROWS.iter().map(|row| (*row, 0)).collect();
    let mut statuses: BTreeMap<(String, &str), u64> = BTreeMap::new();
    let mut reasons = BTreeSet::new();
    let mut differences = Vec::new();
    for seed in seeds.split(',') {
        let (header, cases): (Header, Vec<Case>) = generate("handshake.mjs", seed.trim(), CASES);
        for case in cases {
            // One for each: what was put in place before is remembered.
            let ours = ask(&gatekeeper(&header, &case.instance), &case);
            *statuses
                .entry((case.sdk.status.clone(), ours.status))
                .or_default() += 1;
            if case.sdk.status == "handshake" {
                reasons.extend(ours.why);
            }
            match compare(&case, &ours) {
                Ok(Some(row)) => *hits.get_mut(row).expect("a row") += 1,
                Ok(None) => {}
                Err(difference) => differences.push(format!(
                    "seed {seed} case {} ({} {} {:.80}, {:?}): {difference}\n  {:?} {:?} {:?}",
                    case.id,
                    case.instance,
                    case.method,
                    case.target,
                    case.tags,
                    case.headers,
                    case.authorization.is_some(),
                    case.cookies
                        .iter()
                        .map(|cookie| cookie.chars().take(40).collect::<String>())
                        .collect::<Vec<_>>()
                )),
            }
        }
    }
    println!("handshake oracle: seeds {seeds}, {statuses:?}, rows {hits:?}");
    assert!(
        differences.is_empty(),
        "{} differences that docs/differences.md does not have:\n{}",
        differences.len(),
        differences
            .iter()
            .take(12)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    );
    let count = |theirs: &str, us| statuses.get(&(theirs.to_owned(), us)).copied();
    for (status, least) in [("signed-in", 200), ("handshake", 500), ("signed-out", 500)] {
        let both = count(status, status).unwrap_or_default();
        assert!(both >= least, "{status}: {both} cases show little");
    }
    assert!(reasons.len() >= 9, "causes that no case hits: {reasons:?}");
    let unused: Vec<_> = hits.iter().filter(|(_, hits)| **hits == 0).collect();
    assert!(unused.is_empty(), "rows that no case hits: {unused:?}");
}

#[test]
fn the_rows_of_the_handshake_are_those_of_the_document() {
    let document = include_str!("../../../docs/differences.md");
    let documented: BTreeSet<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| **")?.split_once("**").map(|it| it.0))
        .collect();
    let tested: BTreeSet<&str> = ROWS.iter().copied().collect();
    assert_eq!(
        documented, tested,
        "docs/differences.md (left) and ROWS (right) differ"
    );
}
