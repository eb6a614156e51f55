//! What an opaque token is, by Clerk: asked once in a short time for each token, and never taken for
//! "no" where there is no answer.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use super::{
    CannotTell, Instance, InstanceSerial, MembershipSettings,
    asking::{Freshness, LookUp, Question, remembered, text},
    fact_cache::{FactCache, FactCacheStats, Known},
    lookups::Asked,
};
use crate::{
    explain::{Rule, Steps},
    identity::{Machine, OpaqueToken, Texts, Timestamp, TokenDigest, TokenForm},
    keys::Clock,
    mirror::{Answered, Directory, MachineAnswer, MachineRecord},
    reason::Reason,
};

/// By instance and token. Of an instance whose secret key is another, nothing is remembered.
pub(super) type MachineKey = (InstanceSerial, TokenDigest);

/// How long what Clerk says of opaque tokens is remembered, how much of it, and how many wait.
#[derive(Clone, Copy, Debug)]
pub struct MachineSettings {
    /// Of a good token: within this a revocation shows.
    pub max_age: Duration,
    /// Of any other: within this a mended one is good.
    pub negative_max_age: Duration,
    /// Of the memory; 0 switches it off.
    pub max_bytes: u64,
    /// The most questions that wait for Clerk at once.
    pub max_waiting: usize,
}

impl MachineSettings {
    /// The share of the memory of memberships that tokens may take.
    const SHARE: u64 = 8;

    /// Beside `memberships`, for `max_age`.
    pub fn beside(memberships: &MembershipSettings, max_age: Duration) -> Self {
        /// Who has made a key a moment ago does not wait for long; who makes tokens up does not ask
        /// Clerk each time.
        const NEGATIVE_MAX_AGE: Duration = Duration::from_secs(10);
        Self {
            max_age,
            negative_max_age: NEGATIVE_MAX_AGE.min(max_age),
            max_bytes: memberships.max_bytes / Self::SHARE,
            max_waiting: memberships.max_waiting,
        }
    }
}

/// Asks Clerk about opaque tokens.
pub struct MachineLookups {
    settings: MachineSettings,
    clock: Clock,
    tokens: FactCache<MachineKey, Answer>,
    waiting: AtomicUsize,
}

/// What is remembered of a token.
enum Answer {
    Good(Arc<Machine>),
    Denied(Reason, &'static str),
}

impl fmt::Debug for MachineLookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineLookups").finish_non_exhaustive()
    }
}

impl MachineLookups {
    /// With nothing remembered.
    pub fn new(settings: MachineSettings, clock: Clock) -> Self {
        Self {
            tokens: FactCache::new(settings.max_bytes),
            waiting: AtomicUsize::new(0),
            clock,
            settings,
        }
    }

    /// Counters of the memory.
    pub fn stats(&self) -> FactCacheStats {
        self.tokens.stats()
    }

    /// What the token says, if it is good. Its times are the caller's to judge, at every use.
    pub(super) async fn machine(
        &self,
        instance: &Instance,
        token: OpaqueToken,
        patience: Duration,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Result<Result<Arc<Machine>, Reason>, CannotTell> {
        let answer = self.answer(instance, token, patience, now, steps).await?;
        Ok(match &*answer {
            Answer::Good(machine) => {
                steps.passed(Rule::Signature, || {
                    let id = machine.token_id.as_deref().unwrap_or_default();
                    format!("opaque: Clerk knows it as {id}, and says that it is good")
                });
                Ok(match machine.issuer == instance.issuer {
                    true => Arc::clone(machine),
                    // The instance has another since, with the same API.
                    false => Arc::new(Machine {
                        issuer: instance.issuer.clone(),
                        ..Machine::clone(machine)
                    }),
                })
            }
            Answer::Denied(reason, why) => {
                steps.failed(Rule::Signature, || *why);
                Err(*reason)
            }
        })
    }

    async fn answer(
        &self,
        instance: &Instance,
        token: OpaqueToken,
        patience: Duration,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Result<Arc<Answer>, CannotTell> {
        let look_up = LookUp {
            // An explanation asks anew, as it verifies anew.
            freshness: match steps.wanted() {
                true => Freshness::Now,
                false => Freshness::AtHand,
            },
            not_before: None,
            mirrored_not_before: None,
            patience,
            now,
            lookups: None,
        };
        let key: MachineKey = (instance.serial, token.digest());
        if let Some(found) = remembered(&self.tokens, &key, look_up) {
            return Ok(found.known.value);
        }
        let asked = Question {
            key,
            waiting: &self.waiting,
            max_waiting: self.settings.max_waiting,
            rule: Rule::Signature,
            once: |lookups| &lookups.machine_tokens,
        };
        let wanted = token.clone();
        let ask = move |directory: Arc<dyn Directory>, ask| -> Asked<MachineAnswer> {
            Box::pin(async move { directory.machine_token(&wanted, ask).await })
        };
        let Answered { value, as_of } = asked.answer(instance, ask, look_up, steps).await?;
        let answer = match value {
            MachineAnswer::Good(record) => {
                Answer::Good(Arc::new(machine(*record, &token, instance)))
            }
            MachineAnswer::Revoked => Answer::Denied(
                Reason::SessionRevoked,
                "opaque: Clerk says that it was revoked",
            ),
            MachineAnswer::Expired => Answer::Denied(
                Reason::TokenExpired,
                "opaque: Clerk says that it has expired, or is not active",
            ),
            // What an unknown token is to Clerk's SDK, too (docs/machine-tokens.md).
            MachineAnswer::Unknown => {
                Answer::Denied(Reason::TokenMalformed, "opaque: Clerk knows no such token")
            }
        };
        let (keep_for, bytes) = match &answer {
            Answer::Good(machine) => (self.settings.max_age, size_of(machine)),
            Answer::Denied(..) => (self.settings.negative_max_age, 0),
        };
        let known = Known::new(answer, as_of, keep_for, bytes);
        let found = self.tokens.found(key, known, (self.clock)());
        Ok(found.known.value)
    }
}

fn machine(record: MachineRecord, token: &OpaqueToken, instance: &Instance) -> Machine {
    let MachineRecord {
        id,
        subject,
        client_id,
        scopes,
        claims,
        created_at,
        expires_at,
    } = record;
    Machine {
        machine_type: token.machine_type(),
        form: TokenForm::Opaque,
        token_id: Some(id),
        issuer: instance.issuer.clone(),
        subject,
        client_id,
        scopes,
        audiences: Texts::default(),
        claims,
        issued_at: Some(created_at),
        not_before: None,
        expires_at,
    }
}

/// What it holds on the heap, in bytes; the issuer is shared.
pub(super) fn size_of(machine: &Machine) -> usize {
    let maybe = |value: &Option<Box<str>>| value.as_deref().map_or(0, text);
    std::mem::size_of::<Machine>()
        + maybe(&machine.token_id)
        + text(machine.subject.as_str())
        + maybe(&machine.client_id)
        + machine.scopes.heap_bytes()
        + machine.audiences.heap_bytes()
        + machine
            .claims
            .as_ref()
            .map_or(0, |claims| text(claims.as_json()))
}
