//! What is asked of users, organizations and memberships.

use clerk_authz::mirror::{
    Coordination, EmailAddress, Entity, EntityKind, Fact, Feed, FeedPage, Inbox, KnownMembership,
    Mirror, Position, Standing, Upkeep, UserKey,
};

use crate::support::database::{
    Database, NOW, api_membership, event_membership, event_organization, event_user, membership,
    message, ms, on_each_engine, organization, organization_id, user, user_id, user_with,
};

/// Texts that would do harm as a part of a statement.
const HOSTILE: &[&str] = &[
    "'; DROP TABLE users; --",
    "\" OR 1=1 --",
    "$1",
    "?1",
    "{\"a\": 1}",
    "\\'; DELETE FROM memberships WHERE '1'='1",
    "%",
    "a\u{0}b",
    "😀\u{202e}'\n\r\t;",
    "",
];

on_each_engine! {
    async fn a_user_is_found_whole_by_each_key(database: Database) {
        let ada = user_with("user_1", 5, |user| {
            user.username = Some("ada".into());
            user.locked = true;
            user.last_sign_in_at = Some(ms(3));
            user.emails.push(EmailAddress { address: "second@example.com".into(), verified: false, primary: false });
        });
        database.apply([event_user(ada.clone()), event_user(user("user_2", 5))]).await;

        let id = user_id("user_1");
        for key in [
            UserKey::Id(&id),
            UserKey::ExternalId("ext-user_1"),
            UserKey::Email("USER_1@example.COM"),
        ] {
            let found = database.store.user(&database.instance, key).await.expect("answered");
            assert_eq!(found.expect("found").value, ada, "{key:?}");
        }
        for key in [
            UserKey::ExternalId("ext-user_3"),
            UserKey::Email("nobody@example.com"),
            // Not verified: anybody could have claimed it.
            UserKey::Email("second@example.com"),
        ] {
            let found = database.store.user(&database.instance, key).await.expect("answered");
            assert!(found.is_none(), "{key:?}");
        }
    }

    async fn an_address_or_id_that_moved_finds_its_newest_owner(database: Database) {
        let shared = |user: &mut clerk_authz::mirror::User| {
            user.external_id = Some("shared".into());
            user.emails = vec![EmailAddress { address: "shared@example.com".into(), verified: true, primary: true }];
        };
        database.apply([
            event_user(user_with("user_1", 9, shared)),
            event_user(user_with("user_2", 5, shared)),
        ]).await;

        for key in [UserKey::ExternalId("shared"), UserKey::Email("shared@example.com")] {
            let found = database.store.user(&database.instance, key).await.expect("answered");
            assert_eq!(found.expect("found").value.id, user_id("user_1"));
        }

        database.apply([event_user(user("user_1", 10))]).await;
        let found = database.store.user(&database.instance, UserKey::Email("shared@example.com")).await;
        assert_eq!(found.expect("answered").expect("found").value.id, user_id("user_2"));
    }

    async fn instances_know_nothing_of_each_other(database: Database) {
        database.apply([event_user(user("user_1", 5)), event_membership(membership("org_1", "user_1", 5))]).await;
        let other = "other".parse().expect("a name");

        let id = user_id("user_1");
        let found = database.store.user(&other, UserKey::Id(&id)).await.expect("answered");
        assert!(found.is_none());
        let known = database.store.membership(&other, &organization_id("org_1"), &id).await;
        assert_eq!(known.expect("answered"), KnownMembership::Unknown);
        assert_eq!(database.store.newest(&other).await, Ok(Position::START));
        assert_eq!(database.store.stats(&other).await.expect("answered").users, 0);
    }

    async fn an_organization_is_found_by_id_and_by_its_slug_of_now(database: Database) {
        let first = organization("org_1", 5);
        database.apply([event_organization(first.clone())]).await;
        let by_slug = async |slug: &str| {
            let slug = slug.parse().expect("a slug");
            let found = database.store.organization_by_slug(&database.instance, &slug).await;
            found.expect("answered").map(|seen| seen.value)
        };
        assert_eq!(by_slug("slug-1").await, Some(first.clone()));

        let mut renamed = organization("org_1", 6);
        renamed.slug = Some("other".parse().expect("a slug"));
        database.apply([event_organization(renamed.clone())]).await;

        assert_eq!(by_slug("slug-1").await, None);
        assert_eq!(by_slug("other").await, Some(renamed.clone()));
        let found = database.store.organization(&database.instance, &first.id).await;
        assert_eq!(found.expect("answered").expect("found").value, renamed);
    }

    async fn a_membership_stands_without_its_user_and_organization(database: Database) {
        let member = membership("org_1", "user_1", 5);
        database.apply([event_membership(member.clone())]).await;

        let known = database.store.membership(&database.instance, &organization_id("org_1"), &user_id("user_1")).await;
        let KnownMembership::Member(seen) = known.expect("answered") else { panic!("a member") };
        assert_eq!(seen.value, member);
        assert_eq!(seen.seen_at, None, "an event is no look");

        database.apply([api_membership(member.clone(), NOW), event_organization(organization("org_1", 1))]).await;
        let known = database.store.membership(&database.instance, &organization_id("org_1"), &user_id("user_1")).await;
        let KnownMembership::Member(seen) = known.expect("answered") else { panic!("a member") };
        assert_eq!(seen.seen_at, Some(ms(NOW)));
        let slug = seen.value.membership.organization.slug.expect("the organization's own");
        assert_eq!(slug.as_str(), "slug-1");
    }

    async fn whether_a_member_may_act_is_what_the_newer_of_both_says(database: Database) {
        let standing = async || {
            let known = database.store.membership(&database.instance, &organization_id("org_1"), &user_id("user_1")).await;
            let KnownMembership::Member(seen) = known.expect("answered") else { panic!("a member") };
            seen.value.membership.standing
        };
        database.apply([event_membership(membership("org_1", "user_1", 5))]).await;
        assert_eq!(standing().await, Standing::Good);

        database.apply([event_user(user_with("user_1", 6, |user| user.banned = true))]).await;
        assert_eq!(standing().await, Standing::Banned);

        database.apply([event_membership(membership("org_1", "user_1", 7))]).await;
        assert_eq!(standing().await, Standing::Good, "unbanned, and the user's own event is late");
    }

    /// Advisory 30: more memberships than a page of anybody's holds.
    async fn all_of_many_memberships_are_there(database: Database) {
        let facts: Vec<Fact> = (0..150)
            .map(|number| event_membership(membership(&format!("org_{number:03}"), "user_1", 5)))
            .collect();
        database.apply(facts).await;

        let id = user_id("user_1");
        let mut after = None;
        let mut found = Vec::new();
        loop {
            let page = database.store.memberships_of(&database.instance, &id, after.as_ref(), 40).await;
            let page = page.expect("answered");
            let Some(last) = page.last() else { break };
            after = Some(last.value.membership.organization.id.clone());
            found.extend(page.into_iter().map(|seen| seen.value.membership.organization.id.to_string()));
        }
        let all: Vec<String> = (0..150).map(|number| format!("org_{number:03}")).collect();
        assert_eq!(found, all);
        for number in [0, 99, 100, 101, 149] {
            let organization = organization_id(&format!("org_{number:03}"));
            let known = database.store.membership(&database.instance, &organization, &id).await;
            assert!(matches!(known.expect("answered"), KnownMembership::Member(_)), "{number}");
        }

        let entity = Entity::User(id.clone());
        database.apply([Fact::Deleted { entity, at: ms(9) }]).await;
        assert_eq!(database.store.stats(&database.instance).await.expect("answered").memberships, 0);
    }

    async fn a_walk_over_all_heads_meets_each_once_tombstones_included(database: Database) {
        let mut facts: Vec<Fact> = (0..25).map(|number| event_user(user(&format!("user_{number:02}"), 5))).collect();
        facts.push(Fact::Deleted { entity: Entity::User(user_id("user_07")), at: ms(9) });
        facts.extend((0..25).map(|number| {
            event_membership(membership(&format!("org_{}", number / 5), &format!("user_{:02}", number % 5), 5))
        }));
        database.apply(facts).await;

        for (kind, expected) in [(EntityKind::User, 25), (EntityKind::Membership, 25), (EntityKind::Organization, 0)] {
            let mut after = None;
            let mut met = Vec::new();
            loop {
                let page = database.store.heads(&database.instance, kind, after.as_ref(), 4).await;
                let page = page.expect("answered");
                let Some(last) = page.last() else { break };
                after = Some(last.entity.clone());
                met.extend(page.into_iter().map(|versioned| versioned.entity));
            }
            let mut sorted = met.clone();
            sorted.sort();
            sorted.dedup();
            assert_eq!((met.len(), sorted), (expected, met), "{kind:?}");
        }
    }

    /// Advisory 26: whatever comes in is text, wherever it stands.
    async fn hostile_texts_are_just_text(database: Database) {
        for (number, hostile) in HOSTILE.iter().enumerate() {
            let text = || Some((*hostile).into());
            // PostgreSQL has no zero byte in a text.
            let kept = hostile.replace('\0', "\u{fffd}");
            let id = format!("user_h{number}");
            let whole = user_with(&id, 5, |user| {
                user.external_id = text();
                user.username = text();
                user.first_name = text();
                user.last_name = text();
                user.image_url = text();
                user.public_metadata = (*hostile).into();
                user.source = (*hostile).into();
                user.emails = vec![EmailAddress { address: format!("{number}{hostile}").into(), verified: true, primary: true }];
            });
            let mut place = membership(&format!("org_h{number}"), &id, 5);
            place.membership.role = (*hostile).into();
            place.membership.permissions = [hostile].into_iter().collect();
            place.source = (*hostile).into();
            let mut at = organization(&format!("org_h{number}"), 5);
            at.name = (*hostile).into();
            at.source = (*hostile).into();
            database.apply([
                event_user(whole), event_membership(place), event_organization(at),
                Fact::RoleChanged { role: text(), at: ms(1) },
            ]).await;

            let parsed = user_id(&id);
            let found = database.store.user(&database.instance, UserKey::ExternalId(hostile)).await;
            let found = found.expect("answered").expect("found").value;
            assert_eq!((found.id, found.first_name.as_deref()), (parsed.clone(), Some(&*kept)), "{hostile:?}");
            let found = database.store.user(&database.instance, UserKey::Email(&format!("{number}{hostile}"))).await;
            assert_eq!(found.expect("answered").expect("found").value.id, parsed, "{hostile:?}");
            let known = database.store.membership(&database.instance, &organization_id(&format!("org_h{number}")), &parsed).await;
            let KnownMembership::Member(seen) = known.expect("answered") else { panic!("a member") };
            assert_eq!(&*seen.value.membership.role, &*kept);

            let visible: String = hostile.chars().filter(char::is_ascii_graphic).collect();
            let received = message(&format!("{number}{visible}"), hostile);
            assert_eq!(database.store.receive(&database.instance, received.clone(), ms(NOW)).await, Ok(true));
            assert_eq!(database.store.receive(&database.instance, received.clone(), ms(NOW)).await, Ok(false));
            assert_eq!(database.store.give_up(&database.instance, &received.id, ms(NOW)).await, Ok(true));
            let store = &database.store;
            store.set_checkpoint(&database.instance, hostile, hostile, ms(1)).await.expect("kept");
            let checkpoint = store.checkpoint(&database.instance, hostile).await.expect("answered");
            assert_eq!(checkpoint.expect("kept").value, kept);
            assert!(store.lease(&database.instance, hostile, hostile, ms(9), ms(1)).await.expect("answered").is_some());
            assert_eq!(store.use_once(&database.instance, hostile, ms(9)).await, Ok(true));
        }
        let FeedPage::Changes(changes) = database.store.changes(&database.instance, Position::START, 100).await.expect("answered") else {
            panic!("nothing is gone")
        };
        assert_eq!(changes.len(), 4 * HOSTILE.len());
        let stats = database.store.stats(&database.instance).await.expect("answered");
        let all = HOSTILE.len() as u64;
        assert_eq!((stats.users, stats.memberships, stats.organizations), (all, all, all));
    }
}
