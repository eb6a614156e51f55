//! Of whom a token speaks, as things are now.

use super::{Directory, Organization, Tables, User, feature_of, is_system, membership_key};
use crate::emulator::{MintError, TokenSpec};

/// How many ids a message lists.
const LISTED: usize = 10;

/// A user, a session, and the organization that is active in it.
pub(in crate::emulator) struct Subject {
    pub(in crate::emulator) user: User,
    pub(in crate::emulator) organization: Option<ActiveOrganization>,
    /// `None` where the token is of no session, or the spec names one.
    pub(in crate::emulator) session: Option<String>,
}

/// What a token says of an organization.
pub(in crate::emulator) struct ActiveOrganization {
    pub(in crate::emulator) id: String,
    pub(in crate::emulator) slug: String,
    /// Without `org:`.
    pub(in crate::emulator) role: String,
    /// The organization's own, then those of the role's permissions that no organization lists.
    pub(in crate::emulator) features: Vec<String>,
    pub(in crate::emulator) plans: Vec<String>,
    /// Custom permissions of the role; a system permission is in no token.
    pub(in crate::emulator) permissions: Vec<String>,
}

impl Directory {
    /// Whom `spec` asks for. A token of a session is of the user's session of the directory.
    pub(in crate::emulator) fn subject(&self, spec: &TokenSpec) -> Result<Subject, MintError> {
        let mut subject = self.read(|tables| tables.subject(spec))?;
        if spec.kind.is_of_a_session() && spec.session.is_none() {
            let organization = subject.organization.as_ref();
            let organization = organization.map(|organization| organization.id.clone());
            let user = subject.user.id.clone();
            let session = self
                .change(|tables, now| Ok(tables.session_for(&user, organization.as_deref(), now)));
            subject.session = session.ok().map(|session| session.id);
        }
        Ok(subject)
    }
}

impl Tables {
    fn subject(&self, spec: &TokenSpec) -> Result<Subject, MintError> {
        let user = match &spec.user {
            Some(id) => self.users.get(id),
            None => self.first_user(),
        };
        let user = user.ok_or_else(|| MintError::UnknownUser {
            user: spec.user.clone().unwrap_or_default(),
            known: listed(&self.users.in_order(), |user| &user.id),
        })?;
        let organization = match &spec.organization {
            Some(id) if spec.kind.is_of_a_session() => {
                Some(self.active_organization(id, &user.id)?)
            }
            _ => None,
        };
        Ok(Subject {
            user: user.clone(),
            organization,
            session: None,
        })
    }

    fn first_user(&self) -> Option<&User> {
        self.users.iter().min_by_key(|user| user.stamp.sequence)
    }

    fn active_organization(
        &self,
        id_or_slug: &str,
        user: &str,
    ) -> Result<ActiveOrganization, MintError> {
        let organization =
            self.organization(id_or_slug)
                .ok_or_else(|| MintError::UnknownOrganization {
                    organization: id_or_slug.to_owned(),
                    known: listed(&self.organizations.in_order(), |o| &o.id),
                })?;
        let membership = self
            .memberships
            .get(&membership_key(&organization.id, user))
            .ok_or_else(|| MintError::NotAMember {
                user: user.to_owned(),
                organization: organization.id.clone(),
            })?;
        let mut permissions = self.permissions_in(organization, &membership.role);
        permissions.retain(|key| !is_system(key));
        let role = membership.role.strip_prefix("org:");
        Ok(ActiveOrganization {
            id: organization.id.clone(),
            slug: organization.slug.clone(),
            role: role.unwrap_or(&membership.role).to_owned(),
            features: features_with(organization, &permissions),
            plans: organization.plans.clone(),
            permissions,
        })
    }

    /// What a role permits in an organization. A feature that organizations list is had by those
    /// only, as at Clerk where plans hold features; one that nobody lists is everybody's.
    pub(in crate::emulator) fn permissions_in(
        &self,
        organization: &Organization,
        role: &str,
    ) -> Vec<String> {
        let Some(role) = self.roles.iter().find(|other| other.key == role) else {
            return Vec::new();
        };
        let is_had = |key: &String| {
            let Some(feature) = feature_of(key).filter(|_| !is_system(key)) else {
                return true;
            };
            let lists = |o: &Organization| o.features.iter().any(|f| f == feature);
            lists(organization) || !self.organizations.iter().any(lists)
        };
        role.permissions
            .iter()
            .filter(|key| is_had(key))
            .cloned()
            .collect()
    }
}

/// An organization's features, with those that only its permissions name.
pub(super) fn features_with(organization: &Organization, permissions: &[String]) -> Vec<String> {
    let mut features = organization.features.clone();
    for feature in permissions.iter().filter_map(|key| feature_of(key)) {
        if !features.iter().any(|known| known == feature) {
            features.push(feature.to_owned());
        }
    }
    features
}

fn listed<R>(rows: &[&R], id: impl Fn(&R) -> &str) -> String {
    let mut ids: Vec<&str> = rows.iter().take(LISTED).map(|row| id(row)).collect();
    if rows.len() > LISTED {
        ids.push("…");
    }
    ids.join(", ")
}
