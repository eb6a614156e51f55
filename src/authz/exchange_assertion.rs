//! May whoever an identity provider vouches for have a session at Clerk? A ticket for it, once.

use std::{fmt, sync::Arc, time::Duration};

use tracing::warn;

use super::{CannotTell, IdentityProvider, Instance, asking::cannot_tell};
use crate::{
    assertion::{self, Assertion, Denial, Expectations, Provider},
    explain::{Rule, Steps},
    identity::{OrganizationId, Timestamp, UserId},
    keys::{Lookup, VerifyingKey},
    mirror::{
        Ask, Coordination, DirectoryError, Join, MembershipAnswer, Person, PersonKey, SignInTicket,
        SignIns,
    },
    reason::Reason,
    token::quoted,
};

/// How long a ticket is good. The client redeems it at once.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(60);

/// Before the digests of assertions, among all that may be used once.
const USED_ASSERTION: &str = "assertion/";
/// Replicas' clocks may be so far apart.
const CLOCKS_APART: Duration = Duration::from_secs(60);
/// When it is worth asking a store again that does not answer.
const STORE_RETRY_AFTER: Duration = Duration::from_secs(1);
/// When it is worth asking again where something has to be configured first.
const CONFIGURATION_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What is asked.
#[derive(Clone, Copy)]
pub struct Exchange<'a> {
    /// At whose Clerk.
    pub instance: &'a Instance,
    /// The name of the identity provider.
    pub provider: &'a str,
    /// What it said.
    pub assertion: &'a str,
    /// With which the sign-in there began; empty is none.
    pub nonce: &'a str,
    /// Which is to be active in the session.
    pub organization: Option<&'a OrganizationId>,
    /// How long the caller waits at most.
    pub patience: Duration,
}

/// Nothing of an assertion or a nonce is printed.
impl fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("instance", &self.instance)
            .field("organization", &self.organization)
            .finish_non_exhaustive()
    }
}

/// The answer.
#[derive(Clone, Debug)]
pub enum ExchangeAnswer {
    /// There is a ticket.
    Ticket(Ticket),
    /// There would be one. Only of who wants to know why, since that uses nothing up.
    Would {
        /// Whose; `None` where the user would be made.
        user_id: Option<UserId>,
    },
    /// There is none.
    Denied {
        /// Why not.
        denial: Denial,
        /// Whom it would have been for, where that is known.
        user_id: Option<UserId>,
        /// What is left of the assertion.
        left: Left,
    },
}

/// Whether an assertion that got no ticket can still get one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It is as good as it was.
    Good,
    /// It is used up: the same call again can only be denied as a replay.
    Used,
}

/// It cannot be told whether there is a ticket.
#[derive(Clone, Copy, Debug)]
pub struct NoAnswer {
    /// Why not.
    pub cannot_tell: CannotTell,
    /// What is left of the assertion.
    pub left: Left,
}

/// A ticket that redeems at Clerk for a session. `Debug` prints nothing of it.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The ticket.
    pub ticket: SignInTicket,
    /// Until when it can be redeemed.
    pub expires_at: Timestamp,
    /// Whose the session will be.
    pub user_id: UserId,
}

/// Why there is no ticket.
enum Refusal {
    Denied(Denial),
    CannotTell(CannotTell),
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl From<CannotTell> for Refusal {
    fn from(cannot_tell: CannotTell) -> Self {
        Self::CannotTell(cannot_tell)
    }
}

/// What is known when it ends, however it does.
struct SoFar {
    user_id: Option<UserId>,
    left: Left,
}

/// Whom the ticket is for.
enum Whose {
    Of(Person),
    /// Who is not there yet, and is to be made.
    New,
}

/// Exchanges assertions.
#[derive(Debug)]
pub struct Exchanger {
    uses: Arc<dyn Coordination>,
    clock_skew: Duration,
}

impl Exchanger {
    /// Writes down in `uses` which were used; `clock_skew` is how far the clocks may differ.
    pub fn new(uses: Arc<dyn Coordination>, clock_skew: Duration) -> Self {
        Self { uses, clock_skew }
    }

    /// A ticket for whom the assertion means, if all rules hold.
    ///
    /// It is used up before anything is changed at Clerk, and after every other rule: what fails before
    /// leaves it as good as it was, and what fails afterwards leaves nobody a second ticket. Where
    /// `steps` are wanted nothing is used up, and nothing is changed at Clerk. May be dropped half-way.
    pub async fn exchange(
        &self,
        exchange: &Exchange<'_>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Result<ExchangeAnswer, NoAnswer> {
        let mut so_far = SoFar {
            user_id: None,
            left: Left::Good,
        };
        let decided = self.decide(exchange, now, &mut so_far, steps).await;
        let SoFar { user_id, left } = so_far;
        match decided {
            Ok(answer) => Ok(answer),
            Err(Refusal::Denied(denial)) => Ok(ExchangeAnswer::Denied {
                denial,
                user_id,
                left,
            }),
            Err(Refusal::CannotTell(cannot_tell)) => Err(NoAnswer { cannot_tell, left }),
        }
    }

    async fn decide(
        &self,
        exchange: &Exchange<'_>,
        now: Timestamp,
        so_far: &mut SoFar,
        steps: &mut Steps,
    ) -> Result<ExchangeAnswer, Refusal> {
        let Exchange {
            instance,
            organization,
            patience,
            ..
        } = *exchange;
        let Some(provider) = instance.provider(exchange.provider) else {
            steps.failed(Rule::Provider, || {
                let named = quoted(exchange.provider);
                format!("instance \"{}\" has no provider {named}", instance.name)
            });
            return Err(Refusal::Denied(Denial {
                reason: Reason::ProviderUnknown,
                rule: Rule::Provider,
            }));
        };
        steps.passed(Rule::Provider, || exchange.provider.to_owned());
        let rules = &provider.rules;
        let assertion = believed(exchange, provider, now, steps).await?;
        let expectations = Expectations {
            nonce: exchange.nonce,
            clock_skew: self.clock_skew,
            now,
        };
        assertion::judge(&assertion, rules, &expectations, steps)?;
        let is_settled = assertion::second_factor(&assertion, rules, None, steps)?;
        let key = assertion::whom(&assertion, rules, steps)?;
        let Some(sign_ins) = instance.sign_ins.as_deref() else {
            steps.failed(Rule::User, || {
                let name = &instance.name;
                format!(
                    "Clerk has to be asked, and no secret key is configured for instance \"{name}\""
                )
            });
            warn!(instance = %instance.name, "ExchangeAssertion needs the instance's secret key");
            let retry_after = CONFIGURATION_RETRY_AFTER;
            return Err(CannotTell::ClerkUnavailable { retry_after }.into());
        };
        let clerk = Clerk {
            instance,
            sign_ins,
            patience,
        };
        let found = clerk.people(&key, steps).await?;
        let whose = match assertion::one_of(found, steps)? {
            Some(person) => {
                so_far.user_id = Some(person.id.clone());
                Whose::Of(person)
            }
            None if rules.create_users => {
                steps.passed(Rule::User, || "nobody yet: Clerk is given a new user");
                Whose::New
            }
            None => {
                steps.failed(Rule::User, || "Clerk knows nobody who is meant");
                return Err(Refusal::Denied(Denial {
                    reason: Reason::UserUnmatched,
                    rule: Rule::User,
                }));
            }
        };
        may_enter(&assertion, rules, &whose, is_settled, steps)?;
        self.member(&clerk, &whose, organization, steps).await?;
        if steps.wanted() {
            steps.skipped(
                Rule::Replay,
                || "an explanation uses no assertion up, nor looks whether it was",
            );
            return Ok(ExchangeAnswer::Would {
                user_id: so_far.user_id.clone(),
            });
        }
        self.use_up(instance, &assertion, steps).await?;
        so_far.left = Left::Used;
        let person = match whose {
            Whose::Of(person) => person,
            Whose::New => {
                let person = clerk.create(&key, steps).await?;
                so_far.user_id = Some(person.id.clone());
                // It may be one who was there after all, and of whom nothing was asked yet.
                assertion::standing(&person, steps)?;
                assertion::second_factor(&assertion, rules, Some(person.second_factor), steps)?;
                person
            }
        };
        let made = sign_ins.ticket(&person.id, organization, TICKET_LIFETIME, patience);
        let made = made
            .await
            .map_err(|error| cannot_tell(error, Rule::Replay, instance, steps))?;
        let Some(ticket) = made else {
            return Err(gone(organization));
        };
        Ok(ExchangeAnswer::Ticket(Ticket {
            ticket,
            expires_at: now.plus(TICKET_LIFETIME),
            user_id: person.id,
        }))
    }

    /// Whether the organization that is to be active is one of the user's.
    async fn member(
        &self,
        clerk: &Clerk<'_>,
        whose: &Whose,
        organization: Option<&OrganizationId>,
        steps: &mut Steps,
    ) -> Result<(), Refusal> {
        const RULE: Rule = Rule::Membership;
        let Some(organization) = organization else {
            steps.skipped(RULE, || "no organization is asked for");
            return Ok(());
        };
        let denied = |reason| Refusal::Denied(Denial { reason, rule: RULE });
        let Whose::Of(person) = whose else {
            steps.failed(RULE, || "who is new is a member of no organization");
            return Err(denied(Reason::NotAMember));
        };
        let Some(directory) = clerk.instance.directory.as_deref() else {
            let retry_after = CONFIGURATION_RETRY_AFTER;
            return Err(CannotTell::ClerkUnavailable { retry_after }.into());
        };
        let asking = directory.membership(organization, &person.id, clerk.ask());
        let answered = asking
            .await
            .map_err(|error| cannot_tell(error, RULE, clerk.instance, steps))?;
        match answered.value {
            MembershipAnswer::Member(_) => {
                steps.passed(RULE, || format!("a member of {organization}"));
                Ok(())
            }
            MembershipAnswer::NotAMember => {
                steps.failed(RULE, || format!("not a member of {organization}"));
                Err(denied(Reason::NotAMember))
            }
            MembershipAnswer::NoOrganization => {
                steps.failed(RULE, || format!("Clerk has no {organization}"));
                Err(denied(Reason::OrganizationNotFound))
            }
        }
    }

    /// The last rule: whoever is denied by another has used nothing up.
    async fn use_up(
        &self,
        instance: &Instance,
        assertion: &Assertion,
        steps: &mut Steps,
    ) -> Result<(), Refusal> {
        let until = assertion::used_until(assertion, self.clock_skew).plus(CLOCKS_APART);
        let id = format!("{USED_ASSERTION}{}", assertion.once);
        match self.uses.use_once(&instance.name, &id, until).await {
            Ok(true) => {
                steps.passed(Rule::Replay, || "not used before");
                Ok(())
            }
            Ok(false) => {
                steps.failed(Rule::Replay, || "used before");
                Err(Refusal::Denied(Denial {
                    reason: Reason::AssertionReplayed,
                    rule: Rule::Replay,
                }))
            }
            Err(error) => {
                warn!(instance = %instance.name, %error, "cannot tell whether an assertion was used before");
                let retry_after = STORE_RETRY_AFTER;
                Err(CannotTell::StoreUnavailable { retry_after }.into())
            }
        }
    }
}

/// What an assertion says, once the provider's key has signed it.
async fn believed(
    exchange: &Exchange<'_>,
    provider: &IdentityProvider,
    now: Timestamp,
    steps: &mut Steps,
) -> Result<Assertion, Refusal> {
    let text = exchange.assertion;
    let unverified = assertion::parse(text, &provider.rules, steps)?;
    let key = find_key(provider, &unverified, now, steps).await?;
    let parts = unverified.signature_parts(text);
    if !key.verify(parts.signing_input, parts.signature) {
        steps.failed(
            Rule::Signature,
            || "does not verify with the key that kid names",
        );
        return Err(Denial::invalid(Rule::Signature).into());
    }
    steps.passed(Rule::Signature, || {
        format!("{} signature verifies", key.algorithm())
    });
    Ok(unverified.into_assertion(text, steps)?)
}

/// A key of the provider's own set; one without a name is none, however few there are.
async fn find_key(
    provider: &IdentityProvider,
    unverified: &assertion::Unverified,
    now: Timestamp,
    steps: &mut Steps,
) -> Result<Arc<VerifyingKey>, Refusal> {
    let (key_id, algorithm) = (unverified.key_id(), unverified.algorithm());
    let name = &provider.rules.name;
    let shown = || key_id.map_or("absent".into(), quoted);
    match provider.keyring.find(key_id, now).await {
        Lookup::Found(key) if key.algorithm() == algorithm => {
            steps.passed(Rule::Key, || format!("kid is {}", shown()));
            Ok(key)
        }
        Lookup::Found(key) => {
            steps.failed(Rule::Key, || {
                let of = key.algorithm();
                format!("kid is {}: a key for {of}, and alg is {algorithm}", shown())
            });
            Err(Denial::invalid(Rule::Key).into())
        }
        Lookup::Unknown => {
            steps.failed(Rule::Key, || {
                format!("kid is {}: not of provider \"{name}\"", shown())
            });
            Err(Denial::invalid(Rule::Key).into())
        }
        Lookup::Unavailable { retry_after } => {
            steps.failed(Rule::Key, || {
                format!("no usable keys of provider \"{name}\" yet: cannot tell")
            });
            Err(CannotTell::KeysUnavailable { retry_after }.into())
        }
    }
}

/// Who is new has nothing against them, and no second factor at Clerk.
fn may_enter(
    assertion: &Assertion,
    rules: &Provider,
    whose: &Whose,
    is_settled: bool,
    steps: &mut Steps,
) -> Result<(), Denial> {
    let enrolled = match whose {
        Whose::Of(person) => {
            assertion::standing(person, steps)?;
            person.second_factor
        }
        Whose::New => {
            steps.skipped(Rule::Standing, || "who is new has none yet");
            false
        }
    };
    if !is_settled {
        assertion::second_factor(assertion, rules, Some(enrolled), steps)?;
    }
    Ok(())
}

/// There is nobody any more to make a ticket for. Clerk says only that something is not there: where an
/// organization was named, too, it may be that.
fn gone(organization: Option<&OrganizationId>) -> Refusal {
    match organization {
        None => Refusal::Denied(Denial {
            reason: Reason::UserDeleted,
            rule: Rule::User,
        }),
        Some(_) => {
            let retry_after = CONFIGURATION_RETRY_AFTER;
            Refusal::CannotTell(CannotTell::ClerkUnavailable { retry_after })
        }
    }
}

/// Clerk, as one exchange asks it.
struct Clerk<'a> {
    instance: &'a Instance,
    sign_ins: &'a dyn SignIns,
    patience: Duration,
}

impl Clerk<'_> {
    /// Everything is asked now: who was banned a moment ago is not let in.
    fn ask(&self) -> Ask {
        Ask {
            patience: self.patience,
            join: Join::SentAfter,
        }
    }

    async fn people(&self, key: &PersonKey, steps: &mut Steps) -> Result<Vec<Person>, CannotTell> {
        let asked = self.sign_ins.people(key, self.ask()).await;
        let answered =
            asked.map_err(|error| cannot_tell(error, Rule::User, self.instance, steps))?;
        Ok(answered.value)
    }

    /// Makes the user. Where that fails a twin of the exchange may have made it, or this one without an
    /// answer: whoever is there now is the one.
    async fn create(&self, key: &PersonKey, steps: &mut Steps) -> Result<Person, Refusal> {
        let error = match self.sign_ins.create(key, self.patience).await {
            Ok(person) => return Ok(person),
            Err(error) => error,
        };
        let found = self.people(key, steps).await?;
        if let Some(person) = assertion::one_of(found, steps)? {
            return Ok(person);
        }
        // Clerk has said no to this one user: nobody is there, and nobody can be made.
        if let DirectoryError::Rejected { cause } = &error {
            let instance = &self.instance.name;
            warn!(%instance, cause, "Clerk makes no user for an assertion; see create_users in docs/sso.md");
            steps.failed(Rule::User, || format!("Clerk makes no such user: {cause}"));
            return Err(Refusal::Denied(Denial {
                reason: Reason::UserUnmatched,
                rule: Rule::User,
            }));
        }
        Err(cannot_tell(error, Rule::User, self.instance, steps).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_the_user_was_deleted_is_said_only_where_nothing_else_can_be_gone() {
        let organization = "org_acme".parse().expect("an id");
        assert!(matches!(
            gone(None),
            Refusal::Denied(Denial {
                reason: Reason::UserDeleted,
                ..
            })
        ));
        assert!(matches!(
            gone(Some(&organization)),
            Refusal::CannotTell(CannotTell::ClerkUnavailable { .. })
        ));
    }
}
