use crate::identity::{OrganizationId, OrganizationSlug, Texts, Timestamp, UserId};

/// One user in one organization. The pair is its identity: Clerk gives somebody who leaves and joins
/// again another membership id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The organization.
    pub organization: OrganizationRecord,
    /// The user.
    pub user_id: UserId,
    /// The user's role, always with exactly one `org:`; never empty.
    pub role: Box<str>,
    /// What the role permits, with `org:`; system permissions (`org:sys_…`) where Clerk lists them.
    pub permissions: Texts,
    /// Whether the user may act at all.
    pub standing: Standing,
    /// When Clerk last changed the membership.
    pub updated_at: Timestamp,
}

/// An organization, as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrganizationRecord {
    /// Its id.
    pub id: OrganizationId,
    /// Its slug now; can change and be reused, so it is never a key.
    pub slug: Option<OrganizationSlug>,
}

/// Whether a user may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known against it.
    Good,
    /// Banned (`banned`).
    Banned,
    /// Taken out of service by the identity provider (`deprovisioned`).
    Deprovisioned,
}

impl Standing {
    /// `good`, `banned` or `deprovisioned`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Banned => "banned",
            Self::Deprovisioned => "deprovisioned",
        }
    }
}
