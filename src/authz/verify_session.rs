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

use super::{
    FactCacheStats, Instance, Instances, MachineLookups, SessionLookups, TokenCache,
    TokenCacheStats,
};
use crate::{
    credential::{self, Credential, Selected},
    decision::{self, Reverification},
    explain::{Rule, Steps},
    identity::{Machine, MachineType, OpaqueToken, Session, Timestamp, TokenType, TokenTypes},
    keys::{Lookup, VerifyingKey},
    mirror::Coordination,
    reason::Reason,
    token::{self, Allowed, Expectations, Said},
};

/// What is asked of a token.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Where the token is.
    pub credential: Credential<'a>,
    /// The types of token that are accepted; from a cookie session tokens only.
    pub accepted: TokenTypes,
    /// The name of the instance that the token is of; empty is any. An opaque token does not say it
    /// itself, so that it is needed there where there are several.
    pub instance: &'a str,
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

impl Question<'_> {
    /// Whether a token of this instance may be the one.
    fn is_about(&self, instance: &Instance) -> bool {
        self.instance.is_empty() || self.instance == instance.name.as_str()
    }
}

impl<'a> Question<'a> {
    /// Asks about a token and nothing more.
    pub fn about(token: &'a str) -> Self {
        Self {
            credential: Credential::Token(token),
            accepted: TokenTypes::SESSION,
            instance: "",
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

/// The same of a token that is of no session.
pub struct VerifiedMachine {
    /// What the token says.
    pub machine: Arc<Machine>,
    instance: Arc<Instance>,
    /// `None` where Clerk has verified it, or nobody has.
    key: Option<Arc<VerifyingKey>>,
}

impl VerifiedMachine {
    /// Of what Clerk has said, or what is supposed.
    pub(super) fn without_key(machine: Arc<Machine>, instance: Arc<Instance>) -> Self {
        Self {
            machine,
            instance,
            key: None,
        }
    }

    /// The instance that the token belongs to.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }
}

impl fmt::Debug for VerifiedMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedMachine")
            .field("machine", &self.machine)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// What a JWT was found to be.
#[derive(Clone, Debug)]
pub(super) enum Remembered {
    Session(Arc<Verified>),
    Machine(Arc<VerifiedMachine>),
}

impl Remembered {
    fn token_type(&self) -> TokenType {
        match self {
            Self::Session(_) => TokenType::Session,
            Self::Machine(verified) => TokenType::Machine(verified.machine.machine_type),
        }
    }

    fn instance(&self) -> &Arc<Instance> {
        match self {
            Self::Session(verified) => &verified.instance,
            Self::Machine(verified) => &verified.instance,
        }
    }

    fn key(&self) -> Option<&Arc<VerifyingKey>> {
        match self {
            Self::Session(verified) => verified.key.as_ref(),
            Self::Machine(verified) => verified.key.as_ref(),
        }
    }

    /// `None` is never.
    fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::Session(verified) => Some(verified.session.expires_at),
            Self::Machine(verified) => verified.machine.expires_at,
        }
    }
}

/// The answer. What asks for session tokens alone is never answered with a machine.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is a good session token.
    Accepted(Arc<Verified>),
    /// It is a good token of another type that was asked for.
    Machine(Arc<VerifiedMachine>),
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
    /// Of the memory of opaque tokens.
    pub opaque: FactCacheStats,
    /// Signatures that were verified: what the cache did not save.
    pub signatures: u64,
    /// Version-2 tokens with a user's feature before an organization's, where Clerk's documentation
    /// and SDK read the permissions differently.
    pub features_out_of_order: u64,
}

/// Verifies tokens of the configured instances.
#[derive(Debug)]
pub struct Verifier {
    instances: ArcSwap<Instances>,
    cache: TokenCache,
    clock_skew: Duration,
    /// Asks about the sessions of tokens that live long.
    sessions: Option<SessionLookups>,
    /// Asks what opaque tokens are.
    machines: Option<MachineLookups>,
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

/// What is asked of a token that was chosen.
#[derive(Clone, Copy)]
struct Asked<'a> {
    question: &'a Question<'a>,
    accepted: TokenTypes,
    instances: &'a Instances,
    now: Timestamp,
}

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
            machines: None,
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

    /// Asks Clerk by `machines` what opaque tokens are. Without, none can be told.
    #[must_use]
    pub fn with_machine_lookups(mut self, machines: MachineLookups) -> Self {
        self.machines = Some(machines);
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
            opaque: self
                .machines
                .as_ref()
                .map(MachineLookups::stats)
                .unwrap_or_default(),
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
        let verdict = self.authenticate(question, now, steps).await?;
        let ages = match &verdict {
            Verdict::Accepted(verified) => verified.session.factor_ages,
            // No machine has verified a factor.
            Verdict::Machine(_) => None,
            Verdict::Denied(_) => return Ok(verdict),
        };
        if let Err(reason) = decision::check(question.reverification, ages, steps) {
            return Ok(Verdict::Denied(reason));
        }
        if question.single_use {
            return Box::pin(self.use_up(verdict, steps)).await;
        }
        Ok(verdict)
    }

    /// The cookies that a handshake's token of this instance holds. It has no times of its own; what it
    /// holds is verified by itself.
    pub(super) async fn handshake_cookies(
        &self,
        instance: &Arc<Instance>,
        text: &str,
        patience: Duration,
        now: Timestamp,
    ) -> Result<Result<Vec<Box<str>>, Reason>, CannotTell> {
        if text.len() > credential::MAX_TOKEN_BYTES {
            return Ok(Err(Reason::TokenTooLarge));
        }
        let steps = &mut Steps::off();
        let token = match token::parse(text, steps) {
            Ok(token) => token,
            Err(reason) => return Ok(Err(reason)),
        };
        // Clerk names none in it.
        if token
            .issuer()
            .is_some_and(|issuer| issuer != instance.issuer.as_str())
        {
            return Ok(Err(Reason::IssuerMismatch));
        }
        let key = match find_key(instance, token.key_id(), patience, now, steps).await {
            Ok(key) => key,
            Err(Refusal::Denied(reason)) => return Ok(Err(reason)),
            Err(Refusal::CannotTell(cannot_tell)) => return Err(cannot_tell),
        };
        self.signatures.fetch_add(1, Ordering::Relaxed);
        let parts = token.signature_parts(text);
        if !key.verify(parts.signing_input, parts.signature) {
            return Ok(Err(Reason::SignatureInvalid));
        }
        Ok(token.into_handshake())
    }

    /// The last rule: whoever is denied by another has used nothing up.
    async fn use_up(&self, verdict: Verdict, steps: &mut Steps) -> Result<Verdict, CannotTell> {
        let (token_id, expires_at, instance) = match &verdict {
            Verdict::Accepted(verified) => (
                verified.session.token_id.as_deref(),
                Some(verified.session.expires_at),
                &verified.instance,
            ),
            Verdict::Machine(verified) => (
                verified.machine.token_id.as_deref(),
                verified.machine.expires_at,
                &verified.instance,
            ),
            Verdict::Denied(_) => return Ok(verdict),
        };
        let Some(token_id) = token_id else {
            steps.failed(Rule::Replay, || "the token has no jti to tell it by");
            return Ok(Verdict::Denied(Reason::ClaimInvalid));
        };
        let Some(expires_at) = expires_at else {
            steps.failed(
                Rule::Replay,
                || "the token never expires, and its use cannot be remembered for ever",
            );
            return Ok(Verdict::Denied(Reason::ClaimInvalid));
        };
        if steps.wanted() {
            steps.skipped(Rule::Replay, || "an explanation uses no token up");
            return Ok(verdict);
        }
        let unavailable = |retry_after| CannotTell::StoreUnavailable { retry_after };
        let Some(uses) = &self.uses else {
            warn!("single_use needs CLERK_AUTHZ_DATABASE_URL");
            return Err(unavailable(NO_STORE_RETRY_AFTER));
        };
        // As long as the token is accepted, by whichever replica's clock.
        let expires_at = expires_at.plus(self.clock_skew).plus(CLOCKS_APART);
        let id = format!("{USED_TOKEN}{token_id}");
        let name = &instance.name;
        match uses.use_once(name, &id, expires_at).await {
            Ok(true) => {
                steps.passed(Rule::Replay, || "not used before");
                Ok(verdict)
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
        let accepted = selected.accepted(question.accepted);
        if let Some(machine_type) = token::opaque_type(&selected.token) {
            let asked = Asked {
                question,
                accepted,
                instances: &instances,
                now,
            };
            return Box::pin(self.opaque(&selected.token, machine_type, asked, steps)).await;
        }
        let key = match steps.wanted() {
            true => None,
            false => self.cache.key(&selected.token),
        };
        if let Some(verified) = key.and_then(|key| self.remembered(key, &instances, now)) {
            if !accepted.has(verified.token_type()) {
                return Ok(Verdict::Denied(Reason::TokenTypeNotAccepted));
            }
            if !question.is_about(verified.instance()) {
                return Ok(Verdict::Denied(Reason::IssuerMismatch));
            }
            let verdict = self.judge(verified, question, &selected, now, steps);
            return self.told_by_clerk(verdict, question, now, steps).await;
        }
        // On the heap, so that an answer from the cache does not carry its state around.
        let asked = Asked {
            question,
            accepted,
            instances: &instances,
            now,
        };
        let verified = self.verify(&selected.token, asked, steps);
        let verified = Box::pin(verified).await;
        match verified {
            Ok(verified) => {
                if let (Some(key), Some(expires_at)) = (key, verified.expires_at()) {
                    let dies_at = expires_at.plus(self.clock_skew);
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
    ) -> Option<Remembered> {
        let verified = self.cache.get(key)?;
        let instance = verified.instance();
        let stands = instances
            .by_issuer(instance.issuer.as_str())
            .is_some_and(|current| Arc::ptr_eq(current, instance))
            && verified
                .key()
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
        asked: Asked<'_>,
        steps: &mut Steps,
    ) -> Result<Remembered, Refusal> {
        let (patience, now) = (asked.question.patience, asked.now);
        let token = token::parse(text, steps)?;
        let instance = instance_of(token.issuer(), asked, steps)?;
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
        let mut claimed = match token.into_said(asked.accepted, steps)? {
            Said::Session(claimed) => claimed,
            Said::Machine(mut machine) => {
                machine.issuer = instance.issuer.clone();
                return Ok(Remembered::Machine(Arc::new(VerifiedMachine {
                    machine: Arc::new(machine),
                    instance: Arc::clone(instance),
                    key: Some(key),
                })));
            }
        };
        instance.share_texts(&mut claimed.session);
        if claimed.features_out_of_order {
            self.features_out_of_order.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Remembered::Session(Arc::new(Verified {
            session: claimed.session,
            instance: Arc::clone(instance),
            key: Some(key),
        })))
    }

    /// A token that only Clerk can read.
    async fn opaque(
        &self,
        text: &str,
        machine_type: MachineType,
        asked: Asked<'_>,
        steps: &mut Steps,
    ) -> Result<Verdict, CannotTell> {
        let Asked {
            question,
            accepted,
            instances,
            now,
        } = asked;
        let name = machine_type.name();
        if !accepted.has(TokenType::Machine(machine_type)) {
            let found = format!("opaque {name}, by its prefix");
            steps.failed(Rule::TokenType, || token::not_accepted(&found, accepted));
            return Ok(Verdict::Denied(Reason::TokenTypeNotAccepted));
        }
        steps.passed(Rule::TokenType, || format!("opaque {name}, by its prefix"));
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            steps.failed(Rule::Form, || "opaque: expected visible ASCII characters");
            return Ok(Verdict::Denied(Reason::TokenMalformed));
        }
        steps.passed(Rule::Form, || "opaque: visible ASCII characters");
        for rule in [Rule::Algorithm, Rule::Header, Rule::Key, Rule::Claims] {
            steps.skipped(rule, || "opaque: Clerk verifies it");
        }
        let Some(instance) = instances.named(question.instance) else {
            steps.failed(Rule::Issuer, || {
                "an opaque token does not say which instance it is of, and the question does not either"
            });
            return Ok(Verdict::Denied(Reason::IssuerMismatch));
        };
        steps.passed(Rule::Issuer, || {
            format!("{} is instance \"{}\"", instance.issuer, instance.name)
        });
        let Some(machines) = &self.machines else {
            return Err(CannotTell::ClerkUnavailable {
                retry_after: NO_STORE_RETRY_AFTER,
            });
        };
        let token = OpaqueToken::new(machine_type, text);
        let said = machines.machine(instance, token, question.patience, now, steps);
        Ok(match said.await? {
            Ok(machine) => {
                let verified = VerifiedMachine::without_key(machine, Arc::clone(instance));
                self.judge_machine(Arc::new(verified), question, now, steps)
            }
            Err(reason) => Verdict::Denied(reason),
        })
    }

    /// What depends on the time and on the question.
    fn judge_machine(
        &self,
        verified: Arc<VerifiedMachine>,
        question: &Question<'_>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Verdict {
        let audiences = Allowed {
            configured: &verified.instance.audiences,
            requested: question.audiences,
        };
        let machine = &verified.machine;
        let judged = token::judge_machine(machine, audiences, self.clock_skew, now, steps)
            .and_then(|()| match &verified.instance.revocations {
                Some(revocations) => revocations.judge_machine(machine, steps),
                None => {
                    steps.skipped(Rule::Revocation, || "there is no database to know it from");
                    Ok(())
                }
            });
        match judged {
            Ok(()) => Verdict::Machine(verified),
            Err(reason) => Verdict::Denied(reason),
        }
    }

    /// What depends on the time and on the question.
    fn judge(
        &self,
        remembered: Remembered,
        question: &Question<'_>,
        selected: &Selected<'_>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Verdict {
        let verified = match remembered {
            Remembered::Session(verified) => verified,
            Remembered::Machine(verified) => {
                return self.judge_machine(verified, question, now, steps);
            }
        };
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
    asked: Asked<'a>,
    steps: &mut Steps,
) -> Result<&'a Arc<Instance>, Reason> {
    let Some(issuer) = issuer else {
        steps.failed(Rule::Issuer, || "iss is absent or not a string");
        return Err(Reason::IssuerMismatch);
    };
    match asked.instances.by_issuer(issuer) {
        Some(instance) if !asked.question.is_about(instance) => {
            steps.failed(Rule::Issuer, || {
                let (found, wanted) = (&instance.name, asked.question.instance);
                format!(
                    "of instance \"{found}\"; expected {}",
                    token::quoted(wanted)
                )
            });
            Err(Reason::IssuerMismatch)
        }
        Some(instance) => {
            steps.passed(Rule::Issuer, || {
                format!("{} is instance \"{}\"", instance.issuer, instance.name)
            });
            Ok(instance)
        }
        None => {
            steps.failed(Rule::Issuer, || {
                let known = asked
                    .instances
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
