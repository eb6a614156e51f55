//! Who lives in an instance now: what the world's file says, and every change since.
//!
//! The API, the control addresses and tests in this process all change it through the methods here,
//! and these through the three of `table::Table`. The lock is held only for a moment, never
//! across I/O.

mod entities;
mod memberships;
mod organizations;
mod roles;
mod seed;
mod sessions;
mod subject;
mod table;
mod users;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use thiserror::Error;

pub use self::entities::{
    Contact, ExternalAccount, Membership, Metadata, Organization, Permission, Role, Session,
    SessionStatus, User,
};
pub(super) use self::entities::{feature_of, is_system, membership_key};
pub(super) use self::roles::{SYSTEM_PERMISSIONS, default_system_permissions, is_permission_key};
pub(super) use self::subject::ActiveOrganization;
pub use self::table::Stamp;
pub(super) use self::table::{Change, Row, Table};
pub(super) use self::users::new_contact;
use super::{Clock, webhooks::Webhooks};

/// A change that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// There is no such thing.
    #[error("no {what} {id:?}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Under which id.
        id: String,
    },
    /// A value is wrong.
    #[error("{parameter}: {message}")]
    Invalid {
        /// Of which parameter.
        parameter: &'static str,
        /// What was found, what is expected.
        message: String,
    },
    /// A value that must be unique is somebody else's.
    #[error("{parameter}: {value:?} is taken")]
    Taken {
        /// Of which parameter.
        parameter: &'static str,
        /// Which.
        value: String,
    },
    /// The user is in the organization already.
    #[error("{user} is a member of {organization} already")]
    AlreadyAMember {
        /// Who.
        user: String,
        /// Of which.
        organization: String,
    },
    /// The organization has as many members as it may have.
    #[error("{organization} may have {limit} members and has them")]
    Full {
        /// Which.
        organization: String,
        /// How many.
        limit: u64,
    },
    /// The role has the permission already.
    #[error("{role} has {permission} already")]
    AlreadyAssigned {
        /// Which role.
        role: String,
        /// Which permission.
        permission: String,
    },
    /// Somebody has this role.
    #[error("{role} is the role of {members} members")]
    InUse {
        /// Which.
        role: String,
        /// Of how many.
        members: usize,
    },
    /// A system permission is Clerk's.
    #[error("{0} is a system permission, which nobody changes")]
    System(String),
}

/// All tables of an instance.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) users: Table<User>,
    pub(super) organizations: Table<Organization>,
    pub(super) memberships: Table<Membership>,
    pub(super) roles: Table<Role>,
    pub(super) permissions: Table<Permission>,
    pub(super) sessions: Table<Session>,
    /// The session that a user signed in with last.
    signed_in: BTreeMap<String, String>,
    /// Whose an address, a number, a name or a foreign id is; see `users::identifiers`.
    identifiers: BTreeMap<(&'static str, String), String>,
}

/// What one change did, table by table.
pub(super) struct Changes {
    pub(super) users: Vec<Change<User>>,
    pub(super) organizations: Vec<Change<Organization>>,
    pub(super) memberships: Vec<Change<Membership>>,
    pub(super) roles: Vec<Change<Role>>,
    pub(super) permissions: Vec<Change<Permission>>,
    pub(super) sessions: Vec<Change<Session>>,
}

impl Tables {
    fn take_changes(&mut self) -> Changes {
        Changes {
            users: self.users.take_changes(),
            organizations: self.organizations.take_changes(),
            memberships: self.memberships.take_changes(),
            roles: self.roles.take_changes(),
            permissions: self.permissions.take_changes(),
            sessions: self.sessions.take_changes(),
        }
    }
}

/// Who lives in an instance now.
pub struct Directory {
    tables: RwLock<Tables>,
    clock: Clock,
    /// Who is told of each change, in the order of the changes.
    webhooks: Arc<Webhooks>,
}

impl Directory {
    /// Unix milliseconds.
    pub(super) fn now(&self) -> i64 {
        (self.clock)().unix_millis()
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        look(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One change, as a whole: `change` looks first and writes then, so that a refused one has
    /// changed nothing.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Tables, i64) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let now = self.now();
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut tables, now);
        let changes = tables.take_changes();
        self.webhooks.tell(&tables, &changes, now);
        changed
    }
}

fn not_found(what: &'static str, id: &str) -> Refused {
    Refused::NotFound {
        what,
        id: id.to_owned(),
    }
}

fn invalid(parameter: &'static str, message: impl Into<String>) -> Refused {
    Refused::Invalid {
        parameter,
        message: message.into(),
    }
}
