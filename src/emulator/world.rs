//! Who lives in the offline Clerk: a TOML file that people read and write.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::directory::{SYSTEM_PERMISSIONS, feature_of, is_permission_key, is_system};
use crate::identity::is_clerk_id;

/// All instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// At least one.
    #[serde(rename = "instance")]
    pub instances: Vec<InstanceSeed>,
}

/// One Clerk instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceSeed {
    /// Its name, for the control addresses.
    pub name: String,
    /// The `kid` of its first key; Clerk writes its instance's id there.
    pub key_id: String,
    /// The `azp` of its tokens, unless a token says otherwise.
    pub authorized_party: String,
    /// Whether its keys are those of a production instance, and browsers are handed over as there.
    #[serde(default)]
    pub production: bool,
    /// Its users.
    #[serde(default, rename = "user")]
    pub users: Vec<UserSeed>,
    /// Its organizations.
    #[serde(default, rename = "organization")]
    pub organizations: Vec<OrganizationSeed>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserSeed {
    /// `user_…`.
    pub id: String,
    /// For people.
    pub email: String,
    /// The user's own features.
    #[serde(default)]
    pub features: Vec<String>,
    /// The user's own plans.
    #[serde(default)]
    pub plans: Vec<String>,
}

/// An organization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganizationSeed {
    /// `org_…`.
    pub id: String,
    /// Its slug.
    pub slug: String,
    /// Its features.
    #[serde(default)]
    pub features: Vec<String>,
    /// Its plans.
    #[serde(default)]
    pub plans: Vec<String>,
    /// Roles without `org:`, each with its permissions, `org:feature:name`. One that lists system
    /// permissions, `org:sys_…`, has these; `admin` and `member` have Clerk's own where they list
    /// none. At Clerk a role is the whole instance's: organizations with a feature in common give
    /// a role the same permissions of it.
    #[serde(default)]
    pub roles: BTreeMap<String, Vec<String>>,
    /// Who is in it.
    #[serde(default)]
    pub members: Vec<Member>,
}

/// A membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// `user_…`.
    pub user: String,
    /// One of the organization's roles.
    pub role: String,
}

/// A file that is not a world.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidWorld {
    /// It cannot be read.
    #[error("{file}: cannot be read: {cause}")]
    Read {
        /// Which file.
        file: String,
        /// Why not.
        cause: String,
    },
    /// Its form is wrong; says line and column.
    #[error("{file}: {cause}")]
    Form {
        /// Which file.
        file: String,
        /// Where and what.
        cause: String,
    },
    /// A value is wrong.
    #[error("{at}: {cause}")]
    Value {
        /// Of which instance, user or organization.
        at: String,
        /// What, and what is expected.
        cause: String,
    },
}

impl World {
    /// The world that `dev` and `emulator` start with.
    pub fn default_world() -> Self {
        // A test reads it.
        Self::parse("world.toml", include_str!("world.toml")).unwrap_or(Self { instances: vec![] })
    }

    /// From a file.
    pub fn from_file(path: &Path) -> Result<Self, InvalidWorld> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| InvalidWorld::Read {
            file: file.clone(),
            cause: error.to_string(),
        })?;
        Self::parse(&file, &text)
    }

    /// From text; `file` is for messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, InvalidWorld> {
        let world: Self = toml::from_str(text).map_err(|error| InvalidWorld::Form {
            file: file.to_owned(),
            cause: error.to_string().trim_end().to_owned(),
        })?;
        if world.instances.is_empty() {
            let cause = "no instance; expected at least one [[instance]]".to_owned();
            return Err(InvalidWorld::Form {
                file: file.to_owned(),
                cause,
            });
        }
        for (index, instance) in world.instances.iter().enumerate() {
            if world.instances[..index]
                .iter()
                .any(|other| other.name == instance.name)
            {
                return Err(wrong(&instance.name, "the name stands twice"));
            }
            instance.check()?;
        }
        Ok(world)
    }
}

fn wrong(at: &str, cause: impl Into<String>) -> InvalidWorld {
    InvalidWorld::Value {
        at: at.to_owned(),
        cause: cause.into(),
    }
}

impl InstanceSeed {
    fn check(&self) -> Result<(), InvalidWorld> {
        if self.name.is_empty() || !self.name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(wrong(&self.name, "name: expected letters and digits"));
        }
        for user in &self.users {
            if !is_clerk_id(&user.id, "user_") {
                return Err(wrong(
                    &user.id,
                    "id: expected \"user_\", then letters and digits",
                ));
            }
        }
        for organization in &self.organizations {
            let at = &organization.id;
            if !is_clerk_id(at, "org_") {
                return Err(wrong(at, "id: expected \"org_\", then letters and digits"));
            }
            organization.check_roles()?;
            for member in &organization.members {
                if self.user(&member.user).is_none() {
                    let cause =
                        format!("member {:?}: no such user in {:?}", member.user, self.name);
                    return Err(wrong(at, cause));
                }
                if !organization.roles.contains_key(&member.role) {
                    let roles = organization
                        .roles
                        .keys()
                        .cloned()
                        .collect::<Vec<_>>()
                        .join(", ");
                    return Err(wrong(
                        at,
                        format!("role {:?}: expected one of {roles}", member.role),
                    ));
                }
            }
        }
        self.check_roles_agree()
    }

    /// A role is the whole instance's: where two organizations have a feature, it permits the same.
    fn check_roles_agree(&self) -> Result<(), InvalidWorld> {
        for one in &self.organizations {
            for (role, permissions) in &one.roles {
                let others = self.organizations.iter().filter(|other| other.id != one.id);
                for other in others {
                    let Some(theirs) = other.roles.get(role) else {
                        continue;
                    };
                    let missing = permissions.iter().find(|permission| {
                        !theirs.contains(permission) && other.could(role, permission)
                    });
                    if let Some(permission) = missing {
                        let cause = format!(
                            "role {role:?}: has {permission:?} here and not in {}; a role is the \
                             same in all organizations, as far as they have the feature",
                            other.id
                        );
                        return Err(wrong(&one.id, cause));
                    }
                }
            }
        }
        Ok(())
    }

    /// The user with this id.
    pub fn user(&self, id: &str) -> Option<&UserSeed> {
        self.users.iter().find(|user| user.id == id)
    }

    /// The organization with this id or slug.
    pub fn organization(&self, id_or_slug: &str) -> Option<&OrganizationSeed> {
        self.organizations
            .iter()
            .find(|o| o.id == id_or_slug || o.slug == id_or_slug)
    }
}

impl OrganizationSeed {
    fn check_roles(&self) -> Result<(), InvalidWorld> {
        for permission in self.roles.values().flatten() {
            let has_feature = feature_of(permission)
                .is_some_and(|feature| self.features.iter().any(|f| f == feature));
            let is_clerks = SYSTEM_PERMISSIONS.iter().any(|(key, _)| key == permission);
            if !is_clerks && (!has_feature || !is_permission_key(permission)) {
                let cause = format!(
                    "permission {permission:?}: expected \"org:FEATURE:NAME\" with a feature of \
                     the organization, or one of Clerk's system permissions"
                );
                return Err(wrong(&self.id, cause));
            }
        }
        Ok(())
    }

    /// Whether a role of this organization would have this permission, if any had.
    fn could(&self, role: &str, permission: &str) -> bool {
        if is_system(permission) {
            // A role that lists none has Clerk's own.
            let listed = self.roles.get(role).into_iter().flatten();
            return listed.into_iter().any(|listed| is_system(listed));
        }
        feature_of(permission).is_some_and(|feature| self.features.iter().any(|f| f == feature))
    }

    /// The role of a member, without `org:`.
    pub fn role_of(&self, user: &str) -> Option<&str> {
        self.members
            .iter()
            .find(|member| member.user == user)
            .map(|member| &*member.role)
    }
}
