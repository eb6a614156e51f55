//! From the world's file to the directory, and back to its form.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Directory, Membership, Organization, Permission, Role, SYSTEM_PERMISSIONS, Tables, User,
    default_system_permissions, is_system, membership_key, subject::features_with,
};
use crate::emulator::{
    Clock, InstanceSeed, Member, OrganizationSeed, UserSeed, ids::new_id, webhooks::Webhooks,
};

impl Directory {
    /// As the world's file says: whoever is there from the start is no change.
    pub(in crate::emulator) fn of(
        seed: &InstanceSeed,
        clock: Clock,
        webhooks: Arc<Webhooks>,
    ) -> Self {
        let now = clock().unix_millis();
        let mut tables = Tables::default();
        tables.seed_roles(seed, now);
        for user in &seed.users {
            tables.insert_user(seeded_user(user, now), now);
        }
        for organization in &seed.organizations {
            tables
                .organizations
                .insert(seeded_organization(organization), now);
            for member in &organization.members {
                tables.memberships.insert(
                    Membership {
                        id: new_id("orgmem_"),
                        organization: organization.id.clone(),
                        user: member.user.clone(),
                        role: format!("org:{}", member.role),
                        ..Membership::default()
                    },
                    now,
                );
            }
        }
        tables.take_changes();
        Self {
            tables: tables.into(),
            clock,
            webhooks,
        }
    }

    /// Users and organizations as they are now, in the form of the world's file.
    pub(in crate::emulator) fn as_seed(&self) -> (Vec<UserSeed>, Vec<OrganizationSeed>) {
        self.read(|tables| {
            let users = tables.users.in_order();
            let users = users.into_iter().map(|user| UserSeed {
                id: user.id.clone(),
                email: user.email().unwrap_or_default().to_owned(),
                features: user.features.clone(),
                plans: user.plans.clone(),
            });
            let organizations = tables.organizations.in_order();
            let organizations = organizations
                .into_iter()
                .map(|o| tables.as_organization_seed(o));
            (users.collect(), organizations.collect())
        })
    }
}

impl Tables {
    fn seed_roles(&mut self, seed: &InstanceSeed, now: i64) {
        for (key, name) in SYSTEM_PERMISSIONS {
            self.seed_permission(key, name, now);
        }
        // At Clerk a role is the whole instance's: what it may do in any organization, as far as
        // that has the feature.
        let mut roles = BTreeMap::from([
            ("org:admin".to_owned(), Vec::new()),
            ("org:member".to_owned(), Vec::new()),
        ]);
        for (name, permissions) in seed.organizations.iter().flat_map(|o| &o.roles) {
            let all: &mut Vec<String> = roles.entry(format!("org:{name}")).or_default();
            for permission in permissions {
                if !all.contains(permission) {
                    all.push(permission.clone());
                }
                if !self
                    .permissions
                    .iter()
                    .any(|known| known.key == *permission)
                {
                    self.seed_permission(permission, permission, now);
                }
            }
        }
        for (key, mut permissions) in roles {
            if !permissions.iter().any(|permission| is_system(permission)) {
                permissions.extend(default_system_permissions(&key));
            }
            let role = Role {
                id: new_id("role_"),
                name: title(&key),
                key,
                permissions,
                ..Role::default()
            };
            self.roles.insert(role, now);
        }
    }

    fn seed_permission(&mut self, key: &str, name: &str, now: i64) {
        let permission = Permission {
            id: new_id("perm_"),
            key: key.to_owned(),
            name: name.to_owned(),
            ..Permission::default()
        };
        self.permissions.insert(permission, now);
    }

    fn as_organization_seed(&self, organization: &Organization) -> OrganizationSeed {
        let short = |role: &str| role.strip_prefix("org:").unwrap_or(role).to_owned();
        let mut features = organization.features.clone();
        let mut roles = BTreeMap::new();
        for role in self.roles.iter() {
            let permissions = self.permissions_in(organization, &role.key);
            let custom: Vec<String> = permissions
                .iter()
                .filter(|key| !is_system(key))
                .cloned()
                .collect();
            for feature in features_with(organization, &custom) {
                if !features.contains(&feature) {
                    features.push(feature);
                }
            }
            roles.insert(short(&role.key), permissions);
        }
        let prefix = membership_key(&organization.id, "");
        let members = self.memberships_in(&prefix).map(|membership| Member {
            user: membership.user.clone(),
            role: short(&membership.role),
        });
        OrganizationSeed {
            id: organization.id.clone(),
            slug: organization.slug.clone(),
            features,
            plans: organization.plans.clone(),
            members: members.collect(),
            roles,
        }
    }
}

fn seeded_user(seed: &UserSeed, now: i64) -> User {
    let mut user = User {
        id: seed.id.clone(),
        features: seed.features.clone(),
        plans: seed.plans.clone(),
        ..User::with_email(&seed.email)
    };
    for contact in &mut user.emails {
        contact.created_at = now;
    }
    user
}

fn seeded_organization(seed: &OrganizationSeed) -> Organization {
    Organization {
        id: seed.id.clone(),
        slug: seed.slug.clone(),
        features: seed.features.clone(),
        plans: seed.plans.clone(),
        ..Organization::named(&title(&seed.slug))
    }
}

/// `org:support_staff` is `Support staff`.
fn title(key: &str) -> String {
    let words = key
        .strip_prefix("org:")
        .unwrap_or(key)
        .replace(['_', '-'], " ");
    let mut characters = words.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => words,
    }
}
