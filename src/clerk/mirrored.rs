//! Whole objects of Clerk's, as the mirror keeps them: from answers of the Backend API and from
//! webhooks, which carry the same JSON.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::model::{Unreadable, read, with_one_prefix};
use crate::{
    identity::{OrganizationSlug, Timestamp, UserId},
    mirror::{
        EmailAddress, Membership, MirroredMembership, MirroredOrganization, OrganizationRecord,
        Standing, User,
    },
};

/// An empty `public_metadata`.
const NO_METADATA: &str = "{}";

/// `User`.
#[derive(Deserialize)]
struct ClerkUser {
    id: Box<str>,
    external_id: Option<Box<str>>,
    username: Option<Box<str>>,
    first_name: Option<Box<str>>,
    last_name: Option<Box<str>>,
    image_url: Option<Box<str>>,
    primary_email_address_id: Option<Box<str>>,
    email_addresses: Option<Vec<ClerkEmail>>,
    banned: Option<bool>,
    locked: Option<bool>,
    deprovisioned: Option<bool>,
    public_metadata: Option<Box<RawValue>>,
    created_at: i64,
    updated_at: i64,
    last_sign_in_at: Option<i64>,
}

/// `EmailAddress`.
#[derive(Deserialize)]
struct ClerkEmail {
    id: Option<Box<str>>,
    email_address: Box<str>,
    verification: Option<ClerkVerification>,
}

#[derive(Deserialize)]
struct ClerkVerification {
    status: Option<Box<str>>,
}

/// `Organization`.
#[derive(Deserialize)]
struct ClerkOrganization {
    id: Box<str>,
    slug: Option<Box<str>>,
    name: Box<str>,
    image_url: Option<Box<str>>,
    public_metadata: Option<Box<RawValue>>,
    created_at: i64,
    updated_at: i64,
}

/// `OrganizationMembership`.
#[derive(Deserialize)]
struct ClerkMembership {
    role: Box<str>,
    permissions: Option<Vec<Box<str>>>,
    organization: Box<RawValue>,
    public_user_data: ClerkPublicUserData,
    created_at: i64,
    updated_at: i64,
}

#[derive(Deserialize)]
struct ClerkPublicUserData {
    user_id: Box<str>,
    banned: Option<bool>,
    deprovisioned: Option<bool>,
}

/// A user.
pub(super) fn user(source: &RawValue) -> Result<User, Unreadable> {
    let ClerkUser {
        id,
        external_id,
        username,
        first_name,
        last_name,
        image_url,
        primary_email_address_id,
        email_addresses,
        banned,
        locked,
        deprovisioned,
        public_metadata,
        created_at,
        updated_at,
        last_sign_in_at,
    } = read(source.get().as_bytes())?;
    let primary = |email: &ClerkEmail| {
        email.id.is_some() && email.id.as_deref() == primary_email_address_id.as_deref()
    };
    let verified = |email: &ClerkEmail| {
        let verification = email.verification.as_ref();
        verification.is_some_and(|each| each.status.as_deref() == Some("verified"))
    };
    let emails = email_addresses.unwrap_or_default();
    let emails = emails.into_iter().map(|email| EmailAddress {
        verified: verified(&email),
        primary: primary(&email),
        address: email.email_address,
    });
    Ok(User {
        id: id_of(id, "id is not a user's id")?,
        external_id: not_empty(external_id),
        username: not_empty(username),
        first_name,
        last_name,
        image_url,
        emails: emails.collect(),
        banned: banned == Some(true),
        locked: locked == Some(true),
        deprovisioned: deprovisioned == Some(true),
        public_metadata: metadata(public_metadata)?,
        created_at: Timestamp::from_unix_millis(created_at),
        updated_at: Timestamp::from_unix_millis(updated_at),
        last_sign_in_at: last_sign_in_at.map(Timestamp::from_unix_millis),
        source: source.get().into(),
    })
}

/// An organization.
pub(super) fn organization(source: &RawValue) -> Result<MirroredOrganization, Unreadable> {
    let ClerkOrganization {
        id,
        slug,
        name,
        image_url,
        public_metadata,
        created_at,
        updated_at,
    } = read(source.get().as_bytes())?;
    Ok(MirroredOrganization {
        id: id_of(id, "id is not an organization's id")?,
        slug: slug_of(slug.as_deref()),
        name,
        image_url,
        public_metadata: metadata(public_metadata)?,
        created_at: Timestamp::from_unix_millis(created_at),
        updated_at: Timestamp::from_unix_millis(updated_at),
        source: source.get().into(),
    })
}

/// A membership, and the organization that it brings along whole.
pub(super) fn membership(
    source: &RawValue,
) -> Result<(MirroredMembership, MirroredOrganization), Unreadable> {
    let ClerkMembership {
        role,
        permissions,
        organization: organization_source,
        public_user_data: user,
        created_at,
        updated_at,
    } = read(source.get().as_bytes())?;
    let organization = organization(&organization_source)?;
    let role =
        with_one_prefix(&role).ok_or_else(|| Unreadable::Member("role is empty".to_owned()))?;
    let membership = Membership {
        organization: OrganizationRecord {
            id: organization.id.clone(),
            slug: organization.slug.clone(),
        },
        user_id: id_of::<UserId>(user.user_id, "public_user_data.user_id is not a user's id")?,
        role,
        permissions: permissions
            .iter()
            .flatten()
            .filter_map(|permission| with_one_prefix(permission))
            .collect(),
        standing: match (user.banned, user.deprovisioned) {
            (Some(true), _) => Standing::Banned,
            (_, Some(true)) => Standing::Deprovisioned,
            _ => Standing::Good,
        },
        updated_at: Timestamp::from_unix_millis(updated_at),
    };
    let mirrored = MirroredMembership {
        membership,
        created_at: Timestamp::from_unix_millis(created_at),
        source: source.get().into(),
    };
    Ok((mirrored, organization))
}

fn id_of<T: TryFrom<Box<str>>>(text: Box<str>, what: &str) -> Result<T, Unreadable> {
    T::try_from(text).map_err(|_| Unreadable::Member(what.to_owned()))
}

/// A slug that is none by our rules leads nowhere, so there is none.
fn slug_of(slug: Option<&str>) -> Option<OrganizationSlug> {
    slug?.parse().ok()
}

fn not_empty(text: Option<Box<str>>) -> Option<Box<str>> {
    text.filter(|text| !text.is_empty())
}

/// An object; absent and `null` are the empty one.
fn metadata(metadata: Option<Box<RawValue>>) -> Result<Box<str>, Unreadable> {
    match metadata.as_deref().map(RawValue::get) {
        None | Some("null") => Ok(NO_METADATA.into()),
        Some(object) if object.starts_with('{') => Ok(object.into()),
        Some(_) => Err(Unreadable::Member(
            "public_metadata is of another type".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn raw(value: &Value) -> Box<RawValue> {
        RawValue::from_string(value.to_string()).expect("JSON")
    }

    fn clerk_user() -> Value {
        json!({
            "id": "user_1", "object": "user", "external_id": "", "username": null,
            "first_name": "Ada", "image_url": "https://img", "primary_email_address_id": "idn_2",
            "email_addresses": [
                {"id": "idn_1", "email_address": "a@example.com", "verification": null},
                {"id": "idn_2", "email_address": "B@example.com",
                 "verification": {"status": "verified"}},
            ],
            "public_metadata": {"tier": "gold"}, "private_metadata": {"secret": 1},
            "banned": false, "locked": true, "created_at": 1_000, "updated_at": 2_000,
            "last_sign_in_at": null, "something_new": [1],
        })
    }

    #[test]
    fn a_user_is_read_with_addresses_and_flags() {
        let user = user(&raw(&clerk_user())).expect("a user");
        assert_eq!(user.id.as_str(), "user_1");
        assert_eq!((user.external_id, user.username), (None, None));
        assert_eq!(user.first_name.as_deref(), Some("Ada"));
        let emails: Vec<_> = user
            .emails
            .iter()
            .map(|email| (&*email.address, email.verified, email.primary))
            .collect();
        assert_eq!(
            emails,
            [
                ("a@example.com", false, false),
                ("B@example.com", true, true)
            ]
        );
        assert_eq!(
            (user.banned, user.locked, user.deprovisioned),
            (false, true, false)
        );
        assert_eq!(&*user.public_metadata, r#"{"tier":"gold"}"#);
        assert_eq!(user.updated_at.unix_millis(), 2_000);
        assert!(user.source.contains("private_metadata"));
    }

    #[test]
    fn a_membership_brings_its_organization() {
        let source = json!({
            "id": "orgmem_1", "role": "org:admin", "permissions": ["org:a:b", "org:sys_profile:manage"],
            "organization": {"id": "org_1", "slug": "acme", "name": "Acme", "created_at": 1, "updated_at": 2},
            "public_user_data": {"user_id": "user_1", "banned": true},
            "created_at": 3, "updated_at": 4,
        });
        let (mirrored, organization) = membership(&raw(&source)).expect("a membership");
        assert_eq!(&*organization.name, "Acme");
        assert_eq!(&*organization.public_metadata, "{}");
        assert_eq!(mirrored.membership.organization.id, organization.id);
        assert_eq!(&*mirrored.membership.role, "org:admin");
        assert_eq!(mirrored.membership.standing, Standing::Banned);
        assert_eq!(mirrored.membership.permissions.len(), 2);
    }

    #[test]
    fn what_is_not_of_clerks_form_names_the_member_and_nothing_of_its_value() {
        for (member, value, expected) in [
            ("id", json!("secret"), "id is not a user's id"),
            ("id", json!(7), "id is of another type"),
            (
                "email_addresses",
                json!([{"email_address": 1}]),
                "email_addresses[0].email_address is of another type",
            ),
            (
                "public_metadata",
                json!(["secret"]),
                "public_metadata is of another type",
            ),
            (
                "updated_at",
                json!("secret"),
                "updated_at is of another type",
            ),
        ] {
            let mut source = clerk_user();
            source[member] = value;
            assert_eq!(
                user(&raw(&source)),
                Err(Unreadable::Member(expected.to_owned())),
                "{member}"
            );
        }
        let mut source = clerk_user();
        source
            .as_object_mut()
            .expect("an object")
            .remove("updated_at");
        assert_eq!(
            user(&raw(&source)),
            Err(Unreadable::Member("updated_at is missing".to_owned()))
        );
    }
}
