use std::sync::Arc;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    credential::CookieNames,
    identity::{
        Environment::{Development, Production},
        Issuer, PublishableKey, Timestamp,
    },
    reason::Reason,
    token::Hint,
};

const NOW: i64 = 1_800_000_000;
const PARTY: &str = "https://app.example.com";

fn key(environment: Environment) -> PublishableKey {
    PublishableKey::for_host(environment, "clerk.example.com").expect("a host")
}

/// `T100` is a session token that was issued at 100; `M100` one of a machine; all else is none.
fn hint(token: &str) -> Option<Hint> {
    let (kind, issued_at) = token.split_at_checked(1)?;
    Some(Hint {
        issuer: Some("https://clerk.example.com".into()),
        session_id: Some("sess_1".into()),
        issued_at_seconds: Some(issued_at.parse().ok()?),
        expires_at_seconds: Some(NOW),
        is_session: kind == "T",
    })
}

/// Calls `see` with what these cookies say; `*` stands for the instance's suffix.
fn with_cookies<T>(
    environment: Environment,
    cookie: &str,
    see: impl FnOnce(&BrowserCookies<'_>) -> T,
) -> T {
    let key = key(environment);
    let values = [cookie.replace('*', &key.cookie_suffix())];
    let now = Timestamp::from_unix_seconds(NOW);
    let cookies = BrowserCookies::read(&values, &CookieNames::new(&key), hint, now);
    see(&cookies.expect("unambiguous"))
}

fn page(target: &str) -> Page {
    try_page("app.example.com", target).expect("a page")
}

fn try_page(authority: &str, target: &str) -> Option<Page> {
    let origins = [PARTY, "http://localhost:3000"].map(Arc::from);
    Page::read(true, authority.as_bytes(), target.as_bytes(), &origins)
}

fn names_of(list: &[&str]) -> Result<Vec<String>, InvalidDirectives> {
    let directives = Directives::read(list, "naoXFJnI")?;
    let cookies = directives.into_cookies();
    Ok(cookies.iter().map(|it| it.as_str().to_owned()).collect())
}

#[test]
fn a_browser_is_sent_to_clerk_where_its_cookies_are_unsettled() {
    use Reason::{
        AuthorizedPartyMismatch, CredentialsAmbiguous, SessionRevoked, SignatureInvalid,
        TokenExpired, TokenIssuedInFuture, TokenMalformed, TokenMissing, TokenNotYetValid,
        TokenTypeNotAccepted,
    };
    for (cookie, refused, expected) in [
        ("", TokenMissing, None),
        ("__client_uat=0", TokenMissing, None),
        ("__session=; __client_uat=", TokenMissing, None),
        (
            "__session=T100",
            TokenMissing,
            Some("session-token-but-no-client-uat"),
        ),
        (
            "__session=T100; __client_uat=0",
            TokenMissing,
            Some("session-token-but-no-client-uat"),
        ),
        (
            "__client_uat=100",
            TokenMissing,
            Some("client-uat-but-no-session-token"),
        ),
        (
            "__client_uat_*=100",
            TokenMissing,
            Some("client-uat-but-no-session-token"),
        ),
        (
            "__session=T100; __client_uat=101",
            TokenExpired,
            Some("session-token-iat-before-client-uat"),
        ),
        // Before the signature, as in the SDK.
        (
            "__session=T100; __client_uat=101",
            SignatureInvalid,
            Some("session-token-iat-before-client-uat"),
        ),
        (
            "__session=T100; __client_uat=100",
            TokenExpired,
            Some("session-token-expired-refresh-non-eligible-no-refresh-cookie"),
        ),
        (
            "__session=T100; __client_uat=100; __refresh_*=r",
            TokenExpired,
            Some("session-token-expired-refresh-missing-api-client"),
        ),
        // Of another instance.
        (
            "__session=T100; __client_uat=100; __refresh=r; __refresh_other123=r",
            TokenExpired,
            Some("session-token-expired-refresh-non-eligible-no-refresh-cookie"),
        ),
        (
            "__session=T100; __client_uat=99",
            TokenNotYetValid,
            Some("session-token-nbf"),
        ),
        (
            "__session=T100; __client_uat=99",
            TokenIssuedInFuture,
            Some("session-token-iat-in-the-future"),
        ),
        ("__session=T100; __client_uat=99", SignatureInvalid, None),
        ("__session=T100; __client_uat=99", SessionRevoked, None),
        (
            "__session=T100; __client_uat=99",
            AuthorizedPartyMismatch,
            None,
        ),
        ("__session=junk; __client_uat=101", TokenMalformed, None),
        (
            "__session=M100; __client_uat=101",
            TokenTypeNotAccepted,
            None,
        ),
        (
            "__session=T100; __client_uat=101",
            CredentialsAmbiguous,
            None,
        ),
        ("__session=T100", CredentialsAmbiguous, None),
    ] {
        let found = with_cookies(Production, cookie, |cookies| {
            cause(&page("/"), cookies, refused, Production)
        });
        assert_eq!(
            found.map(Cause::name),
            expected,
            "{cookie} refused as {refused}"
        );
    }
}

#[test]
fn a_development_instance_wants_to_know_the_browser_first() {
    for (target, cookie, expected) in [
        ("/", "", Some("dev-browser-missing")),
        (
            "/?__clerk_db_jwt=dvb_2",
            "__clerk_db_jwt=dvb_1",
            Some("dev-browser-sync"),
        ),
        ("/", "__clerk_db_jwt=dvb_1", None),
        (
            "/",
            "__clerk_db_jwt=dvb_1; __client_uat=0; __client_uat_*=0",
            Some("dev-browser-missing"),
        ),
        (
            "/",
            "__clerk_db_jwt_*=dvb_1; __client_uat=0; __client_uat_*=0",
            None,
        ),
        (
            "/",
            "__clerk_db_jwt=dvb_1; __client_uat=5",
            Some("client-uat-but-no-session-token"),
        ),
    ] {
        let refused = Reason::TokenMissing;
        let found = with_cookies(Development, cookie, |cookies| {
            cause(&page(target), cookies, refused, Development)
        });
        assert_eq!(found.map(Cause::name), expected, "{target} {cookie}");
        let in_production = with_cookies(Production, "", |cookies| {
            cause(&page(target), cookies, refused, Production)
        });
        assert_eq!(in_production, None, "{target} {cookie}");
    }
}

#[test]
fn pages_alone_are_documents() {
    for (method, destinations, accepts, expected) in [
        ("GET", &["document"][..], &[][..], true),
        ("GET", &["iframe"], &[], true),
        ("GET", &["empty"], &["text/html"], false),
        ("GET", &["image"], &["text/html"], false),
        ("GET", &[], &["text/html,application/xhtml+xml"], true),
        ("GET", &[""], &["text/html"], true),
        ("GET", &[], &["application/json, text/html"], false),
        ("GET", &[], &["*/*"], false),
        ("GET", &[], &[], false),
        ("GET", &["document", "empty"], &["text/html"], false),
        ("HEAD", &["document"], &["text/html"], false),
        ("POST", &["document"], &["text/html"], false),
        ("get", &["document"], &["text/html"], false),
    ] {
        assert_eq!(
            is_document(method, destinations, accepts),
            expected,
            "{method} {destinations:?} {accepts:?}"
        );
    }
}

#[test]
fn the_address_at_clerk_has_exactly_the_parameters_of_the_sdk() {
    let frontend = "https://clerk.example.com".parse().expect("an address");
    let location = |environment, target: &str, cookie: &str| {
        with_cookies(environment, cookie, |cookies| {
            let attempt = Attempt::next(cookies).expect("the first");
            let cause = Cause::IatBeforeClientUat;
            attempt.location(&frontend, &page(target), cookies, cause, environment)
        })
    };

    assert_eq!(
        location(
            Production,
            "/a?b=c%20d&__clerk_db_jwt=x&e=%2F&__dev_session=y",
            "__session=T100; __client_uat=101; __clerk_db_jwt=dvb_1"
        )
        .as_deref(),
        Some(
            "https://clerk.example.com/v1/client/handshake\
             ?redirect_url=https%3A%2F%2Fapp.example.com%2Fa%3Fb%3Dc%2Bd%26e%3D%252F\
             &__clerk_api_version=2026-05-12&suffixed_cookies=false\
             &__clerk_hs_reason=session-token-iat-before-client-uat&format=nonce&__session=T100"
        )
    );
    assert_eq!(
        location(
            Development,
            "/",
            "__session_*=T100; __client_uat_*=101; __clerk_db_jwt_*=dvb_1"
        )
        .as_deref(),
        Some(
            "https://clerk.example.com/v1/client/handshake\
             ?redirect_url=https%3A%2F%2Fapp.example.com%2F\
             &__clerk_api_version=2026-05-12&suffixed_cookies=true\
             &__clerk_hs_reason=session-token-iat-before-client-uat&format=nonce&__session=T100\
             &__clerk_db_jwt=dvb_1"
        )
    );
    // The address counts before the cookie, and is no part of what is come back to.
    let named = location(
        Development,
        "/?__clerk_db_jwt=dvb_2",
        "__clerk_db_jwt=dvb_1",
    );
    let named = named.expect("short enough");
    assert!(named.ends_with("&__clerk_db_jwt=dvb_2"), "{named}");
    assert!(!named.contains("dvb_1"), "{named}");
    assert!(
        named.contains("redirect_url=https%3A%2F%2Fapp.example.com%2F&"),
        "{named}"
    );
    // Of what would be too long for browsers there is none.
    let long = format!("/?a={}", "~".repeat(4_000));
    assert!(location(Production, &long, "__session=T100").is_none());
}

#[test]
fn a_browser_is_sent_three_times_and_no_more() {
    for (cookie, expected) in [
        (
            "",
            Some("__clerk_redirect_count=1; SameSite=Lax; HttpOnly; Max-Age=2"),
        ),
        (
            "__clerk_redirect_count=1",
            Some("__clerk_redirect_count=2; SameSite=Lax; HttpOnly; Max-Age=2"),
        ),
        (
            "__clerk_redirect_count=2",
            Some("__clerk_redirect_count=3; SameSite=Lax; HttpOnly; Max-Age=2"),
        ),
        ("__clerk_redirect_count=3", None),
        ("__clerk_redirect_count=4", None),
        ("__clerk_redirect_count=99999999999", None),
        ("__clerk_redirect_count=-1", None),
        ("__clerk_redirect_count=x", None),
        // Whoever plants one that counts first does not reset it.
        ("__clerk_redirect_count=0; __clerk_redirect_count=3", None),
    ] {
        let next = with_cookies(Production, cookie, Attempt::next);
        let next = next.map(|attempt| attempt.cookie().as_str().to_owned());
        assert_eq!(next.as_deref(), expected, "{cookie}");
    }
}

#[test]
fn the_frontend_api_is_plain_on_this_machine_only() {
    let of = |host: &str, issuer: &str| {
        let key = PublishableKey::for_host(Development, host).expect("a host");
        let issuer: Issuer = issuer.parse().expect("an issuer");
        frontend_api(&key, &issuer).map(String::from)
    };
    let https = Some("https://clerk.example.com/".to_owned());
    assert_eq!(of("clerk.example.com", "https://clerk.example.com"), https);
    assert_eq!(of("clerk.example.com", "https://other.example.com"), https);
    assert_eq!(
        of("127.0.0.1:5050", "http://127.0.0.1:5050"),
        Some("http://127.0.0.1:5050/".to_owned())
    );
    assert_eq!(
        of("127.0.0.1:5050", "http://127.0.0.1:6000"),
        Some("https://127.0.0.1:5050/".to_owned())
    );
}

/// Whoever makes a browser send one of these gains nothing: either no page is known, and nobody is sent
/// anywhere, or the page is of the origin that the settings name.
#[test]
fn nobody_is_sent_back_to_an_origin_that_the_settings_do_not_name() {
    let hosts = [
        "evil.example",
        "app.example.com.evil.example",
        "evil.example/app.example.com",
        "evil.example?app.example.com",
        "evil.example#app.example.com",
        "evil.example\\app.example.com",
        "app.example.com@evil.example",
        "app.example.com:pw@evil.example",
        "evil@app.example.com",
        "app.example.com:444",
        "app.example.com:443",
        "app.example.com:",
        "app.example.com.",
        ".app.example.com",
        "APP.example.com",
        "app.example.com ",
        " app.example.com",
        "app.example.com\t",
        "app.example.com\r\nlocation: https://evil.example",
        "app.example.com\0",
        "app.example.com,evil.example",
        "app.example.com, evil.example",
        "app%2eexample.com",
        "app\u{3002}example.com",
        "\u{ff41}pp.example.com",
        "xn--pp-example.com",
        "аpp.example.com",
        "app.example.com/../evil.example",
        "app.example.com//evil.example",
        "[::1]",
        "127.0.0.1",
        "localhost",
        "localhost:3000",
        "",
        "/",
        "//evil.example",
        "https://app.example.com",
        "javascript:alert(1)",
    ];
    for host in hosts {
        assert_eq!(try_page(host, "/"), None, "{host:?}");
    }
    let origins = [PARTY.into()];
    let plain = Page::read(false, b"app.example.com", b"/", &origins);
    assert_eq!(plain, None, "another scheme");
    let bytes = Page::read(true, b"app.example.com\xff", b"/", &origins);
    assert_eq!(bytes, None, "no text");

    for target in [
        "https://evil.example/",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\\\\evil.example",
        "@evil.example/",
        ":443@evil.example/",
        ".evil.example/",
        "evil.example",
        "",
        "?next=//evil.example",
        "#//evil.example",
        "/#//evil.example",
        "/%2F%2Fevil.example",
        "/%5Cevil.example",
        "/%0d%0alocation:%20https://evil.example",
        "/\r\nlocation: https://evil.example",
        "/\tevil",
        "/ evil",
        "/..//evil.example",
        "/../../evil.example",
        "/%2e%2e//evil.example",
        "/a?redirect_url=https://evil.example",
        "/a?__clerk_redirect_url=https%3A%2F%2Fevil.example",
        "/;@evil.example",
        "/javascript:alert(1)",
        "javascript:alert(1)",
        "/\u{2028}evil",
        "/%E2%80%A8evil",
        "*",
        "app.example.com:443",
    ] {
        let Some(page) = try_page("app.example.com", target) else {
            continue;
        };
        for address in [page.to_come_back_to(), page.cleaned()] {
            let seen: url::Url = address.parse().expect("an address");
            assert_eq!(seen.origin().ascii_serialization(), PARTY, "{target:?}");
            assert_eq!((seen.username(), seen.password()), ("", None), "{target:?}");
            assert!(address.bytes().all(|byte| byte.is_ascii_graphic()));
            assert!(address.starts_with("https://app.example.com/"), "{address}");
        }
    }
    // The nearest that is one.
    assert_eq!(page("/a?b=c").cleaned(), "https://app.example.com/a?b=c");
    // What was brought before would count before what is brought next.
    assert_eq!(
        page("/a?b=c&__clerk_handshake_nonce=n&__clerk_handshake=t&__clerk_help=1")
            .to_come_back_to(),
        "https://app.example.com/a?b=c"
    );
    let plain = Page::read(
        false,
        b"localhost:3000",
        b"/a",
        &["http://localhost:3000".into()],
    );
    assert_eq!(
        plain.map(|page| page.cleaned()).as_deref(),
        Some("http://localhost:3000/a")
    );
}

#[test]
fn an_address_loses_what_clerk_put_there_and_nothing_else() {
    for (target, cleaned) in [
        ("/a", "https://app.example.com/a"),
        ("/a?", "https://app.example.com/a"),
        (
            "/a?__clerk_handshake_nonce=n&b=1&__clerk_handshake=t&__clerk_help=h&b=2&__clerk_db_jwt=d",
            "https://app.example.com/a?b=1&b=2",
        ),
        ("/a?__clerk_handshake_nonce=n", "https://app.example.com/a"),
        (
            "/a?__clerk_handshake_nonces=n&x__clerk_help",
            "https://app.example.com/a?__clerk_handshake_nonces=n&x__clerk_help=",
        ),
        (
            "/a?__clerk%5Fhelp=h&q=%C3%A4+~",
            "https://app.example.com/a?q=%C3%A4+%7E",
        ),
    ] {
        assert_eq!(page(target).cleaned(), cleaned, "{target}");
    }
}

#[test]
fn a_nonce_counts_before_a_token_and_a_token_where_clerk_puts_it() {
    let carried = |environment, target: &str, cookie: &str| {
        with_cookies(environment, cookie, |cookies| {
            carried(&page(target), cookies, environment)
        })
    };
    let nonce = |text: &str| Some(Carried::Nonce(text.into()));
    let token = |text: &str| Some(Carried::Token(text.into()));
    for environment in [Development, Production] {
        assert_eq!(carried(environment, "/", ""), None);
        assert_eq!(
            carried(
                environment,
                "/?__clerk_handshake_nonce=n1&__clerk_handshake=t",
                "__clerk_handshake_nonce=n2; __clerk_handshake=t2"
            ),
            nonce("n1")
        );
        assert_eq!(
            carried(
                environment,
                "/?__clerk_handshake_nonce=",
                "__clerk_handshake_nonce=n2"
            ),
            nonce("n2")
        );
        for odd in [
            "a%20b",
            "a%2Fb",
            "..%2F..%2Fusers",
            "a%0D%0Ab",
            "%C3%A4",
            &"n".repeat(513),
        ] {
            let target = format!("/?__clerk_handshake_nonce={odd}");
            assert_eq!(
                carried(environment, &target, ""),
                Some(Carried::Malformed),
                "{odd}"
            );
        }
    }
    let (target, cookie) = ("/?__clerk_handshake=t1", "__clerk_handshake=t2");
    assert_eq!(carried(Development, target, cookie), token("t1"));
    assert_eq!(carried(Production, target, cookie), token("t2"));
    assert_eq!(carried(Development, "/", cookie), None);
    assert_eq!(carried(Production, target, ""), None);
}

#[test]
fn only_well_formed_cookies_of_clerks_are_set() {
    let good = [
        "__client_uat=1800000000; Path=/; Domain=example.com; Max-Age=315360000; Secure; SameSite=Lax",
        "__client_uat_naoXFJnI=1800000000; Path=/; Expires=Thu, 01 Jan 2037 00:00:00 GMT",
        "__session=a.b.c; Path=/; Secure; SameSite=Lax",
        "__session_naoXFJnI=a.b.c; Path=/; Partitioned; Priority=High",
        "__refresh_naoXFJnI=r; HttpOnly",
        "__clerk_db_jwt=dvb_1",
        "__clerk_handshake_nonce=; Max-Age=0",
    ];
    assert_eq!(names_of(&good), Ok(good.map(str::to_owned).to_vec()));

    use InvalidDirectives::{Attribute, Form, Many, Name};
    for (text, expected) in [
        ("__session=a\r\nset-cookie: x=y", Form),
        ("__session=a\nb", Form),
        ("__session=a\rb", Form),
        ("__session=a\0", Form),
        ("__session=a\tb", Form),
        ("__session=\u{e4}", Form),
        ("__session=a b", Form),
        ("__session=\"a\"", Form),
        ("__session=a,b", Form),
        ("__session", Form),
        ("", Form),
        ("=a", Name),
        (" __session=a", Name),
        ("__session =a", Name),
        ("theme=dark", Name),
        ("__sessions=a", Name),
        ("__session_other123=a", Name),
        ("__clerk_db_jwt_other123=a", Name),
        ("__session_=a", Name),
        ("__Host-session=a", Name),
        ("__clerk_=a", Name),
        ("__clerk_a:b=a", Name),
        ("__SESSION=a", Name),
        (
            "__session=a; Path=/; x-location=https://evil.example",
            Attribute,
        ),
        ("__session=a; Path=/;", Attribute),
    ] {
        // One that is odd spoils the others.
        assert_eq!(names_of(&[good[0], text]), Err(expected), "{text:?}");
    }
    assert_eq!(
        names_of(&[&format!("__session={}", "a".repeat(8_192))]),
        Err(Form)
    );
    assert_eq!(names_of(&[good[0]; MAX_DIRECTIVES + 1]), Err(Many));
    assert!(names_of(&[good[0]; MAX_DIRECTIVES]).is_ok());
}

#[test]
fn the_last_session_cookie_holds_the_session() {
    for (texts, expected) in [
        (&["__client_uat=0"][..], None),
        (&[], None),
        (
            &["__session=a", "__session_naoXFJnI=b", "__client_uat=1"],
            Some("b"),
        ),
        (
            &["__session_naoXFJnI=b; Path=/", "__session=a; Path=/"],
            Some("a"),
        ),
        // The browser was signed out.
        (&["__session=a", "__session_naoXFJnI=; Max-Age=0"], None),
    ] {
        let directives = Directives::read(texts, "naoXFJnI").expect("well-formed");
        assert_eq!(directives.session(), expected, "{texts:?}");
    }
}

proptest! {
    #[test]
    fn what_is_set_has_no_byte_that_ends_a_header(
        text in "(__session|__client_uat|__clerk_x|a)=[ -~\\r\\n\\x00]{0,40}(; [a-zA-Z]{0,8}=?[ -~\\n]{0,9})?",
    ) {
        if let Ok(cookies) = names_of(&[&text]) {
            prop_assert!(cookies[0].bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert!(cookies[0].starts_with("__"));
        }
    }

    #[test]
    fn whatever_is_asked_for_the_page_is_of_a_named_origin(
        (authority, target) in (vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..80)),
        tail in "[/\\\\@:.?#%a-z0-9 ]{0,40}",
    ) {
        let origins = [PARTY.into()];
        prop_assert_eq!(Page::read(true, &authority, b"/", &origins), None);
        for target in [target, format!("/{tail}").into_bytes()] {
            if let Some(page) = Page::read(true, b"app.example.com", &target, &origins) {
                prop_assert!(page.cleaned().starts_with("https://app.example.com/"));
                prop_assert!(page.to_come_back_to().starts_with("https://app.example.com/"));
            }
        }
    }
}
