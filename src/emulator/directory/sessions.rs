//! Sessions: made, ended, revoked.

use super::{Directory, Refused, Session, SessionStatus, Tables, invalid, not_found};
use crate::emulator::ids::new_id;

/// How long a session lives, and how long unused; Clerk's defaults.
const LIFETIME_MILLISECONDS: i64 = 7 * 86_400_000;
const ABANDONED_AFTER_MILLISECONDS: i64 = 30 * 86_400_000;

impl Directory {
    /// The session with this id.
    pub fn session(&self, id: &str) -> Option<Session> {
        self.read(|tables| tables.sessions.get(id).cloned())
    }

    /// Signs a user in, with this organization as the active one.
    pub fn create_session(
        &self,
        user: &str,
        organization: Option<&str>,
    ) -> Result<Session, Refused> {
        self.change(|tables, now| {
            let found = tables.users.get(user).ok_or(not_found("user", user))?;
            if found.banned {
                return Err(invalid("user_id", format!("{user} is banned")));
            }
            if let Some(organization) = organization {
                let key = super::membership_key(organization, user);
                if tables.memberships.get(&key).is_none() {
                    let message = format!("{user} is not a member of {organization}");
                    return Err(invalid("active_organization_id", message));
                }
            }
            Ok(tables.sign_in(user, organization, now))
        })
    }

    /// Says what has become of a session.
    pub fn set_session_status(&self, id: &str, status: SessionStatus) -> Result<Session, Refused> {
        self.change(|tables, now| {
            let changed = tables
                .sessions
                .update(id, now, |session| session.status = status);
            changed.ok_or(not_found("session", id))
        })
    }

    /// Ends a session as its user does.
    pub fn end_session(&self, id: &str) -> Result<Session, Refused> {
        self.set_session_status(id, SessionStatus::Ended)
    }

    /// Ends a session as a back end does. One that is not live stays as it is.
    pub fn revoke_session(&self, id: &str) -> Result<Session, Refused> {
        let session = self.session(id).ok_or(not_found("session", id))?;
        if session.status_at(self.now()).is_live() {
            self.set_session_status(id, SessionStatus::Revoked)
        } else {
            Ok(session)
        }
    }
}

impl Tables {
    pub(super) fn sign_in(&mut self, user: &str, organization: Option<&str>, now: i64) -> Session {
        let session = Session {
            id: new_id("sess_"),
            user: user.to_owned(),
            client: new_id("client_"),
            organization: organization.map(str::to_owned),
            last_active_at: now,
            expire_at: now + LIFETIME_MILLISECONDS,
            abandon_at: now + ABANDONED_AFTER_MILLISECONDS,
            ..Session::default()
        };
        let session = self.sessions.insert(session, now);
        self.signed_in.insert(user.to_owned(), session.id.clone());
        self.users.update(user, now, |user| {
            user.last_sign_in_at = Some(now);
            user.last_active_at = Some(now);
        });
        session
    }

    /// The session that a token of this user is of: the one that the user signed in with last, or
    /// a new one when that has ended. Who is banned has none that lives.
    pub(super) fn session_for(
        &mut self,
        user: &str,
        organization: Option<&str>,
        now: i64,
    ) -> Session {
        let banned = self.users.get(user).is_some_and(|user| user.banned);
        let last = self
            .signed_in
            .get(user)
            .and_then(|id| self.sessions.get(id));
        match last.cloned() {
            Some(last) if last.status_at(now).is_live() => {
                if last.organization.as_deref() == organization {
                    return last;
                }
                let changed = self.sessions.update(&last.id, now, |session| {
                    session.organization = organization.map(str::to_owned);
                });
                changed.unwrap_or(last)
            }
            Some(last) if banned => last,
            _ => {
                let session = self.sign_in(user, organization, now);
                if !banned {
                    return session;
                }
                let revoked = self.sessions.update(&session.id, now, |session| {
                    session.status = SessionStatus::Revoked;
                });
                revoked.unwrap_or(session)
            }
        }
    }
}
