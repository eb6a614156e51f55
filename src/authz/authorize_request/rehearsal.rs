//! A case of a policy, decided as the service decides, with facts that are supposed: in place of a
//! verified token stands what it would say, in place of Clerk the memberships of the case.

use std::{sync::Arc, time::Duration};

use super::{Authorization, CookiesOnTheWayBack, Headers, ProxiedRequest, Senders, authorize_by};
use crate::{
    authz::{
        CannotTell, Checker, Instance, InstanceSerial, Instances, MembershipSettings, TokenCache,
        Verdict, Verified, VerifiedMachine, Verifier,
    },
    explain::Steps,
    identity::{
        Issuer, Machine, OpaqueToken, OrganizationId, OrganizationSlug, Session, SessionId,
        SessionStatus, Texts, Timestamp, TokenForm, TokenType, TokenTypes, UserId,
    },
    keys::Keyring,
    mirror::{
        Answered, Ask, Asking, Credentials, Directory, DirectoryError, DirectoryStats,
        HandshakeCookies, MachineAnswer, Membership, MembershipAnswer, OrganizationRecord,
        SessionAnswer, Standing,
    },
    policy::{Case, CaseMachine, CaseMembership, CaseSession, Policy, Sender},
    reason::Reason,
};

/// When a case takes place: at no time that anything else is of.
const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
/// How long a session token of Clerk lives.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// Nothing is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What `policy` answers to the request of `case`.
pub async fn rehearse(policy: &Policy, case: &Case, steps: &mut Steps) -> Authorization {
    let instance = Arc::new(instance(case.memberships.clone()));
    let instances = Instances::new(vec![Arc::clone(&instance)]).unwrap_or_default();
    let verifier = Verifier::new(instances, TokenCache::new(0), Duration::ZERO);
    let checker = Checker::new(
        Arc::new(verifier),
        MembershipSettings {
            max_bytes: 0,
            ..MembershipSettings::default()
        },
        Arc::new(|| NOW),
    );
    let sender = Supposed {
        sender: &case.sender,
        instance,
    };
    let request = &case.request;
    let request = ProxiedRequest {
        method: &request.method,
        authority: request.host.as_bytes(),
        target: request.path.as_bytes(),
        is_https: request.is_https,
        authorization: &[],
        cookie: &[],
        headers: &CaseHeaders(&request.headers),
        narrowing: None,
        patience: PATIENCE,
        cookies_on_the_way_back: CookiesOnTheWayBack::ByRedirect,
    };
    authorize_by(policy, &checker, &sender, &request, NOW, steps).await
}

struct CaseHeaders<'a>(&'a [(Box<str>, Box<str>)]);

impl Headers for CaseHeaders<'_> {
    fn values<'h>(&'h self, name: &str) -> Vec<&'h str> {
        let named = self.0.iter().filter(|(known, _)| **known == *name);
        named.map(|(_, value)| &**value).collect()
    }
}

struct Supposed<'a> {
    sender: &'a Sender,
    instance: Arc<Instance>,
}

impl Senders for Supposed<'_> {
    async fn sender(
        &self,
        accepted: TokenTypes,
        _: &ProxiedRequest<'_>,
        now: Timestamp,
        _: &mut Steps,
    ) -> Result<Verdict, CannotTell> {
        let retry_after = PATIENCE;
        let not_accepted = Ok(Verdict::Denied(Reason::TokenTypeNotAccepted));
        match self.sender {
            Sender::Denied(Reason::KeysUnavailable) => {
                Err(CannotTell::KeysUnavailable { retry_after })
            }
            Sender::Denied(Reason::ClerkUnavailable) => {
                Err(CannotTell::ClerkUnavailable { retry_after })
            }
            Sender::Denied(Reason::ClerkRateLimited) => {
                Err(CannotTell::ClerkRateLimited { retry_after })
            }
            Sender::Denied(Reason::StoreUnavailable) => {
                Err(CannotTell::StoreUnavailable { retry_after })
            }
            Sender::Denied(Reason::Overloaded) => Err(CannotTell::Overloaded { retry_after }),
            Sender::Denied(reason) => Ok(Verdict::Denied(*reason)),
            Sender::SignedIn(_) if !accepted.has(TokenType::Session) => not_accepted,
            Sender::SignedIn(says) => {
                let session = session(says, &self.instance, now);
                let verified = Verified::supposed(session, Arc::clone(&self.instance));
                Ok(Verdict::Accepted(Arc::new(verified)))
            }
            Sender::Machine(says) if !accepted.has(TokenType::Machine(says.machine_type)) => {
                not_accepted
            }
            Sender::Machine(says) => {
                let machine = Arc::new(machine(says, &self.instance, now));
                let verified = VerifiedMachine::without_key(machine, Arc::clone(&self.instance));
                Ok(Verdict::Machine(Arc::new(verified)))
            }
        }
    }
}

fn session(says: &CaseSession, instance: &Instance, now: Timestamp) -> Session {
    Session {
        user_id: says.user_id.clone(),
        session_id: known::<SessionId>("sess_test"),
        token_id: None,
        token_version: 2,
        issuer: instance.issuer.clone(),
        authorized_party: None,
        audiences: Texts::default(),
        issued_at: Some(now),
        not_before: Some(now),
        expires_at: now.plus(TOKEN_LIFE),
        status: SessionStatus::Active,
        organization: says.organization.clone().map(Box::new),
        features: says.features.clone(),
        plans: says.plans.clone(),
        factor_ages: says.factor_ages,
        actor: says.actor.clone().map(Box::new),
        custom_claims: None,
    }
}

fn machine(says: &CaseMachine, instance: &Instance, now: Timestamp) -> Machine {
    Machine {
        machine_type: says.machine_type,
        form: TokenForm::Opaque,
        token_id: None,
        issuer: instance.issuer.clone(),
        subject: says.subject.clone(),
        client_id: says.client_id.clone(),
        scopes: says.scopes.clone(),
        audiences: Texts::default(),
        claims: None,
        issued_at: Some(now),
        not_before: None,
        expires_at: Some(now.plus(TOKEN_LIFE)),
    }
}

fn instance(memberships: Option<Vec<CaseMembership>>) -> Instance {
    Instance {
        serial: InstanceSerial::next(),
        name: known("test"),
        issuer: known::<Issuer>("https://clerk.invalid"),
        publishable_key: None,
        authorized_parties: Vec::new(),
        audiences: Vec::new(),
        keyring: Arc::new(Keyring::empty()),
        directory: memberships
            .map(|memberships| Arc::new(CaseDirectory(memberships)) as Arc<dyn Directory>),
        user_directory: None,
        sign_ins: None,
        providers: Vec::new(),
        revocations: None,
        has_webhooks: false,
    }
}

/// Of a text that stands here and has its form.
fn known<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect("it is written in its form")
}

/// A Clerk that knows the memberships of a case, of whichever user.
#[derive(Debug)]
struct CaseDirectory(Vec<CaseMembership>);

fn answered<'a, T: Send + 'a>(value: T) -> Asking<'a, T> {
    Box::pin(async { Ok(Answered { value, as_of: NOW }) })
}

impl Directory for CaseDirectory {
    fn membership<'a>(
        &'a self,
        organization: &'a OrganizationId,
        user: &'a UserId,
        _: Ask,
    ) -> Asking<'a, MembershipAnswer> {
        let found = self
            .0
            .iter()
            .find(|each| each.organization.id == *organization);
        answered(found.map_or(MembershipAnswer::NotAMember, |found| {
            MembershipAnswer::Member(Membership {
                organization: found.organization.clone(),
                user_id: user.clone(),
                role: found.role.clone(),
                permissions: found.permissions.clone(),
                standing: Standing::Good,
                updated_at: Timestamp::from_unix_seconds(0),
            })
        }))
    }

    fn organization_by_slug<'a>(
        &'a self,
        slug: &'a OrganizationSlug,
        _: Ask,
    ) -> Asking<'a, Option<OrganizationRecord>> {
        let all = self.0.iter().map(|each| &each.organization);
        answered(
            all.clone()
                .find(|each| each.slug.as_ref() == Some(slug))
                .cloned(),
        )
    }

    /// A case says with each membership what its role permits.
    fn role_permissions<'a>(&'a self, _: &'a str, _: Ask) -> Asking<'a, Option<Texts>> {
        answered(None)
    }

    fn session<'a>(&'a self, _: &'a SessionId, _: Ask) -> Asking<'a, SessionAnswer> {
        // Only tokens that outlive a memory of what ended are asked about, and there is none.
        Box::pin(async {
            Err(DirectoryError::Rejected {
                cause: "a case has no sessions".to_owned(),
            })
        })
    }

    fn machine_token<'a>(&'a self, _: &'a OpaqueToken, _: Ask) -> Asking<'a, MachineAnswer> {
        // What a case supposes of who sends a request stands in the token's place.
        Box::pin(async {
            Err(DirectoryError::Rejected {
                cause: "a case has no tokens".to_owned(),
            })
        })
    }

    fn handshake<'a>(&'a self, _: &'a str, _: Ask) -> Asking<'a, Option<HandshakeCookies>> {
        Box::pin(async {
            Err(DirectoryError::Rejected {
                cause: "a case has no cookies".to_owned(),
            })
        })
    }

    fn credentials(&self) -> Credentials {
        Credentials::Accepted
    }

    fn stats(&self) -> DirectoryStats {
        DirectoryStats::default()
    }
}
