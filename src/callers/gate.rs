//! The rules that are in force, and what their callers ask.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{
    account::{Account, CallerOutcome, CallerStats},
    rules::{ANYONE, GuardedRpc, Rules, Shown, UNRECOGNIZED, Unrecognized, Who},
};

/// Lets calls in by the rules that are in force, and counts them by caller.
#[derive(Debug)]
pub struct Callers {
    in_force: ArcSwap<InForce>,
    anyone: Arc<Account>,
    /// Of those of whom it cannot be said who they are.
    unrecognized: Account,
    /// What time is counted from.
    since: Instant,
}

#[derive(Debug)]
struct InForce {
    rules: Rules,
    anyone: Arc<Account>,
    /// In the order of the rules' callers.
    accounts: Vec<Arc<Account>>,
}

impl InForce {
    fn account(&self, who: Who) -> &Arc<Account> {
        match who {
            Who::Anyone => &self.anyone,
            Who::Named(index) => &self.accounts[index],
        }
    }
}

/// Whom a call comes from that was let in.
#[derive(Clone)]
pub struct KnownCaller {
    in_force: Arc<InForce>,
    who: Who,
}

/// The place of a call among its caller's, as long as it lives.
#[derive(Debug)]
pub struct Place(Arc<Account>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Why a call does not go on. It prints for the caller, without a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its caller may not.
    NotAllowed {
        /// Its name.
        caller: Box<str>,
        /// What it may not, in words.
        why: String,
    },
    /// Its caller is over a limit.
    OverLimit {
        /// Its name.
        caller: Box<str>,
        /// When it is worth repeating.
        retry_after: Duration,
    },
}

impl Callers {
    /// Under these rules. Time is counted from `since`.
    pub fn new(rules: Rules, since: Instant) -> Self {
        let anyone = Arc::<Account>::default();
        let accounts = rules.callers().iter().map(|_| Arc::default()).collect();
        let in_force = InForce {
            rules,
            anyone: Arc::clone(&anyone),
            accounts,
        };
        Self {
            in_force: ArcSwap::from_pointee(in_force),
            anyone,
            unrecognized: Account::default(),
            since,
        }
    }

    /// Puts other rules in force, for calls from now on. A caller that keeps its name keeps what it
    /// has under way, what it has used of its limits, and its counters.
    pub fn replace(&self, rules: Rules) {
        let before = self.in_force.load();
        let callers = before.rules.callers().iter();
        let known: HashMap<&str, &Arc<Account>> = callers
            .map(|caller| &*caller.name)
            .zip(&before.accounts)
            .collect();
        let callers = rules.callers().iter();
        let accounts = callers
            .map(|caller| {
                known
                    .get(&*caller.name)
                    .map_or_else(Arc::default, |it| Arc::clone(it))
            })
            .collect();
        self.in_force.store(Arc::new(InForce {
            rules,
            anyone: Arc::clone(&self.anyone),
            accounts,
        }));
    }

    /// Whether these rules are in force.
    pub fn are(&self, rules: &Rules) -> bool {
        self.in_force.load().rules == *rules
    }

    /// Lets a call in, or says why not.
    pub fn admit(
        &self,
        rpc: GuardedRpc,
        shown: &Shown<'_>,
        now: Instant,
    ) -> Result<(KnownCaller, Place), Refused> {
        let in_force = self.in_force.load_full();
        let rules = &in_force.rules;
        let who = rules.who(shown).map_err(|unrecognized| {
            self.unrecognized.count(CallerOutcome::Denied);
            let why = match unrecognized {
                Unrecognized::Bearer => "the bearer secret of the call is no caller's",
                Unrecognized::Several => "the call shows the names of several callers",
            };
            Refused::NotAllowed {
                caller: UNRECOGNIZED.into(),
                why: why.to_owned(),
            }
        })?;
        let account = in_force.account(who);
        if !rules.rights(who).rpcs.has(rpc) {
            account.count(CallerOutcome::Denied);
            return Err(Refused::not_allowed(
                rules.name(who),
                &format!("call {}", rpc.name()),
            ));
        }
        let now = now.saturating_duration_since(self.since);
        if let Err(retry_after) = account.enter(rules.limits(who), now) {
            account.count(CallerOutcome::Shed);
            return Err(Refused::OverLimit {
                caller: rules.name(who).into(),
                retry_after,
            });
        }
        account.count(CallerOutcome::Admitted);
        let place = Place(Arc::clone(account));
        Ok((KnownCaller { in_force, who }, place))
    }

    /// A batch that was let in as one call is as many as it has items: its caller's later calls wait
    /// for it.
    pub fn charge_batch(&self, caller: &KnownCaller, items: usize, now: Instant) {
        let further = u32::try_from(items.saturating_sub(1)).unwrap_or(u32::MAX);
        let limits = caller.in_force.rules.limits(caller.who);
        let now = now.saturating_duration_since(self.since);
        caller.account().charge(limits, further, now);
    }

    /// Whether the rules of now let a caller go on with what it was let in for by others, or why not.
    pub fn still_admits(&self, caller: &KnownCaller, rpc: GuardedRpc) -> Result<(), Refused> {
        let in_force = self.in_force.load();
        let rules = &in_force.rules;
        let who = match caller.who {
            Who::Anyone => Some(Who::Anyone),
            Who::Named(_) => {
                let mut callers = rules.callers().iter();
                let named = callers.position(|it| *it.name == *caller.name());
                named.map(Who::Named)
            }
        };
        if who.is_some_and(|who| rules.rights(who).rpcs.has(rpc)) {
            return Ok(());
        }
        Err(Refused::not_allowed(
            caller.name(),
            &format!("call {}", rpc.name()),
        ))
    }

    /// By caller: those whom the rules name, and those whom they do not.
    pub fn stats(&self) -> Vec<(Arc<str>, CallerStats)> {
        let in_force = self.in_force.load();
        let callers = in_force.rules.callers().iter();
        let named = callers
            .map(|caller| Arc::clone(&caller.name))
            .zip(&in_force.accounts)
            .map(|(name, account)| (name, account.stats()));
        let others = [
            (ANYONE.into(), self.anyone.stats()),
            (UNRECOGNIZED.into(), self.unrecognized.stats()),
        ];
        named.chain(others).collect()
    }
}

impl KnownCaller {
    /// In logs: the rule's name for it, or [`ANYONE`].
    pub fn name(&self) -> &str {
        self.in_force.rules.name(self.who)
    }

    /// Lets it ask about a user whom it names without a token of that user, or says why not.
    pub fn admit_any_user(&self) -> Result<(), Refused> {
        if self.in_force.rules.rights(self.who).any_user {
            return Ok(());
        }
        self.account().count(CallerOutcome::Denied);
        let may_not = "ask by user_id (any_user is not set): it takes the user's token";
        Err(Refused::not_allowed(self.name(), may_not))
    }

    /// Lets it ask what would come of an assertion, or says why not: only who may exchange one may.
    pub fn admit_exchange(&self) -> Result<(), Refused> {
        let rpcs = self.in_force.rules.rights(self.who).rpcs;
        if rpcs.has(GuardedRpc::ExchangeAssertion) {
            return Ok(());
        }
        self.account().count(CallerOutcome::Denied);
        let may_not = "ask about an assertion (it may not call ExchangeAssertion)";
        Err(Refused::not_allowed(self.name(), may_not))
    }

    fn account(&self) -> &Account {
        self.in_force.account(self.who)
    }
}

impl fmt::Debug for KnownCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KnownCaller").field(&self.name()).finish()
    }
}

impl Refused {
    fn not_allowed(caller: &str, may_not: &str) -> Self {
        let why = match caller {
            ANYONE => format!("a caller whom no rule names may not {may_not}"),
            named => format!("caller {named:?} may not {may_not}"),
        };
        Self::NotAllowed {
            caller: caller.into(),
            why,
        }
    }
}
