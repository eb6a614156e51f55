//! A Clerk in memory that answers at once: for sequences that no server could answer in time.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use clerk_authz::{
    authz::{Instance, InstanceSerial, Instances, TokenCache, Verifier},
    identity::{
        OpaqueToken, OrganizationId, OrganizationSlug, SessionId, Texts, Timestamp, UserId,
    },
    keys::{Clock, Keyring, VerifyingKey},
    mirror::{
        Answered, Ask, Asking, Credentials, Directory, DirectoryError, DirectoryStats,
        HandshakeCookies, Join, MachineAnswer, Membership, MembershipAnswer, OrganizationRecord,
        SessionAnswer, Standing,
    },
};

/// A clock that tests move, in Unix milliseconds.
#[derive(Clone, Debug, Default)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub fn at(seconds: i64) -> Self {
        let clock = Self::default();
        clock.set(Timestamp::from_unix_seconds(seconds));
        clock
    }

    /// The time of the machine, which stands from now on.
    pub fn at_now() -> Self {
        let clock = Self::default();
        clock.set(Timestamp::from(std::time::SystemTime::now()));
        clock
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.0.load(Ordering::Relaxed))
    }

    pub fn set(&self, now: Timestamp) {
        self.0.store(now.unix_millis(), Ordering::Relaxed);
    }

    pub fn step(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000, Ordering::Relaxed);
    }

    pub fn as_clock(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}

/// What this Clerk says now.
#[derive(Clone, Debug)]
pub struct Said {
    /// The same for every user and organization that is asked about.
    pub membership: Option<Place>,
    pub no_organization: bool,
    pub fault: Option<DirectoryError>,
    /// Questions are taken, and nothing follows.
    pub never_answers: bool,
    /// Of every session, whose it is; `None` says that it is over.
    pub live_session_of: Option<UserId>,
    /// Of every opaque token.
    pub machine_token: MachineAnswer,
    /// Of every role.
    pub role_permissions: Vec<&'static str>,
}

/// A membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub role: &'static str,
    pub permissions: Vec<&'static str>,
    pub updated_at: Timestamp,
    pub standing: Standing,
}

#[derive(Debug)]
pub struct MemoryDirectory {
    pub said: Mutex<Said>,
    pub asked: AtomicU64,
    joins: Mutex<Vec<Join>>,
    clock: TestClock,
}

impl MemoryDirectory {
    pub fn new(clock: &TestClock) -> Arc<Self> {
        Arc::new(Self {
            said: Mutex::new(Said {
                membership: None,
                no_organization: false,
                fault: None,
                never_answers: false,
                live_session_of: None,
                machine_token: MachineAnswer::Unknown,
                role_permissions: Vec::new(),
            }),
            asked: AtomicU64::new(0),
            joins: Mutex::default(),
            clock: clock.clone(),
        })
    }

    pub fn says(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.said.lock().expect("not poisoned"));
    }

    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// How the last thousand memberships were asked for.
    pub fn joins(&self) -> Vec<Join> {
        self.joins.lock().expect("not poisoned").clone()
    }

    fn answer<T: Send + 'static>(&self, of: impl FnOnce(&Said) -> T) -> Asking<'static, T> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let said = self.said.lock().expect("not poisoned");
        if said.never_answers {
            return Box::pin(std::future::pending());
        }
        let answer = match &said.fault {
            Some(fault) => Err(fault.clone()),
            None => Ok(Answered {
                value: of(&said),
                as_of: self.clock.now(),
            }),
        };
        Box::pin(async move { answer })
    }
}

impl Directory for MemoryDirectory {
    fn membership<'a>(
        &'a self,
        organization: &'a OrganizationId,
        user: &'a UserId,
        ask: Ask,
    ) -> Asking<'a, MembershipAnswer> {
        let mut joins = self.joins.lock().expect("not poisoned");
        if joins.len() < 1_000 {
            joins.push(ask.join);
        }
        drop(joins);
        self.answer(|said| match &said.membership {
            _ if said.no_organization => MembershipAnswer::NoOrganization,
            None => MembershipAnswer::NotAMember,
            Some(place) => MembershipAnswer::Member(Membership {
                organization: OrganizationRecord {
                    id: organization.clone(),
                    slug: None,
                },
                user_id: user.clone(),
                role: place.role.into(),
                permissions: place.permissions.iter().collect(),
                standing: place.standing,
                updated_at: place.updated_at,
            }),
        })
    }

    fn organization_by_slug<'a>(
        &'a self,
        slug: &'a OrganizationSlug,
        _: Ask,
    ) -> Asking<'a, Option<OrganizationRecord>> {
        self.answer(|said| {
            (!said.no_organization).then(|| OrganizationRecord {
                id: "org_acme".parse().expect("an id"),
                slug: Some(slug.clone()),
            })
        })
    }

    fn role_permissions<'a>(&'a self, _: &'a str, _: Ask) -> Asking<'a, Option<Texts>> {
        self.answer(|said| Some(said.role_permissions.iter().collect()))
    }

    fn session<'a>(&'a self, _: &'a SessionId, _: Ask) -> Asking<'a, SessionAnswer> {
        self.answer(|said| match &said.live_session_of {
            Some(user_id) => SessionAnswer::Live {
                user_id: user_id.clone(),
            },
            None => SessionAnswer::Over,
        })
    }

    fn machine_token<'a>(&'a self, _: &'a OpaqueToken, _: Ask) -> Asking<'a, MachineAnswer> {
        self.answer(|said| said.machine_token.clone())
    }

    fn handshake<'a>(&'a self, _: &'a str, _: Ask) -> Asking<'a, Option<HandshakeCookies>> {
        self.answer(|_| None)
    }

    fn credentials(&self) -> Credentials {
        Credentials::Unknown
    }

    fn stats(&self) -> DirectoryStats {
        DirectoryStats::default()
    }
}

/// A verifier of one instance whose key is `pem` and whose Clerk is `directory`.
pub fn verifier_of(pem: &str, issuer: &str, directory: Arc<dyn Directory>) -> Arc<Verifier> {
    let key = VerifyingKey::from_pem(pem).expect("a PEM");
    let instance = Instance {
        serial: InstanceSerial::next(),
        name: "default".parse().expect("a name"),
        issuer: issuer.parse().expect("an issuer"),
        publishable_key: None,
        authorized_parties: Vec::new(),
        audiences: Vec::new(),
        keyring: Arc::new(Keyring::pinned(key)),
        directory: Some(directory),
        user_directory: None,
        sign_ins: None,
        providers: Vec::new(),
        revocations: None,
        has_webhooks: false,
    };
    Arc::new(Verifier::new(
        Instances::new(vec![Arc::new(instance)]).expect("one instance"),
        TokenCache::new(1 << 20),
        std::time::Duration::from_secs(5),
    ))
}
