//! Users, over HTTP.

use axum::http::Method;
use serde_json::{Value, json};

use super::{
    Answer, Call, Operation, Problem,
    form::{Edit, Form, deleted, merge},
    lists::{Key, sort},
    objects, operation,
    people::{self, Between, People},
    query::{Choice, Query},
};
use crate::emulator::{
    Endpoint,
    directory::{Contact, Metadata, Refused, Tables, User, new_contact},
};

const MIN_PASSWORD_CHARACTERS: usize = 8;
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
    let sign_out = form.flag("sign_out_of_other_sessions")?.value();
    form.ignore(&[
        "notify_primary_email_address_changed",
        "primary_web3_wallet_id",
        "profile_image_id",
    ]);
    let details = Details::read(form)?;
    form.finish()?;
    let user = call.directory().change_user(&id, |user| {
        email.apply(&mut user.primary_email);
        phone.apply(&mut user.primary_phone);
        details.apply(user);
    })?;
    if sign_out == Some(true) {
        call.directory().revoke_sessions(&id)?;
    }
    Ok(objects::user(&user))
}

/// What can be said of a user when it is made and later.
struct Details {
    external_id: Edit<String>,
    username: Edit<String>,
    first_name: Edit<String>,
    last_name: Edit<String>,
    locale: Edit<String>,
    password: bool,
    totp: bool,
    backup_codes: bool,
    delete_self: Edit<bool>,
    create_organizations: Edit<bool>,
    create_organizations_limit: Edit<i64>,
    bypass_client_trust: Edit<bool>,
    legal_accepted_at: Edit<i64>,
    created_at: Edit<i64>,
}

impl Details {
    fn read(form: &mut Form) -> Result<Self, Problem> {
        form.ignore(&[
            "password_hasher",
            "skip_password_checks",
            "skip_legal_checks",
        ]);
        let password = form.text("password")?.value();
        if let Some(password) = &password
            && password.chars().count() < MIN_PASSWORD_CHARACTERS
        {
            let message =
                format!("password: expected at least {MIN_PASSWORD_CHARACTERS} characters");
            return Err(Problem::invalid("password", message));
        }
        let digest = form.text("password_digest")?.value();
        Ok(Self {
            // Which password it is has no use here: nobody signs in.
            password: password.is_some() || digest.is_some(),
            totp: form.text("totp_secret")?.value().is_some(),
            backup_codes: form.texts("backup_codes")?.value().is_some(),
            external_id: named(form, "external_id")?,
            username: named(form, "username")?,
            first_name: form.text("first_name")?,
            last_name: form.text("last_name")?,
            locale: form.text("locale")?,
            delete_self: form.flag("delete_self_enabled")?,
            create_organizations: form.flag("create_organization_enabled")?,
            create_organizations_limit: form.number("create_organizations_limit", 0, i64::MAX)?,
            bypass_client_trust: form.flag("bypass_client_trust")?,
            legal_accepted_at: form.time("legal_accepted_at")?,
            created_at: form.time("created_at")?,
        })
    }

    fn apply(self, user: &mut User) {
        self.external_id.apply(&mut user.external_id);
        self.username.apply(&mut user.username);
        self.first_name.apply(&mut user.first_name);
        self.last_name.apply(&mut user.last_name);
        self.locale.apply(&mut user.locale);
        user.password |= self.password;
        user.totp |= self.totp;
        user.backup_codes |= self.backup_codes;
        self.delete_self.apply_to(&mut user.delete_self);
        self.create_organizations
            .apply_to(&mut user.create_organizations);
        self.create_organizations_limit
            .apply(&mut user.create_organizations_limit);
        self.bypass_client_trust
            .apply_to(&mut user.bypass_client_trust);
        self.legal_accepted_at.apply(&mut user.legal_accepted_at);
        self.created_at.apply_to(&mut user.stamp.created_at);
    }
}

/// Empty text clears, as `null` does.
fn named(form: &mut Form, name: &str) -> Result<Edit<String>, Problem> {
    Ok(match form.text(name)? {
        Edit::Set(text) if text.is_empty() => Edit::Clear,
        edit => edit,
    })
}

/// Addresses or numbers; a parallel list says which are only reserved.
fn contacts(form: &mut Form, name: &str) -> Result<Vec<Contact>, Problem> {
    let values = form.texts(name)?.value().unwrap_or_default();
    let parallel = format!("{name}_identification_status");
    let statuses = form.texts(&parallel)?.value().unwrap_or_default();
    let wrong = |message: &str| {
        Err(Problem::invalid(
            &parallel,
            format!("{parallel}: {message}"),
        ))
    };
    if !statuses.is_empty() && statuses.len() != values.len() {
        return wrong("expected as many as there are values");
    }
    if statuses.iter().any(|s| s != "verified" && s != "reserved") {
        return wrong("expected verified or reserved");
    }
    let is_form_of = |value: &str| match name {
        "email_address" => value
            .split_once('@')
            .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()),
        _ => value.starts_with('+') && value.len() > 1,
    };
    if let Some(value) = values.iter().find(|value| !is_form_of(value)) {
        return Err(Problem::invalid(name, format!("{name}: {value:?} is none")));
    }
    let contact = |(index, value): (usize, &String)| {
        let verified = statuses
            .get(index)
            .is_none_or(|status| status == "verified");
        new_contact(value, verified, 0)
    };
    Ok(values.iter().enumerate().map(contact).collect())
}

/// The id of one of the user's verified contacts.
fn chosen(form: &mut Form, name: &str, among: &[Contact]) -> Result<Edit<String>, Problem> {
    let edit = form.text(name)?;
    if let Edit::Set(id) = &edit
        && !among
            .iter()
            .any(|contact| contact.verified && contact.id == *id)
    {
        let message = format!("{name}: the user has no verified {id:?}");
        return Err(Problem::invalid(name, message));
    }
    Ok(edit)
}

fn refuse_any(form: &mut Form, name: &str, why: &str) -> Result<(), Problem> {
    match form.texts(name)?.value() {
        Some(values) if !values.is_empty() => Err(Problem::invalid(name, format!("{name}: {why}"))),
        _ => Ok(()),
    }
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
