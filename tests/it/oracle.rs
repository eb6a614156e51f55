//! The oracle: Clerk's own SDK. On every input we agree with it, except where a row of
//! docs/differences.md says that we are stricter, and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use clerk_authz::{
    authz::{
        Checker, Consistency, Instance, InstanceSerial, Instances, MembershipSettings, OrgAnswer,
        OrgQuestion, Question, Subject, TokenCache, Verdict, Verifier,
    },
    credential::Credential,
    decision::{Level, Requirement, Reverification},
    explain::Steps,
    identity::{PublishableKey, Session, Timestamp},
    keys::{Keyring, VerifyingKey},
    reason::Reason,
};
use futures_util::FutureExt;
use serde::Deserialize;
use serde_json::Value;

use crate::support::conformance::generate;

/// More seeds by `CONFORMANCE_SEEDS=1,2,3`, more cases by `CONFORMANCE_CASES`.
const DEFAULT_SEEDS: &str = "1";
const DEFAULT_CASES: &str = "12000";

/// Where we are stricter: the row's name in docs/differences.md, the oddities (tags of the cases)
/// that it is about, and what we answer.
const ROWS: &[(&str, &[&str], &[Reason])] = &[
    (
        "issuer",
        &["claim:iss", "carrier", "class:handshake"],
        &[Reason::IssuerMismatch],
    ),
    ("critical", &["header:crit"], &[Reason::TokenMalformed]),
    (
        "duplicate",
        &["duplicate"],
        &[Reason::TokenMalformed, Reason::ClaimInvalid],
    ),
    (
        "session-id",
        &["claim:sid", "class:template_old", "class:handshake"],
        &[Reason::TokenTypeNotAccepted],
    ),
    (
        "user-id",
        &["claim:sub"],
        &[Reason::ClaimInvalid, Reason::TokenTypeNotAccepted],
    ),
    ("wrong-type", &["claim:"], &[Reason::ClaimInvalid]),
    (
        "unreadable",
        &["form:", "overflow"],
        &[Reason::TokenMalformed],
    ),
    ("size", &["form:large"], &[Reason::TokenTooLarge]),
    (
        "authorization-form",
        &["carrier:more"],
        &[Reason::TokenMalformed],
    ),
    ("ambiguous", &["carrier"], &[Reason::CredentialsAmbiguous]),
    (
        "cookie-parties",
        &["carrier:no_parties"],
        &[Reason::TokenMissing],
    ),
];

/// What we may answer where the SDK denies: its reason → ours. Where several are listed, we look at
/// something earlier than the SDK does (the order is in docs/verification.md).
fn counterparts(reason: &str) -> &'static [Reason] {
    match reason {
        "session-token-and-uat-missing"
        | "client-uat-but-no-session-token"
        | "session-token-but-no-client-uat"
        | "dev-browser-missing" => &[Reason::TokenMissing],
        // Before the signature there; here after the rules that a header token meets too.
        "session-token-iat-before-client-uat" => &[
            Reason::TokenExpired,
            Reason::AudienceMismatch,
            Reason::AuthorizedPartyMismatch,
        ],
        "token-invalid" => &[Reason::TokenMalformed, Reason::TokenMissing],
        "token-type-mismatch" => &[Reason::TokenTypeNotAccepted],
        "token-invalid-algorithm" => &[Reason::AlgorithmNotAllowed],
        "token-invalid-signature" => &[Reason::SignatureInvalid],
        "token-verification-failed" => &[
            Reason::AudienceMismatch,
            Reason::ClaimInvalid,
            Reason::AlgorithmNotAllowed,
            Reason::SignatureInvalid,
            Reason::TokenTypeNotAccepted,
        ],
        "token-invalid-authorized-parties" => &[Reason::AuthorizedPartyMismatch],
        "session-token-nbf" => &[Reason::TokenNotYetValid],
        "session-token-iat-in-the-future" => &[Reason::TokenIssuedInFuture],
        "pending" => &[Reason::SessionPending],
        _ if reason.starts_with("session-token-expired") => &[Reason::TokenExpired],
        // The SDK throws: on claims that it cannot decode, and on what is not a token at all.
        "throws" => &[
            Reason::ClaimInvalid,
            Reason::TokenMalformed,
            Reason::TokenMissing,
        ],
        _ => &[],
    }
}

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
    group: String,
    instance: String,
    token: Option<String>,
    authorization: Option<Vec<String>>,
    cookie: Option<Vec<String>>,
    authorized_parties: Vec<String>,
    audiences: Vec<String>,
    clock_skew_ms: u64,
    now_ms: i64,
    tags: Vec<String>,
    sdk: SdkAnswer,
}

#[derive(Debug, Deserialize)]
struct SdkAnswer {
    accepted: bool,
    reason: Option<String>,
    message: Option<String>,
    facts: Option<Value>,
    /// What `has()` says of an accepted session.
    #[serde(default)]
    questions: Vec<HasQuestion>,
}

#[derive(Debug, Deserialize)]
struct HasQuestion {
    asked: HasParameters,
    allowed: bool,
}

/// The parameters of `has()`; one that is absent is not asked.
#[derive(Debug, Deserialize)]
struct HasParameters {
    permission: Option<String>,
    role: Option<String>,
    feature: Option<String>,
    plan: Option<String>,
    reverification: Option<Value>,
}

impl Case {
    fn has(&self, tag: &str) -> bool {
        self.tags
            .iter()
            .any(|own| own == tag || (tag.ends_with(':') && own.starts_with(tag)))
    }
}

#[test]
fn we_agree_with_the_sdk_but_for_the_documented_rows() {
    let seeds = setting("CONFORMANCE_SEEDS", DEFAULT_SEEDS);
    let count = setting("CONFORMANCE_CASES", DEFAULT_CASES);
    let mut hits: BTreeMap<&str, u64> = ROWS.iter().map(|(row, ..)| (*row, 0)).collect();
    let mut differences = Vec::new();
    let (mut asked, mut accepted) = (0, 0);
    let (mut questions, mut allowed) = (0, 0);
    for seed in seeds.split(',') {
        let (header, cases): (Header, Vec<Case>) = generate("oracle.mjs", seed.trim(), &count);
        for case in cases {
            asked += 1;
            let ours = ask(&header, &case);
            accepted += u64::from(ours.is_ok());
            if ours.is_ok() {
                for question in &case.sdk.questions {
                    questions += 1;
                    allowed += u64::from(question.allowed);
                    let ours = decide(&header, &case, &question.asked);
                    if (ours == Ok(Reason::Allowed)) != question.allowed {
                        differences.push(format!(
                            "seed {seed} case {}: {:?}: the SDK says {}, we say {ours:?}\n  {}",
                            case.id,
                            question.asked,
                            question.allowed,
                            shown(&case)
                        ));
                    }
                }
            }
            match compare(&case, &ours) {
                Ok(Some(row)) => *hits.entry(row).or_default() += 1,
                Ok(None) => {}
                Err(difference) => differences.push(format!(
                    "seed {seed} case {} ({}, {:?}): {difference}\n  SDK: {:?} {:?} {:?}\n  {}",
                    case.id,
                    case.group,
                    case.tags,
                    case.sdk.accepted,
                    case.sdk.reason,
                    case.sdk.message,
                    shown(&case)
                )),
            }
        }
    }
    println!("oracle: seeds {seeds}, {asked} cases, {accepted} accepted by both, rows {hits:?}");
    println!("oracle: {questions} questions of has(), {allowed} allowed");
    assert!(
        differences.is_empty(),
        "{} differences that docs/differences.md does not have:\n{}",
        differences.len(),
        differences
            .iter()
            .take(10)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    );
    assert!(
        accepted > asked / 5,
        "too few good tokens: the cases show little"
    );
    assert!(
        questions >= 10_000 && (questions / 10..questions * 9 / 10).contains(&allowed),
        "{allowed} of {questions} questions allowed: they show little"
    );
    let unused: Vec<_> = hits.iter().filter(|(_, hits)| **hits == 0).collect();
    assert!(unused.is_empty(), "rows that no case hits: {unused:?}");
}

#[test]
fn the_rows_are_those_of_the_document() {
    let document = include_str!("../../docs/differences.md");
    let documented: BTreeSet<&str> = document
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `")?
                .split_once('`')
                .map(|(row, _)| row)
        })
        .collect();
    let tested: BTreeSet<&str> = ROWS.iter().map(|(row, ..)| *row).collect();
    assert_eq!(
        documented, tested,
        "docs/differences.md (left) and ROWS (right) differ"
    );
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn verifier(header: &Header, case: &Case) -> Verifier {
    let line = &header.instances[&case.instance];
    let key = VerifyingKey::from_pem(&header.pem).expect("a PEM");
    let shared = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
    let instance = Instance {
        serial: InstanceSerial::next(),
        name: "default".parse().expect("a name"),
        issuer: format!("https://{}", line.host).parse().expect("an issuer"),
        publishable_key: Some(line.key.parse::<PublishableKey>().expect("a key")),
        authorized_parties: shared(&case.authorized_parties),
        audiences: shared(&case.audiences),
        keyring: Arc::new(Keyring::pinned(key)),
        directory: None,
        user_directory: None,
        sign_ins: None,
        providers: Vec::new(),
        revocations: None,
        has_webhooks: false,
    };
    Verifier::new(
        Instances::new(vec![Arc::new(instance)]).expect("one instance"),
        TokenCache::new(0),
        Duration::from_millis(case.clock_skew_ms),
    )
}

/// What we say to a question of `has()`; what cannot be asked of us is not allowed.
fn decide(header: &Header, case: &Case, asked: &HasParameters) -> Result<Reason, String> {
    fn parsed<T: FromStr<Err: Display>>(text: &Option<String>) -> Result<Option<T>, String> {
        text.as_deref()
            .map(|text| text.parse().map_err(|error| format!("refused: {error}")))
            .transpose()
    }
    let requirement = Requirement {
        permission: parsed(&asked.permission)?,
        role: parsed(&asked.role)?,
        feature: parsed(&asked.feature)?,
        plan: parsed(&asked.plan)?,
        reverification: asked
            .reverification
            .as_ref()
            .map(reverification)
            .transpose()?,
        ..Requirement::default()
    };
    let (authorization, cookie) = carriers(case);
    let question = OrgQuestion {
        subject: Subject::Credential(credential(case, &authorization, &cookie)),
        organization: None,
        requirement,
        consistency: Consistency::MinimizeLatency,
        patience: Duration::from_secs(1),
        lookups: None,
    };
    let now_ms = case.now_ms;
    let checker = Checker::new(
        Arc::new(verifier(header, case)),
        MembershipSettings::default(),
        Arc::new(move || Timestamp::from_unix_millis(now_ms)),
    );
    let (now, mut steps) = (Timestamp::from_unix_millis(case.now_ms), Steps::off());
    let answer = checker
        .check_org_permission(&question, now, &mut steps)
        .now_or_never();
    match answer.expect("nobody is asked") {
        Ok(OrgAnswer::Decided(decision)) => Ok(decision.reason),
        Ok(OrgAnswer::TokenDenied(reason)) => Err(format!("the token is denied: {reason}")),
        Ok(OrgAnswer::OrganizationNotFound) => Err("nobody was asked".to_owned()),
        // System permissions take the membership, and there is nobody to ask.
        Err(cannot_tell) => Err(format!("cannot tell: {}", cannot_tell.reason())),
    }
}

fn reverification(asked: &Value) -> Result<Reverification, String> {
    if let Some(preset) = asked.as_str() {
        return preset.parse().map_err(|_| "no such preset".to_owned());
    }
    let level = match asked["level"].as_str() {
        Some("first_factor") => Level::FirstFactor,
        Some("second_factor") => Level::SecondFactor,
        Some("multi_factor") => Level::MultiFactor,
        _ => return Err("no such level".to_owned()),
    };
    let minutes = asked["afterMinutes"].as_f64().expect("a number");
    let max_age = Duration::try_from_secs_f64(minutes * 60.0).map_err(|e| e.to_string())?;
    Reverification::new(level, max_age).map_err(|error| error.to_string())
}

fn carriers(case: &Case) -> (Vec<String>, Vec<String>) {
    (
        case.authorization.clone().unwrap_or_default(),
        case.cookie.clone().unwrap_or_default(),
    )
}

fn credential<'a>(
    case: &'a Case,
    authorization: &'a [String],
    cookie: &'a [String],
) -> Credential<'a> {
    match &case.token {
        Some(token) => Credential::Token(token),
        None => Credential::Http {
            authorization,
            cookie,
        },
    }
}

fn ask(header: &Header, case: &Case) -> Result<Session, Reason> {
    let verifier = verifier(header, case);
    let (authorization, cookie) = carriers(case);
    let question = Question {
        credential: credential(case, &authorization, &cookie),
        ..Question::about("")
    };
    let now = Timestamp::from_unix_millis(case.now_ms);
    let mut steps = Steps::off();
    let answer = verifier
        .verify_session(&question, now, &mut steps)
        .now_or_never();
    match answer
        .expect("a pinned key waits for nothing")
        .expect("a pinned key can always tell")
    {
        Verdict::Accepted(verified) => Ok(verified.session.clone()),
        Verdict::Machine(_) => panic!("session tokens alone were asked for"),
        Verdict::Denied(reason) => Err(reason),
    }
}

/// The row that a difference falls under, or why there must be none.
fn compare(case: &Case, ours: &Result<Session, Reason>) -> Result<Option<&'static str>, String> {
    let row = |reason: Reason| {
        ROWS.iter()
            .find(|(_, tags, reasons)| {
                reasons.contains(&reason) && tags.iter().any(|tag| case.has(tag))
            })
            .map(|(row, ..)| *row)
    };
    match (case.sdk.accepted, ours) {
        (true, Ok(session)) => match &case.sdk.facts {
            Some(facts) => same_facts(facts, session).map(|()| None),
            None => Ok(None),
        },
        (true, Err(reason)) => match row(*reason) {
            Some(row) => Ok(Some(row)),
            None => Err(format!("the SDK accepts, we deny with {reason}")),
        },
        (false, Ok(_)) => Err("the SDK denies, WE ACCEPT".to_owned()),
        (false, Err(reason)) => {
            let sdk_reason = case.sdk.reason.as_deref().unwrap_or_default();
            // A rule of ours that is stricter may come before the one by which the SDK denies.
            if counterparts(sdk_reason).contains(reason) || row(*reason).is_some() {
                Ok(None)
            } else {
                Err(format!("both deny, we with {reason}"))
            }
        }
    }
}

fn same_facts(facts: &Value, session: &Session) -> Result<(), String> {
    let organization = session.organization.as_deref();
    let text = |text: Option<&str>| {
        text.filter(|t| !t.is_empty())
            .map_or(Value::Null, Value::from)
    };
    let given = |name: &str| match &facts[name] {
        Value::String(text) if text.is_empty() => Value::Null,
        other => other.clone(),
    };
    let role = |role: &Value| {
        role.as_str().filter(|role| !role.is_empty()).map(|role| {
            let mut bare = role;
            while let Some(rest) = bare.strip_prefix("org:") {
                bare = rest;
            }
            format!("org:{bare}")
        })
    };
    let permissions = facts["organization_permissions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let permissions = if facts["organization_id"].is_string() {
        permissions
    } else {
        Vec::new()
    };
    let our_permissions: Vec<Value> = organization
        .map(|o| o.permissions.iter().map(Value::from).collect())
        .unwrap_or_default();
    let minutes = |age: Option<clerk_authz::identity::FactorAge>| age.map_or(-1.0, |a| a.minutes());
    let our_ages = session
        .factor_ages
        .map(|ages| vec![minutes(ages.first), minutes(ages.second)]);
    let ages = facts["factor_ages"]
        .as_array()
        .map(|ages| ages.iter().filter_map(Value::as_f64).collect::<Vec<_>>());
    // `org:` alone is the SDK's reading of an empty version-2 role.
    let sdk_role = role(&facts["organization_role"]).filter(|role| role != "org:");
    // Without an id the SDK still shows the rest of a version-1 token's organization; nothing can be
    // decided by it.
    let of_organization = |value: Value| {
        if given("organization_id").is_null() {
            Value::Null
        } else {
            value
        }
    };
    for (what, theirs, ours) in [
        (
            "user",
            given("user_id"),
            text(Some(session.user_id.as_str())),
        ),
        (
            "session",
            given("session_id"),
            text(Some(session.session_id.as_str())),
        ),
        (
            "organization",
            given("organization_id"),
            text(organization.map(|o| o.id.as_str())),
        ),
        (
            "slug",
            of_organization(given("organization_slug")),
            text(organization.and_then(|o| o.slug.as_deref())),
        ),
        (
            "role",
            of_organization(sdk_role.map_or(Value::Null, Value::from)),
            text(organization.and_then(|o| o.role.as_deref())),
        ),
        (
            "permissions",
            Value::from(permissions),
            Value::from(our_permissions),
        ),
        (
            "actor",
            given("actor"),
            text(session.actor.as_ref().map(|actor| &*actor.subject)),
        ),
        (
            "factor ages",
            serde_json::json!(ages),
            serde_json::json!(our_ages),
        ),
    ] {
        if theirs != ours {
            return Err(format!(
                "both accept, but {what}: the SDK says {theirs}, we say {ours}"
            ));
        }
    }
    Ok(())
}

/// The case's tokens, decoded as far as they can be.
fn shown(case: &Case) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let decode = |token: &str| {
        let parts = token.split('.').take(2).map(|part| {
            URL_SAFE_NO_PAD.decode(part).map_or_else(
                |_| format!("?{part}"),
                |b| String::from_utf8_lossy(&b).into_owned(),
            )
        });
        parts
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
            .take(900)
            .collect::<String>()
    };
    let carriers = case.authorization.iter().chain(&case.cookie).flatten();
    let texts: Vec<String> = case
        .token
        .iter()
        .map(|token| decode(token))
        .chain(
            carriers
                .flat_map(|value| value.split([';', ' ', ',']))
                .map(|part| match part.split_once('=') {
                    Some((name, token)) => format!("{name}={}", decode(token)),
                    None => decode(part),
                }),
        )
        .collect();
    format!(
        "parties {:?}, audiences {:?}, {}",
        case.authorized_parties,
        case.audiences,
        texts.join(" | ")
    )
}
