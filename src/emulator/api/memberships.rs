//! Memberships, over HTTP: of an organization, of a user, of the instance.

use axum::http::Method;

use super::{
    Answer, Call, Operation, Problem,
    form::merge,
    lists::{Key, paged, sort},
    objects, operation,
    people::{self, Between, People},
    query::{Order, Query},
};
use crate::emulator::{
    Endpoint,
    directory::{Membership, Tables, membership_key},
};

pub(super) fn operations() -> Vec<Operation> {
    let on = |id, method, path, run| operation(id, method, path, Endpoint::Memberships, run);
    let all = "/v1/organizations/{organization_id}/memberships";
    let one = "/v1/organizations/{organization_id}/memberships/{user_id}";
    vec![
        on(
            "ListOrganizationMemberships",
            Method::GET,
            all,
            of_organization,
        ),
        on("CreateOrganizationMembership", Method::POST, all, create),
        on("UpdateOrganizationMembership", Method::PATCH, one, update),
        on("DeleteOrganizationMembership", Method::DELETE, one, delete),
        on(
            "UpdateOrganizationMembershipMetadata",
            Method::PATCH,
            "/v1/organizations/{organization_id}/memberships/{user_id}/metadata",
            change_metadata,
        ),
        on(
            "UsersGetOrganizationMemberships",
            Method::GET,
            "/v1/users/{user_id}/organization_memberships",
            of_user,
        ),
        on(
            "InstanceGetOrganizationMemberships",
            Method::GET,
            "/v1/organization_memberships",
            of_instance,
        ),
    ]
}

fn order(query: &Query) -> Result<Order, Problem> {
    let mut known = vec!["created_at"];
    known.extend(people::ORDERED_BY);
    query.order(&known)
}

fn sort_memberships(tables: &Tables, memberships: &mut Vec<&Membership>, order: Order) {
    sort(memberships, order, |membership| {
        match (order.by, tables.users.get(&membership.user)) {
            ("created_at", _) | (_, None) => Key::Number(membership.stamp.created_at),
            (by, Some(user)) => people::key(user, by),
        }
    });
}

/// Takes the id and not the slug, as Clerk does.
fn of_organization(call: &mut Call<'_>) -> Answer {
    let query = &call.query;
    let people = People::read(query)?;
    let roles = query.texts("role")?;
    let created = Between::read(query, "created_at")?;
    let page = query.page()?;
    let order = order(query)?;
    let id = call.id("organization_id");
    call.directory().read(|tables| {
        if tables.organizations.get(id).is_none() {
            return Err(Problem::not_found(format!("no organization {id:?}")));
        }
        let prefix = membership_key(id, "");
        let mut memberships: Vec<&Membership> = tables
            .memberships_in(&prefix)
            .filter(|membership| {
                let user = tables.users.get(&membership.user);
                user.is_some_and(|user| people.accepts(user))
                    && (roles.is_empty() || roles.contains(&&*membership.role))
                    && created.accepts(Some(membership.stamp.created_at))
            })
            .collect();
        sort_memberships(tables, &mut memberships, order);
        Ok(paged(memberships, page, |membership| {
            objects::membership(tables, membership)
        }))
    })
}

fn of_user(call: &mut Call<'_>) -> Answer {
    let page = call.query.page()?;
    let order = Order {
        by: "created_at",
        descending: true,
    };
    let id = call.id("user_id");
    call.directory().read(|tables| {
        if tables.users.get(id).is_none() {
            return Err(Problem::not_found(format!("no user {id:?}")));
        }
        let all = tables.memberships.iter();
        let mut memberships: Vec<&Membership> =
            all.filter(|membership| membership.user == id).collect();
        sort_memberships(tables, &mut memberships, order);
        Ok(paged(memberships, page, |membership| {
            objects::membership(tables, membership)
        }))
    })
}

fn of_instance(call: &mut Call<'_>) -> Answer {
    let page = call.query.page()?;
    let order = order(&call.query)?;
    call.directory().read(|tables| {
        let mut memberships: Vec<&Membership> = tables.memberships.iter().collect();
        sort_memberships(tables, &mut memberships, order);
        Ok(paged(memberships, page, |membership| {
            objects::membership(tables, membership)
        }))
    })
}

fn create(call: &mut Call<'_>) -> Answer {
    let form = &mut call.form;
    let user = form.required_text("user_id")?;
    let role = form.required_text("role")?;
    let public = form.metadata("public_metadata")?.value();
    let private = form.metadata("private_metadata")?.value();
    form.finish()?;
    let (directory, organization) = (call.directory(), call.id("organization_id"));
    let mut membership = directory.add_member(organization, &user, &role)?;
    if public.is_some() || private.is_some() {
        membership = directory.change_membership(organization, &user, |membership| {
            membership.public_metadata = public.unwrap_or_default();
            membership.private_metadata = private.unwrap_or_default();
        })?;
    }
    answer(call, &membership)
}

fn update(call: &mut Call<'_>) -> Answer {
    let role = call.form.required_text("role")?;
    call.form.finish()?;
    let (organization, user) = (call.id("organization_id"), call.id("user_id"));
    let membership = call.directory().set_role(organization, user, &role)?;
    answer(call, &membership)
}

fn delete(call: &mut Call<'_>) -> Answer {
    let (organization, user) = (call.id("organization_id"), call.id("user_id"));
    let membership = call.directory().remove_member(organization, user)?;
    answer(call, &membership)
}

fn change_metadata(call: &mut Call<'_>) -> Answer {
    let public = call.form.metadata("public_metadata")?.value();
    let private = call.form.metadata("private_metadata")?.value();
    call.form.finish()?;
    let (organization, user) = (call.id("organization_id"), call.id("user_id"));
    let changed = call
        .directory()
        .change_membership(organization, user, |membership| {
            merge(&mut membership.public_metadata, public.unwrap_or_default());
            merge(
                &mut membership.private_metadata,
                private.unwrap_or_default(),
            );
        })?;
    answer(call, &changed)
}

fn answer(call: &Call<'_>, membership: &Membership) -> Answer {
    Ok(call
        .directory()
        .read(|tables| objects::membership(tables, membership)))
}
