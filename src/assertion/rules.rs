//! The rules that depend on who asks, when, and on what Clerk knows (OpenID Connect Core §3.1.3.7).

use std::time::Duration;

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};

use super::{Assertion, Denial, FindBy, Nonce, Provider, SecondFactor};
use crate::{
    explain::{Rule, Steps},
    identity::Timestamp,
    mirror::{Person, PersonKey},
    reason::Reason,
    token::quoted,
};

/// How long ago an assertion may have been made, however long it says that it is good: it is exchanged
/// right after the sign-in, and for as long its use has to be remembered.
pub const MAX_AGE: Duration = Duration::from_secs(600);

/// What an assertion must meet beside what its provider asks for.
#[derive(Clone, Copy)]
pub struct Expectations<'a> {
    /// With which the sign-in began; empty is none.
    pub nonce: &'a str,
    /// How far the clocks may differ.
    pub clock_skew: Duration,
    /// Now.
    pub now: Timestamp,
}

/// Applies the rules that need nobody's word but the assertion's, in order; the first that fails is the
/// answer.
pub fn judge(
    assertion: &Assertion,
    provider: &Provider,
    expectations: &Expectations<'_>,
    steps: &mut Steps,
) -> Result<(), Denial> {
    audience(assertion, provider, steps)?;
    times(assertion, expectations, steps)?;
    nonce(assertion, provider, expectations.nonce, steps)?;
    sign_in_age(assertion, provider, expectations, steps)
}

/// Until when it has to be known that it was used: no clock takes it for good afterwards.
pub fn used_until(assertion: &Assertion, clock_skew: Duration) -> Timestamp {
    let until = assertion.issued_at.plus(MAX_AGE);
    until.min(assertion.expires_at).plus(clock_skew)
}

fn is_ours(provider: &Provider, client_id: &str) -> bool {
    provider.client_ids.iter().any(|ours| **ours == *client_id)
}

fn audience(assertion: &Assertion, provider: &Provider, steps: &mut Steps) -> Result<(), Denial> {
    let audiences = &assertion.audiences;
    let Some(ours) = audiences.iter().find(|each| is_ours(provider, each)) else {
        steps.failed(Rule::Audience, || {
            let found = listed(audiences.iter());
            format!("aud names {found}; expected a client id of the provider's")
        });
        return Err(Denial::invalid(Rule::Audience));
    };
    steps.passed(Rule::Audience, || format!("aud names {}", quoted(ours)));
    match assertion.authorized_party.as_deref() {
        Some(party) if is_ours(provider, party) => {
            steps.passed(Rule::AuthorizedParty, || {
                format!("azp is {}", quoted(party))
            });
        }
        Some(party) => {
            steps.failed(Rule::AuthorizedParty, || {
                let found = quoted(party);
                format!("azp is {found}; expected a client id of the provider's")
            });
            return Err(Denial::invalid(Rule::AuthorizedParty));
        }
        None if audiences.iter().count() > 1 => {
            steps.failed(
                Rule::AuthorizedParty,
                || "azp is absent, and aud names several",
            );
            return Err(Denial::invalid(Rule::AuthorizedParty));
        }
        None => steps.passed(Rule::AuthorizedParty, || "no azp, and one audience"),
    }
    Ok(())
}

fn times(
    assertion: &Assertion,
    Expectations {
        clock_skew, now, ..
    }: &Expectations<'_>,
    steps: &mut Steps,
) -> Result<(), Denial> {
    let (earliest, latest) = (now.minus(*clock_skew), now.plus(*clock_skew));
    let expires_at = assertion.expires_at;
    if expires_at <= earliest {
        steps.failed(Rule::Expiry, || format!("exp {expires_at}, now {now}"));
        return Err(Denial::invalid(Rule::Expiry));
    }
    steps.passed(Rule::Expiry, || format!("exp {expires_at}, now {now}"));
    match assertion.not_before {
        Some(not_before) if not_before > latest => {
            steps.failed(Rule::NotBefore, || format!("nbf {not_before}, now {now}"));
            return Err(Denial::invalid(Rule::NotBefore));
        }
        Some(not_before) => {
            steps.passed(Rule::NotBefore, || format!("nbf {not_before}, now {now}"));
        }
        None => steps.skipped(Rule::NotBefore, || "no nbf"),
    }
    let issued_at = assertion.issued_at;
    if issued_at > latest {
        steps.failed(Rule::IssuedAt, || {
            format!("iat {issued_at} is in the future; now {now}")
        });
        return Err(Denial::invalid(Rule::IssuedAt));
    }
    if issued_at.plus(MAX_AGE) <= earliest {
        steps.failed(Rule::IssuedAt, || {
            format!("iat {issued_at} is more than {MAX_AGE:?} ago; now {now}")
        });
        return Err(Denial::invalid(Rule::IssuedAt));
    }
    steps.passed(Rule::IssuedAt, || format!("iat {issued_at}, now {now}"));
    Ok(())
}

/// What one side has and the other has not is as wrong as what differs.
fn nonce(
    assertion: &Assertion,
    provider: &Provider,
    sent: &str,
    steps: &mut Steps,
) -> Result<(), Denial> {
    let wrong = match (assertion.nonce.as_deref(), sent) {
        (None, "") => match provider.nonce {
            Nonce::Optional => {
                steps.skipped(Rule::Nonce, || "neither the assertion nor the call has one");
                return Ok(());
            }
            Nonce::Required => "neither the assertion nor the call has one",
        },
        (Some(_), "") => "the assertion has one, and the call none",
        (None, _) => "the call has one, and the assertion none",
        (Some(found), sent) if is_same(found, sent) => {
            steps.passed(Rule::Nonce, || "the assertion has that of the call");
            return Ok(());
        }
        (Some(_), _) => "the assertion has another than the call",
    };
    steps.failed(Rule::Nonce, || wrong);
    Err(Denial::invalid(Rule::Nonce))
}

/// Takes the same time wherever they differ, and however long they are.
fn is_same(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(|text| digest(&SHA256, text.as_bytes()));
    verify_slices_are_equal(one.as_ref(), other.as_ref()).is_ok()
}

fn sign_in_age(
    assertion: &Assertion,
    provider: &Provider,
    Expectations {
        clock_skew, now, ..
    }: &Expectations<'_>,
    steps: &mut Steps,
) -> Result<(), Denial> {
    let Some(max_age) = provider.max_sign_in_age else {
        steps.skipped(Rule::SignInAge, || "no largest age is configured");
        return Ok(());
    };
    let wrong = match assertion.signed_in_at {
        None => "auth_time is absent".to_owned(),
        Some(at) if at > now.plus(*clock_skew) => {
            format!("auth_time {at} is in the future; now {now}")
        }
        Some(at) if at.plus(max_age).plus(*clock_skew) < *now => {
            format!("auth_time {at} is more than {max_age:?} ago; now {now}")
        }
        Some(at) => {
            steps.passed(Rule::SignInAge, || format!("auth_time {at}, now {now}"));
            return Ok(());
        }
    };
    steps.failed(Rule::SignInAge, || wrong);
    Err(Denial::invalid(Rule::SignInAge))
}

/// Whether a second factor was shown where it is asked for. `enrolled` is whether the user has one at
/// Clerk, where that is known; `Ok(false)` says that it has to be.
pub fn second_factor(
    assertion: &Assertion,
    provider: &Provider,
    enrolled: Option<bool>,
    steps: &mut Steps,
) -> Result<bool, Denial> {
    const RULE: Rule = Rule::SecondFactor;
    if provider.second_factor == SecondFactor::Off {
        steps.skipped(RULE, || "not asked for");
        return Ok(true);
    }
    let has = |list: &[Box<str>], value: &str| list.iter().any(|each| **each == *value);
    let method = assertion.amr.iter().find(|it| has(&provider.amr, it));
    if let Some(method) = method {
        steps.passed(RULE, || format!("amr has {}", quoted(method)));
        return Ok(true);
    }
    let class = assertion.acr.as_deref().filter(|it| has(&provider.acr, it));
    if let Some(class) = class {
        steps.passed(RULE, || format!("acr is {}", quoted(class)));
        return Ok(true);
    }
    match (provider.second_factor, enrolled) {
        (SecondFactor::IfEnrolled, None) => return Ok(false),
        (SecondFactor::IfEnrolled, Some(false)) => {
            steps.passed(RULE, || "the user has enrolled none at Clerk");
            return Ok(true);
        }
        (SecondFactor::Required | SecondFactor::Off, _)
        | (SecondFactor::IfEnrolled, Some(true)) => {}
    }
    steps.failed(RULE, || {
        let amr = listed(assertion.amr.iter());
        let acr = assertion.acr.as_deref().map_or("none".into(), quoted);
        let expected = provider.amr.iter().chain(&provider.acr);
        let expected = listed(expected.map(|each| &**each));
        format!("amr has {amr}, acr is {acr}; expected one of {expected}")
    });
    Err(Denial {
        reason: Reason::MfaRequired,
        rule: RULE,
    })
}

fn unmatched() -> Denial {
    Denial {
        reason: Reason::UserUnmatched,
        rule: Rule::User,
    }
}

/// Whom it means, by what the provider is matched with.
pub fn whom(
    assertion: &Assertion,
    provider: &Provider,
    steps: &mut Steps,
) -> Result<PersonKey, Denial> {
    let domains = match &provider.find_by {
        FindBy::ExternalAccount(at_clerk) => {
            return Ok(PersonKey::ExternalAccount {
                provider: at_clerk.clone(),
                provider_user_id: assertion.subject.clone(),
            });
        }
        FindBy::ExternalId => return Ok(PersonKey::ExternalId(assertion.subject.clone())),
        FindBy::VerifiedEmail(domains) => domains,
    };
    let wrong = match assertion.email.as_deref() {
        None => "email is absent".to_owned(),
        Some(_) if !assertion.email_verified => "email_verified is not true".to_owned(),
        // Two addresses may fold to one beyond ASCII: a KELVIN SIGN becomes a k.
        Some(email) if !email.is_ascii() => "email is not ASCII".to_owned(),
        Some(email) => match domain(email) {
            None => "email is no address".to_owned(),
            Some(found) if domains.iter().any(|domain| **domain == *found) => {
                return Ok(PersonKey::Email(email.into()));
            }
            Some(found) => format!("email is of {}, which is not allowed", quoted(&found)),
        },
    };
    steps.failed(Rule::User, || wrong);
    Err(unmatched())
}

/// Of an address with exactly one `@`, in lower case.
fn domain(email: &str) -> Option<String> {
    let (local, domain) = email.split_once('@')?;
    let is_plain = |part: &str| {
        !part.is_empty()
            && !part.contains(|c: char| c == '@' || c.is_control() || c.is_whitespace())
    };
    (is_plain(local) && is_plain(domain)).then(|| domain.to_ascii_lowercase())
}

/// The one person of those who were found; `None` where there is none.
pub fn one_of(mut found: Vec<Person>, steps: &mut Steps) -> Result<Option<Person>, Denial> {
    let (person, others) = (found.pop(), found.len());
    match person {
        Some(_) if others > 0 => {
            steps.failed(Rule::User, || "several users are meant");
            Err(unmatched())
        }
        Some(person) => {
            steps.passed(Rule::User, || person.id.to_string());
            Ok(Some(person))
        }
        None => Ok(None),
    }
}

/// Whether the user may sign in.
pub fn standing(person: &Person, steps: &mut Steps) -> Result<(), Denial> {
    let (reason, what) = if person.banned {
        (Reason::UserBanned, "banned")
    } else if person.deprovisioned {
        (Reason::UserDeprovisioned, "deprovisioned")
    } else if person.locked {
        (Reason::UserLocked, "locked")
    } else {
        steps.passed(
            Rule::Standing,
            || "neither banned, deprovisioned nor locked",
        );
        return Ok(());
    };
    steps.failed(Rule::Standing, || what);
    Err(Denial {
        reason,
        rule: Rule::Standing,
    })
}

fn listed<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 8;
    let shown: Vec<_> = texts.take(MOST).map(quoted).collect();
    match shown.is_empty() {
        true => "none".to_owned(),
        false => shown.join(", "),
    }
}
