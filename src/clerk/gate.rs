//! Whether a request may be sent now: the secret key, the circuit breaker, the pauses that Clerk
//! asked for and the budget, judged at once. Pure, over injected time.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    answer::Fault,
    breaker::{Breaker, Change, Rules},
    budget::{Budget, Share},
};
use crate::mirror::Credentials;

/// Clerk failed so often in a row that it is left alone.
const UNAVAILABLE: Rules = Rules {
    failures: 8,
    first_pause: Duration::from_secs(1),
    longest_pause: Duration::from_secs(15),
};
/// One refusal is enough, and a mended key is noticed within this.
const REFUSED: Rules = Rules {
    failures: 1,
    first_pause: REFUSED_PAUSE,
    longest_pause: REFUSED_PAUSE,
};
/// From one attempt to the next while Clerk refuses the key.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_secs(10);

/// A class of endpoints: Clerk blocks one after a 429, not the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    OrganizationMemberships,
    Organization,
    OrganizationRoles,
    Session,
    User,
    UserMemberships,
    Users,
    UsersCount,
    Organizations,
    Memberships,
    M2mTokens,
    OauthAccessTokens,
    ApiKeys,
    HandshakePayload,
    /// Users whom a key of an identity provider's means.
    People,
    CreateUser,
    SignInTokens,
}

impl Endpoint {
    pub(super) const ALL: [Self; 17] = [
        Self::OrganizationMemberships,
        Self::Organization,
        Self::OrganizationRoles,
        Self::Session,
        Self::User,
        Self::UserMemberships,
        Self::Users,
        Self::UsersCount,
        Self::Organizations,
        Self::Memberships,
        Self::M2mTokens,
        Self::OauthAccessTokens,
        Self::ApiKeys,
        Self::HandshakePayload,
        Self::People,
        Self::CreateUser,
        Self::SignInTokens,
    ];

    /// Its name in metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OrganizationMemberships => "organization_memberships",
            Self::Organization => "organization",
            Self::OrganizationRoles => "organization_roles",
            Self::Session => "session",
            Self::User => "user",
            Self::UserMemberships => "user_memberships",
            Self::Users => "users",
            Self::UsersCount => "users_count",
            Self::Organizations => "organizations",
            Self::Memberships => "memberships",
            Self::M2mTokens => "m2m_tokens",
            Self::OauthAccessTokens => "oauth_access_tokens",
            Self::ApiKeys => "api_keys",
            Self::HandshakePayload => "handshake_payload",
            Self::People => "people",
            Self::CreateUser => "create_user",
            Self::SignInTokens => "sign_in_tokens",
        }
    }

    /// The largest answer in bytes; reading stops there. Lists hold whole objects, 500 on a page.
    pub(super) const fn max_answer_bytes(self) -> usize {
        match self {
            Self::OrganizationMemberships
            | Self::Organization
            | Self::OrganizationRoles
            | Self::Session
            | Self::User
            | Self::UsersCount
            | Self::M2mTokens
            | Self::OauthAccessTokens
            | Self::ApiKeys
            | Self::HandshakePayload
            | Self::People
            | Self::CreateUser
            | Self::SignInTokens => 1 << 20,
            Self::UserMemberships | Self::Users | Self::Organizations | Self::Memberships => {
                16 << 20
            }
        }
    }

    /// Whether a 404 of Clerk's says that there is no such thing whatever its code: Clerk names none
    /// for these. Of the others it has to be the one code that it names.
    pub(super) const fn has_its_own_not_found(self) -> bool {
        match self {
            Self::M2mTokens | Self::OauthAccessTokens | Self::ApiKeys | Self::HandshakePayload => {
                true
            }
            Self::OrganizationMemberships
            | Self::Organization
            | Self::OrganizationRoles
            | Self::Session
            | Self::User
            | Self::UserMemberships
            | Self::Users
            | Self::UsersCount
            | Self::Organizations
            | Self::Memberships
            | Self::People
            | Self::CreateUser
            | Self::SignInTokens => false,
        }
    }

    /// How long a request may take at least, whatever the setting says: nobody waits for a page of
    /// a long list, and it takes longer than a question for one thing.
    pub(super) const fn least_timeout(self) -> Duration {
        match self {
            Self::OrganizationMemberships
            | Self::Organization
            | Self::OrganizationRoles
            | Self::Session
            | Self::User
            | Self::UserMemberships
            | Self::M2mTokens
            | Self::OauthAccessTokens
            | Self::ApiKeys
            | Self::HandshakePayload
            | Self::People
            | Self::CreateUser
            | Self::SignInTokens => Duration::ZERO,
            Self::Users | Self::UsersCount | Self::Organizations | Self::Memberships => {
                Duration::from_secs(30)
            }
        }
    }
}

/// What has to hold before a request is sent.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) budget: Budget,
    key: Breaker,
    key_was_accepted: bool,
    /// What Clerk said when it refused the key.
    refusal: String,
    clerk: Breaker,
    /// What went wrong last.
    failure: String,
    paused_until: [Option<Instant>; Endpoint::ALL.len()],
}

/// May it be sent?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Yes, and it counts as sent.
    Pass(Probes),
    /// Not before Clerk's pause of this endpoint is over.
    Paused(Duration),
    /// Not before the budget allows it.
    OverBudget(Duration),
    /// No: the key is refused.
    Refused {
        cause: String,
        retry_after: Duration,
    },
    /// No: Clerk is left alone.
    LeftAlone {
        cause: String,
        retry_after: Duration,
    },
}

/// What a request is the probe of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Probes {
    key: bool,
    clerk: bool,
}

/// What a report changed that people should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Changes {
    pub key: Change,
    pub clerk: Change,
    /// The budget was whole and is not any more.
    pub shrunk: bool,
}

impl Gate {
    pub(super) fn new(budget: u32, now: Instant) -> Self {
        Self {
            budget: Budget::new(budget, now),
            key: Breaker::new(REFUSED),
            key_was_accepted: false,
            refusal: String::new(),
            clerk: Breaker::new(UNAVAILABLE),
            failure: String::new(),
            paused_until: [None; Endpoint::ALL.len()],
        }
    }

    /// Judges everything at once, so that nothing is taken for a request that is not sent.
    pub(super) fn admit(
        &mut self,
        endpoint: Endpoint,
        share: Share,
        in_line: bool,
        now: Instant,
    ) -> Admission {
        if let Some(retry_after) = self.key.holds(now) {
            let cause = self.refusal.clone();
            return Admission::Refused { cause, retry_after };
        }
        if let Some(retry_after) = self.clerk.holds(now) {
            let cause = format!("left alone for a while; last it {}", self.failure);
            return Admission::LeftAlone { cause, retry_after };
        }
        if let Some(until) = self.paused_until[endpoint as usize] {
            let left = until.saturating_duration_since(now);
            if !left.is_zero() {
                return Admission::Paused(left);
            }
        }
        if let Err(wait) = self.budget.take(share, in_line, now) {
            return Admission::OverBudget(wait);
        }
        Admission::Pass(Probes {
            key: self.key.pass(now),
            clerk: self.clerk.pass(now),
        })
    }

    /// How a request that passed has ended.
    pub(super) fn ended(
        &mut self,
        endpoint: Endpoint,
        probes: Probes,
        fault: Option<&Fault>,
        now: Instant,
    ) -> Changes {
        let (mut key, mut clerk, mut shrunk) = (Change::None, Change::None, false);
        match fault {
            None | Some(Fault::Rejected(_)) => {
                key = self.key.succeeded();
                self.key_was_accepted = true;
                clerk = self.clerk.succeeded();
            }
            Some(Fault::Refused { cause, of_instance }) => {
                clerk = self.clerk.succeeded();
                if *of_instance {
                    self.refusal.clone_from(cause);
                    key = self.key.failed(probes.key, now);
                } else {
                    self.key.told_nothing(probes.key);
                }
            }
            Some(Fault::RateLimited { retry_after }) => {
                self.key.told_nothing(probes.key);
                self.clerk.told_nothing(probes.clerk);
                let until = &mut self.paused_until[endpoint as usize];
                *until = (*until).max(Some(now + *retry_after));
                shrunk = self.budget.shrink(now);
            }
            Some(Fault::Failed { cause, .. } | Fault::Unusable(cause)) => {
                self.key.told_nothing(probes.key);
                self.failure.clone_from(cause);
                clerk = self.clerk.failed(probes.clerk, now);
            }
        }
        Changes { key, clerk, shrunk }
    }

    /// The request was given up before its answer, too early to say anything of Clerk.
    pub(super) fn given_up(&mut self, probes: Probes) {
        self.key.told_nothing(probes.key);
        self.clerk.told_nothing(probes.clerk);
    }

    pub(super) const fn credentials(&self) -> Credentials {
        if self.key.is_open() {
            Credentials::Refused
        } else if self.key_was_accepted {
            Credentials::Accepted
        } else {
            Credentials::Unknown
        }
    }

    pub(super) const fn is_left_alone(&self) -> bool {
        self.clerk.is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERSHIPS: Endpoint = Endpoint::OrganizationMemberships;

    fn failed() -> Fault {
        Fault::Failed {
            cause: "answered with status 500".to_owned(),
            retry_after: None,
        }
    }

    fn refused(of_instance: bool) -> Fault {
        Fault::Refused {
            cause: "status 403".to_owned(),
            of_instance,
        }
    }

    fn pass(gate: &mut Gate, endpoint: Endpoint, now: Instant) -> Probes {
        match gate.admit(endpoint, Share::Check, false, now) {
            Admission::Pass(probes) => probes,
            held => panic!("{held:?}"),
        }
    }

    #[test]
    fn a_pause_is_for_one_class_of_endpoints() {
        let now = Instant::now();
        let mut gate = Gate::new(900, now);
        let probes = pass(&mut gate, MEMBERSHIPS, now);
        let retry_after = Duration::from_secs(5);
        let changes = gate.ended(
            MEMBERSHIPS,
            probes,
            Some(&Fault::RateLimited { retry_after }),
            now,
        );
        assert!(changes.shrunk);

        let held = gate.admit(MEMBERSHIPS, Share::Check, false, now);
        assert_eq!(held, Admission::Paused(retry_after));
        pass(&mut gate, Endpoint::OrganizationRoles, now);
        pass(&mut gate, MEMBERSHIPS, now + retry_after);
    }

    #[test]
    fn a_refused_key_holds_everything_until_a_probe_is_accepted() {
        let now = Instant::now();
        let mut gate = Gate::new(900, now);
        let probes = pass(&mut gate, MEMBERSHIPS, now);
        gate.ended(MEMBERSHIPS, probes, Some(&refused(true)), now);
        assert_eq!(gate.credentials(), Credentials::Refused);
        for endpoint in Endpoint::ALL {
            let held = gate.admit(endpoint, Share::Check, false, now);
            assert!(matches!(held, Admission::Refused { .. }), "{held:?}");
        }

        let later = now + REFUSED_PAUSE;
        let probes = pass(&mut gate, MEMBERSHIPS, later);
        let held = gate.admit(MEMBERSHIPS, Share::Check, false, later);
        assert!(matches!(held, Admission::Refused { .. }), "{held:?}");
        let changes = gate.ended(MEMBERSHIPS, probes, None, later);
        assert_eq!(changes.key, Change::Closed);
        assert_eq!(gate.credentials(), Credentials::Accepted);
        pass(&mut gate, MEMBERSHIPS, later);
    }

    /// Or whoever may choose an organization's id could end everybody's checks.
    #[test]
    fn a_refusal_of_one_question_holds_no_other() {
        let now = Instant::now();
        let mut gate = Gate::new(900, now);
        for _ in 0..20 {
            let probes = pass(&mut gate, MEMBERSHIPS, now);
            gate.ended(MEMBERSHIPS, probes, Some(&refused(false)), now);
        }
        assert_eq!(gate.credentials(), Credentials::Unknown);
        pass(&mut gate, MEMBERSHIPS, now);
    }

    #[test]
    fn a_clerk_that_fails_is_left_alone_and_what_is_held_costs_no_budget() {
        let now = Instant::now();
        let mut gate = Gate::new(900, now);
        for _ in 0..UNAVAILABLE.failures {
            let probes = pass(&mut gate, MEMBERSHIPS, now);
            gate.ended(MEMBERSHIPS, probes, Some(&failed()), now);
        }
        let left = gate.budget.left(now);
        let held = gate.admit(MEMBERSHIPS, Share::Check, false, now);
        let Admission::LeftAlone { cause, retry_after } = held else {
            panic!("{held:?}")
        };
        assert_eq!(
            cause,
            "left alone for a while; last it answered with status 500"
        );
        assert_eq!(retry_after, UNAVAILABLE.first_pause);
        assert!((gate.budget.left(now) - left).abs() < f64::EPSILON);

        let later = now + retry_after;
        let probes = pass(&mut gate, MEMBERSHIPS, later);
        gate.given_up(probes);
        let probes = pass(&mut gate, MEMBERSHIPS, later);
        assert_eq!(
            gate.ended(MEMBERSHIPS, probes, None, later).clerk,
            Change::Closed
        );
    }
}
