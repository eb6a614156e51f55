//! Each thing that ends, and what it denies.

use clerk_authz::{
    door::grpc::proto::{
        CheckOrgPermissionRequest, DecisionSource, SyncUserRequest,
        check_org_permission_request::Subject, sync_user_request,
    },
    emulator::TokenSpec,
    identity::Timestamp,
};
use serde_json::json;

use super::{Scene, may_create_invoices};
use crate::support::{
    Reason, assert_denied,
    database::{Database, on_each_engine},
    eventually, reason_of,
    webhook::{Message, user_data},
};

fn proto_reason(reason: Reason) -> clerk_authz::door::grpc::proto::Reason {
    let name = format!("REASON_{}", reason.name());
    clerk_authz::door::grpc::proto::Reason::from_str_name(&name).expect("a reason")
}

/// A token of the user's next session, made when the second of what came before is over.
async fn fresh_token(scene: &Scene, user: &str) -> String {
    let second = || Timestamp::from(std::time::SystemTime::now()).unix_seconds();
    let before = second();
    eventually("the next second", || async { second() > before }).await;
    scene.token(user, |_| {}).0
}

on_each_engine! {
    /// It denies every token that names it, whenever issued, and nobody else's.
    async fn an_ended_session_denies_its_tokens(database: Database) {
        let scene = Scene::start(database).await;
        let (token, session) = scene.token("user_alice", |_| {});
        let other = scene.old_token("user_alice");
        assert_eq!(scene.reason(&token).await, None, "and it is cached now");

        scene.directory().end_session(&session).expect("ended");

        scene.is_denied(&token, Reason::SessionRevoked).await;
        let later = scene.fixture.mint(&TokenSpec {
            session: Some(session),
            issued_in_seconds: 4,
            ..TokenSpec::session("user_alice")
        });
        assert_denied(scene.fixture.verify(&later).await, Reason::SessionRevoked, "a later one");
        assert_eq!(scene.reason(&other).await, None);
        scene.stop().await;
    }

    async fn a_banned_user_is_out_until_a_sign_in_after_the_unban(database: Database) {
        let scene = Scene::start(database).await;
        let token = scene.old_token("user_bob");
        let other = scene.old_token("user_alice");

        scene.directory().ban_user("user_bob").expect("banned");
        scene.is_denied(&token, Reason::UserBanned).await;
        // The mirror still says so: no token passes, whenever it was issued.
        let minted = scene.fixture.mint(&TokenSpec { issued_in_seconds: 4, ..TokenSpec::session("user_bob") });
        scene.is_denied(&minted, Reason::UserBanned).await;

        scene.directory().unban_user("user_bob").expect("unbanned");
        let fresh = fresh_token(&scene, "user_bob").await;
        eventually("the user is back", || async { scene.reason(&fresh).await.is_none() }).await;
        assert_denied(scene.fixture.verify(&token).await, Reason::UserBanned, "from before the ban");
        assert_eq!(scene.reason(&other).await, None);
        scene.stop().await;
    }

    async fn a_deleted_user_is_out_for_ever(database: Database) {
        let scene = Scene::start(database).await;
        let token = scene.old_token("user_bob");
        scene.directory().delete_user("user_bob").expect("deleted");
        scene.is_denied(&token, Reason::UserDeleted).await;
        let later = scene.fixture.instance();
        assert!(later.mint(&TokenSpec::session("user_bob")).is_err(), "Clerk makes none either");
        scene.stop().await;
    }

    async fn a_deprovisioned_user_is_out(database: Database) {
        let scene = Scene::start(database).await;
        // This Clerk deprovisions nobody, and its own messages are of another instance.
        scene.tell(|settings| settings.lose = 1.0);
        let token = scene.old_token("user_bob");
        let mut data = user_data("user_bob", "Bob", 1_899_999_999_000);
        data["deprovisioned"] = json!(true);
        let message = Message::new("msg_1", "user.updated", &data);
        assert_eq!(message.status(scene.fixture.service.http_addr()).await, 204);
        scene.is_denied(&token, Reason::UserDeprovisioned).await;
        scene.stop().await;
    }

    /// What no webhook said, the API does.
    async fn a_ban_that_synchronisation_finds_counts_too(database: Database) {
        let scene = Scene::start(database).await;
        scene.tell(|settings| settings.lose = 1.0);
        let (banned, deleted) = (scene.old_token("user_bob"), scene.old_token("user_alice"));
        let sync = async |user: &str| {
            let subject = Some(sync_user_request::Subject::UserId(user.to_owned()));
            let request = SyncUserRequest { subject, ..Default::default() };
            scene.fixture.client.clone().sync_user(request).await.expect("synced");
        };
        sync("user_bob").await;
        sync("user_alice").await;
        scene.directory().ban_user("user_bob").expect("banned");
        scene.directory().delete_user("user_alice").expect("deleted");
        assert_eq!(scene.reason(&banned).await, None, "the webhook was lost");

        sync("user_bob").await;
        sync("user_alice").await;

        scene.is_denied(&banned, Reason::UserBanned).await;
        scene.is_denied(&deleted, Reason::UserDeleted).await;
        scene.stop().await;
    }

    async fn a_membership_that_ended_is_not_believed(database: Database) {
        let scene = Scene::start(database).await;
        let token = scene.token("user_alice", |spec| {
            spec.organization = Some("acme".into());
            spec.issued_in_seconds = -10;
        }).0;
        let before = scene.check(may_create_invoices(&token)).await.expect("decided");
        assert_eq!((before.allowed, before.source()), (true, DecisionSource::Token));

        scene.directory().remove_member("org_acme", "user_alice").expect("removed");

        eventually("looked up", || async {
            let answer = scene.check(may_create_invoices(&token)).await.expect("decided");
            !answer.allowed && answer.reason() == proto_reason(Reason::NotAMember)
        }).await;
        scene.stop().await;
    }

    /// No event about a member follows when a role changes.
    async fn what_a_role_permits_is_looked_up_after_it_changed(database: Database) {
        let scene = Scene::start(database).await;
        let token = scene.token("user_alice", |spec| {
            spec.organization = Some("acme".into());
            spec.issued_in_seconds = -10;
        }).0;
        let of_user = CheckOrgPermissionRequest {
            subject: Some(Subject::UserId("user_alice".into())),
            organization_id: "org_acme".into(),
            ..may_create_invoices("")
        };
        assert!(scene.check(may_create_invoices(&token)).await.expect("decided").allowed);
        assert!(scene.check(of_user.clone()).await.expect("decided").allowed, "and it is remembered");

        let changed = scene.directory().set_role_permissions("org:admin", ["org:invoices:read"]);
        changed.expect("changed");

        for request in [may_create_invoices(&token), of_user] {
            eventually("looked up", || async {
                let answer = scene.check(request.clone()).await.expect("decided");
                !answer.allowed && answer.reason() == proto_reason(Reason::PermissionMissing)
            }).await;
        }
        // What does not depend on what a role permits is still the token's to say.
        let role = CheckOrgPermissionRequest { permission: None, role: Some("admin".into()), ..may_create_invoices(&token) };
        assert!(scene.check(role).await.expect("decided").allowed);
        scene.stop().await;
    }

    /// What the mirror knew before a change says nothing after it; no event about a member follows here.
    async fn the_mirror_of_before_a_change_does_not_answer(database: Database) {
        let scene = Scene::start_with(database, &[("CLERK_AUTHZ_MEMBERSHIP_CACHE_BYTES", "0")]).await;
        let synced = SyncUserRequest {
            subject: Some(sync_user_request::Subject::UserId("user_alice".into())),
            ..Default::default()
        };
        scene.fixture.client.clone().sync_user(synced).await.expect("synced");
        let of_user = CheckOrgPermissionRequest {
            subject: Some(Subject::UserId("user_alice".into())),
            organization_id: "org_acme".into(),
            ..may_create_invoices("")
        };
        let answer = scene.check(of_user.clone()).await.expect("decided");
        assert_eq!((answer.allowed, answer.source()), (true, DecisionSource::Mirror));

        let changed = scene.directory().set_role_permissions("org:admin", ["org:invoices:read"]);
        changed.expect("changed");
        eventually("Clerk is asked", || async {
            let answer = scene.check(of_user.clone()).await.expect("decided");
            !answer.allowed && answer.source() == DecisionSource::Clerk
        }).await;
        scene.stop().await;
    }

    async fn a_deleted_organization_denies(database: Database) {
        let scene = Scene::start(database).await;
        let token = scene.token("user_alice", |spec| spec.organization = Some("acme".into())).0;
        let elsewhere = scene.old_token("user_alice");
        scene.directory().delete_organization("org_acme").expect("deleted");

        scene.is_denied(&token, Reason::OrganizationDeleted).await;
        let refused = scene.check(may_create_invoices(&token)).await.expect_err("the token is denied");
        assert_eq!(reason_of(&refused), Reason::OrganizationDeleted.name());
        let asked = CheckOrgPermissionRequest { organization_id: "org_acme".into(), ..may_create_invoices(&elsewhere) };
        let answer = scene.check(asked).await.expect("decided");
        assert_eq!((answer.allowed, answer.source()), (false, DecisionSource::Mirror));
        assert_eq!(answer.reason(), proto_reason(Reason::OrganizationDeleted));
        assert_eq!(scene.reason(&elsewhere).await, None);
        scene.stop().await;
    }

    /// A replica that starts knows what was revoked before.
    async fn a_restart_forgets_nothing(database: Database) {
        let scene = Scene::start(database).await;
        let (token, session) = scene.token("user_alice", |_| {});
        scene.directory().end_session(&session).expect("ended");
        scene.is_denied(&token, Reason::SessionRevoked).await;

        let replica = scene.replica().await;
        let mut client = crate::support::client(replica.grpc_addr()).await;
        let denied = client.verify_session(crate::support::about(&token)).await.expect_err("denied");
        assert_eq!(reason_of(&denied), Reason::SessionRevoked.name());
        replica.stop().await;
        scene.stop().await;
    }
}
