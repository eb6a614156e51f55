//! Is this token genuine, current and meant for this application?

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;

use tracing::warn;

use super::{Instance, Instances, SessionLookups, TokenCache, TokenCacheStats};
use crate::{
    credential::{self, Credential, Selected},
    decision::{self, Reverification},
    explain::{Rule, Steps},
    identity::{Session, Timestamp},
    keys::{Lookup, VerifyingKey},
    mirror::Coordination,
    reason::Reason,
    token::{self, Allowed, Expectations},
};

/// What is asked of a token.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Where the token is.
    pub credential: Credential<'a>,
    /// Narrows the instance's authorized parties; empty narrows nothing.
    pub authorized_parties: &'a [String],
    /// Narrows the instance's audiences; empty narrows nothing.
    pub audiences: &'a [String],
    /// A factor that must have been verified recently.
    pub reverification: Option<Reverification>,
    /// Uses the token up: it passes once, in all replicas together.
    pub single_use: bool,
    /// How long the caller waits at most, where Clerk has to be asked; zero asks nobody anything.
    pub patience: Duration,
}

/// Of who does not say how long.
const PATIENCE: Duration = Duration::from_secs(10);

impl<'a> Question<'a> {
    /// Asks about a token and nothing more.
    pub fn about(token: &'a str) -> Self {
        Self {
            credential: Credential::Token(token),
            authorized_parties: &[],
            audiences: &[],
            reverification: None,
            single_use: false,
            patience: PATIENCE,
        }
    }
}

/// A token whose signature, type and claims hold. What depends on time and caller is not part of it.
pub struct Verified {
    /// What the token says.
    pub session: Session,
    instance: Arc<Instance>,
    /// `None` where nothing was verified, but supposed.
    key: Option<Arc<VerifyingKey>>,
}

impl Verified {
    /// What a token would say, if there were one.
    pub(super) fn supposed(session: Session, instance: Arc<Instance>) -> Self {
        Self {
            session,
            instance,
            key: None,
        }
    }

    /// The instance that the token belongs to.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified")
            .field("session", &self.session)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// The answer.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The token is good.
    Accepted(Arc<Verified>),
    /// It is not.
    Denied(Reason),
}

/// There is no answer yet: neither yes nor no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotTell {
    /// There are no usable keys for the token's instance.
    KeysUnavailable {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// Clerk cannot be asked, and nothing that is known is fresh enough.
    ClerkUnavailable {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// Clerk's rate limit, or our budget below it, is reached, and nothing that is known is fresh
    /// enough.
    ClerkRateLimited {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// The store does not answer, or there is none.
    StoreUnavailable {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// So many questions wait for Clerk that this one is turned away.
    Overloaded {
        /// When it is worth asking again.
        retry_after: Duration,
    },
}

impl CannotTell {
    /// The reason's name.
    pub const fn reason(self) -> Reason {
        match self {
            Self::KeysUnavailable { .. } => Reason::KeysUnavailable,
            Self::ClerkUnavailable { .. } => Reason::ClerkUnavailable,
            Self::ClerkRateLimited { .. } => Reason::ClerkRateLimited,
            Self::StoreUnavailable { .. } => Reason::StoreUnavailable,
            Self::Overloaded { .. } => Reason::Overloaded,
        }
    }

    /// When it is worth asking again.
    pub const fn retry_after(self) -> Duration {
        match self {
            Self::KeysUnavailable { retry_after }
            | Self::ClerkUnavailable { retry_after }
            | Self::ClerkRateLimited { retry_after }
            | Self::StoreUnavailable { retry_after }
            | Self::Overloaded { retry_after } => retry_after,
        }
    }
}

/// Counters of a [`Verifier`] since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifierStats {
    /// The cache's.
    pub cache: TokenCacheStats,
    /// Signatures that were verified: what the cache did not save.
    pub signatures: u64,
    /// Version-2 tokens with a user's feature before an organization's, where Clerk's documentation
    /// and SDK read the permissions differently.
    pub features_out_of_order: u64,
}

/// Verifies session tokens of the configured instances.
#[derive(Debug)]
pub struct Verifier {
    instances: ArcSwap<Instances>,
    cache: TokenCache,
    clock_skew: Duration,
    /// Asks about the sessions of tokens that live long.
    sessions: Option<SessionLookups>,
    /// Where is written down what may be used once.
    uses: Option<Arc<dyn Coordination>>,
    signatures: AtomicU64,
    features_out_of_order: AtomicU64,
}

/// Before the ids of tokens, among all that may be used once.
const USED_TOKEN: &str = "token/";
/// Replicas' clocks may be so far apart.
const CLOCKS_APART: Duration = Duration::from_secs(60);
/// When it is worth asking a store again that does not answer.
const STORE_RETRY_AFTER: Duration = Duration::from_secs(1);
/// When it is worth asking again where something has to be configured first.
const NO_STORE_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Why a token was not accepted.
enum Refusal {
    Denied(Reason),
    CannotTell(CannotTell),
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::Denied(reason)
    }
}

impl Verifier {
    /// For these instances; `clock_skew` is how far the clocks may differ.
    pub fn new(instances: Instances, cache: TokenCache, clock_skew: Duration) -> Self {
        Self {
            instances: ArcSwap::from_pointee(instances),
            cache,
            clock_skew,
            sessions: None,
            uses: None,
            signatures: AtomicU64::new(0),
            features_out_of_order: AtomicU64::new(0),
        }
    }

    /// Asks Clerk by `sessions` about tokens that live longer than what ended is remembered. Without,
    /// such a token cannot be told.
    #[must_use]
    pub fn with_session_lookups(mut self, sessions: SessionLookups) -> Self {
        self.sessions = Some(sessions);
        self
    }

    /// Writes down in `uses` which tokens were used up. Without, none can be.
    #[must_use]
    pub fn with_uses(mut self, uses: Arc<dyn Coordination>) -> Self {
        self.uses = Some(uses);
        self
    }

    /// The instances as they are now.
    pub fn instances(&self) -> Arc<Instances> {
        self.instances.load_full()
    }

    /// Replaces the instances. An instance that stays keeps its cached tokens only if it is the very
    /// same [`Instance`]: one with other settings starts anew.
    pub fn set_instances(&self, instances: Instances) {
        self.instances.store(Arc::new(instances));
    }

    /// Counters since the start.
    pub fn stats(&self) -> VerifierStats {
        VerifierStats {
            cache: self.cache.stats(),
            signatures: self.signatures.load(Ordering::Relaxed),
            features_out_of_order: self.features_out_of_order.load(Ordering::Relaxed),
        }
    }

    /// Verifies one token, and whether a factor was verified recently enough. Waits only for keys,
    /// and only where the token's `kid` is not known.
    pub async fn verify_session(
        &self,
        question: &Question<'_>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Result<Verdict, CannotTell> {
        let verified = match self.authenticate(question, now, steps).await? {
            Verdict::Accepted(verified) => verified,
            denied @ Verdict::Denied(_) => return Ok(denied),
        };
        let ages = verified.session.factor_ages;
        if let Err(reason) = decision::check(question.reverification, ages, steps) {
            return Ok(Verdict::Denied(reason));
        }
        if question.single_use {
            return Box::pin(self.use_up(verified, steps)).await;
        }
        Ok(Verdict::Accepted(verified))
    }

    /// The last rule: whoever is denied by another has used nothing up.
    async fn use_up(
        &self,
        verified: Arc<Verified>,
        steps: &mut Steps,
    ) -> Result<Verdict, CannotTell> {
        let session = &verified.session;
        let Some(token_id) = session.token_id.as_deref() else {
            steps.failed(Rule::Replay, || "the token has no jti to tell it by");
            return Ok(Verdict::Denied(Reason::ClaimInvalid));
        };
        if steps.wanted() {
            steps.skipped(Rule::Replay, || "an explanation uses no token up");
            return Ok(Verdict::Accepted(verified));
        }
        let unavailable = |retry_after| CannotTell::StoreUnavailable { retry_after };
        let Some(uses) = &self.uses else {
            warn!("single_use needs CLERK_AUTHZ_DATABASE_URL");
            return Err(unavailable(NO_STORE_RETRY_AFTER));
        };
        // As long as the token is accepted, by whichever replica's clock.
        let expires_at = session.expires_at.plus(self.clock_skew).plus(CLOCKS_APART);
        let id = format!("{USED_TOKEN}{token_id}");
        let name = &verified.instance.name;
        match uses.use_once(name, &id, expires_at).await {
            Ok(true) => {
                steps.passed(Rule::Replay, || "not used before");
                Ok(Verdict::Accepted(verified))
            }
            Ok(false) => {
                steps.failed(Rule::Replay, || "used before");
                Ok(Verdict::Denied(Reason::TokenReplayed))
            }
            Err(error) => {
                warn!(instance = %name, %error, "cannot tell whether a token was used before");
                Err(unavailable(STORE_RETRY_AFTER))
            }
        }
    }

    /// Everything about a token but the step-up.
    ///
    /// When `steps` are wanted the cache is left aside, so that every rule is seen; the rules are
    /// the same.
    pub(super) async fn authenticate(
        &self,
        question: &Question<'_>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Result<Verdict, CannotTell> {
        let instances = self.instances.load_full();
        let selected = credential::select(
            question.credential,
            &instances.cookies(),
            token::hint,
            now,
            steps,
        );
        let selected = match selected {
            Ok(selected) => selected,
            Err(reason) => return Ok(Verdict::Denied(reason)),
        };
        let key = match steps.wanted() {
            true => None,
            false => self.cache.key(&selected.token),
        };
        if let Some(verified) = key.and_then(|key| self.remembered(key, &instances, now)) {
            let verdict = self.judge(verified, question, &selected, now, steps);
            return self.told_by_clerk(verdict, question, now, steps).await;
        }
        // On the heap, so that an answer from the cache does not carry its state around.
        let patience = question.patience;
        let verified = self.verify(&selected.token, &instances, patience, now, steps);
        let verified = Box::pin(verified).await;
        match verified {
            Ok(verified) => {
                if let Some(key) = key {
                    let dies_at = verified.session.expires_at.plus(self.clock_skew);
                    self.cache.insert(key, &verified, dies_at, now);
                }
                let verdict = self.judge(verified, question, &selected, now, steps);
                self.told_by_clerk(verdict, question, now, steps).await
            }
            Err(Refusal::Denied(reason)) => Ok(Verdict::Denied(reason)),
            Err(Refusal::CannotTell(cannot_tell)) => Err(cannot_tell),
        }
    }

    /// From the cache, if the instance and the key still stand.
    fn remembered(
        &self,
        key: super::token_cache::TokenKey,
        instances: &Instances,
        now: Timestamp,
    ) -> Option<Arc<Verified>> {
        let verified = self.cache.get(key)?;
        let instance = &verified.instance;
        let stands = instances
            .by_issuer(instance.issuer.as_str())
            .is_some_and(|current| Arc::ptr_eq(current, instance))
            && verified
                .key
                .as_ref()
                .is_some_and(|key| instance.keyring.stands(key, now));
        if !stands {
            self.cache.remove(key);
            return None;
        }
        Some(verified)
    }

    async fn verify(
        &self,
        text: &str,
        instances: &Instances,
        patience: Duration,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Result<Arc<Verified>, Refusal> {
        let token = token::parse(text, steps)?;
        let instance = instance_of(token.issuer(), instances, steps)?;
        let key = find_key(instance, token.key_id(), patience, now, steps).await?;
        self.signatures.fetch_add(1, Ordering::Relaxed);
        let parts = token.signature_parts(text);
        if !key.verify(parts.signing_input, parts.signature) {
            steps.failed(
                Rule::Signature,
                || "does not verify with the key that kid names",
            );
            return Err(Reason::SignatureInvalid.into());
        }
        steps.passed(Rule::Signature, || "RS256 signature verifies");
        let mut claimed = token.into_claimed(steps)?;
        instance.share_texts(&mut claimed.session);
        if claimed.features_out_of_order {
            self.features_out_of_order.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Arc::new(Verified {
            session: claimed.session,
            instance: Arc::clone(instance),
            key: Some(key),
        }))
    }

    /// What depends on the time and on the question.
    fn judge(
        &self,
        verified: Arc<Verified>,
        question: &Question<'_>,
        selected: &Selected<'_>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Verdict {
        let expectations = Expectations {
            authorized_parties: Allowed {
                configured: &verified.instance.authorized_parties,
                requested: question.authorized_parties,
            },
            audiences: Allowed {
                configured: &verified.instance.audiences,
                requested: question.audiences,
            },
            clock_skew: self.clock_skew,
            client_changed_at: selected.client_changed_at,
        };
        let session = &verified.session;
        let judged =
            token::judge(session, &expectations, now, steps).and_then(|()| {
                match &verified.instance.revocations {
                    Some(revocations) => revocations.judge(session, steps),
                    None => {
                        steps.skipped(Rule::Revocation, || "there is no database to know it from");
                        Ok(())
                    }
                }
            });
        match judged {
            Ok(()) => Verdict::Accepted(verified),
            Err(reason) => Verdict::Denied(reason),
        }
    }

    /// A token that lives longer than what ended is remembered is not believed by itself.
    async fn told_by_clerk(
        &self,
        verdict: Verdict,
        question: &Question<'_>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Result<Verdict, CannotTell> {
        let Verdict::Accepted(verified) = &verdict else {
            return Ok(verdict);
        };
        let session = &verified.session;
        let forgets = verified.instance.forgets();
        if !forgets.is_some_and(|revocations| revocations.outlives(session)) {
            return Ok(verdict);
        }
        let Some(sessions) = &self.sessions else {
            return Err(CannotTell::ClerkUnavailable {
                retry_after: NO_STORE_RETRY_AFTER,
            });
        };
        let asked = sessions.judge(&verified.instance, session, question.patience, now, steps);
        Ok(match Box::pin(asked).await? {
            Ok(()) => verdict,
            Err(reason) => Verdict::Denied(reason),
        })
    }
}

/// The unverified `iss` chooses the instance, and where it names none there is no further work.
fn instance_of<'a>(
    issuer: Option<&str>,
    instances: &'a Instances,
    steps: &mut Steps,
) -> Result<&'a Arc<Instance>, Reason> {
    let Some(issuer) = issuer else {
        steps.failed(Rule::Issuer, || "iss is absent or not a string");
        return Err(Reason::IssuerMismatch);
    };
    match instances.by_issuer(issuer) {
        Some(instance) => {
            steps.passed(Rule::Issuer, || {
                format!("{} is instance \"{}\"", instance.issuer, instance.name)
            });
            Ok(instance)
        }
        None => {
            steps.failed(Rule::Issuer, || {
                let known = instances
                    .all()
                    .iter()
                    .map(|instance| instance.issuer.as_str());
                let known = known.collect::<Vec<_>>().join(", ");
                format!("iss is {}; configured: {known}", token::quoted(issuer))
            });
            Err(Reason::IssuerMismatch)
        }
    }
}

async fn find_key(
    instance: &Instance,
    key_id: Option<&str>,
    patience: Duration,
    now: Timestamp,
    steps: &mut Steps,
) -> Result<Arc<VerifyingKey>, Refusal> {
    let shown = |key_id: Option<&str>| key_id.map_or("absent".into(), token::quoted);
    let keyring = &instance.keyring;
    let found = match patience.is_zero() {
        true => keyring.find_at_hand(key_id, now),
        false => keyring.find(key_id, now).await,
    };
    match found {
        Lookup::Found(key) => {
            steps.passed(Rule::Key, || format!("kid is {}", shown(key_id)));
            Ok(key)
        }
        Lookup::Unknown => {
            steps.failed(Rule::Key, || {
                format!(
                    "kid is {}: not in instance \"{}\"",
                    shown(key_id),
                    instance.name
                )
            });
            Err(Refusal::Denied(Reason::KeyUnknown))
        }
        Lookup::Unavailable { retry_after } => {
            steps.failed(Rule::Key, || {
                format!(
                    "no usable keys for instance \"{}\" yet: cannot tell",
                    instance.name
                )
            });
            Err(Refusal::CannotTell(CannotTell::KeysUnavailable {
                retry_after,
            }))
        }
    }
}
