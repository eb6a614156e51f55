//! The rules that depend on who asks and when: audience, authorized party, times, status. They run
//! at every use of a token, from the cache too. The order and the comparisons are the SDK's
//! (`@clerk/backend`, `jwt/verifyJwt.ts` and `jwt/assertions.ts`).

use std::{sync::Arc, time::Duration};

use super::quoted;
use crate::{
    explain::{Rule, Steps},
    identity::{Machine, Session, SessionStatus, Texts, Timestamp},
    reason::Reason,
};

/// Values of which one must match: what is configured and what a request narrows it to. An empty
/// list asks nothing; where both lists ask, one value must stand in both.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed<'a> {
    /// From the instance's settings.
    pub configured: &'a [Arc<str>],
    /// From the request.
    pub requested: &'a [String],
}

impl Allowed<'_> {
    /// Whether nothing is asked.
    pub fn asks_nothing(&self) -> bool {
        self.configured.is_empty() && self.requested.is_empty()
    }

    /// Whether `value` stands, exactly, in each list that asks.
    pub fn has(&self, value: &str) -> bool {
        fn permits<T: AsRef<str>>(list: &[T], value: &str) -> bool {
            list.is_empty() || list.iter().any(|item| item.as_ref() == value)
        }
        permits(self.configured, value) && permits(self.requested, value)
    }
}

/// What a token must meet.
#[derive(Clone, Copy, Debug)]
pub struct Expectations<'a> {
    /// Of which `azp` must be one.
    pub authorized_parties: Allowed<'a>,
    /// Of which `aud` must name one, where there is an `aud`.
    pub audiences: Allowed<'a>,
    /// How far the clocks may differ.
    pub clock_skew: Duration,
    /// For a token from a cookie: when the browser's sign-in state last changed.
    pub client_changed_at: Option<Timestamp>,
}

/// Applies the rules, in order; the first that fails is the answer.
pub fn judge(
    session: &Session,
    expectations: &Expectations<'_>,
    now: Timestamp,
    steps: &mut Steps,
) -> Result<(), Reason> {
    audience(&session.audiences, expectations.audiences, steps)?;
    authorized_party(session, expectations.authorized_parties, steps)?;
    times(&Times::of(session), expectations.clock_skew, now, steps)?;
    client_state(session, expectations.client_changed_at, steps)?;
    match session.status {
        SessionStatus::Active => steps.passed(Rule::Status, || "active"),
        SessionStatus::Pending => {
            steps.failed(
                Rule::Status,
                || "pending: the user has tasks to finish first",
            );
            return Err(Reason::SessionPending);
        }
    }
    Ok(())
}

/// The same for a token of a machine. It was made for no origin and by no browser, so that `azp`,
/// the browser's state and the session's status are not asked (Clerk's SDK applies `azp` all the
/// same, and refuses every machine's JWT where parties are configured; docs/differences.md).
pub fn judge_machine(
    machine: &Machine,
    audiences: Allowed<'_>,
    clock_skew: Duration,
    now: Timestamp,
    steps: &mut Steps,
) -> Result<(), Reason> {
    audience(&machine.audiences, audiences, steps)?;
    for rule in [Rule::AuthorizedParty, Rule::ClientState, Rule::Status] {
        steps.skipped(rule, || "for session tokens only");
    }
    times(&Times::of_machine(machine), clock_skew, now, steps)
}

/// Session tokens have no `aud` by default, so one is demanded only of tokens that have it.
fn audience(audiences: &Texts, allowed: Allowed<'_>, steps: &mut Steps) -> Result<(), Reason> {
    if allowed.asks_nothing() {
        steps.skipped(Rule::Audience, || "no audience is configured or asked for");
    } else if audiences.is_empty() {
        steps.passed(Rule::Audience, || "the token has no aud");
    } else if let Some(audience) = audiences.iter().find(|audience| allowed.has(audience)) {
        steps.passed(Rule::Audience, || format!("aud names {}", quoted(audience)));
    } else {
        steps.failed(Rule::Audience, || {
            format!("aud names none of {}", listed(allowed))
        });
        return Err(Reason::AudienceMismatch);
    }
    Ok(())
}

fn authorized_party(
    session: &Session,
    allowed: Allowed<'_>,
    steps: &mut Steps,
) -> Result<(), Reason> {
    if allowed.asks_nothing() {
        steps.skipped(
            Rule::AuthorizedParty,
            || "no authorized party is configured or asked for",
        );
        return Ok(());
    }
    match session.authorized_party.as_deref() {
        Some(party) if allowed.has(party) => {
            steps.passed(Rule::AuthorizedParty, || {
                format!("azp is {}", quoted(party))
            });
            Ok(())
        }
        party => {
            steps.failed(Rule::AuthorizedParty, || {
                let found = party.map_or("absent".into(), quoted);
                format!("azp is {found}; expected one of {}", listed(allowed))
            });
            Err(Reason::AuthorizedPartyMismatch)
        }
    }
}

fn listed(allowed: Allowed<'_>) -> String {
    fn list<T: AsRef<str>>(values: &[T]) -> String {
        let quoted: Vec<_> = values.iter().map(|value| quoted(value.as_ref())).collect();
        quoted.join(", ")
    }
    match (allowed.configured, allowed.requested) {
        (configured, []) => list(configured),
        ([], requested) => list(requested),
        (configured, requested) => {
            format!(
                "{} that is also in the request's {}",
                list(configured),
                list(requested)
            )
        }
    }
}

/// When a token is good.
struct Times {
    expires_at: Option<Timestamp>,
    not_before: Option<Timestamp>,
    issued_at: Option<Timestamp>,
}

impl Times {
    const fn of(session: &Session) -> Self {
        Self {
            expires_at: Some(session.expires_at),
            not_before: session.not_before,
            issued_at: session.issued_at,
        }
    }

    const fn of_machine(machine: &Machine) -> Self {
        Self {
            expires_at: machine.expires_at,
            not_before: machine.not_before,
            issued_at: machine.issued_at,
        }
    }
}

fn times(times: &Times, skew: Duration, now: Timestamp, steps: &mut Steps) -> Result<(), Reason> {
    match times.expires_at {
        None => steps.passed(Rule::Expiry, || "the token never expires"),
        Some(expires_at) if expires_at <= now.minus(skew) => {
            steps.failed(Rule::Expiry, || {
                format!(
                    "exp {expires_at} is {:?} before now {now}; skew {skew:?}",
                    now.since(expires_at)
                )
            });
            return Err(Reason::TokenExpired);
        }
        Some(expires_at) => steps.passed(Rule::Expiry, || {
            format!("exp {expires_at}, now {now}, skew {skew:?}")
        }),
    }

    let latest = now.plus(skew);
    let to_come = [
        (
            Rule::NotBefore,
            "nbf",
            times.not_before,
            Reason::TokenNotYetValid,
        ),
        (
            Rule::IssuedAt,
            "iat",
            times.issued_at,
            Reason::TokenIssuedInFuture,
        ),
    ];
    for (rule, name, time, reason) in to_come {
        match time {
            None => steps.skipped(rule, || format!("the token has no {name}")),
            Some(time) if time > latest => {
                steps.failed(rule, || {
                    format!(
                        "{name} {time} is {:?} after now {now}; skew {skew:?}",
                        time.since(now)
                    )
                });
                return Err(reason);
            }
            Some(time) => steps.passed(rule, || format!("{name} {time}, now {now}, skew {skew:?}")),
        }
    }
    Ok(())
}

/// A cookie's token that is older than the browser's last sign-in or sign-out is not settled: no
/// skew, as in the SDK. A token that does not say when it was issued cannot be told to be settled.
fn client_state(
    session: &Session,
    client_changed_at: Option<Timestamp>,
    steps: &mut Steps,
) -> Result<(), Reason> {
    let Some(changed_at) = client_changed_at else {
        steps.skipped(Rule::ClientState, || "not from a cookie");
        return Ok(());
    };
    match session.issued_at {
        Some(issued_at) if issued_at >= changed_at => {
            steps.passed(Rule::ClientState, || {
                format!("iat {issued_at}, sign-in state changed {changed_at}")
            });
            Ok(())
        }
        issued_at => {
            steps.failed(Rule::ClientState, || {
                let found = issued_at.map_or("absent".to_owned(), |at| at.to_string());
                format!("iat {found} is older than the last change of sign-in state {changed_at}")
            });
            Err(Reason::TokenExpired)
        }
    }
}
