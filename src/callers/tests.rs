use std::time::{Duration, Instant};

use proptest::{collection::vec, prelude::*};

use super::{
    rules::{Unrecognized, Who},
    *,
};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER_SECRET: &[u8] = b"fedcba9876543210fedcba9876543210";

fn caller(name: &str) -> Caller {
    Caller {
        name: name.into(),
        spiffe: vec![format!("spiffe://example.org/sa/{name}").into()],
        dns: Vec::new(),
        secrets: Vec::new(),
        rights: Rights {
            rpcs: RpcSet::from_iter([GuardedRpc::VerifySession]),
            any_user: false,
        },
        limits: Limits::default(),
    }
}

fn rules(callers: Vec<Caller>) -> Rules {
    Rules::new(Rights::default(), callers).expect("good rules")
}

fn uri(name: &str) -> [Box<str>; 1] {
    [format!("spiffe://example.org/sa/{name}").into()]
}

fn by_certificate<'a>(uris: &'a [Box<str>], dns_names: &'a [Box<str>]) -> Shown<'a> {
    Shown {
        uris,
        dns_names,
        bearer: Bearer::Missing,
    }
}

fn by_secret(secret: &[u8]) -> Shown<'_> {
    Shown {
        bearer: Bearer::Secret(secret),
        ..by_certificate(&[], &[])
    }
}

#[test]
fn a_certificates_name_is_matched_exactly_and_dns_in_any_case() {
    let billing = Caller {
        dns: vec!["Billing.internal".into()],
        ..caller("billing")
    };
    let rules = rules(vec![billing, caller("shop")]);
    let of_uri = |text: &str| rules.who(&by_certificate(&[text.into()], &[]));
    let of_dns = |text: &str| rules.who(&by_certificate(&[], &[text.into()]));

    assert_eq!(of_uri("spiffe://example.org/sa/billing"), Ok(Who::Named(0)));
    assert_eq!(of_uri("spiffe://example.org/sa/shop"), Ok(Who::Named(1)));
    for near in [
        "spiffe://example.org/sa/billing2",
        "spiffe://example.org/sa/billing/",
        "spiffe://example.org/sa/Billing",
        "spiffe://example.org/sa",
        "billing.internal",
        "",
    ] {
        assert_eq!(of_uri(near), Ok(Who::Anyone), "{near}");
    }
    for name in ["billing.internal", "BILLING.Internal"] {
        assert_eq!(of_dns(name), Ok(Who::Named(0)), "{name}");
    }
    for near in ["billing.internal.", "x.billing.internal", "*.internal"] {
        assert_eq!(of_dns(near), Ok(Who::Anyone), "{near}");
    }
}

#[test]
fn a_bearer_that_is_nobodys_is_refused_where_none_is_anyone() {
    let billing = Caller {
        secrets: [SECRET, OTHER_SECRET].map(SecretDigest::of).to_vec(),
        ..caller("billing")
    };
    let rules = rules(vec![caller("shop"), billing]);

    for secret in [SECRET, OTHER_SECRET] {
        assert_eq!(rules.who(&by_secret(secret)), Ok(Who::Named(1)));
    }
    let long = [b'a'; MAX_BEARER_BYTES + 1];
    for wrong in [&SECRET[1..], b"", &long, &[SECRET, b"0"].concat()] {
        assert_eq!(rules.who(&by_secret(wrong)), Err(Unrecognized::Bearer));
    }
    let unreadable = Shown {
        bearer: Bearer::Unreadable,
        ..by_secret(SECRET)
    };
    assert_eq!(rules.who(&unreadable), Err(Unrecognized::Bearer));
    assert_eq!(rules.who(&by_certificate(&[], &[])), Ok(Who::Anyone));
}

#[test]
fn names_of_two_callers_are_nobodys() {
    let with_secret = Caller {
        secrets: vec![SecretDigest::of(SECRET)],
        ..caller("billing")
    };
    let rules = rules(vec![with_secret, caller("shop")]);
    let with_certificate = |uris: &[Box<str>]| {
        rules.who(&Shown {
            uris,
            ..by_secret(SECRET)
        })
    };

    assert_eq!(with_certificate(&uri("billing")), Ok(Who::Named(0)));
    assert_eq!(with_certificate(&uri("stranger")), Ok(Who::Named(0)));
    assert_eq!(with_certificate(&uri("shop")), Err(Unrecognized::Several));
    let both = [uri("billing"), uri("shop")].concat();
    let shown = by_certificate(&both, &[]);
    assert_eq!(rules.who(&shown), Err(Unrecognized::Several));
}

#[test]
fn rules_that_cannot_be_are_faults() {
    let with = |change: fn(&mut Caller)| {
        let mut first = caller("billing");
        change(&mut first);
        let made = Rules::new(Rights::default(), vec![first, caller("shop")]);
        made.err().unwrap_or_default().pop().map(|(_, fault)| fault)
    };
    let shop = || -> std::sync::Arc<str> { "shop".into() };
    assert_eq!(with(|_| ()), None);
    for (fault, expected) in [
        (with(|it| it.name = "".into()), Fault::Name("".into())),
        (with(|it| it.name = "a b".into()), Fault::Name("a b".into())),
        (
            with(|it| it.name = ANYONE.into()),
            Fault::ReservedName(ANYONE.into()),
        ),
        (
            with(|it| it.name = "shop".into()),
            Fault::NameOfAnother(shop()),
        ),
        (with(|it| it.spiffe.clear()), Fault::Unrecognizable),
        (
            with(|it| it.rights.rpcs = RpcSet::default()),
            Fault::Useless,
        ),
        (
            with(|it| it.spiffe = vec!["spiffe://example.org/*".into()]),
            Fault::Spiffe("spiffe://example.org/*".into()),
        ),
        (
            with(|it| it.dns = vec!["*.internal".into()]),
            Fault::Dns("*.internal".into()),
        ),
    ] {
        assert_eq!(fault, Some(expected));
    }
    // What two callers have is said at the second.
    let twice = |change: fn(&mut Caller)| {
        let (mut first, mut second) = (caller("billing"), caller("shop"));
        change(&mut first);
        change(&mut second);
        let faults = Rules::new(Rights::default(), vec![first, second]).expect_err("a fault");
        assert_eq!(faults[0].0, Some(1));
        faults[0].1.clone()
    };
    assert!(matches!(
        twice(|it| it.dns = vec!["A.internal".into()]),
        Fault::IdentityOfAnother(..)
    ));
    assert!(matches!(
        twice(|it| it.secrets = vec![SecretDigest::of(SECRET)]),
        Fault::SecretOfAnother(_)
    ));
    let many = (0..=MAX_CALLERS).map(|index| caller(&format!("c{index}")));
    let faults = Rules::new(Rights::default(), many.collect()).expect_err("too many");
    assert_eq!(faults, [(None, Fault::TooMany(MAX_CALLERS + 1))]);
}

/// One caller called `billing` under these limits, and how it calls at a time.
struct Limited {
    callers: Callers,
    since: Instant,
}

impl Limited {
    fn to(max_concurrent_calls: Option<u32>, max_calls_per_second: Option<u32>) -> Self {
        let since = Instant::now();
        let rules = Self::rules(max_concurrent_calls, max_calls_per_second);
        let callers = Callers::new(rules, since);
        Self { callers, since }
    }

    fn rules(max_concurrent_calls: Option<u32>, max_calls_per_second: Option<u32>) -> Rules {
        rules(vec![Caller {
            limits: Limits {
                max_concurrent_calls,
                max_calls_per_second,
            },
            ..caller("billing")
        }])
    }

    fn call(&self, at_milliseconds: u64) -> Result<(KnownCaller, Place), Refused> {
        let now = self.at(at_milliseconds);
        let uris = uri("billing");
        let shown = by_certificate(&uris, &[]);
        self.callers.admit(GuardedRpc::VerifySession, &shown, now)
    }

    fn at(&self, milliseconds: u64) -> Instant {
        self.since + Duration::from_millis(milliseconds)
    }

    fn calls(&self, outcome: CallerOutcome) -> u64 {
        self.callers.stats()[0].1.calls(outcome)
    }
}

fn retry_after(refused: Result<(KnownCaller, Place), Refused>) -> Duration {
    match refused {
        Err(Refused::OverLimit { retry_after, .. }) => retry_after,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_seconds_worth_comes_at_once_and_then_at_the_rate() {
    let limited = Limited::to(None, Some(4));
    for _ in 0..4 {
        assert!(limited.call(0).is_ok());
    }
    assert_eq!(retry_after(limited.call(0)), Duration::from_millis(250));
    assert_eq!(retry_after(limited.call(100)), Duration::from_millis(150));
    assert!(limited.call(250).is_ok());
    assert!(limited.call(250).is_err());
    // What was not used is kept for a second, and no longer.
    for _ in 0..4 {
        assert!(limited.call(10_000).is_ok());
    }
    assert!(limited.call(10_000).is_err());
    assert_eq!(limited.calls(CallerOutcome::Admitted), 9);
    assert_eq!(limited.calls(CallerOutcome::Shed), 4);
}

#[test]
fn a_batch_counts_as_its_items() {
    let limited = Limited::to(None, Some(10));
    let (caller, place) = limited.call(0).expect("the first");
    limited.callers.charge_batch(&caller, 20, limited.at(0));
    drop(place);

    // Twenty were taken where ten were there.
    assert_eq!(retry_after(limited.call(0)), Duration::from_millis(1_100));
    assert!(limited.call(1_099).is_err());
    assert!(limited.call(1_100).is_ok());
    // A batch of one is a call.
    let (caller, _place) = limited.call(9_000).expect("much later");
    limited.callers.charge_batch(&caller, 1, limited.at(9_000));
    let further = (0..20).filter(|_| limited.call(9_000).is_ok()).count();
    assert_eq!(further, 9);
}

#[test]
fn calls_under_way_are_limited_and_make_room_when_they_end() {
    let limited = Limited::to(Some(2), Some(3));
    let first = limited.call(0).expect("the first");
    let _second = limited.call(0).expect("the second");
    for _ in 0..5 {
        assert!(retry_after(limited.call(0)) > Duration::ZERO);
    }
    drop(first);
    // Those that were turned away took nothing of the rate.
    let third = limited.call(0).expect("there is room");
    drop(third);
    assert!(limited.call(0).is_err(), "three in a second");
    // What was turned away for the rate holds no place.
    assert!(limited.call(2_000).is_ok());
}

#[test]
fn new_rules_hold_at_once_and_forget_nothing_that_was_used() {
    let limited = Limited::to(Some(1), None);
    let held = limited.call(0).expect("the first");
    limited.callers.replace(Limited::rules(Some(1), Some(1)));
    assert!(limited.call(0).is_err(), "one is under way still");
    drop(held);
    assert!(limited.call(0).is_ok());
    assert!(limited.call(0).is_err(), "the new rate");
    assert_eq!(limited.calls(CallerOutcome::Admitted), 2);

    let (known, _place) = limited.call(5_000).expect("later");
    let rpc = GuardedRpc::VerifySession;
    assert_eq!(limited.callers.still_admits(&known, rpc), Ok(()));
    limited.callers.replace(rules(vec![caller("shop")]));
    assert!(limited.callers.still_admits(&known, rpc).is_err());
    // Nobody knows it any more, and those may nothing.
    assert!(
        matches!(limited.call(5_000), Err(Refused::NotAllowed { caller, .. }) if &*caller == ANYONE)
    );
}

#[test]
fn what_is_printed_of_rules_and_refusals_has_no_secret_and_no_digest() {
    let rules = rules(vec![Caller {
        secrets: vec![SecretDigest::of(SECRET)],
        ..caller("billing")
    }]);
    let callers = Callers::new(rules.clone(), Instant::now());
    let wrong = by_secret(OTHER_SECRET);
    let refused = callers.admit(GuardedRpc::GetUser, &wrong, Instant::now());
    let digest: &[u8] = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, SECRET)
        .as_ref()
        .to_vec()
        .leak();
    let printed = format!("{rules:?} {callers:?} {refused:?}");
    assert!(printed.contains("billing") && printed.contains("no caller's"));
    for hidden in [
        "0123456789abcdef",
        "fedcba98",
        &format!("{}, {}", digest[0], digest[1]),
    ] {
        assert!(!printed.contains(hidden), "{hidden} in {printed}");
    }
}

/// By plain reading of docs/callers.md: no index, no order.
fn who_by_the_book(callers: &[Caller], shown: &Shown<'_>) -> Result<Option<usize>, ()> {
    let mut named = std::collections::BTreeSet::new();
    for (index, caller) in callers.iter().enumerate() {
        let has_uri = caller.spiffe.iter().any(|id| shown.uris.contains(id));
        let has_dns = caller.dns.iter().any(|dns| {
            let mut names = shown.dns_names.iter();
            names.any(|name| name.eq_ignore_ascii_case(dns))
        });
        let has_secret = match shown.bearer {
            Bearer::Secret(secret) => caller.secrets.contains(&SecretDigest::of(secret)),
            Bearer::Missing | Bearer::Unreadable => false,
        };
        if has_uri || has_dns || has_secret {
            named.insert(index);
        }
    }
    let is_wrong = match shown.bearer {
        Bearer::Missing => false,
        Bearer::Unreadable => true,
        Bearer::Secret(secret) => {
            let digest = SecretDigest::of(secret);
            !callers
                .iter()
                .any(|caller| caller.secrets.contains(&digest))
        }
    };
    match (is_wrong, named.len()) {
        (false, 0) => Ok(None),
        (false, 1) => Ok(named.first().copied()),
        _ => Err(()),
    }
}

fn secret_of(index: usize) -> Vec<u8> {
    format!("{index:032}").into_bytes()
}

proptest! {
    #[test]
    fn matching_is_what_the_document_says(
        // Each identity belongs to one caller of four, or to none.
        uri_owners in vec(0..5_usize, 6),
        dns_owners in vec(0..5_usize, 6),
        secret_owners in vec(0..5_usize, 6),
        shown_uris in vec(0..6_usize, 0..3),
        shown_dns in vec((0..6_usize, any::<bool>()), 0..3),
        bearer in 0..9_usize,
    ) {
        let of = |owners: &[usize], caller: usize| -> Vec<usize> {
            (0..owners.len()).filter(|it| owners[*it] == caller).collect()
        };
        let callers: Vec<Caller> = (0..4).map(|index| Caller {
            spiffe: of(&uri_owners, index).iter().map(|it| format!("spiffe://a/{it}").into())
                .chain([format!("spiffe://own/{index}").into()]).collect(),
            dns: of(&dns_owners, index).iter().map(|it| format!("Host{it}").into()).collect(),
            secrets: of(&secret_owners, index).iter()
                .map(|it| SecretDigest::of(&secret_of(*it))).collect(),
            ..caller(&format!("c{index}"))
        }).collect();
        let rules = rules(callers.clone());
        let uris: Vec<Box<str>> = shown_uris.iter().map(|it| format!("spiffe://a/{it}").into()).collect();
        let dns_names: Vec<Box<str>> = shown_dns.iter().map(|(it, upper)| {
            let name = format!("host{it}");
            if *upper { name.to_uppercase().into() } else { name.into() }
        }).collect();
        let secret = secret_of(bearer);
        let bearer = match bearer {
            7 => Bearer::Unreadable,
            8 => Bearer::Missing,
            _ => Bearer::Secret(&secret),
        };
        let shown = Shown { uris: &uris, dns_names: &dns_names, bearer };

        let found = rules.who(&shown).map_err(|_| ()).map(|who| match who {
            Who::Anyone => None,
            Who::Named(index) => Some(index),
        });

        prop_assert_eq!(found, who_by_the_book(&callers, &shown));
    }

    /// Over any course of time no more come than the burst and the rate make.
    #[test]
    fn never_more_than_the_rate_and_a_burst(
        rate in 1..200_u32,
        steps in vec(0..300_u64, 1..200),
    ) {
        let limited = Limited::to(None, Some(rate));
        let (mut now, mut admitted) = (0, 0_u64);
        for step in steps {
            now += step;
            admitted += u64::from(limited.call(now).is_ok());
            let allowed = u64::from(rate) + u64::from(rate) * now / 1_000 + 1;
            prop_assert!(admitted <= allowed, "{admitted} by {now} ms, at {rate}/s");
        }
    }
}
