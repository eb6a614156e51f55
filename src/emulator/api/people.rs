//! Which users a list is of: the filters that lists of users and of members share.

use super::{
    Problem,
    lists::Key,
    query::{Choice, Query},
};
use crate::emulator::directory::{Contact, User};

/// What the lists are ordered by, beside `created_at`.
pub(super) const ORDERED_BY: [&str; 5] = [
    "email_address",
    "phone_number",
    "username",
    "first_name",
    "last_name",
];

/// Filters on users. Each that is given must hold.
pub(super) struct People {
    ids: Choice,
    emails: Vec<String>,
    phones: Vec<String>,
    usernames: Vec<String>,
    query: Option<String>,
    email_query: Option<String>,
    phone_query: Option<String>,
    username_query: Option<String>,
    name_query: Option<String>,
    last_active: Between,
    /// An account elsewhere: its provider, and ids there.
    account: Option<(String, Vec<String>)>,
    /// Nobody here has a wallet, and an account elsewhere is asked for by both its parts: whoever asks
    /// otherwise finds nobody.
    nobody: bool,
}

/// Later than the one, earlier than the other; Unix milliseconds.
pub(super) struct Between {
    after: Option<i64>,
    before: Option<i64>,
}

impl Between {
    pub(super) fn read(query: &Query, name: &str) -> Result<Self, Problem> {
        Ok(Self {
            after: query.millis(&format!("{name}_after"))?,
            before: query.millis(&format!("{name}_before"))?,
        })
    }

    pub(super) fn accepts(&self, time: Option<i64>) -> bool {
        let later = self.after.is_none_or(|end| time.is_some_and(|at| at > end));
        let earlier = self
            .before
            .is_none_or(|end| time.is_some_and(|at| at < end));
        later && earlier
    }
}

impl People {
    pub(super) fn read(query: &Query) -> Result<Self, Problem> {
        let listed = |name: &str| -> Result<Vec<String>, Problem> {
            let values = query.texts(name)?;
            Ok(values.into_iter().map(str::to_lowercase).collect())
        };
        let part = |name: &str| query.text(name).map(str::to_lowercase);
        let provider = query.text("provider").map(str::to_owned);
        let ids = query.texts("provider_user_id")?;
        let ids: Vec<String> = ids.into_iter().map(str::to_owned).collect();
        let mut nobody = provider.is_some() == ids.is_empty();
        let account = provider.map(|provider| (provider, ids));
        nobody |= !query.texts("web3_wallet")?.is_empty();
        let mut last_active = Between::read(query, "last_active_at")?;
        // The older name of the same.
        last_active.after = last_active
            .after
            .or(query.millis("last_active_at_since")?.map(|since| since - 1));
        Ok(Self {
            ids: query.choice("user_id")?,
            emails: listed("email_address")?,
            phones: listed("phone_number")?,
            usernames: listed("username")?,
            query: part("query"),
            email_query: part("email_address_query"),
            phone_query: part("phone_number_query"),
            username_query: part("username_query"),
            name_query: part("name_query"),
            last_active,
            account,
            nobody,
        })
    }

    pub(super) fn accepts(&self, user: &User) -> bool {
        let names = || {
            let names = [user.first_name.as_deref(), user.last_name.as_deref()];
            names.into_iter().flatten().collect::<Vec<_>>().join(" ")
        };
        let username = user.username.as_deref().unwrap_or_default();
        let holds = |text: &str, part: &str| text.to_lowercase().contains(part);
        let one_of =
            |contacts: &[Contact], part: &str| contacts.iter().any(|c| holds(&c.value, part));
        let asked =
            |part: &Option<String>, check: &dyn Fn(&str) -> bool| part.as_deref().is_none_or(check);
        !self.nobody
            && self.account.as_ref().is_none_or(|(provider, ids)| {
                user.external_accounts.iter().any(|account| {
                    account.provider == *provider && ids.contains(&account.provider_user_id)
                })
            })
            && self.ids.accepts(&user.id)
            && is_listed(&self.emails, user.emails.iter().map(|c| &*c.value))
            && is_listed(&self.phones, user.phones.iter().map(|c| &*c.value))
            && is_listed(&self.usernames, user.username.as_deref())
            && self.last_active.accepts(user.last_active_at)
            && asked(&self.email_query, &|part| one_of(&user.emails, part))
            && asked(&self.phone_query, &|part| one_of(&user.phones, part))
            && asked(&self.username_query, &|part| holds(username, part))
            && asked(&self.name_query, &|part| holds(&names(), part))
            && asked(&self.query, &|part| {
                holds(&user.id, part)
                    || holds(username, part)
                    || holds(&names(), part)
                    || one_of(&user.emails, part)
                    || one_of(&user.phones, part)
            })
    }
}

/// Whether one of `values` stands in a list; an empty list is no filter.
fn is_listed<'a>(list: &[String], values: impl IntoIterator<Item = &'a str>) -> bool {
    list.is_empty()
        || values
            .into_iter()
            .any(|value| list.contains(&value.to_lowercase()))
}

/// What a user is ordered by, for the names of [`ORDERED_BY`].
pub(super) fn key(user: &User, by: &str) -> Key {
    Key::text(match by {
        "email_address" => user.email(),
        "phone_number" => user.phone(),
        "username" => user.username.as_deref(),
        "first_name" => user.first_name.as_deref(),
        "last_name" => user.last_name.as_deref(),
        _ => None,
    })
}
