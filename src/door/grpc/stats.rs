//! What was asked at the doors and how it ended: plain counters, read when metrics are asked
//! for.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{closed_list::closed_list, door::Traffic, reason::Reason};

closed_list! {
    /// The RPCs that are counted, and what is asked like one.
    Rpc {
        /// `VerifySession`.
        VerifySession = "VerifySession",
        /// An item of `BatchVerifySession`.
        BatchVerifySession = "BatchVerifySession",
        /// `CheckOrgPermission`.
        CheckOrgPermission = "CheckOrgPermission",
        /// An item of `BatchCheckOrgPermission`.
        BatchCheckOrgPermission = "BatchCheckOrgPermission",
        /// `SyncUser`.
        SyncUser = "SyncUser",
        /// `GetUser`.
        GetUser = "GetUser",
        /// `WatchUsers`: how it began.
        WatchUsers = "WatchUsers",
        /// `ExchangeAssertion`.
        ExchangeAssertion = "ExchangeAssertion",
        /// `ExplainDecision`.
        ExplainDecision = "ExplainDecision",
        /// `Check` of Envoy's external authorization.
        Check = "Check",
        /// `/forward-auth` of the HTTP door.
        ForwardAuth = "ForwardAuth",
    }
}

/// How a question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The token is good.
    Accepted,
    /// It was allowed, denied or could not be told, with this reason.
    Decided(Reason),
    /// The request was malformed.
    InvalidRequest,
}

/// How many different outcomes there are.
pub const CALL_OUTCOMES: usize = Reason::ALL.len() + 2;

impl CallOutcome {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let decided = Reason::ALL.iter().map(|&reason| Self::Decided(reason));
        [Self::Accepted, Self::InvalidRequest]
            .into_iter()
            .chain(decided)
    }

    /// `ACCEPTED`, `INVALID_ARGUMENT` or the reason's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "ACCEPTED",
            Self::InvalidRequest => "INVALID_ARGUMENT",
            Self::Decided(reason) => reason.name(),
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Accepted => 0,
            Self::InvalidRequest => 1,
            Self::Decided(reason) => reason as usize + 2,
        }
    }
}

/// Counters since the start.
#[derive(Debug)]
pub struct CallStats {
    outcomes: [[AtomicU64; CALL_OUTCOMES]; Rpc::ALL.len()],
    in_flight: AtomicU64,
    shed: AtomicU64,
    traffic: Traffic,
}

impl Default for CallStats {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            outcomes: std::array::from_fn(|_| std::array::from_fn(|_| zero())),
            in_flight: zero(),
            shed: zero(),
            traffic: Traffic::default(),
        }
    }
}

impl CallStats {
    pub(in crate::door) fn count(&self, rpc: Rpc, outcome: CallOutcome) {
        self.outcomes[rpc as usize][outcome.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Answers with this outcome.
    pub fn answered(&self, rpc: Rpc, outcome: CallOutcome) -> u64 {
        self.outcomes[rpc as usize][outcome.index()].load(Ordering::Relaxed)
    }

    pub(super) fn started(&self) -> u64 {
        self.in_flight.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn count_shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
    }

    /// What came through the doors, whatever it asked.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Calls that are worked on now.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Calls that were turned away for load.
    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_a_counter_of_its_own() {
        let stats = CallStats::default();
        for outcome in CallOutcome::all() {
            stats.count(Rpc::VerifySession, outcome);
        }
        assert_eq!(CallOutcome::all().count(), CALL_OUTCOMES);
        for outcome in CallOutcome::all() {
            assert_eq!(
                stats.answered(Rpc::VerifySession, outcome),
                1,
                "{outcome:?}"
            );
            assert_eq!(
                stats.answered(Rpc::ExplainDecision, outcome),
                0,
                "{outcome:?}"
            );
        }
    }
}
