//! Behind a real Envoy.

use clerk_authz::{
    authz::CookiesOnTheWayBack::Set,
    identity::Environment::{Development, Production},
};

use super::scene::Scene;

#[tokio::test]
async fn in_production_the_page_comes_with_the_cookies_of_the_handshake() {
    let scene = Scene::start(Production, Set).await;
    let mut browser = scene.browser_of_alice();

    let sent = browser.open(&scene, "/page/7?tab=2").await;
    assert_eq!(sent.told().0, "handshake", "{:?}", sent.headers);
    assert_eq!(sent.header("cache-control"), Some("no-store"));
    assert_eq!(browser.cookies["__clerk_redirect_count"], "1");
    let stale = browser.cookies["__session"].clone();
    let target = browser.follow_to_clerk(&sent).await;
    assert_eq!(target, "/page/7?tab=2", "the nonce is in a cookie");

    let page = browser.open(&scene, &target).await;

    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.body.contains("user_alice"), "{}", page.body);
    let set = page.all("set-cookie");
    assert!(set.len() >= 3, "{set:?}");
    // Whatever the upstream says: no shared cache is to give these cookies to the next one.
    assert_eq!(page.all("cache-control"), ["no-store"]);
    assert_ne!(browser.cookies["__session"], stale);
    assert!(!browser.cookies.contains_key("__clerk_handshake_nonce"));
    // From then on with what it was given, and nobody is asked any more.
    let again = browser.open(&scene, "/page/8").await;
    assert_eq!(again.status, 200);
    assert!(again.header("set-cookie").is_none());
    scene.stop().await;
}

#[tokio::test]
async fn in_development_the_browser_is_sent_to_the_page_once_more() {
    let scene = Scene::start(Development, Set).await;
    let mut browser = scene.browser_of_alice();

    let sent = browser.open(&scene, "/page/7?tab=2").await;
    let target = browser.follow_to_clerk(&sent).await;
    assert!(target.contains("__clerk_handshake_nonce="), "{target}");
    let resolved = browser.open(&scene, &target).await;

    assert_eq!(resolved.status, 307, "{resolved:?}");
    assert_eq!(resolved.location(), "http://localhost:3000/page/7?tab=2");
    assert_eq!(resolved.header("cache-control"), Some("no-store"));
    assert!(resolved.all("set-cookie").len() >= 3, "{resolved:?}");
    let page = browser.open(&scene, "/page/7?tab=2").await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.body.contains("user_alice"), "{}", page.body);
    scene.stop().await;
}
