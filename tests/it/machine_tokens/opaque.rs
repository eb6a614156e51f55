//! What Clerk says of opaque tokens, how long it is believed, and what is no answer.

use clerk_authz::emulator::{Endpoint, Fault, Faults, Kind, TokenSpec, World};
use clerk_authz::server::Limits;
use tonic::Code;

use super::{
    API_KEY, M2M, OAUTH, Verified, accepting, api_key, ask, asking_clerk, assert_said, machine,
    start,
};
use crate::support::{
    Fixture, database::Place, directory::TestClock, offline_clerk, offline_clerk_of, settings,
    settings_for, settings_on,
};

fn asked(fixture: &Fixture) -> u64 {
    fixture.instance().api_requests(Endpoint::MachineTokens)
}

#[tokio::test]
async fn what_is_revoked_expired_or_unknown_is_denied_with_its_reason() {
    let fixture = start(&[]).await;
    for (kind, token_type) in [
        (Kind::M2m, M2M),
        (Kind::Oauth, OAUTH),
        (Kind::ApiKey, API_KEY),
    ] {
        let opaque = || TokenSpec::of(kind).as_opaque();
        let good = fixture.mint(&opaque());
        let found = machine(&fixture, &good, token_type).await;
        assert_eq!(found.issuer, fixture.instance().issuer().as_str());
        assert_eq!(
            Some(found.token_id),
            fixture.instance().machine_token_id(&good)
        );

        let revoked = fixture.mint(&opaque());
        assert!(fixture.instance().revoke_machine_token(&revoked));
        let expired = fixture.mint(&TokenSpec {
            expired: true,
            ..opaque()
        });
        let unknown = format!("{good}x");
        for (what, token, reason) in [
            ("revoked", &revoked, "SESSION_REVOKED"),
            ("expired", &expired, "TOKEN_EXPIRED"),
            ("unknown", &unknown, "TOKEN_MALFORMED"),
            ("with a line break", &format!("{good}\n"), "TOKEN_MALFORMED"),
        ] {
            let answer = ask(&fixture, accepting(token, &[token_type])).await;
            assert_said(
                answer,
                (Code::Unauthenticated, reason),
                &format!("{kind:?} {what}"),
            );
        }
    }
    // What has the form of another type is not looked for among these.
    let key = fixture.mint(&api_key());
    let disguised = key.replacen("ak_", "mt_", 1);
    assert_said(
        ask(&fixture, accepting(&disguised, &[M2M])).await,
        (Code::Unauthenticated, "TOKEN_MALFORMED"),
        "another prefix",
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_revocation_shows_within_the_memorys_time_and_clerk_is_asked_once_in_it() {
    let clerk = offline_clerk().await;
    let settings = asking_clerk(&clerk, &[("CLERK_AUTHZ_MACHINE_TOKEN_MAX_AGE", "30s")]);
    let clock = TestClock::at_now();
    let fixture = Fixture::start_under(Limits::default(), clerk, &settings, &clock).await;
    let key = fixture.mint(&api_key());
    let denied = (Code::Unauthenticated, "SESSION_REVOKED");

    // The key was made by a clock that goes on.
    clock.step(2);
    machine(&fixture, &key, API_KEY).await;
    assert!(fixture.instance().revoke_machine_token(&key));
    clock.step(29);
    machine(&fixture, &key, API_KEY).await;
    assert_eq!(asked(&fixture), 1, "it is remembered");
    clock.step(1);
    assert_said(
        ask(&fixture, accepting(&key, &[API_KEY])).await,
        denied,
        "after 30 s",
    );
    assert_eq!(asked(&fixture), 2);

    // That it is not good, for less.
    clock.step(9);
    assert_said(
        ask(&fixture, accepting(&key, &[API_KEY])).await,
        denied,
        "remembered",
    );
    assert_eq!(
        asked(&fixture),
        2,
        "strangers do not make Clerk be asked each time"
    );
    clock.step(1);
    assert_said(
        ask(&fixture, accepting(&key, &[API_KEY])).await,
        denied,
        "asked again",
    );
    assert_eq!(asked(&fixture), 3);

    // What is remembered is judged by the time at each use.
    let short = TokenSpec {
        lifetime_seconds: Some(60),
        ..TokenSpec::of(Kind::M2m).as_opaque()
    };
    clock.set(clerk_authz::identity::Timestamp::from(
        std::time::SystemTime::now(),
    ));
    clock.step(2);
    let short = fixture.mint(&short);
    clock.step(40);
    machine(&fixture, &short, M2M).await;
    let before = asked(&fixture);
    clock.step(25);
    assert_said(
        ask(&fixture, accepting(&short, &[M2M])).await,
        (Code::Unauthenticated, "TOKEN_EXPIRED"),
        "expired meanwhile",
    );
    assert_eq!(asked(&fixture), before, "and nobody was asked for that");
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_no_answer_is_never_no() {
    let fixture = start(&[]).await;
    let unavailable = (Code::Unavailable, "CLERK_UNAVAILABLE");
    for (fault, expected) in [
        (Faults::always(Fault::Down), unavailable),
        (Faults::always(Fault::ServerError), unavailable),
        (Faults::always(Fault::Garbage), unavailable),
        (Faults::always(Fault::WrongContentType), unavailable),
        (
            Faults::rate_limited(60),
            (Code::Unavailable, "CLERK_RATE_LIMITED"),
        ),
    ] {
        let what = format!("{fault:?}");
        // A breaker or a pause of before says nothing of this fault.
        let fixture = start(&[]).await;
        fixture
            .instance()
            .set_faults_for(Endpoint::MachineTokens, fault);
        let key = fixture.mint(&api_key());
        assert_said(
            ask(&fixture, accepting(&key, &[API_KEY])).await,
            expected,
            &what,
        );
        let jwt = fixture.mint(&TokenSpec::of(Kind::M2m));
        machine(&fixture, &jwt, M2M).await;
        fixture.stop().await;
    }
    // What was a good answer once answers on.
    let key = fixture.mint(&api_key());
    machine(&fixture, &key, API_KEY).await;
    fixture.instance().set_faults(Faults::always(Fault::Down));
    machine(&fixture, &key, API_KEY).await;
    fixture.stop().await;
}

#[tokio::test]
async fn without_a_good_secret_key_opaque_tokens_cannot_be_told() {
    let unavailable = (Code::Unavailable, "CLERK_UNAVAILABLE");
    let clerk = offline_clerk().await;
    let pem = clerk.instances()[0].public_key_pem();
    let url = clerk.instances()[0].issuer().to_string();
    for secret_key in [None, Some("sk_test_emulatorwrong")] {
        let mut more = vec![("CLERK_JWT_KEY", &*pem), ("CLERK_API_URL", &*url)];
        more.extend(secret_key.map(|key| ("CLERK_SECRET_KEY", key)));
        let settings = settings_for(&clerk, &more);
        let fixture = Fixture::start_on(offline_clerk().await, &settings).await;
        let key = clerk.instances()[0].mint(&api_key()).expect("a key");
        assert_said(
            ask(&fixture, accepting(&key, &[API_KEY])).await,
            unavailable,
            &format!("{secret_key:?}"),
        );
        let jwt = clerk.instances()[0]
            .mint(&TokenSpec::of(Kind::M2m))
            .expect("a token");
        machine(&fixture, &jwt, M2M).await;
        let refused = "outcome=\"credentials_refused\"} 1";
        let line = format!(
            "clerk_authz_clerk_requests_total{{instance=\"default\",endpoint=\"api_keys\",{refused}"
        );
        let shown = fixture.metrics().await.contains(&line);
        assert_eq!(shown, secret_key.is_some(), "it is seen whose fault it is");
        fixture.stop().await;
    }
    clerk.stop().await;
}

#[tokio::test]
async fn an_opaque_token_is_of_the_instance_that_is_named() {
    use std::fmt::Write as _;
    let mut world = World::default_world();
    let mut second = world.instances[0].clone();
    second.name = "second".into();
    world.instances.push(second);
    let clerk = offline_clerk_of(world).await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut text = String::new();
    for instance in clerk.instances() {
        let secret = folder.path().join(instance.name());
        std::fs::write(&secret, instance.secret_key()).expect("written");
        let (name, issuer) = (instance.name(), instance.issuer());
        let _ = writeln!(
            text,
            "[[instance]]\nname = \"{name}\"\npublishable_key = \"{}\"\nissuer = \"{issuer}\"\n\
             api_url = \"{issuer}\"\nsecret_key_file = \"{}\"\n\
             authorized_parties = [\"http://localhost:3000\"]\n",
            instance.publishable_key().as_str(),
            secret.display(),
        );
    }
    let file = folder.path().join("instances.toml");
    std::fs::write(&file, text).expect("written");
    let path = file.to_str().expect("UTF-8");
    let settings = settings(&[("CLERK_AUTHZ_INSTANCES", path)]);
    let fixture = Fixture::start_on(clerk, &settings).await;

    let of = |token: &str, types: &[_], name: &str| {
        clerk_authz::door::grpc::proto::VerifySessionRequest {
            instance: name.to_owned(),
            ..accepting(token, types)
        }
    };
    let key = fixture.clerk.instances()[1]
        .mint(&api_key())
        .expect("a key");
    let answer = ask(&fixture, of(&key, &[API_KEY], "second")).await;
    let Ok(Verified::Machine(found)) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(found.issuer, fixture.clerk.instances()[1].issuer().as_str());
    let denied = |reason| (Code::Unauthenticated, reason);
    for (name, reason) in [("", "ISSUER_MISMATCH"), ("default", "TOKEN_MALFORMED")] {
        let answer = ask(&fixture, of(&key, &[API_KEY], name)).await;
        assert_said(answer, denied(reason), name);
    }
    let nowhere = ask(&fixture, of(&key, &[API_KEY], "nowhere")).await;
    assert_eq!(nowhere.expect_err("refused").code(), Code::InvalidArgument);

    // A JWT says it itself, and must say what is named.
    let jwt = fixture.clerk.instances()[1]
        .mint(&TokenSpec::of(Kind::M2m))
        .expect("a token");
    for _ in 0..2 {
        for name in ["", "second"] {
            let answer = ask(&fixture, of(&jwt, &[M2M], name)).await;
            assert!(
                matches!(answer, Ok(Verified::Machine(_))),
                "{name}: {answer:?}"
            );
        }
        let answer = ask(&fixture, of(&jwt, &[M2M], "default")).await;
        assert_said(answer, denied("ISSUER_MISMATCH"), "another instance");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_machines_token_is_used_up_as_a_sessions_is() {
    let clerk = offline_clerk().await;
    let database = Place::sqlite();
    let settings = settings_on(&clerk, &database.url(), &[]);
    let fixture = Fixture::start_on(clerk, &settings).await;
    let once = |token: &str, token_type| clerk_authz::door::grpc::proto::VerifySessionRequest {
        single_use: true,
        ..accepting(token, &[token_type])
    };
    for spec in [
        TokenSpec::of(Kind::M2m),
        TokenSpec::of(Kind::M2m).as_opaque(),
    ] {
        let token = fixture.mint(&spec);
        let first = ask(&fixture, once(&token, M2M)).await;
        assert!(matches!(first, Ok(Verified::Machine(_))), "{first:?}");
        assert_said(
            ask(&fixture, once(&token, M2M)).await,
            (Code::Unauthenticated, "TOKEN_REPLAYED"),
            "a second time",
        );
    }
    // One that never expires could not be remembered for long enough.
    let key = fixture.mint(&api_key());
    machine(&fixture, &key, API_KEY).await;
    assert_said(
        ask(&fixture, once(&key, API_KEY)).await,
        (Code::Unauthenticated, "CLAIM_INVALID"),
        "for ever",
    );
    fixture.stop().await;
}
