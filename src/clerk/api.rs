//! What is asked of the Backend API.

use std::{fmt, sync::Arc, time::Duration};

use reqwest::Url;
use secrecy::SecretString;
use serde_json::value::RawValue;

use super::{
    answer::Fault,
    budget::Share,
    coalesce::{Coalescer, Errand},
    gate::{Endpoint, REFUSED_PAUSE},
    mirrored,
    model::{
        self, ClerkHandshake, ClerkMachineToken, ClerkMembership, ClerkOrganization, ClerkRole,
        ClerkSession, Page, Unreadable,
    },
    sender::Sender,
    transport::InsecureUrl,
};
use crate::{
    identity::{
        InstanceName, MachineType, OpaqueToken, OrganizationId, OrganizationSlug, SessionId, Texts,
        TokenDigest, UserId,
    },
    keys::Clock,
    mirror::{
        Answered, Ask, Asking, Credentials, Directory, DirectoryError, DirectoryStats,
        HandshakeCookies, MachineAnswer, MembershipAnswer, OrganizationRecord, Person, PersonKey,
        SessionAnswer, User, UserDirectory, WholeMembership,
    },
};

/// The most roles that one request brings; Clerk's own limit.
const PAGE: usize = 500;
/// Pages of roles that are looked through; an instance has a handful of roles.
const MAX_PAGES: usize = 4;

/// Pages of a user's memberships that are read: 10,000 organizations.
const MAX_MEMBERSHIP_PAGES: usize = 20;

/// How one instance's Backend API is asked.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// Whose it is; for logs.
    pub instance: InstanceName,
    /// Its address, without `/v1`.
    pub url: Url,
    /// Sent in the header and nowhere else.
    pub secret_key: SecretString,
    /// Requests in ten seconds, at least 1.
    pub budget: u32,
    /// How long one request may take.
    pub timeout: Duration,
}

/// One instance's Backend API. Its budget, its circuit breaker and what is known of its secret key
/// are shared by all clones.
#[derive(Clone)]
pub struct BackendApi {
    pub(super) sender: Arc<Sender>,
    pub(super) share: Share,
    questions: Arc<Questions>,
}

struct Questions {
    memberships: Coalescer<(OrganizationId, UserId), Answered<MembershipAnswer>>,
    by_slug: Coalescer<OrganizationSlug, Answered<Option<OrganizationRecord>>>,
    roles: Coalescer<Box<str>, Answered<Option<Texts>>>,
    sessions: Coalescer<SessionId, Answered<SessionAnswer>>,
    machine_tokens: Coalescer<TokenDigest, Answered<MachineAnswer>>,
    handshakes: Coalescer<Box<str>, Answered<Option<HandshakeCookies>>>,
    users: Coalescer<UserId, Answered<Option<User>>>,
    user_memberships: Coalescer<UserId, Answered<Vec<WholeMembership>>>,
    people: Coalescer<PersonKey, Answered<Vec<Person>>>,
}

impl BackendApi {
    /// Opens no connection yet. Fails for an address or a key that must not be used.
    pub fn new(options: ApiOptions, clock: Clock) -> Result<Self, InsecureUrl> {
        Ok(Self {
            sender: Arc::new(Sender::new(options, clock)?),
            share: Share::Check,
            questions: Arc::new(Questions::new()),
        })
    }

    /// The same API for work that nobody waits for: it takes of the budget only what is above the
    /// reserve for checks. Its questions are joined with each other only, since a check must not
    /// wait as long as they do.
    pub fn in_background(&self) -> Self {
        Self {
            sender: Arc::clone(&self.sender),
            share: Share::Background,
            questions: Arc::new(Questions::new()),
        }
    }

    /// Asks whom a key means, once for all who ask it at a time.
    pub(super) async fn people_asked<F>(
        &self,
        key: PersonKey,
        ask: Ask,
        start: impl FnOnce(Arc<Errand>) -> F + Send + 'static,
    ) -> Result<Answered<Vec<Person>>, DirectoryError>
    where
        F: Future<Output = Result<Answered<Vec<Person>>, DirectoryError>> + Send + 'static,
    {
        self.questions.people.ask(key, ask, start).await
    }
}

impl Questions {
    fn new() -> Self {
        Self {
            memberships: Coalescer::new(),
            by_slug: Coalescer::new(),
            roles: Coalescer::new(),
            sessions: Coalescer::new(),
            machine_tokens: Coalescer::new(),
            handshakes: Coalescer::new(),
            users: Coalescer::new(),
            user_memberships: Coalescer::new(),
            people: Coalescer::new(),
        }
    }
}

impl fmt::Debug for BackendApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendApi")
            .field("share", &self.share)
            .finish_non_exhaustive()
    }
}

impl Directory for BackendApi {
    fn membership<'a>(
        &'a self,
        organization: &'a OrganizationId,
        user: &'a UserId,
        ask: Ask,
    ) -> Asking<'a, MembershipAnswer> {
        let key = (organization.clone(), user.clone());
        let (sender, share) = (Arc::clone(&self.sender), self.share);
        let asked = key.clone();
        Box::pin(
            self.questions
                .memberships
                .ask(key, ask, move |errand| async move {
                    find_membership(&sender, share, (&asked.0, &asked.1), &errand).await
                }),
        )
    }

    fn organization_by_slug<'a>(
        &'a self,
        slug: &'a OrganizationSlug,
        ask: Ask,
    ) -> Asking<'a, Option<OrganizationRecord>> {
        let (sender, share) = (Arc::clone(&self.sender), self.share);
        let asked = slug.clone();
        Box::pin(
            self.questions
                .by_slug
                .ask(slug.clone(), ask, move |errand| async move {
                    find_organization(&sender, share, &asked, &errand).await
                }),
        )
    }

    fn role_permissions<'a>(&'a self, role: &'a str, ask: Ask) -> Asking<'a, Option<Texts>> {
        let (sender, share) = (Arc::clone(&self.sender), self.share);
        let asked: Box<str> = role.into();
        Box::pin(
            self.questions
                .roles
                .ask(role.into(), ask, move |errand| async move {
                    find_role(&sender, share, &asked, &errand).await
                }),
        )
    }

    fn session<'a>(&'a self, session: &'a SessionId, ask: Ask) -> Asking<'a, SessionAnswer> {
        let (sender, share, asked) = (Arc::clone(&self.sender), self.share, session.clone());
        Box::pin(
            self.questions
                .sessions
                .ask(session.clone(), ask, move |errand| async move {
                    find_session(&sender, share, &asked, &errand).await
                }),
        )
    }

    fn machine_token<'a>(&'a self, token: &'a OpaqueToken, ask: Ask) -> Asking<'a, MachineAnswer> {
        let (sender, asked) = (Arc::clone(&self.sender), token.clone());
        Box::pin(
            self.questions
                .machine_tokens
                .ask(token.digest(), ask, move |errand| async move {
                    find_machine_token(&sender, &asked, &errand).await
                }),
        )
    }

    fn handshake<'a>(&'a self, nonce: &'a str, ask: Ask) -> Asking<'a, Option<HandshakeCookies>> {
        let (sender, asked) = (Arc::clone(&self.sender), Box::<str>::from(nonce));
        Box::pin(
            self.questions
                .handshakes
                .ask(nonce.into(), ask, move |errand| async move {
                    find_handshake(&sender, &asked, &errand).await
                }),
        )
    }

    fn credentials(&self) -> Credentials {
        self.sender.credentials()
    }

    fn stats(&self) -> DirectoryStats {
        DirectoryStats {
            joined: self.questions.memberships.joined()
                + self.questions.by_slug.joined()
                + self.questions.roles.joined()
                + self.questions.sessions.joined()
                + self.questions.machine_tokens.joined()
                + self.questions.handshakes.joined()
                + self.questions.users.joined()
                + self.questions.user_memberships.joined()
                + self.questions.people.joined(),
            ..self.sender.stats()
        }
    }
}

impl UserDirectory for BackendApi {
    fn user<'a>(&'a self, user: &'a UserId, ask: Ask) -> Asking<'a, Option<User>> {
        let (sender, share, asked) = (Arc::clone(&self.sender), self.share, user.clone());
        Box::pin(
            self.questions
                .users
                .ask(user.clone(), ask, move |errand| async move {
                    find_user(&sender, share, &asked, &errand).await
                }),
        )
    }

    fn memberships_of<'a>(
        &'a self,
        user: &'a UserId,
        ask: Ask,
    ) -> Asking<'a, Vec<WholeMembership>> {
        let (sender, share, asked) = (Arc::clone(&self.sender), self.share, user.clone());
        Box::pin(
            self.questions
                .user_memberships
                .ask(user.clone(), ask, move |errand| async move {
                    find_memberships_of(&sender, share, &asked, &errand).await
                }),
        )
    }
}

async fn find_membership(
    sender: &Sender,
    share: Share,
    (organization, user): (&OrganizationId, &UserId),
    errand: &Errand,
) -> Result<Answered<MembershipAnswer>, DirectoryError> {
    let segments = ["organizations", organization.as_str(), "memberships"];
    let parameters = [("user_id", user.as_str()), ("limit", "1")];
    let url = sender.url(&segments, &parameters);
    let Answered { value: page, as_of } = sender
        .get::<Page<ClerkMembership>>(Endpoint::OrganizationMemberships, share, url, errand)
        .await?;
    let value = match page.map(|page| page.data.into_iter().next()) {
        None => MembershipAnswer::NoOrganization,
        Some(None) => MembershipAnswer::NotAMember,
        Some(Some(membership)) => {
            MembershipAnswer::Member(membership.of(organization, user).map_err(unusable)?)
        }
    };
    Ok(Answered { value, as_of })
}

async fn find_organization(
    sender: &Sender,
    share: Share,
    slug: &OrganizationSlug,
    errand: &Errand,
) -> Result<Answered<Option<OrganizationRecord>>, DirectoryError> {
    let url = sender.url(&["organizations", slug.as_str()], &[]);
    let Answered {
        value: found,
        as_of,
    } = sender
        .get::<ClerkOrganization>(Endpoint::Organization, share, url, errand)
        .await?;
    let found = found.map(|organization| organization.with_slug(slug));
    let value = found.transpose().map_err(unusable)?;
    Ok(Answered { value, as_of })
}

async fn find_role(
    sender: &Sender,
    share: Share,
    role: &str,
    errand: &Errand,
) -> Result<Answered<Option<Texts>>, DirectoryError> {
    let mut first_sent = None;
    for page in 0..MAX_PAGES {
        let (limit, offset) = (PAGE.to_string(), (page * PAGE).to_string());
        // It narrows by a part of the name or of the key.
        let parameters = [
            ("query", model::bare(role)),
            ("limit", &limit),
            ("offset", &offset),
        ];
        let url = sender.url(&["organization_roles"], &parameters);
        let roles = sender
            .get::<Page<ClerkRole>>(Endpoint::OrganizationRoles, share, url, errand)
            .await?;
        let as_of = *first_sent.get_or_insert(roles.as_of);
        let Some(Page { data }) = roles.value else {
            let cause = "answered that there is no list of roles".to_owned();
            return Err(Fault::Unusable(cause).into_error(REFUSED_PAUSE));
        };
        if let Some(found) = data.iter().find(|each| each.has_key(role)) {
            let value = Some(found.permissions());
            return Ok(Answered { value, as_of });
        }
        if data.len() < PAGE {
            return Ok(Answered { value: None, as_of });
        }
    }
    let cause = format!("has more than {} roles that are alike", PAGE * MAX_PAGES);
    Err(Fault::Unusable(cause).into_error(REFUSED_PAUSE))
}

async fn find_session(
    sender: &Sender,
    share: Share,
    session: &SessionId,
    errand: &Errand,
) -> Result<Answered<SessionAnswer>, DirectoryError> {
    let url = sender.url(&["sessions", session.as_str()], &[]);
    let Answered {
        value: found,
        as_of,
    } = sender
        .get::<ClerkSession>(Endpoint::Session, share, url, errand)
        .await?;
    let value = match found {
        Some(found) => found.of(session).map_err(unusable)?,
        None => SessionAnswer::Over,
    };
    Ok(Answered { value, as_of })
}

/// The secret key may ask about any token of the instance. A machine's own key would see only the
/// tokens that may be shown to that machine, which `scopes` says here (docs/adr/0011).
async fn find_machine_token(
    sender: &Sender,
    token: &OpaqueToken,
    errand: &Errand,
) -> Result<Answered<MachineAnswer>, DirectoryError> {
    let (endpoint, segments, member): (_, &[&str], _) = match token.machine_type() {
        MachineType::M2m => (Endpoint::M2mTokens, &["m2m_tokens", "verify"], "token"),
        MachineType::Oauth => (
            Endpoint::OauthAccessTokens,
            &["oauth_applications", "access_tokens", "verify"],
            "access_token",
        ),
        MachineType::ApiKey => (Endpoint::ApiKeys, &["api_keys", "verify"], "secret"),
    };
    let body = serde_json::json!({ member: token.expose() }).to_string();
    let url = sender.url(segments, &[]);
    let Answered { value, as_of } = sender
        .post::<ClerkMachineToken>(endpoint, Share::Token, url, body.into(), errand)
        .await?;
    let value = match value {
        Some(found) => found.of(token.machine_type()).map_err(unusable)?,
        None => MachineAnswer::Unknown,
    };
    Ok(Answered { value, as_of })
}

async fn find_handshake(
    sender: &Sender,
    nonce: &str,
    errand: &Errand,
) -> Result<Answered<Option<HandshakeCookies>>, DirectoryError> {
    let url = sender.url(&["clients", "handshake_payload"], &[("nonce", nonce)]);
    let Answered { value, as_of } = sender
        .get::<ClerkHandshake>(Endpoint::HandshakePayload, Share::Handshake, url, errand)
        .await?;
    let value = value.map(|found| HandshakeCookies(found.directives));
    Ok(Answered { value, as_of })
}

pub(super) async fn find_user(
    sender: &Sender,
    share: Share,
    user: &UserId,
    errand: &Errand,
) -> Result<Answered<Option<User>>, DirectoryError> {
    let url = sender.url(&["users", user.as_str()], &[]);
    let Answered {
        value: found,
        as_of,
    } = sender
        .get::<Box<RawValue>>(Endpoint::User, share, url, errand)
        .await?;
    let found = found.map(|source| mirrored::user(&source));
    let value = found.transpose().map_err(unusable)?;
    if value.as_ref().is_some_and(|found| found.id != *user) {
        return Err(unusable(model::somebody_else("id")));
    }
    Ok(Answered { value, as_of })
}

async fn find_memberships_of(
    sender: &Sender,
    share: Share,
    user: &UserId,
    errand: &Errand,
) -> Result<Answered<Vec<WholeMembership>>, DirectoryError> {
    let mut found = Vec::new();
    let mut first_sent = None;
    for page in 0..MAX_MEMBERSHIP_PAGES {
        let (limit, offset) = (PAGE.to_string(), (page * PAGE).to_string());
        let url = sender.url(
            &["users", user.as_str(), "organization_memberships"],
            &[("limit", &limit), ("offset", &offset)],
        );
        let answered = sender
            .get::<Page<Box<RawValue>>>(Endpoint::UserMemberships, share, url, errand)
            .await?;
        // What changes while the pages are read may be missing from them: as old as the first.
        let as_of = *first_sent.get_or_insert(answered.as_of);
        let sources = answered.value.map_or_else(Vec::new, |page| page.data);
        for source in &sources {
            let (membership, organization) = mirrored::membership(source).map_err(unusable)?;
            if membership.membership.user_id != *user {
                return Err(unusable(model::somebody_else(
                    "data[].public_user_data.user_id",
                )));
            }
            found.push(WholeMembership {
                membership,
                organization,
            });
        }
        if sources.len() < PAGE {
            return Ok(Answered {
                value: found,
                as_of,
            });
        }
    }
    let most = PAGE * MAX_MEMBERSHIP_PAGES;
    let cause = format!("says that a user is in more than {most} organizations");
    Err(Fault::Unusable(cause).into_error(REFUSED_PAUSE))
}

pub(super) fn unusable(unreadable: Unreadable) -> DirectoryError {
    Fault::from(unreadable).into_error(REFUSED_PAUSE)
}
