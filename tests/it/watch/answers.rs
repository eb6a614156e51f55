//! What a watch tells, and what it answers to tokens that it cannot use.

use clerk_authz::{
    mirror::{Fact, Feed, Retention, Upkeep},
    server::Limits,
    sync::WatchLimits,
};
use std::time::Duration;
use tonic::Code;
use tonic_types::StatusExt;

use super::{
    Keeper, Service, a_moment, behind, end_of, is_there, membership_deleted, much_later, next,
    organization_deleted, short, told, user_deleted, users_only,
};
use crate::support::{
    Reason,
    database::{
        Database, Place, event_membership, event_organization, event_user, membership, ms,
        on_each_engine, organization, user, user_with,
    },
    reason_of, settings,
};

on_each_engine! {
    async fn first_all_that_there_is_then_what_changes(database: Database) {
        database.apply([
            event_user(user("user_b", 5)),
            event_user(user("user_a", 5)),
            event_organization(organization("org_1", 5)),
            event_membership(membership("org_1", "user_a", 6)),
            event_user(user("user_z", 5)),
            user_deleted("user_z", 7),
        ]).await;
        let service = Service::on(&database.place).await;

        let mut with = service.open(behind("")).await.expect("it opens");
        for expected in ["user_a Ada", "user_b Ada", "user_a in org_1", "complete"] {
            assert_eq!(short(&told(&mut with).await), expected);
        }
        let mut without = service.open(users_only()).await.expect("it opens");
        for expected in ["user_a Ada", "user_b Ada", "complete"] {
            assert_eq!(short(&told(&mut without).await), expected);
        }

        for (facts, expected, users_too) in [
            (vec![event_user(user("user_c", 8))], "user_c Ada", true),
            (vec![event_user(user_with("user_c", 9, |it| it.first_name = Some("Eve".into())))], "user_c Eve", true),
            (vec![event_membership(membership("org_1", "user_c", 10))], "user_c in org_1", false),
            (vec![membership_deleted("org_1", "user_c", 11)], "user_c out of org_1", false),
            (vec![Fact::RoleChanged { role: None, at: ms(12) }, user_deleted("user_b", 12)], "user_b gone", true),
            // Its members go with it, each by itself.
            (vec![organization_deleted("org_1", 13)], "user_a out of org_1", false),
        ] {
            database.apply(facts).await;
            assert_eq!(short(&told(&mut with).await), expected);
            if users_too {
                assert_eq!(short(&told(&mut without).await), expected);
            }
        }
        service.stop().await;
    }

    async fn a_ban_is_told_with_all_that_the_user_is(database: Database) {
        use clerk_authz::door::grpc::proto::watch_users_response::Change;
        let service = Service::on(&database.place).await;
        let mut stream = service.open(users_only()).await.expect("it opens");
        assert_eq!(short(&told(&mut stream).await), "complete");

        database.apply([event_user(user_with("user_a", 9, |it| it.banned = true))]).await;

        let Change::User(user) = told(&mut stream).await else { panic!("a user") };
        assert!(user.banned);
        assert_eq!(user.external_id, "ext-user_a");
        assert_eq!(user.email_addresses[0].address, "user_a@Example.com");
        assert!(user.public_metadata.is_some_and(|it| it.fields.contains_key("plan")));
        service.stop().await;
    }

    async fn what_is_no_longer_kept_asks_for_a_new_snapshot(database: Database) {
        database.apply([event_user(user("user_a", 5))]).await;
        let service = Service::on(&database.place).await;
        let mut keeper = Keeper::default();
        keeper.follow(&service, |it| it.snapshot_is_complete).await;
        database.apply([event_user(user("user_b", 6)), user_deleted("user_a", 7)]).await;
        // Nobody has taken that yet, and it is forgotten.
        let forgotten = database.store.forget(&database.instance, Retention {
            messages: Duration::from_secs(1 << 33), changes: Duration::ZERO, revocations: Duration::ZERO,
        }, 1_000, much_later()).await;
        assert!(forgotten.expect("answered") > 0);

        let status = service.refused(behind(&keeper.token)).await;

        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        assert_eq!(reason_of(&status), Reason::ResumeTokenExpired.name());
        // Anew, the copy is mended, also of what went meanwhile.
        keeper.begin_anew();
        keeper.follow(&service, |it| it.snapshot_is_complete).await;
        assert_eq!(keeper.names().into_keys().collect::<Vec<_>>(), ["user_b"]);
        assert!(!is_there(&database, "user_a").await);
        service.stop().await;
    }

    /// Its numbers mean something else there.
    async fn a_token_of_another_database_asks_for_a_new_snapshot(database: Database) {
        let service = Service::on(&database.place).await;
        let mut keeper = Keeper::default();
        keeper.follow(&service, |it| it.snapshot_is_complete).await;
        service.stop().await;
        let place = Place::sqlite();
        let other = Service::on(&place).await;

        let status = other.refused(behind(&keeper.token)).await;

        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        assert_eq!(reason_of(&status), Reason::ResumeTokenExpired.name());
        other.stop().await;
    }

    async fn a_token_that_is_none_names_its_field(database: Database) {
        let service = Service::on(&database.place).await;
        let mut keeper = Keeper::default();
        keeper.follow(&service, |it| it.snapshot_is_complete).await;
        let good = keeper.token;
        let mut other_scope = behind(&good);
        other_scope.with_memberships = false;
        let mut other_instance = behind("");
        other_instance.instance = "other".into();
        let cut = behind(&good[..good.len() - 1]);
        for (request, field) in [
            (behind("x"), "resume_token"),
            (behind("' OR 1=1 --"), "resume_token"),
            (behind(&"A".repeat(100_000)), "resume_token"),
            (cut, "resume_token"),
            (other_scope, "resume_token"),
            (other_instance, "instance"),
        ] {
            let status = service.refused(request).await;
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            let violations = status.get_details_bad_request().expect("details").field_violations;
            assert_eq!(violations[0].field, field, "{status:?}");
        }
        assert!(service.open(behind(&good)).await.is_ok());
        service.stop().await;
    }

    /// A heartbeat says that the stream lives, and moves the token past what is not watched.
    async fn silence_is_broken_by_heartbeats_with_the_newest_token(database: Database) {
        let watches = WatchLimits { heartbeat: a_moment(), ..WatchLimits::default() };
        let limits = Limits { watches, ..Limits::default() };
        let service = Service::under(limits, &database.place).await;
        let mut stream = service.open(users_only()).await.expect("it opens");
        let first = next(&mut stream).await.expect("the snapshot").resume_token;
        database.apply([Fact::RoleChanged { role: None, at: ms(1) }]).await;

        let mut token = first.clone();
        while token == first {
            let message = next(&mut stream).await.expect("it lives");
            assert_eq!(short(&message.change.expect("always set")), "heartbeat");
            token = message.resume_token;
        }

        let forget = Retention { messages: Duration::from_secs(1 << 33), changes: Duration::ZERO, revocations: Duration::ZERO };
        database.store.forget(&database.instance, forget, 10, much_later()).await.expect("answered");
        assert_eq!(database.store.newest(&database.instance).await.expect("answered").number(), 1);
        let resumed = |resume_token| { let mut it = users_only(); it.resume_token = resume_token; it };
        assert!(service.open(resumed(token)).await.is_ok());
        let status = service.refused(resumed(first)).await;
        assert_eq!(reason_of(&status), Reason::ResumeTokenExpired.name());
        service.stop().await;
    }

    async fn a_store_that_fails_ends_watches_that_go_on_when_it_is_back(database: Database) {
        let watches = WatchLimits { heartbeat: a_moment(), ..WatchLimits::default() };
        let limits = Limits { watches, ..Limits::default() };
        let service = Service::under(limits, &database.place).await;
        let mut keeper = Keeper::default();
        let mut stream = service.open(behind("")).await.expect("it opens");
        while !keeper.snapshot_is_complete {
            keeper.take(next(&mut stream).await.expect("the watch goes on"));
        }
        database.place.run("ALTER TABLE changes RENAME TO changes_away").await;

        let status = end_of(&mut stream).await;
        for status in [status, service.refused(behind(&keeper.token)).await] {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            assert_eq!(reason_of(&status), Reason::StoreUnavailable.name());
            let retry = status.get_details_retry_info().expect("RetryInfo");
            assert!(retry.retry_delay.is_some_and(|it| it > Duration::ZERO));
        }

        database.place.run("ALTER TABLE changes_away RENAME TO changes").await;
        database.apply([event_user(user("user_a", 5))]).await;
        keeper.follow(&service, |it| it.users.len() == 1).await;
        service.stop().await;
    }
}

#[tokio::test]
async fn without_a_database_there_is_nothing_to_watch_and_that_is_said() {
    let settings = settings(&[("CLERK_AUTHZ_ISSUER", "http://127.0.0.1:9")]);
    let clock = clerk_authz::server::system_clock();
    let running = clerk_authz::server::start(&settings, clock).await;
    let running = running.expect("it starts");
    let mut client = crate::support::client(running.grpc_addr()).await;
    let status = client.watch_users(users_only()).await.expect_err("refused");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(reason_of(&status), Reason::StoreUnavailable.name());
    running.stop().await;
}
