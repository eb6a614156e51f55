//! Whether a session is live, by Clerk: for tokens that live longer than ended sessions are
//! remembered.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use super::{
    CannotTell, Instance, InstanceSerial, MembershipSettings,
    asking::{Freshness, LookUp, Question, remembered, text},
    fact_cache::{FactCache, Known},
    lookups::Asked,
};
use crate::{
    explain::{Rule, Steps},
    identity::{Session, SessionId, Timestamp},
    keys::Clock,
    mirror::{Answered, Directory, SessionAnswer},
    reason::Reason,
};

/// The share of the memory's bytes that sessions may take.
const SHARE: u64 = 8;

/// By instance and session.
pub(super) type SessionKey = (InstanceSerial, SessionId);

/// Asks Clerk about sessions, and remembers for as long as memberships are remembered.
pub struct SessionLookups {
    settings: MembershipSettings,
    clock: Clock,
    sessions: FactCache<SessionKey, SessionAnswer>,
    waiting: AtomicUsize,
}

impl fmt::Debug for SessionLookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLookups").finish_non_exhaustive()
    }
}

impl SessionLookups {
    /// With nothing remembered.
    pub fn new(settings: MembershipSettings, clock: Clock) -> Self {
        Self {
            sessions: FactCache::new(settings.max_bytes / SHARE),
            waiting: AtomicUsize::new(0),
            clock,
            settings,
        }
    }

    /// Whether the token's session is live, and its user's.
    pub(super) async fn judge(
        &self,
        instance: &Instance,
        session: &Session,
        patience: Duration,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Result<Result<(), Reason>, CannotTell> {
        let answer = self
            .session(instance, &session.session_id, patience, now, steps)
            .await?;
        Ok(match &*answer {
            SessionAnswer::Live { user_id } if *user_id == session.user_id => {
                steps.passed(Rule::Revocation, || {
                    "lives longer than ended sessions are remembered; Clerk says that the session is live"
                });
                Ok(())
            }
            SessionAnswer::Live { .. } | SessionAnswer::Over => {
                steps.failed(Rule::Revocation, || {
                    "lives longer than ended sessions are remembered; Clerk has no such live session of the user"
                });
                Err(Reason::SessionRevoked)
            }
        })
    }

    async fn session(
        &self,
        instance: &Instance,
        id: &SessionId,
        patience: Duration,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Result<Arc<SessionAnswer>, CannotTell> {
        let look_up = LookUp {
            freshness: Freshness::AtHand,
            not_before: None,
            mirrored_not_before: None,
            patience,
            now,
            lookups: None,
        };
        let key: SessionKey = (instance.serial, id.clone());
        if let Some(found) = remembered(&self.sessions, &key, look_up) {
            return Ok(found.known.value);
        }
        let asked = Question {
            key: key.clone(),
            waiting: &self.waiting,
            max_waiting: self.settings.max_waiting,
            rule: Rule::Revocation,
            once: |lookups| &lookups.sessions,
        };
        let wanted = id.clone();
        let ask = move |directory: Arc<dyn Directory>, ask| -> Asked<SessionAnswer> {
            Box::pin(async move { directory.session(&wanted, ask).await })
        };
        let Answered { value, as_of } = asked.answer(instance, ask, look_up, steps).await?;
        let (keep_for, bytes) = match &value {
            SessionAnswer::Live { user_id } => (self.settings.max_age, text(user_id.as_str())),
            SessionAnswer::Over => (self.settings.negative_max_age, 0),
        };
        let known = Known::new(value, as_of, keep_for, bytes + text(id.as_str()));
        let found = self.sessions.found(key, known, (self.clock)());
        Ok(found.known.value)
    }
}
