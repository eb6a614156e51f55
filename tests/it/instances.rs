//! Several Clerk instances in one process.

use std::fmt::Write as _;

use clerk_authz::emulator::{Emulator, TokenSpec, World};

use crate::support::{Fixture, Reason, assert_denied, eventually, offline_clerk_of, settings};

/// Two instances whose keys have the same name.
async fn two_clerks() -> Emulator {
    let mut world = World::default_world();
    let mut second = world.instances[0].clone();
    second.name = "second".into();
    world.instances.push(second);
    offline_clerk_of(world).await
}

fn file_of(clerk: &Emulator, names: &[&str]) -> String {
    let mut text = String::new();
    for instance in clerk
        .instances()
        .iter()
        .filter(|instance| names.contains(&instance.name()))
    {
        let _ = writeln!(
            text,
            "[[instance]]\nname = \"{}\"\npublishable_key = \"{}\"\nissuer = \"{}\"\n\
             authorized_parties = [\"http://localhost:3000\"]\n",
            instance.name(),
            instance.publishable_key().as_str(),
            instance.issuer()
        );
    }
    text
}

struct Several {
    fixture: Fixture,
    file: tempfile::NamedTempFile,
}

async fn start(names: &[&str]) -> Several {
    let clerk = two_clerks().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), file_of(&clerk, names)).expect("written");
    let path = file.path().to_str().expect("UTF-8").to_owned();
    let settings = settings(&[("CLERK_AUTHZ_INSTANCES", &path)]);
    Several {
        fixture: Fixture::start_on(clerk, &settings).await,
        file,
    }
}

/// Advisory 6: a `kid` names a key within one instance only.
#[tokio::test]
async fn a_token_of_one_instance_never_passes_as_anothers() {
    let several = start(&["default", "second"]).await;
    let fixture = &several.fixture;
    let (first, second) = (&fixture.clerk.instances()[0], &fixture.clerk.instances()[1]);
    assert_eq!(first.seed().key_id, second.seed().key_id, "the same kid");
    let own = |instance: &clerk_authz::emulator::Instance| {
        instance
            .mint(&TokenSpec::session("user_alice"))
            .expect("a token")
    };
    // Cached first, so that the cache is asked too.
    for _ in 0..2 {
        for instance in [first, second] {
            let session = fixture.verify(&own(instance)).await.expect("accepted");
            assert_eq!(session.issuer, instance.issuer().as_str());
        }
        let spec = TokenSpec::session("user_alice")
            .with_claim("iss", serde_json::json!(second.issuer().as_str()));
        let crossed = first.mint(&spec).expect("a token");
        assert_denied(
            fixture.verify(&crossed).await,
            Reason::SignatureInvalid,
            "A's key, B's issuer",
        );
    }
    several.fixture.stop().await;
}

#[tokio::test]
async fn instances_come_and_go_by_reload_and_a_wrong_file_changes_nothing() {
    let several = start(&["default"]).await;
    let fixture = &several.fixture;
    let (first, second) = (&fixture.clerk.instances()[0], &fixture.clerk.instances()[1]);
    let mint = |instance: &clerk_authz::emulator::Instance| {
        let mut spec = TokenSpec::session("user_alice");
        spec.lifetime_seconds = Some(600);
        instance.mint(&spec).expect("a token")
    };
    let (of_first, of_second) = (mint(first), mint(second));
    assert!(fixture.verify(&of_first).await.is_ok());
    assert_denied(
        fixture.verify(&of_second).await,
        Reason::IssuerMismatch,
        "not configured yet",
    );
    let kept = fixture.service.verifier().instances().all()[0].clone();

    let write = |text: String| std::fs::write(several.file.path(), text).expect("written");
    write(file_of(&fixture.clerk, &["default", "second"]));
    eventually("the second instance answers", async || {
        fixture.verify(&of_second).await.is_ok()
    })
    .await;
    let now = fixture.service.verifier().instances().all()[0].clone();
    assert!(
        std::sync::Arc::ptr_eq(&kept, &now),
        "an unchanged instance keeps its keys and tokens"
    );

    write("[[instance]]\nname = 1".to_owned());
    eventually("the wrong file was looked at", async || {
        let metrics = fixture.metrics().await;
        metrics.contains("clerk_authz_instance_reloads_total{outcome=\"refused\"} 1")
            && metrics.contains("clerk_authz_instance_reloads_total{outcome=\"applied\"} 1")
    })
    .await;
    assert!(fixture.verify(&of_first).await.is_ok());
    assert!(fixture.verify(&of_second).await.is_ok());

    write(file_of(&fixture.clerk, &["second"]));
    eventually("the first is gone", async || {
        fixture.verify(&of_first).await.is_err()
    })
    .await;
    assert_denied(
        fixture.verify(&of_first).await,
        Reason::IssuerMismatch,
        "removed, though cached",
    );
    assert!(fixture.verify(&of_second).await.is_ok());
    several.fixture.stop().await;
}

/// Nothing of the instances' file changes: a mounted secret is replaced on its own.
#[tokio::test]
async fn a_secret_key_that_was_replaced_is_taken_up_without_a_restart() {
    let clerk = two_clerks().await;
    let instance = &clerk.instances()[0];
    let folder = tempfile::tempdir().expect("a folder");
    let (secret, file) = (
        folder.path().join("secret"),
        folder.path().join("instances"),
    );
    std::fs::write(&secret, "sk_test_old").expect("written");
    let text = file_of(&clerk, &["default"]);
    let text = format!(
        "{text}secret_key_file = {secret:?}\napi_url = \"{}\"\n",
        instance.issuer()
    );
    std::fs::write(&file, text).expect("written");
    let path = file.to_str().expect("UTF-8").to_owned();
    let settings = settings(&[("CLERK_AUTHZ_INSTANCES", &path)]);
    let fixture = Fixture::start_on(clerk, &settings).await;
    let mut spec = TokenSpec::session("user_alice");
    spec.lifetime_seconds = Some(600);
    let token = fixture.mint(&spec);
    let status = fixture.verify(&token).await.expect_err("no keys");
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");

    std::fs::write(&secret, fixture.instance().secret_key()).expect("written");

    eventually("the new key opens the Backend API", async || {
        fixture.verify(&token).await.is_ok()
    })
    .await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_new_instance_without_keys_does_not_take_the_others_down() {
    let several = start(&["default"]).await;
    let fixture = &several.fixture;
    fixture.clerk.instances()[1].set_faults(clerk_authz::emulator::Faults::always(
        clerk_authz::emulator::Fault::ServerError,
    ));
    std::fs::write(
        several.file.path(),
        file_of(&fixture.clerk, &["default", "second"]),
    )
    .expect("written");
    eventually("both are configured", async || {
        fixture.service.verifier().instances().all().len() == 2
    })
    .await;
    assert!(fixture.service.health().waiting_for().is_empty());
    let token = fixture.clerk.instances()[1].mint(&TokenSpec::session("user_alice"));
    let status = fixture
        .verify(&token.expect("a token"))
        .await
        .expect_err("cannot tell");
    assert_eq!(status.code(), tonic::Code::Unavailable);
    several.fixture.stop().await;
}

#[tokio::test]
async fn an_instance_with_other_rules_keeps_its_keys_while_clerk_is_down() {
    let several = start(&["default"]).await;
    let fixture = &several.fixture;
    let token = fixture.mint(&TokenSpec {
        lifetime_seconds: Some(600),
        ..TokenSpec::session("user_alice")
    });
    assert!(fixture.verify(&token).await.is_ok());
    fixture
        .instance()
        .set_faults(clerk_authz::emulator::Faults::always(
            clerk_authz::emulator::Fault::Down,
        ));

    let other_rules = file_of(&fixture.clerk, &["default"]) + "audiences = [\"api\"]\n";
    std::fs::write(several.file.path(), other_rules).expect("written");
    let instances = || fixture.service.verifier().instances();
    eventually("the new rules are in force", async || {
        !instances().all()[0].audiences.is_empty()
    })
    .await;

    assert!(fixture.verify(&token).await.is_ok());
    assert!(fixture.service.health().waiting_for().is_empty());
    several.fixture.stop().await;
}
