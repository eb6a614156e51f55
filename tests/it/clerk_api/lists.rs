//! Pages, cursors, filters, orders.

use std::collections::BTreeSet;

use clerk_authz::emulator::directory::User;
use serde_json::Value;

use super::{Api, ids, wrong};

#[tokio::test]
async fn pages_are_cut_as_clerk_cuts_them() {
    let api = Api::start().await;
    for number in 0..12 {
        api.pass_millis(1);
        let user = User::with_email(&format!("u{number}@example.com"));
        api.directory().create_user(user).expect("made");
    }
    let first = api.get("GetUserList", &[], "").await;
    assert_eq!(ids(&first).len(), 10, "ten where nothing is said");
    assert_eq!(
        first[0]["email_addresses"][0]["email_address"],
        "u11@example.com"
    );
    let rest = api.get("GetUserList", &[], "?offset=10&limit=500").await;
    assert_eq!(ids(&rest).len(), 5);
    for query in ["?limit=0", "?limit=501", "?limit=ten", "?limit=-1"] {
        for (operation, ids) in [
            ("GetUserList", &[][..]),
            ("ListOrganizations", &[]),
            ("ListOrganizationMemberships", &["org_acme"]),
            ("UsersGetOrganizationMemberships", &["user_alice"]),
            ("InstanceGetOrganizationMemberships", &[]),
            ("ListOrganizationRoles", &[]),
            ("ListOrganizationPermissions", &[]),
            ("GetSessionList", &[]),
        ] {
            let refused = api.refused(operation, ids, query, None).await;
            assert_eq!(
                refused,
                wrong("form_param_value_invalid", "limit"),
                "{operation}"
            );
        }
    }
    let refused = api.refused("GetUserList", &[], "?offset=-1", None).await;
    assert_eq!(refused, wrong("form_param_value_invalid", "offset"));
    api.clerk.stop().await;
}

#[tokio::test]
async fn a_cursor_walks_everybody_once_while_people_come_and_go() {
    let api = Api::start().await;
    for number in 0..7 {
        api.pass_millis(number % 2);
        let user = User::with_email(&format!("u{number}@example.com"));
        api.directory().create_user(user).expect("made");
    }
    let mut seen = Vec::new();
    loop {
        let cursor = seen
            .last()
            .map_or_else(String::new, |id| format!("&starting_after={id}"));
        let page = format!("?limit=3&order_by=%2Bcreated_at{cursor}");
        let page = api.get("GetUserList", &[], &page).await;
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        if ids(&page).len() < 3 {
            break;
        }
        if seen.len() == 3 {
            api.directory().delete_user(&seen[0]).expect("deleted");
            let late = User::with_email("late@example.com");
            api.directory().create_user(late).expect("made");
        }
    }
    let distinct: BTreeSet<&String> = seen.iter().collect();
    assert_eq!((seen.len(), distinct.len()), (11, 11));

    for (query, parameter) in [
        ("order_by=updated_at", "starting_after"),
        ("offset=1", "starting_after"),
        ("limit=0", "limit"),
    ] {
        let query = format!("?starting_after=user_bob&{query}");
        let refused = api.refused("GetUserList", &[], &query, None).await;
        assert_eq!(
            refused,
            wrong("form_param_value_invalid", parameter),
            "{query}"
        );
    }
    for query in [
        "",
        "&order_by=created_at",
        "&order_by=-created_at",
        "&offset=0",
    ] {
        let query = format!("?starting_after=user_bob{query}");
        api.get("GetUserList", &[], &query).await;
    }
    let refused = api
        .refused("GetUserList", &[], "?starting_after=user_nobody", None)
        .await;
    assert_eq!(refused, wrong("form_param_value_invalid", "starting_after"));
    api.clerk.stop().await;
}

#[tokio::test]
async fn filters_choose_and_unknown_values_are_left_aside() {
    let api = Api::start().await;
    let people = api.directory();
    people
        .change_user("user_bob", |user| {
            user.username = Some("builder".into());
            user.first_name = Some("Bob".into());
            user.external_id = Some("7".into());
        })
        .expect("changed");
    people.ban_user("user_carol").expect("banned");
    for (query, expected) in [
        (
            "user_id=user_alice&user_id=user_nobody",
            &["user_alice"][..],
        ),
        (
            "user_id=%2Buser_bob&user_id=user_alice",
            &["user_alice", "user_bob"],
        ),
        ("user_id=-user_bob", &["user_alice", "user_carol"]),
        ("email_address=BOB@example.com", &["user_bob"]),
        ("email_address_query=OB@EX", &["user_bob"]),
        ("username=builder", &["user_bob"]),
        ("username=nobody", &[]),
        ("external_id=7", &["user_bob"]),
        ("external_id=-7", &["user_alice", "user_carol"]),
        ("query=uild", &["user_bob"]),
        ("name_query=bo", &["user_bob"]),
        ("banned=true", &["user_carol"]),
        ("organization_id=org_acme", &["user_alice", "user_bob"]),
        (
            "organization_id=org_acme&organization_id=-org_globex",
            &["user_bob"],
        ),
        ("web3_wallet=0x1", &[]),
        (
            "created_at_after=1",
            &["user_alice", "user_bob", "user_carol"],
        ),
        ("created_at_before=1", &[]),
        ("last_active_at_after=1", &[]),
    ] {
        let list = format!("?order_by=email_address&{query}");
        let list = api.get("GetUserList", &[], &list).await;
        assert_eq!(ids(&list), expected, "{query}");
        let count = api.get("GetUsersCount", &[], &format!("?{query}")).await;
        assert_eq!(count["total_count"], expected.len(), "{query}");
    }
    for (query, expected) in [
        ("", &["user_bob", "user_alice"][..]),
        ("user_id=user_alice", &["user_alice"]),
        ("user_id=user_carol", &[]),
        ("user_id=-user_alice", &["user_bob"]),
        ("role=org:member&role=org:nothing", &["user_bob"]),
        ("role=org:nothing", &[]),
        ("query=alice", &["user_alice"]),
        ("order_by=email_address", &["user_alice", "user_bob"]),
        ("order_by=-email_address", &["user_bob", "user_alice"]),
        ("order_by=email_address&limit=1&offset=1", &["user_bob"]),
    ] {
        let path = format!("?{query}");
        let list = api
            .get("ListOrganizationMemberships", &["org_acme"], &path)
            .await;
        let members = list["data"].as_array().expect("a list").iter();
        let users: Vec<&Value> = members
            .map(|it| &it["public_user_data"]["user_id"])
            .collect();
        assert_eq!(users, expected, "{query}");
    }
    for (query, expected) in [
        ("", &["org_globex", "org_acme"][..]),
        ("user_id=user_bob", &["org_acme"]),
        ("user_id=-user_bob", &["org_globex"]),
        ("query=LOBE", &["org_globex"]),
        ("organization_id=org_acme", &["org_acme"]),
        ("order_by=-members_count", &["org_acme", "org_globex"]),
        ("order_by=name", &["org_acme", "org_globex"]),
    ] {
        let list = api
            .get("ListOrganizations", &[], &format!("?{query}"))
            .await;
        assert_eq!(ids(&list), expected, "{query}");
    }
    let many = vec!["user_id=user_x"; 101].join("&");
    let refused = api
        .refused("GetUserList", &[], &format!("?{many}"), None)
        .await;
    assert_eq!(refused, wrong("form_param_value_invalid", "user_id"));
    let refused = api
        .refused("GetUserList", &[], "?order_by=+created_at", None)
        .await;
    assert_eq!(
        refused,
        wrong("form_param_value_invalid", "order_by"),
        "a space"
    );
    api.clerk.stop().await;
}
