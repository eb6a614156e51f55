//! A policy that changes while it is in force, and one that is tried beside it.

use clerk_authz::{
    emulator::TokenSpec,
    server::{self, StartError},
};

use super::{PolicyFile, routes_of};
use crate::{
    forward_auth::{Original, status},
    support::{Fixture, eventually, offline_clerk, process::Service, settings_for},
};

const PUBLIC: &str = "  - {name: a, path: /a, access: public}\n";
const DENIED: &str = "  - {name: a, path: /a, access: denied}\n";

async fn start(file: &PolicyFile, more: &[(&str, &str)]) -> Fixture {
    let mut variables = vec![
        ("CLERK_AUTHZ_POLICY", file.text()),
        ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
    ];
    variables.extend(more);
    Fixture::start_with(&variables).await
}

/// The sum of the metrics whose names and labels start so.
async fn metric(fixture: &Fixture, start: &str) -> u64 {
    let metrics = fixture.metrics().await;
    let lines = metrics.lines().filter(|line| line.starts_with(start));
    let values = lines.map(|line| {
        let (_, value) = line.rsplit_once(' ').expect("a value");
        value.parse::<f64>().expect("a number")
    });
    values.sum::<f64>() as u64
}

#[tokio::test]
async fn a_changed_policy_is_in_force_within_seconds_and_a_wrong_one_changes_nothing() {
    let file = PolicyFile::routes(PUBLIC);
    let fixture = start(&file, &[]).await;
    let addr = fixture.service.http_addr();
    let ask = async || status(addr, &Original::get("/a"), &[]).await;
    assert_eq!(ask().await, 200);

    file.replace(&routes_of("  - {name: a, path: /a, acess: public}\n"));
    const REFUSED: &str = "clerk_authz_policy_reloads_total{kind=\"in_force\",outcome=\"refused\"}";
    eventually("the wrong policy is refused", async || {
        metric(&fixture, REFUSED).await == 1
    })
    .await;
    assert_eq!(ask().await, 200, "the one before stays");

    file.replace(&routes_of(DENIED));
    eventually("the changed policy is in force", async || {
        ask().await == 403
    })
    .await;
    const APPLIED: &str = "clerk_authz_policy_reloads_total{kind=\"in_force\",outcome=\"applied\"}";
    assert_eq!(metric(&fixture, APPLIED).await, 1);
    assert_eq!(
        metric(&fixture, REFUSED).await,
        1,
        "counted once, not each second"
    );

    std::fs::remove_file(file.text()).expect("removed");
    eventually("a policy that is gone is refused", async || {
        metric(&fixture, REFUSED).await == 2
    })
    .await;
    assert_eq!(ask().await, 403, "the one before stays");
    file.replace(&routes_of(PUBLIC));
    eventually("it is there again", async || ask().await == 200).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_wrong_policy_is_logged_once_with_its_place() {
    let clerk = offline_clerk().await;
    let instance = &clerk.instances()[0];
    let file = PolicyFile::routes(PUBLIC);
    let service = Service::start(&[
        ("CLERK_AUTHZ_ISSUER", instance.issuer().as_str()),
        ("CLERK_JWT_KEY", &instance.public_key_pem()),
        ("CLERK_AUTHZ_POLICY", file.text()),
        ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
    ])
    .await;
    let addr = service.http_addr;
    let ask = async |path: &str| status(addr, &Original::get(path), &[]).await;
    assert_eq!(ask("/a").await, 200);

    file.replace(&routes_of("  - {name: a, path: /a, acess: public}\n"));
    let refused = async || {
        let (_, metrics) = crate::support::get(addr, "/metrics").await;
        metrics.contains("policy_reloads_total{kind=\"in_force\",outcome=\"refused\"} 1")
    };
    eventually("the wrong policy is refused", refused).await;
    // It is looked at again and again in between.
    let looked = tokio::time::Instant::now();
    eventually("it was looked at twice more", async || {
        looked.elapsed() > std::time::Duration::from_millis(2_500)
    })
    .await;
    file.replace(&routes_of(DENIED));
    eventually("the changed policy is in force", async || {
        ask("/a").await == 403
    })
    .await;

    let log = service.end().await;
    let wrong: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("the policy is wrong"))
        .collect();
    assert_eq!(wrong.len(), 1, "{log}");
    assert!(wrong[0].contains("line 3, column 25: unknown key"), "{log}");
    assert!(log.contains("policy reloaded"), "{log}");
    clerk.stop().await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_used_ends_the_start() {
    let clerk = offline_clerk().await;
    let wrong = PolicyFile::routes("  - {path: /a, access: pubic}\n");
    let good = PolicyFile::routes(PUBLIC);
    for (variables, expected) in [
        (
            vec![("CLERK_AUTHZ_POLICY", wrong.text())],
            format!(
                "CLERK_AUTHZ_POLICY is {}; line 3, column 24: access is \"pubic\"",
                wrong.text()
            ),
        ),
        (
            vec![("CLERK_AUTHZ_POLICY", "/no/such/policy.yaml")],
            "CLERK_AUTHZ_POLICY is /no/such/policy.yaml; cannot be read".to_owned(),
        ),
        (
            vec![
                ("CLERK_AUTHZ_POLICY", good.text()),
                ("CLERK_AUTHZ_SHADOW_POLICY", wrong.text()),
            ],
            format!("CLERK_AUTHZ_SHADOW_POLICY is {}; line 3", wrong.text()),
        ),
    ] {
        let settings = settings_for(&clerk, &variables);
        let started = server::start(&settings, server::system_clock()).await;
        let error = started.err().expect("it does not start");
        assert!(matches!(error, StartError::Policy { .. }), "{error}");
        assert!(
            error.to_string().contains(&expected),
            "{error}\nexpected: {expected}"
        );
    }
    let settings = settings_for(&clerk, &[("CLERK_AUTHZ_POLICY", good.text())]);
    let started = server::start(&settings, server::system_clock()).await;
    started.expect("the nearest good one starts").stop().await;
    clerk.stop().await;
}

#[tokio::test]
async fn a_shadow_policy_is_counted_and_never_decides() {
    let (file, shadow) = (PolicyFile::routes(PUBLIC), PolicyFile::routes(PUBLIC));
    let fixture = start(&file, &[("CLERK_AUTHZ_SHADOW_POLICY", shadow.text())]).await;
    let addr = fixture.service.http_addr();
    let ask = async || status(addr, &Original::get("/a"), &[]).await;
    const SAME: &str = "clerk_authz_policy_shadow_total{outcome=\"same\"}";
    const DIFFERENT: &str = "clerk_authz_policy_shadow_total{outcome=\"different\"}";

    assert_eq!(ask().await, 200);
    assert_eq!(
        (
            metric(&fixture, SAME).await,
            metric(&fixture, DIFFERENT).await
        ),
        (1, 0)
    );

    shadow.replace(&routes_of(DENIED));
    eventually("the shadow differs", async || {
        assert_eq!(ask().await, 200, "the shadow decides nothing");
        metric(&fixture, DIFFERENT).await > 0
    })
    .await;
    fixture.stop().await;
}

/// What the shadow would have to ask Clerk for is not asked.
#[tokio::test]
async fn a_shadow_policy_never_asks_clerk() {
    let clerk = offline_clerk().await;
    let secret_key = clerk.instances()[0].secret_key().to_owned();
    let url = clerk.instances()[0].issuer().to_string();
    let asks = "  - {name: o, path: '/o/{id}', access: {role: admin}, organization: '{id}'}\n";
    let (file, shadow) = (
        PolicyFile::routes("  - {name: o, path: '/o/{id}', access: signed_in}\n"),
        PolicyFile::routes(asks),
    );
    let settings = settings_for(
        &clerk,
        &[
            ("CLERK_SECRET_KEY", &secret_key),
            ("CLERK_API_URL", &url),
            ("CLERK_AUTHZ_POLICY", file.text()),
            ("CLERK_AUTHZ_SHADOW_POLICY", shadow.text()),
            ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
        ],
    );
    let fixture = Fixture::start_on(clerk, &settings).await;
    let addr = fixture.service.http_addr();
    let token = fixture.mint(&TokenSpec::session("user_alice"));
    let authorization = format!("Bearer {token}");
    let with = [("authorization", &*authorization)];
    let ask = async || status(addr, &Original::get("/o/org_acme"), &with).await;
    const ASKED: &str = "clerk_authz_clerk_requests_total{instance=\"default\",endpoint=\"organization_memberships\"";
    let asked = async || metric(&fixture, ASKED).await;

    assert_eq!(ask().await, 200);
    assert_eq!(
        metric(
            &fixture,
            "clerk_authz_policy_shadow_total{outcome=\"untold\"}"
        )
        .await,
        1
    );
    assert_eq!(asked().await, 0, "Clerk was asked");

    // In force it would ask.
    file.replace(&routes_of(asks));
    eventually("it is in force, and Clerk is asked", async || {
        ask().await;
        asked().await > 0
    })
    .await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_difference_of_the_shadow_is_logged_at_most_once_a_second() {
    let clerk = offline_clerk().await;
    let instance = &clerk.instances()[0];
    let (file, shadow) = (PolicyFile::routes(PUBLIC), PolicyFile::routes(DENIED));
    let service = Service::start(&[
        ("CLERK_AUTHZ_ISSUER", instance.issuer().as_str()),
        ("CLERK_JWT_KEY", &instance.public_key_pem()),
        ("CLERK_AUTHZ_POLICY", file.text()),
        ("CLERK_AUTHZ_SHADOW_POLICY", shadow.text()),
        ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
    ])
    .await;
    let started = tokio::time::Instant::now();
    for _ in 0..20 {
        let code = status(service.http_addr, &Original::get("/a"), &[]).await;
        assert_eq!(code, 200, "the shadow decides nothing");
    }
    let seconds = started.elapsed().as_secs();

    let log = service.end().await;
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("the shadow policy decides otherwise"))
        .collect();
    let most = usize::try_from(seconds).expect("few") + 1;
    assert!((1..=most).contains(&lines.len()), "{log}");
    assert!(
        lines[0].contains("ROUTE_PUBLIC") && lines[0].contains("ROUTE_DENIED"),
        "{log}"
    );
    clerk.stop().await;
}
