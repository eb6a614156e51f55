//! What Clerk keeps: users, organizations, memberships, roles, permissions, sessions.

use serde_json::{Map, Value};

use super::table::{Row, Stamp};

/// A JSON object that people put on a thing.
pub type Metadata = Map<String, Value>;

/// An e-mail address or a phone number of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// `idn_…`.
    pub id: String,
    /// The address or the number.
    pub value: String,
    /// False for a reserved one.
    pub verified: bool,
    /// When it was made.
    pub created_at: i64,
}

/// An account of a user's at an identity provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    /// `eac_…`.
    pub id: String,
    /// Clerk's name of the provider, such as `oauth_google`.
    pub provider: String,
    /// The user's id there.
    pub provider_user_id: String,
    /// False while the user has not shown to own it.
    pub verified: bool,
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct User {
    /// `user_…`.
    pub id: String,
    /// The id in somebody else's system.
    pub external_id: Option<String>,
    /// Unique in the instance.
    pub username: Option<String>,
    /// For people.
    pub first_name: Option<String>,
    /// For people.
    pub last_name: Option<String>,
    /// Such as `en-US`.
    pub locale: Option<String>,
    /// E-mail addresses.
    pub emails: Vec<Contact>,
    /// The id of one of `emails`.
    pub primary_email: Option<String>,
    /// Phone numbers.
    pub phones: Vec<Contact>,
    /// The id of one of `phones`.
    pub primary_phone: Option<String>,
    /// Accounts elsewhere. Clerk lets only the user connect one.
    pub external_accounts: Vec<ExternalAccount>,
    /// Readable by everyone who sees the user.
    pub public_metadata: Metadata,
    /// For back ends only.
    pub private_metadata: Metadata,
    /// Written by the user.
    pub unsafe_metadata: Metadata,
    /// Has a password; which one is nowhere kept.
    pub password: bool,
    /// Has a one-time password generator.
    pub totp: bool,
    /// Has backup codes.
    pub backup_codes: bool,
    /// May not sign in, for good.
    pub banned: bool,
    /// May not sign in, for a while.
    pub locked: bool,
    /// Taken out of service by an identity provider.
    pub deprovisioned: bool,
    /// May delete itself.
    pub delete_self: bool,
    /// May create organizations.
    pub create_organizations: bool,
    /// How many; `None` is any number.
    pub create_organizations_limit: Option<i64>,
    /// Skips the check of the device.
    pub bypass_client_trust: bool,
    /// When the terms were accepted, Unix milliseconds.
    pub legal_accepted_at: Option<i64>,
    /// Unix milliseconds.
    pub last_sign_in_at: Option<i64>,
    /// Unix milliseconds.
    pub last_active_at: Option<i64>,
    /// The user's own features, without scope.
    pub features: Vec<String>,
    /// The user's own plans, without scope.
    pub plans: Vec<String>,
    /// When.
    pub stamp: Stamp,
}

/// An organization.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Organization {
    /// `org_…`.
    pub id: String,
    /// Unique in the instance; changes.
    pub slug: String,
    /// For people.
    pub name: String,
    /// How many members it may have; 0 is any number.
    pub max_allowed_memberships: u64,
    /// An admin may delete it.
    pub admin_delete: bool,
    /// Who made it.
    pub created_by: Option<String>,
    /// Readable by everyone who sees it.
    pub public_metadata: Metadata,
    /// For back ends only.
    pub private_metadata: Metadata,
    /// Its features, without scope.
    pub features: Vec<String>,
    /// Its plans, without scope.
    pub plans: Vec<String>,
    /// When.
    pub stamp: Stamp,
}

/// A user in an organization.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Membership {
    /// `orgmem_…`; another one when somebody leaves and joins again.
    pub id: String,
    /// `org_…`.
    pub organization: String,
    /// `user_…`.
    pub user: String,
    /// The key of a role, such as `org:admin`.
    pub role: String,
    /// Readable by everyone who sees it.
    pub public_metadata: Metadata,
    /// For back ends only.
    pub private_metadata: Metadata,
    /// When.
    pub stamp: Stamp,
}

/// A role, of the whole instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Role {
    /// `role_…`.
    pub id: String,
    /// Such as `org:admin`.
    pub key: String,
    /// For people.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Keys of permissions.
    pub permissions: Vec<String>,
    /// When.
    pub stamp: Stamp,
}

/// What a role may allow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Permission {
    /// `perm_…`.
    pub id: String,
    /// Such as `org:invoices:read`.
    pub key: String,
    /// For people.
    pub name: String,
    /// For people.
    pub description: String,
    /// When.
    pub stamp: Stamp,
}

/// What has become of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionStatus {
    /// In use.
    #[default]
    Active,
    /// Signed in, with tasks left.
    Pending,
    /// Ended by a back end, or by a ban.
    Revoked,
    /// Ended by its user.
    Ended,
    /// Ended by its client.
    Removed,
    /// Too old.
    Expired,
    /// Not used for too long.
    Abandoned,
    /// Another took its place.
    Replaced,
}

impl SessionStatus {
    pub(in crate::emulator) const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pending => "pending",
            Self::Revoked => "revoked",
            Self::Ended => "ended",
            Self::Removed => "removed",
            Self::Expired => "expired",
            Self::Abandoned => "abandoned",
            Self::Replaced => "replaced",
        }
    }

    pub(in crate::emulator) const fn is_live(self) -> bool {
        matches!(self, Self::Active | Self::Pending)
    }
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    /// `sess_…`.
    pub id: String,
    /// `user_…`.
    pub user: String,
    /// `client_…`.
    pub client: String,
    /// As it was last set; see [`Session::status_at`].
    pub status: SessionStatus,
    /// The active organization.
    pub organization: Option<String>,
    /// Unix milliseconds.
    pub last_active_at: i64,
    /// Unix milliseconds.
    pub expire_at: i64,
    /// Unix milliseconds.
    pub abandon_at: i64,
    /// When.
    pub stamp: Stamp,
}

impl Session {
    /// A live session past its end is expired, with nobody setting it so.
    pub fn status_at(&self, now: i64) -> SessionStatus {
        if self.status.is_live() && now >= self.expire_at {
            SessionStatus::Expired
        } else {
            self.status
        }
    }
}

impl User {
    /// The primary e-mail address.
    pub fn email(&self) -> Option<&str> {
        primary(&self.emails, self.primary_email.as_deref())
    }

    /// The primary phone number.
    pub fn phone(&self) -> Option<&str> {
        primary(&self.phones, self.primary_phone.as_deref())
    }
}

fn primary<'a>(contacts: &'a [Contact], id: Option<&str>) -> Option<&'a str> {
    let primary = contacts.iter().find(|contact| Some(&*contact.id) == id);
    primary.map(|contact| &*contact.value)
}

/// Whether Clerk made this permission, and only Clerk changes it.
pub(in crate::emulator) fn is_system(permission: &str) -> bool {
    permission.starts_with("org:sys_")
}

/// The feature of `org:FEATURE:NAME`.
pub(in crate::emulator) fn feature_of(permission: &str) -> Option<&str> {
    permission
        .strip_prefix("org:")
        .and_then(|rest| rest.split_once(':'))
        .map(|(feature, _)| feature)
}

/// The key of a membership in its table. Ids hold no slash.
pub(in crate::emulator) fn membership_key(organization: &str, user: &str) -> String {
    format!("{organization}/{user}")
}

macro_rules! row {
    ($type:ty, $key:expr) => {
        impl Row for $type {
            fn key(&self) -> String {
                let key: fn(&$type) -> String = $key;
                key(self)
            }

            fn stamp(&self) -> Stamp {
                self.stamp
            }

            fn stamp_mut(&mut self) -> &mut Stamp {
                &mut self.stamp
            }
        }
    };
}

row!(User, |user| user.id.clone());
row!(Organization, |organization| organization.id.clone());
row!(Membership, |membership| membership_key(
    &membership.organization,
    &membership.user
));
row!(Role, |role| role.id.clone());
row!(Permission, |permission| permission.id.clone());
row!(Session, |session| session.id.clone());
