use std::fmt;

use super::{Membership, Standing};
use crate::identity::{OrganizationId, OrganizationSlug, SessionId, Timestamp, UserId};

/// SHA-256 of everything in an entity that counts as a difference.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// From its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Of these parts; each is told from its neighbours, and an absent one from an empty one.
    fn of<'a>(parts: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        use aws_lc_rs::digest::{Context, SHA256};
        let mut context = Context::new(&SHA256);
        for part in parts {
            match part {
                Some(text) => {
                    context.update(&[1]);
                    context.update(&(text.len() as u64).to_le_bytes());
                    context.update(text.as_bytes());
                }
                None => context.update(&[0]),
            }
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// A user, as the mirror keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Clerk's id.
    pub id: UserId,
    /// The id that the customer's own system gave.
    pub external_id: Option<Box<str>>,
    /// The user name.
    pub username: Option<Box<str>>,
    /// The first name.
    pub first_name: Option<Box<str>>,
    /// The last name.
    pub last_name: Option<Box<str>>,
    /// Where the picture is.
    pub image_url: Option<Box<str>>,
    /// All addresses, the primary one included.
    pub emails: Vec<EmailAddress>,
    /// Banned: no session, no sign-in.
    pub banned: bool,
    /// Signing in is blocked for a while; sessions go on.
    pub locked: bool,
    /// Taken out of service by the identity provider.
    pub deprovisioned: bool,
    /// `public_metadata`, as JSON text; an object.
    pub public_metadata: Box<str>,
    /// When the user was made.
    pub created_at: Timestamp,
    /// Clerk's `updated_at`: the version.
    pub updated_at: Timestamp,
    /// The last sign-in, where there was one. Not part of the digest: what raises `updated_at` is
    /// not documented.
    pub last_sign_in_at: Option<Timestamp>,
    /// The whole object as Clerk sent it, JSON text. Private metadata is in it: not for every reader.
    pub source: Box<str>,
}

/// One of a user's addresses.
#[derive(Clone, PartialEq, Eq)]
pub struct EmailAddress {
    /// As Clerk writes it.
    pub address: Box<str>,
    /// Whether the user has shown to own it. Others are never a way to find a user.
    pub verified: bool,
    /// Whether it is the primary one.
    pub primary: bool,
}

impl EmailAddress {
    /// The form in which addresses are compared: Clerk tells no case apart.
    pub fn key(address: &str) -> String {
        address.to_lowercase()
    }
}

impl User {
    /// Of all fields but those that move by themselves, and the source.
    pub fn digest(&self) -> Digest {
        let Self {
            id,
            external_id,
            username,
            first_name,
            last_name,
            image_url,
            emails,
            banned,
            locked,
            deprovisioned,
            public_metadata,
            created_at,
            updated_at: _,
            last_sign_in_at: _,
            source: _,
        } = self;
        let created_at = created_at.unix_millis().to_string();
        let parts = [
            Some(id.as_str()),
            external_id.as_deref(),
            username.as_deref(),
            first_name.as_deref(),
            last_name.as_deref(),
            image_url.as_deref(),
            Some(flag(*banned)),
            Some(flag(*locked)),
            Some(flag(*deprovisioned)),
            Some(public_metadata),
            Some(&created_at),
        ];
        let emails = emails.iter().flat_map(|email| {
            [
                Some(&*email.address),
                Some(flag(email.verified)),
                Some(flag(email.primary)),
            ]
        });
        Digest::of(parts.into_iter().chain(emails))
    }

    /// Whether the user may act.
    pub const fn standing(&self) -> Standing {
        if self.banned {
            Standing::Banned
        } else if self.deprovisioned {
            Standing::Deprovisioned
        } else {
            Standing::Good
        }
    }
}

/// Names and addresses stay out of logs.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("updated_at", &self.updated_at)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmailAddress")
            .field("bytes", &self.address.len())
            .field("verified", &self.verified)
            .field("primary", &self.primary)
            .finish()
    }
}

/// An organization, as the mirror keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct MirroredOrganization {
    /// Clerk's id.
    pub id: OrganizationId,
    /// The slug now; can change and be reused.
    pub slug: Option<OrganizationSlug>,
    /// The name.
    pub name: Box<str>,
    /// Where the picture is.
    pub image_url: Option<Box<str>>,
    /// `public_metadata`, as JSON text; an object.
    pub public_metadata: Box<str>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Clerk's `updated_at`: the version.
    pub updated_at: Timestamp,
    /// The whole object as Clerk sent it, JSON text.
    pub source: Box<str>,
}

impl MirroredOrganization {
    /// Of all fields but the version and the source.
    pub fn digest(&self) -> Digest {
        let Self {
            id,
            slug,
            name,
            image_url,
            public_metadata,
            created_at,
            updated_at: _,
            source: _,
        } = self;
        Digest::of([
            Some(id.as_str()),
            slug.as_ref().map(OrganizationSlug::as_str),
            Some(name),
            image_url.as_deref(),
            Some(public_metadata),
            Some(&created_at.unix_millis().to_string()),
        ])
    }
}

impl fmt::Debug for MirroredOrganization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MirroredOrganization")
            .field("id", &self.id)
            .field("updated_at", &self.updated_at)
            .finish_non_exhaustive()
    }
}

/// A membership, as the mirror keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct MirroredMembership {
    /// What decisions need; its `updated_at` is the version.
    pub membership: Membership,
    /// When the user joined.
    pub created_at: Timestamp,
    /// The whole object as Clerk sent it, JSON text.
    pub source: Box<str>,
}

impl MirroredMembership {
    /// Of all fields but the version and the source.
    pub fn digest(&self) -> Digest {
        let Self {
            membership,
            created_at,
            source: _,
        } = self;
        let created_at = created_at.unix_millis().to_string();
        let parts = [
            Some(membership.organization.id.as_str()),
            Some(membership.user_id.as_str()),
            Some(&*membership.role),
            Some(membership.standing.name()),
            Some(&*created_at),
        ];
        Digest::of(
            parts
                .into_iter()
                .chain(membership.permissions.iter().map(Some)),
        )
    }
}

impl fmt::Debug for MirroredMembership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MirroredMembership")
            .field("organization", &self.membership.organization.id)
            .field("user", &self.membership.user_id)
            .field("updated_at", &self.membership.updated_at)
            .finish_non_exhaustive()
    }
}

/// What is mirrored, by its identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entity {
    /// A user.
    User(UserId),
    /// An organization.
    Organization(OrganizationId),
    /// A user in an organization; the pair is its identity.
    Membership(OrganizationId, UserId),
}

/// The kinds of [`Entity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntityKind {
    /// Users.
    User,
    /// Organizations.
    Organization,
    /// Memberships.
    Membership,
}

impl EntityKind {
    /// All of them, those that others name before those that name them.
    pub const ALL: [Self; 3] = [Self::User, Self::Organization, Self::Membership];

    /// Its name in reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Organization => "organization",
            Self::Membership => "membership",
        }
    }
}

impl Entity {
    /// Its kind.
    pub const fn kind(&self) -> EntityKind {
        match self {
            Self::User(_) => EntityKind::User,
            Self::Organization(_) => EntityKind::Organization,
            Self::Membership(..) => EntityKind::Membership,
        }
    }
}

/// A session that will never be valid again: ended, removed or revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// The session; every token that names it is denied, whenever it was issued.
    pub session: SessionId,
    /// Whose it was, where that is known.
    pub user: Option<UserId>,
    /// When, by the event.
    pub at: Timestamp,
}

fn flag(value: bool) -> &'static str {
    if value { "1" } else { "0" }
}
