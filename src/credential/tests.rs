//! Which token counts. Tokens here are names: the reader is told what each says of itself.

use proptest::prelude::*;

use super::*;
use crate::identity::PublishableKey;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_000);

/// `A10` is a token of instance `a.example`, issued at 10; `B…` is of `b.example`; the session is
/// named by the letter after a dash (`A10-x`), the expiry is 60 s after the issue.
fn hint(token: &str) -> Option<Hint> {
    let (instance, rest) = token.split_at_checked(1)?;
    let (issued_at, session) = rest.split_once('-').unwrap_or((rest, "x"));
    let issued_at: i64 = issued_at.parse().ok()?;
    Some(Hint {
        issuer: match instance {
            "A" => Some("https://a.example".into()),
            "B" => Some("https://b.example".into()),
            _ => None,
        },
        session_id: Some(session.into()),
        issued_at_seconds: Some(issued_at),
        expires_at_seconds: Some(issued_at + 60),
        is_session: true,
    })
}

fn names(host: &str, environment: Environment) -> CookieNames {
    CookieNames::new(&PublishableKey::for_host(environment, host).expect("a host"))
}

use crate::identity::Environment::{self, Development, Production};

fn ask(
    authorization: &[&str],
    cookie: &[&str],
    environment: Environment,
) -> Result<String, Reason> {
    let own = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (authorization, cookie) = (own(authorization), own(cookie));
    let instances = [names("a.example", environment)];
    let credential = Credential::Http {
        authorization: &authorization,
        cookie: &cookie,
    };
    select(
        credential,
        &Cookies::Of(&instances),
        hint,
        NOW,
        &mut Steps::off(),
    )
    .map(|selected| selected.token.into_owned())
}

/// Puts the suffix of `a.example` in place of `*`.
fn cookies(text: &str, environment: Environment) -> String {
    let names = names("a.example", environment);
    let suffix = names.session.strip_prefix("__session_").expect("a suffix");
    text.replace('*', suffix)
}

#[test]
fn authorization_forms() {
    for (values, expected) in [
        (&["Bearer A1"][..], Ok("A1")),
        (&["bearer A1"], Ok("A1")),
        (&["BEARER A1 "], Ok("A1")),
        (&["Bearer  A1"], Err(Reason::TokenMalformed)),
        (&["A1"], Ok("A1")),
        (&[], Err(Reason::TokenMissing)),
        (&[""], Err(Reason::TokenMissing)),
        (&["Bearer"], Err(Reason::TokenMissing)),
        (&["Bearer "], Err(Reason::TokenMissing)),
        (&["Basic dXNlcg=="], Err(Reason::TokenMissing)),
        (&["Bearer A1 A2"], Err(Reason::TokenMalformed)),
        (&["Bearer A1, Bearer A2"], Err(Reason::CredentialsAmbiguous)),
        (&["Bearer A1,A2"], Err(Reason::CredentialsAmbiguous)),
        (&["A1,A2"], Err(Reason::CredentialsAmbiguous)),
        (
            &["Basic dXNlcg==, Bearer A1"],
            Err(Reason::CredentialsAmbiguous),
        ),
        (
            &["Bearer A1", "Bearer A1"],
            Err(Reason::CredentialsAmbiguous),
        ),
    ] {
        let answer = ask(values, &[], Production);
        assert_eq!(
            answer.as_deref().map_err(|reason| *reason),
            expected,
            "{values:?}"
        );
    }
}

#[test]
fn a_header_decides_alone_unless_the_cookie_names_another_session() {
    let same = cookies("__session_*=A5-x; __client_uat_*=1", Production);
    assert_eq!(
        ask(&["Bearer A1-x"], &[&same], Production),
        Ok("A1-x".into())
    );

    let other = cookies("__session_*=A5-y; __client_uat_*=1", Production);
    assert_eq!(
        ask(&["Bearer A1-x"], &[&other], Production),
        Err(Reason::CredentialsAmbiguous)
    );

    assert_eq!(
        ask(&["Basic abc"], &[&other], Production),
        Ok("A5-y".into())
    );
}

/// Each row of the choice between suffixed and plain cookies, and its neighbour.
#[test]
fn which_of_two_session_cookies_is_meant() {
    use Reason::TokenMissing as Missing;
    for (row, environment, text, expected) in [
        (
            "1",
            Production,
            "__session=junk; __session_*=A5; __client_uat=1; __client_uat_*=1",
            Ok("junk"),
        ),
        (
            "1",
            Production,
            "__session=C5; __session_*=A5; __client_uat=1; __client_uat_*=1",
            Ok("C5"),
        ),
        (
            "2",
            Production,
            "__session=B9; __session_*=A5; __client_uat=1; __client_uat_*=1",
            Ok("A5"),
        ),
        (
            "2",
            Production,
            "__session=B9; __client_uat=1",
            Err(Missing),
        ),
        ("3", Production, "__session=A5; __client_uat=1", Ok("A5")),
        (
            "4",
            Production,
            "__session=A9; __session_*=A5; __client_uat=1; __client_uat_*=1",
            Ok("A9"),
        ),
        (
            "4 equal",
            Production,
            "__session=A5-p; __session_*=A5; __client_uat=1; __client_uat_*=1",
            Ok("A5"),
        ),
        (
            "5",
            Production,
            "__session=A1; __session_*=A5; __client_uat=1; __client_uat_*=0",
            Ok("A1"),
        ),
        (
            "6",
            Development,
            "__session=A1; __session_*=A5; __client_uat=0; __client_uat_*=1",
            Err(Missing),
        ),
        (
            "6 production",
            Production,
            "__session=A1; __session_*=A5; __client_uat=0; __client_uat_*=1",
            Ok("A5"),
        ),
        (
            "6 fresh",
            Development,
            "__session=A1; __session_*=A990; __client_uat=0; __client_uat_*=1",
            Ok("A990"),
        ),
        (
            "7",
            Production,
            "__session=A1; __session_*=A5; __client_uat=1",
            Ok("A1"),
        ),
        (
            "8",
            Production,
            "__session=A1; __session_*=A5; __client_uat=1; __client_uat_*=1",
            Ok("A5"),
        ),
    ] {
        let text = cookies(text, environment);
        let answer = ask(&[], &[&text], environment);
        assert_eq!(
            answer.as_deref().map_err(|reason| *reason),
            expected,
            "row {row}: {text}"
        );
    }
}

#[test]
fn a_browser_that_is_signed_out_has_no_token() {
    for client_uat in [
        "",
        "; __client_uat=0",
        "; __client_uat=",
        "; __client_uat=soon",
    ] {
        let text = format!("__session=A5{client_uat}");
        assert_eq!(
            ask(&[], &[&text], Production),
            Err(Reason::TokenMissing),
            "{text}"
        );
    }
}

#[test]
fn cookies_are_split_decoded_and_taken_once() {
    let split = ["a=b; __session=A5", "__client_uat=1"];
    assert_eq!(ask(&[], &split, Production), Ok("A5".into()));
    assert_eq!(
        ask(&[], &["__session=%415;__client_uat=1"], Production),
        Ok("A5".into())
    );
    assert_eq!(
        ask(
            &[],
            &["__session=A5; __client_uat=1; __session=A6"],
            Production
        ),
        Err(Reason::CredentialsAmbiguous)
    );
    assert_eq!(
        ask(
            &[],
            &["__session=A5; __client_uat=1; __session=A5"],
            Production
        ),
        Ok("A5".into())
    );
}

#[test]
fn cookies_of_two_instances_are_told_apart_by_suffix_and_issuer() {
    let instances = [
        names("a.example", Production),
        names("b.example", Production),
    ];
    let ask = |cookie: &str| {
        let cookie = [cookie.to_owned()];
        let credential = Credential::Http {
            authorization: &[],
            cookie: &cookie,
        };
        select(
            credential,
            &Cookies::Of(&instances),
            hint,
            NOW,
            &mut Steps::off(),
        )
        .map(|selected| selected.token.into_owned())
    };
    assert_eq!(ask("__session=B5; __client_uat=1"), Ok("B5".into()));
    let both = format!(
        "{}=A5; {}=1; {}=B5; {}=1",
        instances[0].session,
        instances[0].client_uat,
        instances[1].session,
        instances[1].client_uat
    );
    assert_eq!(ask(&both), Err(Reason::CredentialsAmbiguous));
}

#[test]
fn cookies_are_not_read_unless_configured() {
    let cookie = ["__session=A5; __client_uat=1".to_owned()];
    let credential = Credential::Http {
        authorization: &[],
        cookie: &cookie,
    };
    let answer = select(credential, &Cookies::Off, hint, NOW, &mut Steps::off());
    assert_eq!(answer, Err(Reason::TokenMissing));
}

#[test]
fn sixteen_kibibytes_are_the_limit() {
    let longest = "a".repeat(MAX_TOKEN_BYTES);
    let too_long = "a".repeat(MAX_TOKEN_BYTES + 1);
    let ask = |token: &str| {
        select(
            Credential::Token(token),
            &Cookies::Off,
            hint,
            NOW,
            &mut Steps::off(),
        )
        .map(|_| ())
    };
    assert_eq!(ask(&longest), Ok(()));
    assert_eq!(ask(&too_long), Err(Reason::TokenTooLarge));
    assert_eq!(
        super::tests::ask(&[&too_long], &[], Production),
        Err(Reason::TokenTooLarge)
    );
    let cookie = format!("__session={too_long}; __client_uat=1");
    assert_eq!(
        super::tests::ask(&[], &[&cookie], Production),
        Err(Reason::TokenTooLarge)
    );
}

#[test]
fn an_empty_token_is_missing() {
    let answer = select(
        Credential::Token(""),
        &Cookies::Off,
        hint,
        NOW,
        &mut Steps::off(),
    );
    assert_eq!(answer, Err(Reason::TokenMissing));
}

proptest! {
    #[test]
    fn reading_headers_never_panics(
        authorization in prop::collection::vec(".{0,40}", 0..3),
        cookie in prop::collection::vec("(__session|__client_uat|a|;|=|%|[A-B][0-9])*", 0..3),
    ) {
        let instances = [names("a.example", Development)];
        let credential = Credential::Http { authorization: &authorization, cookie: &cookie };
        let _ = select(credential, &Cookies::Of(&instances), hint, NOW, &mut Steps::on(Rule::OF_VERIFICATION));
    }
}

#[test]
fn a_credential_is_not_shown_by_its_debug() {
    let header = ["Bearer SECRET".to_owned()];
    let shown = [
        format!("{:?}", Credential::Token("SECRET")),
        format!(
            "{:?}",
            Credential::Http {
                authorization: &header,
                cookie: &header,
            }
        ),
        format!(
            "{:?}",
            Selected {
                token: "SECRET".into(),
                client_changed_at: None,
            }
        ),
    ];
    assert_eq!(shown[0], "Token(6 bytes)");
    for text in shown {
        assert!(!text.contains("SECRET"), "{text}");
    }
}
