//! Who is in which organization, with which role.

use super::{Directory, Membership, Refused, Row, Tables, invalid, membership_key, not_found};
use crate::emulator::ids::new_id;

impl Directory {
    /// The membership of this user in this organization, both by id.
    pub fn membership(&self, organization: &str, user: &str) -> Option<Membership> {
        let key = membership_key(organization, user);
        self.read(|tables| tables.memberships.get(&key).cloned())
    }

    /// Makes `user` a member, with a role such as `org:admin`.
    pub fn add_member(
        &self,
        organization: &str,
        user: &str,
        role: &str,
    ) -> Result<Membership, Refused> {
        self.change(|tables, now| {
            let found = tables.organizations.get(organization);
            let limit = found
                .ok_or(not_found("organization", organization))?
                .max_allowed_memberships;
            tables.users.get(user).ok_or(not_found("user", user))?;
            tables.check_role(role)?;
            if tables
                .memberships
                .get(&membership_key(organization, user))
                .is_some()
            {
                return Err(Refused::AlreadyAMember {
                    user: user.to_owned(),
                    organization: organization.to_owned(),
                });
            }
            let members = tables.members_of(organization).len();
            if limit > 0 && u64::try_from(members).is_ok_and(|members| members >= limit) {
                return Err(Refused::Full {
                    organization: organization.to_owned(),
                    limit,
                });
            }
            Ok(tables.join(organization, user, role, now))
        })
    }

    /// Gives a member another role.
    pub fn set_role(
        &self,
        organization: &str,
        user: &str,
        role: &str,
    ) -> Result<Membership, Refused> {
        self.change(|tables, now| {
            let key = tables.member(organization, user)?;
            tables.check_role(role)?;
            let changed = tables.memberships.update(&key, now, |membership| {
                role.clone_into(&mut membership.role);
            });
            changed.ok_or(not_found("member", user))
        })
    }

    /// Changes what else is said of a membership: its metadata.
    pub fn change_membership(
        &self,
        organization: &str,
        user: &str,
        change: impl FnOnce(&mut Membership),
    ) -> Result<Membership, Refused> {
        self.change(|tables, now| {
            let key = tables.member(organization, user)?;
            let found = tables.memberships.get(&key).cloned();
            let mut membership = found.ok_or(not_found("member", user))?;
            change(&mut membership);
            if membership.key() != key {
                return Err(invalid("user_id", "a membership stays whose it is"));
            }
            tables.check_role(&membership.role)?;
            let changed = tables
                .memberships
                .update(&key, now, |row| *row = membership);
            changed.ok_or(not_found("member", user))
        })
    }

    /// Ends a membership; the user's sessions in the organization go on without one.
    pub fn remove_member(&self, organization: &str, user: &str) -> Result<Membership, Refused> {
        self.change(|tables, now| {
            tables.member(organization, user)?;
            let removed = tables.leave(organization, user, now);
            removed.ok_or(not_found("member", user))
        })
    }
}

impl Tables {
    /// The key of a membership that there is.
    fn member(&self, organization: &str, user: &str) -> Result<String, Refused> {
        let found = self.organizations.get(organization);
        found.ok_or(not_found("organization", organization))?;
        let key = membership_key(organization, user);
        match self.memberships.get(&key) {
            Some(_) => Ok(key),
            None => Err(not_found("member", user)),
        }
    }

    pub(super) fn join(
        &mut self,
        organization: &str,
        user: &str,
        role: &str,
        now: i64,
    ) -> Membership {
        let membership = Membership {
            id: new_id("orgmem_"),
            organization: organization.to_owned(),
            user: user.to_owned(),
            role: role.to_owned(),
            ..Membership::default()
        };
        self.memberships.insert(membership, now)
    }

    pub(super) fn leave(&mut self, organization: &str, user: &str, now: i64) -> Option<Membership> {
        let removed = self.memberships.remove(&membership_key(organization, user));
        for session in self.sessions_of(user) {
            if session.organization.as_deref() == Some(organization) {
                self.sessions.update(&session.id, now, |session| {
                    session.organization = None;
                });
            }
        }
        removed
    }

    /// The members of an organization; none of one that is not there.
    pub(in crate::emulator) fn memberships_in<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a Membership> {
        self.memberships.starting_with(prefix)
    }

    pub(in crate::emulator) fn members_of(&self, organization: &str) -> Vec<String> {
        self.memberships_in(&membership_key(organization, ""))
            .map(|membership| membership.user.clone())
            .collect()
    }

    /// The keys of a user's memberships.
    pub(super) fn memberships_of(&self, user: &str) -> Vec<String> {
        let all = self.memberships.iter();
        all.filter(|membership| membership.user == user)
            .map(Row::key)
            .collect()
    }
}
