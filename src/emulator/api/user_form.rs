//! What a request says of a user.

use super::{
    Problem,
    form::{Edit, Form},
};
use crate::emulator::directory::{Contact, User, new_contact};

const MIN_PASSWORD_CHARACTERS: usize = 8;

/// What can be said of a user when it is made and later.
pub(super) struct Details {
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
    pub(super) fn read(form: &mut Form) -> Result<Self, Problem> {
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

    pub(super) fn apply(self, user: &mut User) {
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
pub(super) fn contacts(form: &mut Form, name: &str) -> Result<Vec<Contact>, Problem> {
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
pub(super) fn chosen(
    form: &mut Form,
    name: &str,
    among: &[Contact],
) -> Result<Edit<String>, Problem> {
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

pub(super) fn refuse_any(form: &mut Form, name: &str, why: &str) -> Result<(), Problem> {
    match form.texts(name)?.value() {
        Some(values) if !values.is_empty() => Err(Problem::invalid(name, format!("{name}: {why}"))),
        _ => Ok(()),
    }
}
