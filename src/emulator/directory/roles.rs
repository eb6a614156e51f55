//! Roles and permissions, of the whole instance.

use super::{Directory, Permission, Refused, Role, Tables, invalid, is_system, not_found};
use crate::emulator::ids::new_id;

/// Clerk's own permissions, with their names.
pub(in crate::emulator) const SYSTEM_PERMISSIONS: [(&str, &str); 9] = [
    ("org:sys_profile:manage", "Manage organization"),
    ("org:sys_profile:delete", "Delete organization"),
    ("org:sys_memberships:read", "Read members"),
    ("org:sys_memberships:manage", "Manage members"),
    ("org:sys_domains:read", "Read domains"),
    ("org:sys_domains:manage", "Manage domains"),
    ("org:sys_billing:read", "Read billing"),
    ("org:sys_billing:manage", "Manage billing"),
    ("org:sys_entconns:manage", "Manage enterprise connections"),
];

/// The system permissions that Clerk gives to a role that nobody has changed.
pub(in crate::emulator) fn default_system_permissions(role: &str) -> Vec<String> {
    let all = SYSTEM_PERMISSIONS.iter().map(|(key, _)| *key);
    match role {
        "org:admin" => all.map(str::to_owned).collect(),
        "org:member" => ["org:sys_memberships:read", "org:sys_billing:read"]
            .map(str::to_owned)
            .to_vec(),
        _ => Vec::new(),
    }
}

/// A segment of a key.
fn is_word(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    !text.is_empty() && text.bytes().all(allowed)
}

pub(in crate::emulator) fn is_role_key(key: &str) -> bool {
    key.strip_prefix("org:").is_some_and(is_word)
}

pub(in crate::emulator) fn is_permission_key(key: &str) -> bool {
    let parts = key
        .strip_prefix("org:")
        .and_then(|rest| rest.split_once(':'));
    parts.is_some_and(|(feature, action)| is_word(feature) && is_word(action))
}

impl Directory {
    /// The role with this id or key.
    pub fn role(&self, id_or_key: &str) -> Option<Role> {
        self.read(|tables| tables.role(id_or_key).cloned())
    }

    /// The permission with this id or key.
    pub fn permission(&self, id_or_key: &str) -> Option<Permission> {
        self.read(|tables| tables.permission(id_or_key).cloned())
    }

    /// Makes a role.
    pub fn create_role(&self, mut role: Role) -> Result<Role, Refused> {
        self.change(|tables, now| {
            role.id = new_id("role_");
            tables.check_new_role(&role)?;
            Ok(tables.roles.insert(role, now))
        })
    }

    /// Changes a role, found by id or key. With another key, its members have it under that.
    pub fn change_role(
        &self,
        id_or_key: &str,
        change: impl FnOnce(&mut Role),
    ) -> Result<Role, Refused> {
        self.change(|tables, now| {
            let found = tables.role(id_or_key).cloned();
            let old = found.ok_or(not_found("role", id_or_key))?;
            let mut role = old.clone();
            change(&mut role);
            role.id.clone_from(&old.id);
            tables.check_new_role(&role)?;
            if role.key != old.key {
                let members = tables.memberships_with_role(&old.key);
                for key in members {
                    tables.memberships.update(&key, now, |membership| {
                        membership.role.clone_from(&role.key);
                    });
                }
            }
            let changed = tables.roles.update(&old.id, now, |row| *row = role);
            changed.ok_or(not_found("role", id_or_key))
        })
    }

    /// Sets what a role may do, system permissions included. Custom permissions that are not there
    /// yet are made.
    pub fn set_role_permissions<P: AsRef<str>>(
        &self,
        id_or_key: &str,
        permissions: impl IntoIterator<Item = P>,
    ) -> Result<Role, Refused> {
        let keys: Vec<String> = permissions
            .into_iter()
            .map(|key| key.as_ref().to_owned())
            .collect();
        self.role(id_or_key).ok_or(not_found("role", id_or_key))?;
        for key in &keys {
            if !is_system(key) && self.permission(key).is_none() {
                self.create_permission(Permission {
                    key: key.clone(),
                    name: key.clone(),
                    ..Permission::default()
                })?;
            }
        }
        self.change_role(id_or_key, |role| role.permissions = keys)
    }

    /// Deletes a role that nobody has.
    pub fn delete_role(&self, id_or_key: &str) -> Result<Role, Refused> {
        self.change(|tables, _| {
            let found = tables.role(id_or_key).cloned();
            let role = found.ok_or(not_found("role", id_or_key))?;
            let members = tables.memberships_with_role(&role.key).len();
            if members > 0 {
                let role = role.key;
                return Err(Refused::InUse { role, members });
            }
            tables.roles.remove(&role.id);
            Ok(role)
        })
    }

    /// Makes a custom permission.
    pub fn create_permission(&self, mut permission: Permission) -> Result<Permission, Refused> {
        self.change(|tables, now| {
            permission.id = new_id("perm_");
            tables.check_custom_permission(&permission)?;
            Ok(tables.permissions.insert(permission, now))
        })
    }

    /// Changes a custom permission, found by id or key. With another key, its roles have it under
    /// that.
    pub fn change_permission(
        &self,
        id_or_key: &str,
        change: impl FnOnce(&mut Permission),
    ) -> Result<Permission, Refused> {
        self.change(|tables, now| {
            let old = tables.custom_permission(id_or_key)?;
            let mut permission = old.clone();
            change(&mut permission);
            permission.id.clone_from(&old.id);
            tables.check_custom_permission(&permission)?;
            if permission.key != old.key {
                for role in tables.roles_with_permission(&old.key) {
                    tables.roles.update(&role, now, |role| {
                        for key in &mut role.permissions {
                            if *key == old.key {
                                key.clone_from(&permission.key);
                            }
                        }
                    });
                }
            }
            let changed = tables
                .permissions
                .update(&old.id, now, |row| *row = permission);
            changed.ok_or(not_found("permission", id_or_key))
        })
    }

    /// Deletes a custom permission; no role has it afterwards.
    pub fn delete_permission(&self, id_or_key: &str) -> Result<Permission, Refused> {
        self.change(|tables, now| {
            let permission = tables.custom_permission(id_or_key)?;
            for role in tables.roles_with_permission(&permission.key) {
                tables.roles.update(&role, now, |role| {
                    role.permissions.retain(|key| *key != permission.key);
                });
            }
            tables.permissions.remove(&permission.id);
            Ok(permission)
        })
    }
}

impl Tables {
    pub(in crate::emulator) fn role(&self, id_or_key: &str) -> Option<&Role> {
        self.roles
            .get(id_or_key)
            .or_else(|| self.roles.iter().find(|role| role.key == id_or_key))
    }

    pub(in crate::emulator) fn permission(&self, id_or_key: &str) -> Option<&Permission> {
        self.permissions.get(id_or_key).or_else(|| {
            let mut all = self.permissions.iter();
            all.find(|permission| permission.key == id_or_key)
        })
    }

    /// That a member can have this role.
    pub(super) fn check_role(&self, key: &str) -> Result<(), Refused> {
        if self.roles.iter().any(|role| role.key == key) {
            return Ok(());
        }
        let known: Vec<&str> = self
            .roles
            .in_order()
            .iter()
            .map(|role| &*role.key)
            .collect();
        let message = format!("no {key:?}; there are {}", known.join(", "));
        Err(invalid("role", message))
    }

    fn check_new_role(&self, role: &Role) -> Result<(), Refused> {
        if !is_role_key(&role.key) {
            let message = "expected \"org:\", then lower-case letters, digits and \"_\"";
            return Err(invalid("key", message));
        }
        if role.name.is_empty() {
            return Err(invalid("name", "expected at least one character"));
        }
        let mut others = self.roles.iter().filter(|other| other.id != role.id);
        if others.any(|other| other.key == role.key) {
            let value = role.key.clone();
            return Err(Refused::Taken {
                parameter: "key",
                value,
            });
        }
        for key in &role.permissions {
            if !self.permissions.iter().any(|other| other.key == *key) {
                return Err(invalid("permissions", format!("no {key:?}")));
            }
        }
        Ok(())
    }

    fn custom_permission(&self, id_or_key: &str) -> Result<Permission, Refused> {
        let found = self.permission(id_or_key).cloned();
        let permission = found.ok_or(not_found("permission", id_or_key))?;
        if is_system(&permission.key) {
            return Err(Refused::System(permission.key));
        }
        Ok(permission)
    }

    fn check_custom_permission(&self, permission: &Permission) -> Result<(), Refused> {
        let key = &permission.key;
        if !is_permission_key(key) || is_system(key) {
            let message = format!(
                "{key:?}: expected \"org:FEATURE:ACTION\" of lower-case letters, digits and \"_\", \
                 not \"org:sys_\", which is Clerk's"
            );
            return Err(invalid("key", message));
        }
        if permission.name.is_empty() {
            return Err(invalid("name", "expected at least one character"));
        }
        let mut others = self.permissions.iter();
        if others.any(|other| other.id != permission.id && other.key == *key) {
            let value = key.clone();
            return Err(Refused::Taken {
                parameter: "key",
                value,
            });
        }
        Ok(())
    }

    /// The keys of the memberships with this role.
    fn memberships_with_role(&self, role: &str) -> Vec<String> {
        let all = self.memberships.iter();
        all.filter(|membership| membership.role == role)
            .map(super::Row::key)
            .collect()
    }

    /// The ids of the roles with this permission.
    fn roles_with_permission(&self, permission: &str) -> Vec<String> {
        let all = self.roles.iter();
        all.filter(|role| role.permissions.iter().any(|key| key == permission))
            .map(|role| role.id.clone())
            .collect()
    }
}
