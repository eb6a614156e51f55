//! Any text as an identity provider's assertion: parsed, read as if its signature had held, and judged.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use clerk_authz::{
    assertion::{self, Expectations, FindBy, Nonce, Provider, SecondFactor},
    explain::{Rule, Steps},
    identity::{SigningAlgorithm, Timestamp},
};
use libfuzzer_sys::fuzz_target;

static PROVIDER: LazyLock<Provider> = LazyLock::new(|| Provider {
    name: "acme".parse().expect("a name"),
    issuer: "https://idp.example.com".into(),
    client_ids: vec!["client-1".into()],
    algorithms: SigningAlgorithm::ALL.into_iter().collect(),
    find_by: FindBy::VerifiedEmail(vec!["example.com".into()]),
    second_factor: SecondFactor::Required,
    amr: vec!["mfa".into()],
    acr: vec!["urn:strong".into()],
    max_sign_in_age: Some(Duration::from_secs(3_600)),
    nonce: Nonce::Optional,
    create_users: false,
});

fuzz_target!(|text: &str| {
    let mut steps = Steps::on(Rule::OF_EXCHANGE);
    let Ok(unverified) = assertion::parse(text, &PROVIDER, &mut steps) else {
        return;
    };
    let parts = unverified.signature_parts(text);
    assert!(parts.signing_input.len() < text.len());
    let Ok(assertion) = unverified.into_assertion(text, &mut steps) else {
        return;
    };
    let expectations = Expectations {
        nonce: "n-0",
        clock_skew: Duration::from_secs(5),
        now: Timestamp::from_unix_seconds(1_800_000_000),
    };
    if assertion::judge(&assertion, &PROVIDER, &expectations, &mut steps).is_ok() {
        // What is good is good for so long at most, and its use is remembered for longer.
        let until = assertion::used_until(&assertion, expectations.clock_skew);
        assert!(until > expectations.now);
        let longest = assertion::MAX_AGE + 3 * expectations.clock_skew;
        assert!(until <= expectations.now.plus(longest));
    }
    let _ = assertion::second_factor(&assertion, &PROVIDER, None, &mut steps);
    let _ = assertion::whom(&assertion, &PROVIDER, &mut steps);
});
