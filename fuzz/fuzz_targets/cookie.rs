//! Any text as a `cookie` and an `authorization` header.
#![no_main]

use clerk_authz::{
    credential::{CookieNames, Cookies, Credential, MAX_TOKEN_BYTES, select},
    explain::{Rule, Steps},
    identity::Timestamp,
    token,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|headers: (Vec<String>, Vec<String>)| {
    let (authorization, cookie) = headers;
    let key = "pk_test_Y2xlcmsuY2xlcmsuZGV2JA".parse().expect("a key");
    let names = [CookieNames::new(&key)];
    let credential = Credential::Http { authorization: &authorization, cookie: &cookie };
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    let chosen = select(credential, &Cookies::Of(&names), token::hint, now, &mut Steps::on(Rule::OF_VERIFICATION));
    if let Ok(chosen) = chosen {
        assert!((1..=MAX_TOKEN_BYTES).contains(&chosen.token.len()));
        assert!(authorization.len() <= 1, "of two values none is chosen");
    }
});
