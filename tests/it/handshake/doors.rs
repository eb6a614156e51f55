//! Through the door that proxies ask over HTTP.

use clerk_authz::{
    authz::CookiesOnTheWayBack::ByRedirect,
    emulator::{Endpoint, Fault, Faults, Kind, TokenSpec},
    identity::Environment::{self, Development, Production},
};
use serde_json::{Value, json};

use super::scene::{Answer, Browser, ORIGIN, Scene};
use crate::support::get;

fn reason(answer: &Answer) -> String {
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    body["reason"].as_str().unwrap_or_default().to_owned()
}

async fn start(environment: Environment) -> Scene {
    Scene::start(environment, ByRedirect).await
}

#[tokio::test]
async fn a_browser_with_an_expired_cookie_comes_back_signed_in() {
    for environment in [Development, Production] {
        let scene = start(environment).await;
        let mut browser = scene.browser_of_alice();

        let sent = browser.open(&scene, "/page/7?tab=2&__clerk_db_jwt=").await;
        let expected = "session-token-expired-refresh-non-eligible-no-refresh-cookie";
        match environment {
            // The address names a browser, if only an empty one.
            Development => assert_eq!(sent.told(), ("handshake", "dev-browser-sync")),
            Production => assert_eq!(sent.told(), ("handshake", expected)),
        }
        let frontend = scene.instance().issuer().to_string();
        let location = sent.location();
        assert!(
            location.starts_with(&format!(
                "{frontend}/v1/client/handshake?redirect_url=http%3A%2F%2Flocalhost%3A3000%2Fpage%2F7%3Ftab%3D2&"
            )),
            "{location}"
        );
        let target = browser.follow_to_clerk(&sent).await;
        let resolved = browser.open(&scene, &target).await;
        assert_eq!(resolved.status, 307, "{resolved:?}");
        assert_eq!(resolved.location(), "http://localhost:3000/page/7?tab=2");
        let page = browser.open(&scene, "/page/7?tab=2").await;

        assert_eq!(page.status, 200, "{page:?}");
        assert_eq!(page.header("x-clerk-user-id"), Some("user_alice"));
        let admin = browser.open(&scene, "/admin").await;
        assert_eq!(admin.status, 200, "the organization stays the active one");
        let (_, metrics) = get(scene.fixture.service.http_addr(), "/metrics").await;
        for line in [
            "clerk_authz_handshakes_total{outcome=\"sent\"} 1",
            "clerk_authz_handshakes_total{outcome=\"resolved\"} 1",
            "clerk_authz_handshakes_total{outcome=\"failed\"} 0",
        ] {
            assert!(metrics.contains(line), "{line}");
        }
        scene.stop().await;
    }
}

#[tokio::test]
async fn whoever_ended_the_session_comes_back_signed_out() {
    for environment in [Development, Production] {
        let scene = start(environment).await;
        let mut browser = scene.browser_of_alice();
        let directory = scene.instance().directory();
        let sessions = directory.delete_user("user_alice");
        sessions.expect("she lived there");

        let sent = browser.open(&scene, "/door").await;
        let target = browser.follow_to_clerk(&sent).await;
        let resolved = browser.open(&scene, &target).await;
        assert_eq!(resolved.status, 307, "{resolved:?}");
        assert!(!browser.cookies.contains_key("__session"));
        let page = browser.open(&scene, "/door").await;

        assert_eq!(page.status, 302, "{page:?}");
        let location = page.location();
        assert!(
            location.starts_with("https://accounts.example/sign-in?"),
            "{location}"
        );
        scene.stop().await;
    }
}

#[tokio::test]
async fn scripts_header_tokens_and_other_origins_hear_what_they_heard_before() {
    let scene = start(Production).await;

    let mut script = scene.browser_of_alice();
    script.destination = "empty";
    let answer = script.open(&scene, "/page").await;
    assert_eq!(
        (answer.status, reason(&answer)),
        (401, "TOKEN_EXPIRED".into())
    );
    assert!(answer.header("x-clerk-auth-status").is_none());
    assert!(answer.header("set-cookie").is_none());

    let mut with_header = scene.browser_of_alice();
    let token = with_header.cookies["__session"].clone();
    with_header
        .headers
        .push(("authorization", format!("Bearer {token}")));
    let answer = with_header.open(&scene, "/page").await;
    assert_eq!(
        (answer.status, reason(&answer)),
        (401, "TOKEN_EXPIRED".into())
    );
    assert!(answer.header("location").is_none());

    let mut stranger = Browser::new();
    let answer = stranger.open(&scene, "/page").await;
    assert_eq!(
        (answer.status, reason(&answer)),
        (401, "TOKEN_MISSING".into())
    );

    // Nobody looks at who asks here, and nobody need be signed in there.
    let mut browser = scene.browser_of_alice();
    assert_eq!(browser.open(&scene, "/assets/a.css").await.status, 200);
    browser.cookies.remove("__client_uat");
    assert_eq!(browser.open(&scene, "/").await.status, 200);
    // The nearest that is sent to Clerk.
    assert_eq!(browser.open(&scene, "/page").await.status, 307);
    scene.stop().await;

    let elsewhere = Scene::start_with(
        Production,
        ByRedirect,
        &[
            ("CLERK_AUTHZ_HANDSHAKE", "on"),
            ("CLERK_AUTHORIZED_PARTIES", "https://localhost:3000"),
        ],
    )
    .await;
    let mut browser = elsewhere.browser_of_alice();
    let answer = browser.open(&elsewhere, "/page").await;
    assert_eq!(
        answer.status, 401,
        "another scheme is another origin: {answer:?}"
    );
    assert!(answer.header("location").is_none());
    elsewhere.stop().await;
}

#[tokio::test]
async fn without_the_setting_nobody_is_sent_anywhere() {
    let scene = Scene::start_with(Production, ByRedirect, &[]).await;
    let mut browser = scene.browser_of_alice();

    let answer = browser
        .open(&scene, "/page?__clerk_handshake_nonce=n")
        .await;

    assert_eq!(
        (answer.status, reason(&answer)),
        (401, "TOKEN_EXPIRED".into())
    );
    assert_eq!(scene.instance().api_requests(Endpoint::Handshakes), 0);
    scene.stop().await;
}

#[tokio::test]
async fn a_loop_ends_at_the_third_time() {
    let scene = start(Production).await;
    let mut browser = scene.browser_of_alice();
    let stale = browser.cookies.clone();

    for count in ["1", "2", "3"] {
        let sent = browser.open(&scene, "/page").await;
        assert_eq!(sent.status, 307, "{count}");
        assert_eq!(browser.cookies["__clerk_redirect_count"], count);
        browser.cookies.extend(stale.clone());
    }
    let ended = browser.open(&scene, "/page").await;

    assert_eq!(
        (ended.status, reason(&ended)),
        (401, "TOKEN_EXPIRED".into())
    );
    assert_eq!(
        ended.told(),
        (
            "signed-out",
            "session-token-expired-refresh-non-eligible-no-refresh-cookie"
        )
    );
    assert!(ended.header("x-clerk-auth-message").is_some());
    // The cookie has gone by itself: another time it may help.
    browser.cookies.remove("__clerk_redirect_count");
    assert_eq!(browser.open(&scene, "/page").await.status, 307);
    scene.stop().await;
}

#[tokio::test]
async fn a_nonce_is_asked_about_once_and_good_once() {
    for environment in [Development, Production] {
        let scene = start(environment).await;
        let mut browser = scene.browser_of_alice();
        let sent = browser.open(&scene, "/page").await;
        let target = browser.follow_to_clerk(&sent).await;
        let before = browser.cookies.clone();
        assert_eq!(browser.open(&scene, &target).await.status, 307);

        browser.cookies = before;
        browser.cookies.remove("__clerk_redirect_count");
        let again = browser.open(&scene, &target).await;

        match environment {
            Development => {
                assert_eq!(
                    (again.status, reason(&again)),
                    (401, "TOKEN_MISSING".into())
                );
                assert_eq!(again.told(), ("signed-out", "handshake-failed"));
                let message = again.header("x-clerk-auth-message").unwrap_or_default();
                assert!(message.contains("good once"), "{message}");
            }
            // Judged by its cookies, which have expired: to Clerk with it.
            Production => assert_eq!(again.told().0, "handshake", "{again:?}"),
        }
        assert_eq!(scene.instance().api_requests(Endpoint::Handshakes), 1);
        scene.stop().await;
    }
}

#[tokio::test]
async fn while_clerk_is_down_development_says_so_and_production_goes_on() {
    for environment in [Development, Production] {
        let scene = start(environment).await;
        let mut browser = scene.browser_of_alice();
        let sent = browser.open(&scene, "/page").await;
        let target = browser.follow_to_clerk(&sent).await;
        let down = Faults {
            fault: Some(Fault::ServerError),
            ..Faults::default()
        };
        scene.instance().set_faults_for(Endpoint::Handshakes, down);

        let answer = browser.open(&scene, &target).await;
        match environment {
            Development => assert_eq!(answer.status, 503, "{answer:?}"),
            Production => assert_eq!(answer.told().0, "handshake", "{answer:?}"),
        }
        assert_ne!(answer.header("x-clerk-auth-status"), Some("signed-in"));
        scene.stop().await;
    }
}

/// A browser that comes back with this list of cookies in a signed token.
async fn with_token(scene: &Scene, spec: TokenSpec) -> Answer {
    let token = scene.instance().mint(&spec).expect("a token");
    let mut browser = Browser::new();
    let target = match scene.instance().publishable_key().environment() {
        Development => format!("/page?__clerk_handshake={token}&a=b"),
        Production => {
            browser
                .cookies
                .insert("__clerk_handshake".to_owned(), token);
            "/page?a=b".to_owned()
        }
    };
    browser.open(scene, &target).await
}

#[tokio::test]
async fn a_signed_token_is_believed_only_if_it_is_clerks_and_holds_clerks_cookies_alone() {
    for environment in [Development, Production] {
        let scene = start(environment).await;
        let session = TokenSpec {
            authorized_party: Some(ORIGIN.to_owned()),
            ..TokenSpec::session("user_alice")
        };
        let mint = |spec: &TokenSpec| scene.instance().mint(spec).expect("a token");
        let good = format!("__session={}; Path=/", mint(&session));
        let of =
            |directives: Value| TokenSpec::of(Kind::Handshake).with_claim("handshake", directives);

        let brought = with_token(&scene, of(json!([good, "__client_uat=5; Path=/"]))).await;
        assert_eq!(brought.status, 307, "{brought:?}");
        assert_eq!(brought.location(), "http://localhost:3000/page?a=b");
        let counted = "__clerk_redirect_count=1; SameSite=Lax; HttpOnly; Max-Age=2";
        let expected = [&*good, "__client_uat=5; Path=/", counted];
        let expected = match environment {
            Development => &expected[..2],
            Production => &expected[..],
        };
        assert_eq!(brought.all("set-cookie"), expected);

        let forged = TokenSpec {
            forged: true,
            ..of(json!([good]))
        };
        let expired = TokenSpec {
            expired: true,
            ..session.clone()
        };
        let elsewhere = TokenSpec {
            authorized_party: Some("https://evil.example".to_owned()),
            ..session.clone()
        };
        let of_session = |spec: &TokenSpec| of(json!([format!("__session={}", mint(spec))]));
        for (what, spec) in [
            ("forged", forged),
            (
                "another type",
                of(json!([good])).with_header("cat", json!("cl_B7d4PD222AAA")),
            ),
            (
                "another issuer",
                of(json!([good])).with_claim("iss", json!("https://x.example")),
            ),
            (
                "another algorithm",
                of(json!([good])).with_header("alg", json!("none")),
            ),
            ("no list", of(json!("x"))),
            ("no texts", of(json!([1]))),
            ("a session's", session.clone()),
            (
                "a header more",
                of(json!([good, "__session=a\r\nset-cookie: b=c"])),
            ),
            ("somebody's cookie", of(json!([good, "theme=dark"]))),
            (
                "another instance's",
                of(json!([good, "__session_other123=a"])),
            ),
            ("an expired session", of_session(&expired)),
            ("another party's session", of_session(&elsewhere)),
            ("a machine's", of_session(&TokenSpec::of(Kind::M2m))),
        ] {
            let answer = with_token(&scene, spec).await;
            assert_eq!(answer.status, 401, "{what}: {answer:?}");
            assert!(answer.header("set-cookie").is_none(), "{what}");
            assert!(answer.header("location").is_none(), "{what}");
        }
        scene.stop().await;
    }
}

/// A sibling's subdomain can plant one, which nobody takes away.
#[tokio::test]
async fn a_token_that_stays_in_its_cookie_is_put_in_place_once_and_sends_nobody_in_circles() {
    let scene = start(Production).await;
    let signs_out = || {
        let list = json!(["__client_uat=0; Path=/"]);
        TokenSpec::of(Kind::Handshake).with_claim("handshake", list)
    };
    let mint = || scene.instance().mint(&signs_out()).expect("a token");
    let mut browser = Browser::new();
    let token = mint();
    let put = |browser: &mut Browser, token: &str| {
        let name = "__clerk_handshake".to_owned();
        browser.cookies.insert(name, token.to_owned());
    };
    put(&mut browser, &token);

    let first = browser.open(&scene, "/page").await;
    assert_eq!(first.status, 307, "{first:?}");
    assert_eq!(browser.cookies["__clerk_redirect_count"], "1");
    put(&mut browser, &token);
    let second = browser.open(&scene, "/page").await;
    assert_eq!(second.status, 401, "{second:?}");
    assert!(second.header("set-cookie").is_none(), "{second:?}");

    // Nor does a new one each time.
    let mut statuses = Vec::new();
    for number in 0..4 {
        put(
            &mut browser,
            &scene
                .instance()
                .mint(&signs_out().with_claim("n", json!(number)))
                .expect("a token"),
        );
        statuses.push(browser.open(&scene, "/page").await.status);
    }
    assert_eq!(statuses, [307, 307, 401, 401]);
    scene.stop().await;
}

#[tokio::test]
async fn the_decision_log_says_what_came_of_a_handshake() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("text");
    let scene = Scene::start_with(
        Production,
        ByRedirect,
        &[
            ("CLERK_AUTHZ_HANDSHAKE", "on"),
            ("CLERK_AUTHZ_DECISION_LOG", path),
        ],
    )
    .await;
    let mut browser = scene.browser_of_alice();
    let sent = browser.open(&scene, "/page").await;
    let target = browser.follow_to_clerk(&sent).await;
    let token = browser.cookies["__session"].clone();
    browser.open(&scene, &target).await;
    browser.open(&scene, "/page").await;
    scene.stop().await;

    let log = std::fs::read_to_string(file.path()).expect("the log");
    let said: Vec<(Value, Value)> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .map(|line| (line["outcome"].clone(), line["handshake"].clone()))
        .collect();
    assert_eq!(
        said,
        [
            (json!("denied"), json!("sent")),
            (json!("denied"), json!("resolved")),
            (json!("allowed"), Value::Null),
        ]
    );
    assert!(!log.contains(&token), "no token");
}
