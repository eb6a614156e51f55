//! Users, over HTTP.

use axum::http::Method;
use serde_json::{Value, json};

use super::{
    Answer, Call, Operation, Problem, Version,
    form::{Edit, deleted, merge},
    lists::{Key, sort},
    objects, operation,
    people::{self, Between, People},
    query::{Choice, Query},
    user_form::{Details, chosen, contacts, refuse_any},
};
use crate::emulator::{
    Endpoint,
    directory::{Metadata, Refused, Tables, User},
};

const METADATA: [&str; 3] = ["public_metadata", "private_metadata", "unsafe_metadata"];

pub(super) fn operations() -> Vec<Operation> {
    let on = |id, method, path, run| operation(id, method, path, Endpoint::Users, run);
    vec![
        on("GetUserList", Method::GET, "/v1/users", list),
        on("CreateUser", Method::POST, "/v1/users", create),
        on("GetUsersCount", Method::GET, "/v1/users/count", count),
        on("GetUser", Method::GET, "/v1/users/{user_id}", get),
        on("UpdateUser", Method::PATCH, "/v1/users/{user_id}", update),
        on("DeleteUser", Method::DELETE, "/v1/users/{user_id}", delete),
        on("BanUser", Method::POST, "/v1/users/{user_id}/ban", |call| {
            changed(call.directory().ban_user(call.id("user_id")))
        }),
        on(
            "UnbanUser",
            Method::POST,
            "/v1/users/{user_id}/unban",
            |call| changed(call.directory().unban_user(call.id("user_id"))),
        ),
        on(
            "LockUser",
            Method::POST,
            "/v1/users/{user_id}/lock",
            |call| changed(call.directory().lock_user(call.id("user_id"))),
        ),
        on(
            "UnlockUser",
            Method::POST,
            "/v1/users/{user_id}/unlock",
            |call| changed(call.directory().unlock_user(call.id("user_id"))),
        ),
        on(
            "UpdateUserMetadata",
            Method::PATCH,
            "/v1/users/{user_id}/metadata",
            |call| change_metadata(call, merge),
        ),
        on(
            "ReplaceUserMetadata",
            Method::PUT,
            "/v1/users/{user_id}/metadata",
            |call| change_metadata(call, |old, new| *old = new),
        ),
    ]
}

fn changed(user: Result<User, Refused>) -> Answer {
    Ok(objects::user(&user?))
}

/// Which users a list or a count is of.
struct Filter {
    people: People,
    external_ids: Choice,
    organizations: Choice,
    banned: Option<bool>,
    created: Between,
    last_sign_in: Between,
}

impl Filter {
    fn read(query: &Query) -> Result<Self, Problem> {
        Ok(Self {
            people: People::read(query)?,
            external_ids: query.choice("external_id")?,
            organizations: query.choice("organization_id")?,
            banned: query.flag("banned")?,
            created: Between::read(query, "created_at")?,
            last_sign_in: Between::read(query, "last_sign_in_at")?,
        })
    }

    fn of<'a>(&self, tables: &'a Tables) -> Vec<&'a User> {
        let users = tables.users.iter();
        users.filter(|user| self.accepts(tables, user)).collect()
    }

    fn accepts(&self, tables: &Tables, user: &User) -> bool {
        let organizations = || {
            let memberships = tables.memberships.iter();
            let of_user = memberships.filter(|membership| membership.user == user.id);
            of_user
                .map(|membership| &*membership.organization)
                .collect()
        };
        self.people.accepts(user)
            && self
                .external_ids
                .accepts(user.external_id.as_deref().unwrap_or_default())
            && (self.organizations == Choice::default() || {
                let organizations: Vec<&str> = organizations();
                self.organizations.accepts_any(&organizations)
            })
            && self.banned.is_none_or(|banned| banned == user.banned)
            && self.created.accepts(Some(user.stamp.created_at))
            && self.last_sign_in.accepts(user.last_sign_in_at)
    }
}

fn list(call: &mut Call<'_>) -> Answer {
    let query = &call.query;
    let filter = Filter::read(query)?;
    let page = query.page()?;
    let mut known = vec![
        "created_at",
        "updated_at",
        "last_active_at",
        "last_sign_in_at",
        "web3wallet",
    ];
    known.extend(people::ORDERED_BY);
    let order = query.order(&known)?;
    let cursor = query.text("starting_after");
    if cursor.is_some() && order.by != "created_at" {
        let message = "starting_after: goes with the order by created_at only";
        return Err(Problem::invalid("starting_after", message));
    }
    if cursor.is_some() && page.offset > 0 {
        let message = "starting_after: does not go with an offset";
        return Err(Problem::invalid("starting_after", message));
    }
    call.directory().read(|tables| {
        let mut users = filter.of(tables);
        if let Some(cursor) = cursor {
            let last = tables.users.get(cursor).ok_or_else(|| {
                let message = format!("starting_after: no user {cursor:?}");
                Problem::invalid("starting_after", message)
            })?;
            let place = |user: &User| (user.stamp.created_at, user.stamp.sequence);
            users.retain(|user| {
                if order.descending {
                    place(user) < place(last)
                } else {
                    place(user) > place(last)
                }
            });
        }
        sort(&mut users, order, |user| match order.by {
            "created_at" => Key::Number(user.stamp.created_at),
            "updated_at" => Key::Number(user.stamp.updated_at),
            "last_active_at" => Key::number(user.last_active_at),
            "last_sign_in_at" => Key::number(user.last_sign_in_at),
            by => people::key(user, by),
        });
        let users = page.of(users).into_iter().map(objects::user);
        Ok(Value::Array(users.collect()))
    })
}

fn count(call: &mut Call<'_>) -> Answer {
    let filter = Filter::read(&call.query)?;
    let count = call.directory().read(|tables| filter.of(tables).len());
    Ok(json!({ "object": "total_count", "total_count": count }))
}

fn get(call: &mut Call<'_>) -> Answer {
    let id = call.id("user_id");
    match call.directory().user(id) {
        Some(user) => Ok(objects::user(&user)),
        None => Err(Problem::not_found(format!("no user {id:?}"))),
    }
}

fn delete(call: &mut Call<'_>) -> Answer {
    let user = call.directory().delete_user(call.id("user_id"))?;
    let mut answer = deleted("user", &user.id)?;
    if let Some(external_id) = user.external_id {
        answer["external_id"] = json!(external_id);
    }
    Ok(answer)
}

fn create(call: &mut Call<'_>) -> Answer {
    let form = &mut call.form;
    let emails = contacts(form, "email_address")?;
    let phones = contacts(form, "phone_number")?;
    let mut user = User {
        primary_email: emails.first().map(|contact| contact.id.clone()),
        emails,
        primary_phone: phones.first().map(|contact| contact.id.clone()),
        phones,
        delete_self: true,
        create_organizations: true,
        ..User::default()
    };
    refuse_any(form, "web3_wallet", "the offline Clerk has no wallets")?;
    form.metadata("public_metadata")?
        .apply_to(&mut user.public_metadata);
    form.metadata("private_metadata")?
        .apply_to(&mut user.private_metadata);
    form.metadata("unsafe_metadata")?
        .apply_to(&mut user.unsafe_metadata);
    form.flag("banned")?.apply_to(&mut user.banned);
    form.flag("locked")?.apply_to(&mut user.locked);
    form.ignore(&["skip_password_requirement", "skip_user_requirement"]);
    let details = Details::read(form)?;
    form.finish()?;
    details.apply(&mut user);
    changed(call.directory().create_user(user))
}

fn update(call: &mut Call<'_>) -> Answer {
    let id = call.id("user_id").to_owned();
    let user = call.directory().user(&id);
    let user = user.ok_or_else(|| Problem::not_found(format!("no user {id:?}")))?;
    let form = &mut call.form;
    let email = chosen(form, "primary_email_address_id", &user.emails)?;
    let phone = chosen(form, "primary_phone_number_id", &user.phones)?;
    let metadata = match call.version {
        Version::MetadataApart => None,
        Version::MetadataInUpdates => Some(METADATA.map(|name| form.metadata(name))),
    };
    let sign_out = form.flag("sign_out_of_other_sessions")?.value();
    form.ignore(&[
        "notify_primary_email_address_changed",
        "primary_web3_wallet_id",
        "profile_image_id",
    ]);
    let details = Details::read(form)?;
    form.finish()?;
    let [public, private, unsafe_] = match metadata {
        Some([public, private, unsafe_]) => [public?, private?, unsafe_?],
        None => [Edit::Keep, Edit::Keep, Edit::Keep],
    };
    let user = call.directory().change_user(&id, |user| {
        public.apply_to(&mut user.public_metadata);
        private.apply_to(&mut user.private_metadata);
        unsafe_.apply_to(&mut user.unsafe_metadata);
        email.apply(&mut user.primary_email);
        phone.apply(&mut user.primary_phone);
        details.apply(user);
    })?;
    if sign_out == Some(true) {
        call.directory().revoke_sessions(&id)?;
    }
    Ok(objects::user(&user))
}

fn change_metadata(call: &mut Call<'_>, how: fn(&mut Metadata, Metadata)) -> Answer {
    let [public, private, unsafe_] = METADATA.map(|name| call.form.metadata(name));
    let (public, private, unsafe_) = (public?.value(), private?.value(), unsafe_?.value());
    call.form.finish()?;
    changed(call.directory().change_user(call.id("user_id"), |user| {
        for (metadata, change) in [
            (&mut user.public_metadata, public),
            (&mut user.private_metadata, private),
            (&mut user.unsafe_metadata, unsafe_),
        ] {
            if let Some(change) = change {
                how(metadata, change);
            }
        }
    }))
}
