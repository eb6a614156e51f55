//! Whom an identity provider vouches for: found at Clerk, made there, and given a ticket.

use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use super::{
    answer::Fault,
    api::{BackendApi, unusable},
    budget::Share,
    coalesce::{self, Errand},
    gate::{Endpoint, REFUSED_PAUSE},
    model::{Asked, Unreadable, somebody_else},
    sender::Sender,
};
use crate::{
    identity::{OrganizationId, UserId},
    mirror::{
        Answered, Ask, Asking, DirectoryError, Doing, Person, PersonKey, SignInTicket, SignIns,
    },
};

/// More than one is too many: this many say so, and a few of whom only the address is not verified do
/// not hide the one who is meant.
const MAX_PEOPLE: usize = 10;

/// `User`, as far as a sign-in asks.
#[derive(Deserialize)]
pub(super) struct ClerkPerson {
    id: Box<str>,
    external_id: Option<Box<str>>,
    banned: Option<bool>,
    locked: Option<bool>,
    deprovisioned: Option<bool>,
    two_factor_enabled: Option<bool>,
    email_addresses: Option<Vec<ClerkEmail>>,
    external_accounts: Option<Vec<ClerkAccount>>,
}

#[derive(Deserialize)]
struct ClerkEmail {
    email_address: Box<str>,
    verification: Option<ClerkVerification>,
}

/// `ExternalAccount`.
#[derive(Deserialize)]
struct ClerkAccount {
    provider: Option<Box<str>>,
    provider_user_id: Option<Box<str>>,
    verification: Option<ClerkVerification>,
}

#[derive(Deserialize)]
struct ClerkVerification {
    status: Option<Box<str>>,
}

/// `SignInToken`.
#[derive(Deserialize)]
struct ClerkTicket {
    user_id: Box<str>,
    token: Option<SecretText>,
}

/// A text that is masked from the moment when it is read.
struct SecretText(SecretString);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

/// A list without a frame.
#[derive(Deserialize)]
#[serde(transparent)]
struct People(Vec<ClerkPerson>);

impl Asked for People {
    fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

impl Asked for ClerkPerson {
    fn is_nothing(&self) -> bool {
        false
    }
}

impl Asked for ClerkTicket {
    fn is_nothing(&self) -> bool {
        false
    }
}

fn is_verified(verification: Option<&ClerkVerification>) -> bool {
    verification.is_some_and(|each| each.status.as_deref() == Some("verified"))
}

impl ClerkPerson {
    /// Whether the key means this user: Clerk's filters are not taken at their word, and find an
    /// address that nobody has verified, too.
    fn is_meant_by(&self, key: &PersonKey) -> bool {
        match key {
            PersonKey::ExternalId(id) => self.external_id.as_ref() == Some(id),
            // Beyond ASCII nothing is folded: a KELVIN SIGN is no k.
            PersonKey::Email(address) => self.email_addresses.iter().flatten().any(|email| {
                email.email_address.eq_ignore_ascii_case(address)
                    && is_verified(email.verification.as_ref())
            }),
            PersonKey::ExternalAccount {
                provider,
                provider_user_id,
            } => self.external_accounts.iter().flatten().any(|account| {
                account.provider.as_ref() == Some(provider)
                    && account.provider_user_id.as_ref() == Some(provider_user_id)
                    && is_verified(account.verification.as_ref())
            }),
        }
    }

    /// What Clerk always says and has not said here is not known: whoever may be banned is not let in.
    /// That is asked of who is meant only, and not of whoever else a filter finds.
    fn into_person(self) -> Result<Person, Unreadable> {
        let id = UserId::try_from(self.id);
        let said = |member: Option<bool>, name: &str| {
            member.ok_or_else(|| Unreadable::Member(format!("{name} is absent")))
        };
        Ok(Person {
            id: id.map_err(|_| Unreadable::Member("id is not a user's id".to_owned()))?,
            banned: said(self.banned, "banned")?,
            locked: said(self.locked, "locked")?,
            // Only organizations with a directory have it.
            deprovisioned: self.deprovisioned == Some(true),
            second_factor: said(self.two_factor_enabled, "two_factor_enabled")?,
        })
    }
}

impl SignIns for BackendApi {
    fn people<'a>(&'a self, key: &'a PersonKey, ask: Ask) -> Asking<'a, Vec<Person>> {
        let (sender, share) = (self.sender.clone(), self.share);
        let asked = key.clone();
        let asking = self.people_asked(key.clone(), ask, move |errand| async move {
            find_people(&sender, share, &asked, &errand).await
        });
        Box::pin(asking)
    }

    fn create<'a>(&'a self, key: &'a PersonKey, patience: Duration) -> Doing<'a, Person> {
        Box::pin(coalesce::alone(patience, async move |errand| {
            create(&self.sender, self.share, key, &errand).await
        }))
    }

    fn ticket<'a>(
        &'a self,
        user: &'a UserId,
        organization: Option<&'a OrganizationId>,
        lifetime: Duration,
        patience: Duration,
    ) -> Doing<'a, Option<SignInTicket>> {
        Box::pin(coalesce::alone(patience, async move |errand| {
            let whose = (user, organization);
            make_ticket(&self.sender, self.share, whose, lifetime, &errand).await
        }))
    }
}

async fn find_people(
    sender: &Sender,
    share: Share,
    key: &PersonKey,
    errand: &Errand,
) -> Result<Answered<Vec<Person>>, DirectoryError> {
    // A `+` or a `-` in front says whether an id is looked for or left out.
    let included;
    let (name, value) = match key {
        PersonKey::ExternalId(id) => {
            included = format!("+{id}");
            ("external_id", &*included)
        }
        PersonKey::Email(address) => ("email_address", &**address),
        PersonKey::ExternalAccount {
            provider_user_id, ..
        } => ("provider_user_id", &**provider_user_id),
    };
    let limit = MAX_PEOPLE.to_string();
    let mut parameters = vec![(name, value), ("limit", &limit)];
    if let PersonKey::ExternalAccount { provider, .. } = key {
        parameters.push(("provider", provider));
    }
    let url = sender.url(&["users"], &parameters);
    let Answered { value, as_of } = sender
        .get::<People>(Endpoint::People, share, url, errand)
        .await?;
    let Some(People(found)) = value else {
        let cause = "answered that there is no list of users".to_owned();
        return Err(Fault::Unusable(cause).into_error(REFUSED_PAUSE));
    };
    let is_whole = found.len() < MAX_PEOPLE;
    let meant = found.into_iter().filter(|person| person.is_meant_by(key));
    let people: Result<Vec<_>, _> = meant.map(ClerkPerson::into_person).collect();
    let value = people.map_err(unusable)?;
    if !is_whole && value.len() < 2 {
        // Another may stand behind them.
        let cause = format!("knows {MAX_PEOPLE} users or more by one key");
        return Err(Fault::Unusable(cause).into_error(REFUSED_PAUSE));
    }
    Ok(Answered { value, as_of })
}

async fn create(
    sender: &Sender,
    share: Share,
    key: &PersonKey,
    errand: &Errand,
) -> Result<Person, DirectoryError> {
    let mut body = match key {
        PersonKey::ExternalId(id) => json!({ "external_id": id }),
        // Clerk takes an address for verified that comes with the secret key.
        PersonKey::Email(address) => json!({ "email_address": [address] }),
        PersonKey::ExternalAccount { .. } => {
            return Err(DirectoryError::Rejected {
                cause: "an external account cannot be made".to_owned(),
            });
        }
    };
    // Whoever signs in at a provider has no password here.
    body["skip_password_requirement"] = json!(true);
    let url = sender.url(&["users"], &[]);
    let body = body.to_string().into();
    let answered = sender
        .change::<ClerkPerson>(Endpoint::CreateUser, share, url, body, errand)
        .await?;
    let person = answered.value.filter(|person| person.is_meant_by(key));
    let person = person.ok_or_else(|| unusable(somebody_else("the user")))?;
    person.into_person().map_err(unusable)
}

async fn make_ticket(
    sender: &Sender,
    share: Share,
    (user, organization): (&UserId, Option<&OrganizationId>),
    lifetime: Duration,
    errand: &Errand,
) -> Result<Option<SignInTicket>, DirectoryError> {
    let mut body = json!({
        "user_id": user.as_str(),
        "expires_in_seconds": lifetime.as_secs(),
    });
    if let Some(organization) = organization {
        body["org_id"] = json!(organization.as_str());
    }
    let url = sender.url(&["sign_in_tokens"], &[]);
    let body = body.to_string().into();
    let answered = sender
        .change::<ClerkTicket>(Endpoint::SignInTokens, share, url, body, errand)
        .await?;
    let Some(ticket) = answered.value else {
        return Ok(None);
    };
    if *ticket.user_id != *user.as_str() {
        return Err(unusable(somebody_else("user_id")));
    }
    match ticket.token {
        Some(SecretText(token)) => Ok(Some(SignInTicket(token))),
        None => Err(unusable(Unreadable::Member("token is absent".to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn user() -> Value {
        json!({
            "id": "user_1", "external_id": "crm-1",
            "banned": false, "locked": false, "two_factor_enabled": false,
            "email_addresses": [
                {"email_address": "Kate@acme.example", "verification": {"status": "verified"}},
            ],
        })
    }

    fn read(user: Value) -> ClerkPerson {
        serde_json::from_value(user).expect("a user")
    }

    #[test]
    fn what_clerk_does_not_say_of_who_is_meant_is_not_taken_for_a_no() {
        let person = read(user()).into_person().expect("all is said");
        assert!(!person.banned && !person.locked && !person.second_factor);
        for member in ["banned", "locked", "two_factor_enabled"] {
            let mut absent = user();
            absent.as_object_mut().expect("an object").remove(member);
            let mut null = user();
            null[member] = Value::Null;
            let mut yes = user();
            yes[member] = json!(true);
            for unsaid in [absent, null] {
                let error = unusable(read(unsaid).into_person().expect_err(member));
                assert!(error.to_string().contains(member), "{error}");
            }
            let person = read(yes).into_person().expect("said");
            assert!(
                person.banned || person.locked || person.second_factor,
                "{member}"
            );
        }
    }

    #[test]
    fn an_address_is_the_same_in_another_case_of_ascii_and_in_no_other() {
        let is_meant = |address: &str| read(user()).is_meant_by(&PersonKey::Email(address.into()));
        assert!(is_meant("kate@ACME.example"));
        assert!(!is_meant("\u{212A}ate@acme.example"), "a KELVIN SIGN");
    }
}
