//! Users: made, changed, banned, locked, deleted.

use super::{
    Contact, Directory, Refused, Session, SessionStatus, Tables, User, invalid, not_found,
};
use crate::{emulator::ids::new_id, identity::is_clerk_id};

impl User {
    /// Somebody with this address.
    pub fn with_email(address: &str) -> Self {
        let contact = new_contact(address, true, 0);
        Self {
            primary_email: Some(contact.id.clone()),
            emails: vec![contact],
            delete_self: true,
            create_organizations: true,
            ..Self::default()
        }
    }
}

/// An address or a number; `created_at` 0 is the moment when its user is made.
pub(in crate::emulator) fn new_contact(value: &str, verified: bool, created_at: i64) -> Contact {
    Contact {
        id: new_id("idn_"),
        value: value.to_owned(),
        verified,
        created_at,
    }
}

impl Directory {
    /// The user with this id.
    pub fn user(&self, id: &str) -> Option<User> {
        self.read(|tables| tables.users.get(id).cloned())
    }

    /// Makes a user, with an id where there is none.
    pub fn create_user(&self, mut user: User) -> Result<User, Refused> {
        self.change(|tables, now| {
            if user.id.is_empty() {
                user.id = new_id("user_");
            } else if !is_clerk_id(&user.id, "user_") {
                return Err(invalid("id", "expected \"user_\", then letters and digits"));
            } else if tables.users.get(&user.id).is_some() {
                let value = user.id.clone();
                return Err(Refused::Taken {
                    parameter: "id",
                    value,
                });
            }
            for contact in user.emails.iter_mut().chain(&mut user.phones) {
                if contact.created_at == 0 {
                    contact.created_at = now;
                }
            }
            tables.check_unique(&user)?;
            Ok(tables.insert_user(user, now))
        })
    }

    /// Changes a user; the id stays.
    pub fn change_user(&self, id: &str, change: impl FnOnce(&mut User)) -> Result<User, Refused> {
        self.change(|tables, now| {
            let old = tables.users.get(id).cloned().ok_or(not_found("user", id))?;
            let mut user = old.clone();
            change(&mut user);
            user.id = id.to_owned();
            tables.check_unique(&user)?;
            tables.free_identifiers(&old);
            for identifier in identifiers(&user) {
                tables.identifiers.insert(identifier, id.to_owned());
            }
            let changed = tables.users.update(id, now, |row| *row = user);
            changed.ok_or(not_found("user", id))
        })
    }

    /// Deletes a user, with memberships and sessions.
    pub fn delete_user(&self, id: &str) -> Result<User, Refused> {
        self.change(|tables, _| {
            let user = tables.users.remove(id).ok_or(not_found("user", id))?;
            tables.free_identifiers(&user);
            for key in tables.memberships_of(id) {
                tables.memberships.remove(&key);
            }
            for session in tables.sessions_of(id) {
                tables.sessions.remove(&session.id);
            }
            tables.signed_in.remove(id);
            Ok(user)
        })
    }

    /// Bans a user: all sessions are revoked.
    pub fn ban_user(&self, id: &str) -> Result<User, Refused> {
        self.change(|tables, now| {
            let user = tables.users.update(id, now, |user| user.banned = true);
            let user = user.ok_or(not_found("user", id))?;
            tables.revoke_sessions_of(id, now);
            Ok(user)
        })
    }

    /// Ends a ban; sessions stay revoked.
    pub fn unban_user(&self, id: &str) -> Result<User, Refused> {
        self.change_user(id, |user| user.banned = false)
    }

    /// Locks a user; sessions stay as they are.
    pub fn lock_user(&self, id: &str) -> Result<User, Refused> {
        self.change_user(id, |user| user.locked = true)
    }

    /// Ends a lock.
    pub fn unlock_user(&self, id: &str) -> Result<User, Refused> {
        self.change_user(id, |user| user.locked = false)
    }

    /// Revokes every live session of a user.
    pub fn revoke_sessions(&self, user: &str) -> Result<(), Refused> {
        self.change(|tables, now| {
            tables.users.get(user).ok_or(not_found("user", user))?;
            tables.revoke_sessions_of(user, now);
            Ok(())
        })
    }
}

impl Tables {
    /// That nobody else has what must be unique.
    fn check_unique(&self, user: &User) -> Result<(), Refused> {
        for identifier in identifiers(user) {
            let owner = self.identifiers.get(&identifier);
            if owner.is_some_and(|owner| *owner != user.id) {
                let (parameter, value) = identifier;
                return Err(Refused::Taken { parameter, value });
            }
        }
        Ok(())
    }

    /// A new user, whose identifiers are its own from now on.
    pub(super) fn insert_user(&mut self, user: User, now: i64) -> User {
        for identifier in identifiers(&user) {
            self.identifiers.insert(identifier, user.id.clone());
        }
        self.users.insert(user, now)
    }

    fn free_identifiers(&mut self, user: &User) {
        for identifier in identifiers(user) {
            self.identifiers.remove(&identifier);
        }
    }

    pub(super) fn sessions_of(&self, user: &str) -> Vec<Session> {
        let sessions = self.sessions.iter();
        sessions.filter(|s| s.user == user).cloned().collect()
    }

    fn revoke_sessions_of(&mut self, user: &str, now: i64) {
        for session in self.sessions_of(user) {
            if session.status_at(now).is_live() {
                self.sessions.update(&session.id, now, |session| {
                    session.status = SessionStatus::Revoked;
                });
            }
        }
    }
}

/// What only one user can have: the parameter that says it, and its value.
fn identifiers(user: &User) -> Vec<(&'static str, String)> {
    let values = |contacts: &[Contact], parameter: &'static str| {
        let values = contacts.iter().map(|contact| contact.value.to_lowercase());
        values.map(|value| (parameter, value)).collect::<Vec<_>>()
    };
    let mut all = values(&user.emails, "email_address");
    all.extend(values(&user.phones, "phone_number"));
    all.extend(user.username.clone().map(|name| ("username", name)));
    all.extend(user.external_id.clone().map(|id| ("external_id", id)));
    all
}
