//! Any cookies, addresses and values of `set-cookie`, as a browser and Clerk may send them.
#![no_main]

use clerk_authz::{
    credential::{BrowserCookies, CookieNames},
    handshake::{Attempt, Cause, Directives, MAX_DIRECTIVES, Page, carried, cause, is_document},
    identity::{Environment, Timestamp},
    reason::Reason,
    token,
};
use libfuzzer_sys::fuzz_target;

type Given = (Vec<String>, Vec<u8>, Vec<u8>, Vec<String>, bool);

fuzz_target!(|given: Given| {
    let (cookie, authority, target, directives, is_development) = given;
    let (environment, key) = match is_development {
        true => (Environment::Development, "pk_test_Y2xlcmsuY2xlcmsuZGV2JA"),
        false => (Environment::Production, "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k"),
    };
    let key = key.parse().expect("a key");
    let names = CookieNames::new(&key);
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    let origins = ["https://app.example.com".into()];

    let _ = is_document("GET", &[&String::from_utf8_lossy(&authority)], &[]);
    if let Some(page) = Page::read(true, &authority, &target, &origins) {
        assert_eq!(authority, b"app.example.com");
        assert!(page.cleaned().starts_with("https://app.example.com/"));
    }
    if let Some(page) = Page::read(true, b"app.example.com", &target, &origins) {
        assert!(page.cleaned().starts_with("https://app.example.com/"));
        assert!(page.cleaned().bytes().all(|byte| byte.is_ascii_graphic()));
        if let Some(cookies) = BrowserCookies::read(&cookie, &names, token::hint, now) {
            let _ = carried(&page, &cookies, environment);
            let why = cause(&page, &cookies, Reason::TokenExpired, environment);
            let why = why.unwrap_or(Cause::IatBeforeClientUat);
            let frontend = "https://clerk.example.com".parse().expect("an address");
            let sent = Attempt::next(&cookies)
                .and_then(|it| it.location(&frontend, &page, &cookies, why, environment));
            if let Some(sent) = sent {
                let to = "https://clerk.example.com/v1/client/handshake\
                          ?redirect_url=https%3A%2F%2Fapp.example.com%2F";
                assert!(sent.starts_with(to));
                assert!(sent.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
    if let Ok(read) = Directives::read(&directives, names.suffix()) {
        let _ = read.session();
        let set = read.into_cookies();
        assert!(set.len() <= MAX_DIRECTIVES);
        for cookie in set {
            assert!(cookie.as_str().starts_with("__"));
            assert!(cookie.as_str().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }
});
