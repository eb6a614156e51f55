//! May this subject do that in this organization: from the token where that is enough, from the
//! membership where it is not.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use thiserror::Error;

use super::{
    AskMirror, CannotTell, ComparedAt, Instance, Lookups, MembershipSettings, Memberships,
    Question, Revocations, Source, Verdict, Verified, Verifier,
    asking::{Found, Freshness, LookUp},
    fact_cache::{FactCacheStats, Known},
};
use crate::{
    credential::Credential,
    decision::{self, Facts, MembershipFacts, Requirement, TokenFacts, is_system_permission},
    explain::{Rule, Steps},
    identity::{Organization, OrganizationId, OrganizationSlug, Session, Texts, Timestamp, UserId},
    keys::Clock,
    mirror::{Membership, MembershipAnswer},
    reason::Reason,
};

/// What is asked.
#[derive(Clone, Debug)]
pub struct OrgQuestion<'a> {
    /// Of whom.
    pub subject: Subject<'a>,
    /// In which organization; `None` is the session's active one.
    pub organization: Option<OrganizationRef>,
    /// What must hold.
    pub requirement: Requirement,
    /// How old the facts may be.
    pub consistency: Consistency,
    /// How long the caller waits at most.
    pub patience: Duration,
    /// What the batch that this is part of has asked; `None` for a question of its own.
    pub lookups: Option<&'a Lookups>,
}

/// Why a question can never be answered as it is asked: a fault of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unanswerable {
    /// Of a user without a token: in no organization.
    #[error("is not set; a user who is named has no active organization")]
    OrganizationMissing,
    /// Of a user without a token: what only a token says.
    #[error("is answered by a token only; ask with one, or leave it out")]
    TokenOnly(&'static str),
    /// What is as old as the token, and no older than something else.
    #[error(
        "cannot be met beside a feature or a plan, which are as old as the token; leave one out"
    )]
    Freshness,
}

impl Unanswerable {
    /// The field that it is about, as the contract calls it.
    pub const fn field(self) -> &'static str {
        match self {
            Self::OrganizationMissing => "organization_id",
            Self::TokenOnly(field) => field,
            Self::Freshness => "consistency",
        }
    }
}

impl OrgQuestion<'_> {
    /// Everything for which the question can never be answered.
    pub fn faults(&self) -> Vec<Unanswerable> {
        let of_user = matches!(self.subject, Subject::User(..));
        let missing =
            (of_user && self.organization.is_none()).then_some(Unanswerable::OrganizationMissing);
        let token_only = self.requirement.token_only().filter(|_| of_user);
        let freshness = (self.requirement.entitlement().is_some()
            && self.consistency != Consistency::MinimizeLatency)
            .then_some(Unanswerable::Freshness);
        let faults = [missing, token_only.map(Unanswerable::TokenOnly), freshness];
        faults.into_iter().flatten().collect()
    }
}

/// Of whom something is asked.
#[derive(Clone, Debug)]
pub enum Subject<'a> {
    /// Of whom the token is.
    Credential(Credential<'a>),
    /// Of whom this session is, which was verified just now.
    Session(Arc<Verified>),
    /// Of this user of this instance, whether signed in or not.
    User(Arc<Instance>, UserId),
}

/// An organization, as a caller names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrganizationRef {
    /// By its id.
    Id(OrganizationId),
    /// By the slug that it has now.
    Slug(OrganizationSlug),
}

impl OrganizationRef {
    /// As it was named.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Id(id) => id.as_str(),
            Self::Slug(slug) => slug.as_str(),
        }
    }

    /// From an id or a slug. An id is known by its form, which a slug does not have at Clerk.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        text.parse().map(Self::Slug).map_err(|_| {
            "is neither an id (\"org_\" and letters and digits) nor a slug (lower-case letters, \
             digits, \"-\" and \"_\")"
        })
    }
}

/// How old facts about a membership may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// What is at hand: the token, else what is remembered, else what Clerk says.
    #[default]
    MinimizeLatency,
    /// Nothing older than this, and nothing that [`Consistency::MinimizeLatency`] would not take.
    MaxStaleness(Duration),
    /// Clerk is asked now.
    FullyConsistent,
}

impl Consistency {
    /// How long an answer that stands on a session's token alone may be kept.
    fn stands_until(self, session: &Session) -> Option<Timestamp> {
        match self {
            Self::MinimizeLatency => Some(session.expires_at),
            Self::MaxStaleness(age) => {
                let kept_until = session.issued_at.map(|at| at.plus(age));
                earliest(Some(session.expires_at), kept_until)
            }
            // The next question wants a new answer.
            Self::FullyConsistent => None,
        }
    }
}

/// The answer.
#[derive(Clone, Debug)]
pub enum OrgAnswer {
    /// Yes or no.
    Decided(Decision),
    /// The token was denied.
    TokenDenied(Reason),
    /// Clerk has no such organization.
    OrganizationNotFound,
}

/// Yes or no, why, and on what grounds.
#[derive(Clone, Debug)]
pub struct Decision {
    /// [`Reason::Allowed`], or why not.
    pub reason: Reason,
    /// Where the facts come from; `None` where none was needed.
    pub source: Option<Source>,
    /// How old the oldest fact is: when it was true for certain. `None` where a token does not say.
    pub as_of: Option<Timestamp>,
    /// How long the answer may be kept: never past the token's life, a fact's, or what was asked.
    pub valid_until: Option<Timestamp>,
    token: Option<Arc<Verified>>,
    membership: Option<Known<MembershipAnswer>>,
}

impl Decision {
    /// Whether everything that was asked holds.
    pub fn is_allowed(&self) -> bool {
        self.reason == Reason::Allowed
    }

    /// The session that was asked of; `None` where a user was named.
    pub fn verified(&self) -> Option<&Arc<Verified>> {
        self.token.as_ref()
    }

    /// The organization that was asked about, where the user is a member of it.
    pub fn organization_id(&self) -> Option<&OrganizationId> {
        match &self.membership {
            Some(_) => self.member().map(|membership| &membership.organization.id),
            None => self.active().map(|organization| &organization.id),
        }
    }

    /// Its slug, where it has one that is known.
    pub fn organization_slug(&self) -> Option<&str> {
        match &self.membership {
            Some(_) => {
                let slug = self.member()?.organization.slug.as_ref();
                slug.map(OrganizationSlug::as_str)
            }
            None => self.active()?.slug.as_deref(),
        }
    }

    /// The permissions that the user has in it, with `org:`.
    pub fn permissions(&self) -> Option<&Texts> {
        match &self.membership {
            Some(_) => self.member().map(|membership| &membership.permissions),
            None => self.active().map(|organization| &organization.permissions),
        }
    }

    /// The user's role in it, with `org:`.
    pub fn role(&self) -> Option<&str> {
        match &self.membership {
            Some(_) => self.member().map(|membership| &*membership.role),
            None => self.active()?.role.as_deref(),
        }
    }

    fn member(&self) -> Option<&Membership> {
        match &*self.membership.as_ref()?.value {
            MembershipAnswer::Member(membership) => Some(membership),
            MembershipAnswer::NotAMember | MembershipAnswer::NoOrganization => None,
        }
    }

    fn active(&self) -> Option<&Organization> {
        self.token.as_ref()?.session.organization.as_deref()
    }
}

/// Decides about organizations.
#[derive(Debug)]
pub struct Checker {
    verifier: Arc<Verifier>,
    memberships: Memberships,
}

/// Whose membership it is about.
struct Target<'a> {
    instance: &'a Instance,
    user: &'a UserId,
    organization: &'a OrganizationId,
    /// Of the slug that it was named by.
    slug: Option<Grounds>,
}

/// How old the facts are that a decision stands on, and how long it stands.
#[derive(Clone, Copy)]
struct Grounds {
    as_of: Timestamp,
    valid_until: Timestamp,
}

impl Grounds {
    fn of<V>(known: &Known<V>, freshness: Freshness) -> Self {
        let keep_for = match freshness {
            Freshness::AtHand => known.keep_for,
            Freshness::AtMost(age) => age.min(known.keep_for),
            // The next question wants a new answer.
            Freshness::Now => Duration::ZERO,
        };
        Self {
            as_of: known.as_of,
            valid_until: known.as_of.plus(keep_for),
        }
    }

    /// On both.
    fn and(self, other: Option<Self>) -> Self {
        other.map_or(self, |other| Self {
            as_of: self.as_of.min(other.as_of),
            valid_until: self.valid_until.min(other.valid_until),
        })
    }
}

impl Checker {
    /// Verifies tokens by `verifier`, remembers memberships by `settings` and `clock`.
    pub fn new(verifier: Arc<Verifier>, settings: MembershipSettings, clock: Clock) -> Self {
        Self {
            verifier,
            memberships: Memberships::new(settings, clock),
        }
    }

    /// Asks the mirror about memberships before Clerk, and believes it for `max_age` after one was
    /// last known for certain. Zero: never.
    pub fn with_mirror(self, ask: AskMirror, compared_at: ComparedAt, max_age: Duration) -> Self {
        Self {
            memberships: self.memberships.with_mirror(ask, compared_at, max_age),
            ..self
        }
    }

    /// Verifies the tokens.
    pub fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    /// Counters of the memory of memberships.
    pub fn stats(&self) -> FactCacheStats {
        self.memberships.stats()
    }

    /// Decides. Waits for Clerk only where neither the token nor what is remembered is enough.
    pub async fn check_org_permission(
        &self,
        question: &OrgQuestion<'_>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Result<OrgAnswer, CannotTell> {
        match &question.subject {
            Subject::Credential(credential) => {
                let asked = Question {
                    credential: *credential,
                    patience: question.patience,
                    ..Question::about("")
                };
                let verified = match self.verifier.authenticate(&asked, now, steps).await? {
                    Verdict::Accepted(verified) => verified,
                    // Session tokens alone were asked for.
                    Verdict::Machine(_) => {
                        return Ok(OrgAnswer::TokenDenied(Reason::TokenTypeNotAccepted));
                    }
                    Verdict::Denied(reason) => return Ok(OrgAnswer::TokenDenied(reason)),
                };
                self.by_session(question, verified, now, steps).await
            }
            Subject::Session(verified) => {
                self.by_session(question, Arc::clone(verified), now, steps)
                    .await
            }
            Subject::User(..) => {
                for &rule in Rule::OF_VERIFICATION {
                    if rule != Rule::Reverification {
                        steps.skipped(rule, || "a user is named, and no token");
                    }
                }
                let look_up = self.fresh_as_asked(question, now);
                self.by_membership(question, None, look_up, steps).await
            }
        }
    }

    /// By what a session's token says, where that is enough.
    async fn by_session(
        &self,
        question: &OrgQuestion<'_>,
        verified: Arc<Verified>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Result<OrgAnswer, CannotTell> {
        match self.by_token(question, &verified, now, steps) {
            Ok(decision) => Ok(OrgAnswer::Decided(decision)),
            // On the heap, so that an answer from the token does not carry its state around.
            Err(insufficient) => {
                let look_up = self.look_up(question, insufficient, &verified, now);
                self.by_membership(question, Some(verified), look_up, steps)
                    .await
            }
        }
    }

    /// The decision, where the token is enough for it.
    fn by_token(
        &self,
        question: &OrgQuestion<'_>,
        verified: &Arc<Verified>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Result<Decision, Insufficient> {
        let session = &verified.session;
        let OrgQuestion {
            organization,
            requirement,
            consistency,
            ..
        } = question;
        let active = session.organization.as_deref();
        if !requirement.asks_nothing() {
            let about_membership = organization.is_some() || requirement.asks_of_membership();
            match (organization, active) {
                (None, None) => {}
                (Some(named), active) if !active.is_some_and(|active| is(active, named)) => {
                    return Err(Insufficient::SaysNothing);
                }
                (_, Some(active)) => {
                    if self.has_changed(verified, active, requirement.permission.is_some()) {
                        return Err(Insufficient::Changed);
                    }
                    // Of a change before its memory nobody knows any more.
                    let forgets = verified.instance().forgets();
                    if about_membership && forgets.is_some_and(|known| known.outlives(session)) {
                        return Err(Insufficient::SaysNothing);
                    }
                    let system = requirement
                        .permission
                        .as_ref()
                        .is_some_and(decision::Permission::is_system);
                    let stale = about_membership && is_too_old(session, *consistency, now);
                    if system || stale {
                        return Err(Insufficient::SaysNothing);
                    }
                    steps.passed(Rule::Organization, || {
                        format!("{} is active in the session", active.id)
                    });
                }
                (Some(_), None) => return Err(Insufficient::SaysNothing),
            }
        }
        let facts = Facts {
            token: Some(TokenFacts::of(session, true)),
            membership: MembershipFacts::of_session(session),
        };
        let reason = reason(decision::decide(requirement, &facts, steps));
        Ok(Decision {
            reason,
            source: Some(Source::Token),
            as_of: session.issued_at,
            valid_until: consistency.stands_until(session),
            token: Some(Arc::clone(verified)),
            membership: None,
        })
    }

    /// Whether something is known of the token's active organization that the token does not know.
    fn has_changed(&self, verified: &Verified, active: &Organization, permissions: bool) -> bool {
        let (instance, session) = (verified.instance(), &verified.session);
        let heard_of = instance
            .revocations
            .as_deref()
            .is_some_and(|revocations| revocations.changed_since(active, session, permissions));
        heard_of || self.memberships.changed_since(instance, active, session)
    }

    /// Whether what a token says of its active organization holds, as far as is known: its role and
    /// its permissions.
    pub(super) fn is_current(&self, verified: &Verified) -> bool {
        let session = &verified.session;
        let Some(active) = session.organization.as_deref() else {
            return true;
        };
        let forgets = verified.instance().forgets();
        !self.has_changed(verified, active, true)
            && !forgets.is_some_and(|known| known.outlives(session))
    }

    /// The decision by the membership, with what only the token says.
    fn by_membership<'a>(
        &'a self,
        question: &'a OrgQuestion<'_>,
        verified: Option<Arc<Verified>>,
        look_up: LookUp<'a>,
        steps: &'a mut Steps,
    ) -> Pin<Box<dyn Future<Output = Result<OrgAnswer, CannotTell>> + Send + 'a>> {
        Box::pin(async move {
            let (instance, user) = match (&question.subject, &verified) {
                (Subject::User(instance, user), _) => (Arc::clone(instance), user.clone()),
                (Subject::Credential(_) | Subject::Session(_), Some(verified)) => (
                    Arc::clone(verified.instance()),
                    verified.session.user_id.clone(),
                ),
                // No token was verified, so that there is nobody to decide about.
                (Subject::Credential(_) | Subject::Session(_), None) => {
                    return Ok(OrgAnswer::TokenDenied(Reason::TokenMissing));
                }
            };
            let token = verified
                .as_ref()
                .map(|verified| TokenFacts::of(&verified.session, false));
            let preconditions =
                decision::preconditions(&question.requirement, token.as_ref(), steps);
            if let Err(reason) = preconditions {
                let session = verified.as_ref().map(|verified| &verified.session);
                return Ok(OrgAnswer::Decided(Decision {
                    reason,
                    source: session.map(|_| Source::Token),
                    as_of: session.and_then(|session| session.issued_at),
                    valid_until: session
                        .and_then(|session| question.consistency.stands_until(session)),
                    token: None,
                    membership: None,
                }));
            }
            let active = verified
                .as_ref()
                .and_then(|verified| verified.session.organization.as_deref());
            let mut slug_grounds = None;
            let organization = match (&question.organization, active) {
                (None, Some(active)) => active.id.clone(),
                (Some(OrganizationRef::Id(id)), _) => id.clone(),
                (Some(OrganizationRef::Slug(slug)), _) => {
                    let found = self
                        .memberships
                        .organization(&instance, slug, look_up, steps);
                    let known = found.await?.known;
                    match &*known.value {
                        Some(organization) => {
                            slug_grounds = Some(Grounds::of(&known, look_up.freshness));
                            organization.id.clone()
                        }
                        None => {
                            steps.failed(Rule::Organization, || "Clerk has no such slug");
                            return Ok(OrgAnswer::OrganizationNotFound);
                        }
                    }
                }
                (None, None) => {
                    steps.failed(
                        Rule::Organization,
                        || "none is named, and none is active in the session",
                    );
                    return Ok(OrgAnswer::Decided(Decision {
                        reason: Reason::OrganizationMissing,
                        source: None,
                        as_of: None,
                        valid_until: None,
                        token: verified,
                        membership: None,
                    }));
                }
            };
            let target = Target {
                instance: &instance,
                user: &user,
                organization: &organization,
                slug: slug_grounds,
            };
            self.decide_membership(question, &target, verified.clone(), look_up, steps)
                .await
        })
    }

    async fn decide_membership(
        &self,
        question: &OrgQuestion<'_>,
        target: &Target<'_>,
        verified: Option<Arc<Verified>>,
        look_up: LookUp<'_>,
        steps: &mut Steps,
    ) -> Result<OrgAnswer, CannotTell> {
        let Target {
            instance,
            user,
            organization,
            slug,
        } = *target;
        let revocations = instance.revocations.as_deref();
        if revocations.is_some_and(|revocations| revocations.is_deleted(organization)) {
            steps.failed(Rule::Organization, || {
                format!("{organization} was deleted, by the mirror")
            });
            return Ok(OrgAnswer::Decided(Decision {
                reason: Reason::OrganizationDeleted,
                source: Some(Source::Mirror),
                as_of: None,
                valid_until: None,
                token: verified,
                membership: None,
            }));
        }
        // What Clerk said before a change was heard of does not count. The mirror has the change, but
        // for what a role permits.
        let heard_at = revocations.and_then(|known| known.facts_not_before(organization, user));
        let role_heard_at = revocations.and_then(Revocations::roles_not_before);
        let look_up = LookUp {
            not_before: look_up.not_before.max(heard_at),
            mirrored_not_before: look_up.mirrored_not_before.max(role_heard_at),
            ..look_up
        };
        let Found { known, source } = self
            .memberships
            .membership(instance, organization, user, look_up, steps)
            .await?;
        let (membership, of_role) = match &*known.value {
            MembershipAnswer::NoOrganization => {
                steps.failed(Rule::Organization, || {
                    format!("Clerk has no organization {organization}")
                });
                return Ok(OrgAnswer::OrganizationNotFound);
            }
            MembershipAnswer::NotAMember => (None, None),
            MembershipAnswer::Member(membership) => {
                let of_role = self
                    .system_permissions(question, instance, membership, look_up, steps)
                    .await?;
                (Some(membership), of_role)
            }
        };
        steps.passed(Rule::Organization, || {
            format!(
                "{organization}, by {} as of {}",
                match source {
                    Source::Clerk => "Clerk",
                    Source::Mirror => "the mirror",
                    Source::Cache | Source::Token => "what is remembered",
                },
                known.as_of
            )
        });
        let session = verified.as_ref().map(|verified| &verified.session);
        let speaks_of_organization = session
            .and_then(|session| session.organization.as_deref())
            .is_some_and(|active| active.id == *organization);
        let facts = Facts {
            token: session.map(|session| TokenFacts::of(session, speaks_of_organization)),
            membership: membership.map_or(MembershipFacts::NotAMember, |membership| {
                let of_role = of_role
                    .as_ref()
                    .and_then(|known| known.value.as_ref().as_ref());
                MembershipFacts::of_membership(membership, of_role)
            }),
        };
        let reason = reason(decision::conditions(&question.requirement, &facts, steps));
        let of_role = of_role.map(|known| Grounds::of(&known, look_up.freshness));
        let grounds = Grounds::of(&known, look_up.freshness)
            .and(of_role)
            .and(slug);
        // What only the token says is as old as the token.
        let issued_at = session
            .filter(|_| question.requirement.token_only().is_some())
            .and_then(|session| session.issued_at);
        let expires_at = session.map(|session| session.expires_at);
        Ok(OrgAnswer::Decided(Decision {
            reason,
            source: Some(source),
            as_of: earliest(Some(grounds.as_of), issued_at),
            valid_until: earliest(Some(grounds.valid_until), expires_at),
            token: verified,
            membership: Some(known),
        }))
    }

    /// That a membership lists Clerk's own permissions is not documented: where it lists none, the
    /// role is asked before anything is denied.
    async fn system_permissions(
        &self,
        question: &OrgQuestion<'_>,
        instance: &Instance,
        membership: &Membership,
        look_up: LookUp<'_>,
        steps: &mut Steps,
    ) -> Result<Option<Known<Option<Texts>>>, CannotTell> {
        let asked = question.requirement.permission.as_ref();
        if !asked.is_some_and(decision::Permission::is_system)
            || membership.permissions.iter().any(is_system_permission)
        {
            return Ok(None);
        }
        let role = self
            .memberships
            .role_permissions(instance, &membership.role, look_up, steps)
            .await?;
        Ok(Some(role.known))
    }

    /// How fresh the membership must be, where the token was not enough.
    fn look_up<'q>(
        &self,
        question: &OrgQuestion<'q>,
        insufficient: Insufficient,
        verified: &Verified,
        now: Timestamp,
    ) -> LookUp<'q> {
        let look_up = self.fresh_as_asked(question, now);
        let issued_at = verified.session.issued_at;
        match (insufficient, issued_at) {
            (Insufficient::SaysNothing, _) => look_up,
            // Of two within one second nobody knows which was first: Clerk is asked again.
            (Insufficient::Changed, Some(issued_at)) => {
                let not_before = Some(issued_at.plus(Duration::from_secs(1)));
                LookUp {
                    not_before,
                    mirrored_not_before: not_before,
                    ..look_up
                }
            }
            (Insufficient::Changed, None) => LookUp {
                freshness: Freshness::Now,
                ..look_up
            },
        }
    }

    fn fresh_as_asked<'q>(&self, question: &OrgQuestion<'q>, now: Timestamp) -> LookUp<'q> {
        LookUp {
            freshness: match question.consistency {
                Consistency::MinimizeLatency => Freshness::AtHand,
                Consistency::MaxStaleness(age) => Freshness::AtMost(age),
                Consistency::FullyConsistent => Freshness::Now,
            },
            not_before: None,
            mirrored_not_before: None,
            patience: question.patience,
            now,
            lookups: question.lookups,
        }
    }
}

/// Why a token does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Insufficient {
    /// It says nothing of what is asked, or is too old for it.
    SaysNothing,
    /// A change is known that it cannot show.
    Changed,
}

fn reason(decided: Result<(), Reason>) -> Reason {
    match decided {
        Ok(()) => Reason::Allowed,
        Err(reason) => reason,
    }
}

fn is(organization: &Organization, named: &OrganizationRef) -> bool {
    match named {
        OrganizationRef::Id(id) => organization.id == *id,
        OrganizationRef::Slug(slug) => organization.slug.as_deref() == Some(slug.as_str()),
    }
}

/// Whether what the token says of a membership is older than asked. One that does not say when it was
/// issued may be of any age.
fn is_too_old(session: &Session, consistency: Consistency, now: Timestamp) -> bool {
    match consistency {
        Consistency::MinimizeLatency => false,
        Consistency::MaxStaleness(age) => session
            .issued_at
            .is_none_or(|issued_at| now.since(issued_at) > age),
        Consistency::FullyConsistent => true,
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
