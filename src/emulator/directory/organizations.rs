//! Organizations: made, changed, deleted.

use super::{Directory, Organization, Refused, Tables, invalid, not_found};
use crate::{emulator::ids::new_id, identity::is_clerk_id};

/// The role of whoever makes an organization.
const CREATOR_ROLE: &str = "org:admin";
/// The longest name.
const MAX_NAME_CHARACTERS: usize = 256;

impl Organization {
    /// An organization with this name; the slug comes from it.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            admin_delete: true,
            ..Self::default()
        }
    }
}

impl Directory {
    /// The organization with this id or slug.
    pub fn organization(&self, id_or_slug: &str) -> Option<Organization> {
        self.read(|tables| tables.organization(id_or_slug).cloned())
    }

    /// Makes an organization, with an id and a slug where there is none. `created_by` becomes its
    /// admin.
    pub fn create_organization(
        &self,
        mut organization: Organization,
    ) -> Result<Organization, Refused> {
        self.change(|tables, now| {
            if organization.id.is_empty() {
                organization.id = new_id("org_");
            } else if !is_clerk_id(&organization.id, "org_") {
                return Err(invalid("id", "expected \"org_\", then letters and digits"));
            } else if tables.organizations.get(&organization.id).is_some() {
                let value = organization.id.clone();
                return Err(Refused::Taken {
                    parameter: "id",
                    value,
                });
            }
            if organization.slug.is_empty() {
                organization.slug = tables.free_slug(&organization.name);
            }
            tables.check_organization(&organization)?;
            if let Some(creator) = &organization.created_by {
                tables
                    .users
                    .get(creator)
                    .ok_or(not_found("user", creator))?;
            }
            let organization = tables.organizations.insert(organization, now);
            if let Some(creator) = &organization.created_by {
                tables.join(&organization.id, creator, CREATOR_ROLE, now);
            }
            Ok(organization)
        })
    }

    /// Changes an organization; the id stays.
    pub fn change_organization(
        &self,
        id: &str,
        change: impl FnOnce(&mut Organization),
    ) -> Result<Organization, Refused> {
        self.change(|tables, now| {
            let found = tables.organizations.get(id).cloned();
            let mut organization = found.ok_or(not_found("organization", id))?;
            change(&mut organization);
            organization.id = id.to_owned();
            tables.check_organization(&organization)?;
            let changed = tables
                .organizations
                .update(id, now, |row| *row = organization);
            changed.ok_or(not_found("organization", id))
        })
    }

    /// Deletes an organization, with its memberships; sessions in it go on without one.
    pub fn delete_organization(&self, id: &str) -> Result<Organization, Refused> {
        self.change(|tables, now| {
            let removed = tables.organizations.remove(id);
            let organization = removed.ok_or(not_found("organization", id))?;
            for user in tables.members_of(id) {
                tables.leave(id, &user, now);
            }
            Ok(organization)
        })
    }
}

impl Tables {
    pub(in crate::emulator) fn organization(&self, id_or_slug: &str) -> Option<&Organization> {
        self.organizations.get(id_or_slug).or_else(|| {
            let mut all = self.organizations.iter();
            all.find(|organization| organization.slug == id_or_slug)
        })
    }

    fn check_organization(&self, organization: &Organization) -> Result<(), Refused> {
        let length = organization.name.chars().count();
        if !(1..=MAX_NAME_CHARACTERS).contains(&length) {
            let message = format!("expected 1 to {MAX_NAME_CHARACTERS} characters");
            return Err(invalid("name", message));
        }
        let slug = &organization.slug;
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if slug.is_empty() || !slug.bytes().all(allowed) {
            let message = "expected lower-case letters, digits and \"-\"";
            return Err(invalid("slug", message));
        }
        let mut others = self.organizations.iter();
        if others.any(|other| other.id != organization.id && other.slug == *slug) {
            let value = slug.clone();
            return Err(Refused::Taken {
                parameter: "slug",
                value,
            });
        }
        Ok(())
    }

    /// From a name; with a number where another organization has it.
    fn free_slug(&self, name: &str) -> String {
        let words = name
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_ascii_lowercase)
            .collect::<Vec<_>>();
        let base = if words.is_empty() {
            "organization".to_owned()
        } else {
            words.join("-")
        };
        let mut slug = base.clone();
        let mut number = 1_u32;
        while self.organizations.iter().any(|other| other.slug == slug) {
            number += 1;
            slug = format!("{base}-{number}");
        }
        slug
    }
}
