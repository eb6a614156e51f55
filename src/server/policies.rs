//! The route policy of the settings and the one that is tried beside it: read at the start, read again
//! when their files change.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{
    StartError,
    looks::{LOOK_INTERVAL, look},
};
use crate::{
    authz::{Checker, Gatekeeper},
    policy::Policy,
    settings::Settings,
    upstream_assertion::{Assertions, KeysUnusable},
};

/// What a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It decides.
    InForce,
    /// It is tried beside.
    Shadow,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::InForce, Self::Shadow];

    /// Its name in metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::InForce => "in_force",
            Self::Shadow => "shadow",
        }
    }

    const fn variable(self) -> &'static str {
        match self {
            Self::InForce => "CLERK_AUTHZ_POLICY",
            Self::Shadow => "CLERK_AUTHZ_SHADOW_POLICY",
        }
    }
}

/// The policies of a running service.
pub(super) struct Policies {
    gatekeeper: Arc<Gatekeeper>,
    /// Where there is a database for its keys.
    assertions: Option<Arc<Assertions>>,
    files: Vec<(Kind, PathBuf)>,
    /// By kind: reloads that were applied, and that were refused.
    reloaded: [AtomicU64; 2],
    refused: [AtomicU64; 2],
}

impl Policies {
    /// Reads what the settings name; `None` where they name no policy.
    pub(super) fn load(
        settings: &Settings,
        checker: Arc<Checker>,
        assertions: Option<Arc<Assertions>>,
    ) -> Result<Option<Self>, StartError> {
        let Some(file) = &settings.policy else {
            return Ok(None);
        };
        let read = |kind: Kind, file: &Path| {
            let cause = |cause| StartError::Policy {
                variable: kind.variable(),
                file: file.to_owned(),
                cause,
            };
            let policy = read(file).map_err(cause)?;
            check_upstreams(&policy, assertions.is_some()).map_err(cause)?;
            log(kind, &policy, file, "policy read");
            Ok::<_, StartError>(policy)
        };
        let mut gatekeeper = Gatekeeper::new(checker, read(Kind::InForce, file)?);
        if settings.handshake {
            gatekeeper = gatekeeper.with_handshakes();
        }
        let mut files = vec![(Kind::InForce, file.clone())];
        if let Some(file) = &settings.shadow_policy {
            gatekeeper.set_shadow(Some(read(Kind::Shadow, file)?));
            files.push((Kind::Shadow, file.clone()));
        }
        Ok(Some(Self {
            gatekeeper: Arc::new(gatekeeper),
            assertions,
            files,
            reloaded: Default::default(),
            refused: Default::default(),
        }))
    }

    /// Sees to it that there is a key to sign with, where `policy` or a setting asks for assertions.
    async fn prepare_keys(&self, policy: &Policy) -> Result<(), KeysUnusable> {
        match &self.assertions {
            Some(assertions) if asks_for_assertions(policy, assertions) => {
                assertions.prepare().await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The same for the policy in force: nobody is let through unvouched for for want of a key.
    pub(super) async fn prepare_first_keys(&self) -> Result<(), KeysUnusable> {
        self.prepare_keys(&self.gatekeeper.policy()).await
    }

    /// Decides about requests.
    pub(super) fn gatekeeper(&self) -> &Arc<Gatekeeper> {
        &self.gatekeeper
    }

    /// Reloads that were applied, and that were refused.
    pub(super) fn reloads(&self, kind: Kind) -> (u64, u64) {
        let index = kind as usize;
        (
            self.reloaded[index].load(Relaxed),
            self.refused[index].load(Relaxed),
        )
    }

    /// What was found, unless it asks for what there are no keys for.
    async fn usable(
        &self,
        kind: Kind,
        found: Result<Option<Policy>, String>,
    ) -> Result<Option<Policy>, String> {
        let Some(policy) = found? else {
            return Ok(None);
        };
        check_upstreams(&policy, self.assertions.is_some())?;
        if kind == Kind::InForce {
            let prepared = self.prepare_keys(&policy).await;
            prepared.map_err(|error| error.to_string())?;
        }
        Ok(Some(policy))
    }

    fn current(&self, kind: Kind) -> Option<Arc<Policy>> {
        match kind {
            Kind::InForce => Some(self.gatekeeper.policy()),
            Kind::Shadow => self.gatekeeper.shadow().0,
        }
    }

    /// Reads the files until the stop, and puts in force what has changed. What is wrong changes
    /// nothing, and is said once.
    pub(super) async fn reload_on_change(self: Arc<Self>, stop: CancellationToken) {
        let mut said: [Option<String>; 2] = [None, None];
        loop {
            let files = self.files.iter().map(|(kind, file)| {
                let current = self.current(*kind);
                (file.clone(), current)
            });
            let files: Vec<_> = files.collect();
            let read = move || {
                let found = files.iter();
                found
                    .map(|(file, current)| read_unless(file, current.as_deref()))
                    .collect::<Vec<_>>()
            };
            let Some(found) = look(&stop, LOOK_INTERVAL, read).await else {
                return;
            };
            for ((kind, file), found) in self.files.iter().zip(found) {
                let (kind, said) = (*kind, &mut said[*kind as usize]);
                match self.usable(kind, found).await {
                    Ok(None) => *said = None,
                    Ok(Some(policy)) => {
                        *said = None;
                        log(kind, &policy, file, "policy reloaded");
                        match kind {
                            Kind::InForce => self.gatekeeper.set_policy(policy),
                            Kind::Shadow => self.gatekeeper.set_shadow(Some(policy)),
                        }
                        self.reloaded[kind as usize].fetch_add(1, Relaxed);
                    }
                    Err(cause) => {
                        if said.as_ref() != Some(&cause) {
                            error!(
                                kind = kind.name(), file = %file.display(), %cause,
                                "the policy is wrong; the one before stays in force"
                            );
                            self.refused[kind as usize].fetch_add(1, Relaxed);
                        }
                        *said = Some(cause);
                    }
                }
            }
        }
    }
}

/// An upstream that is named without keys to sign with.
fn check_upstreams(policy: &Policy, has_database: bool) -> Result<(), String> {
    match policy.asks_for_assertions() {
        Some(route) if !has_database => Err(format!(
            "route {route} names an upstream, to which it is vouched who sends a request, and the \
             keys for that are kept in the database; set CLERK_AUTHZ_DATABASE_URL"
        )),
        Some(_) | None => Ok(()),
    }
}

fn asks_for_assertions(policy: &Policy, assertions: &Assertions) -> bool {
    policy.asks_for_assertions().is_some() || assertions.default_audience().is_some()
}

fn log(kind: Kind, policy: &Policy, file: &Path, what: &str) {
    info!(
        kind = kind.name(),
        file = %file.display(),
        version = policy.version(),
        routes = policy.routes().len(),
        "{what}"
    );
}

fn read(file: &Path) -> Result<Policy, String> {
    parse(&read_text(file)?)
}

/// `None` where it is the same text as that of `current`.
fn read_unless(file: &Path, current: Option<&Policy>) -> Result<Option<Policy>, String> {
    let text = read_text(file)?;
    let version = Policy::version_of(&text);
    if current.is_some_and(|current| *current.version() == *version) {
        return Ok(None);
    }
    parse(&text).map(Some)
}

fn read_text(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))
}

fn parse(text: &str) -> Result<Policy, String> {
    Policy::parse(text).map_err(|problems| problems.to_string())
}
