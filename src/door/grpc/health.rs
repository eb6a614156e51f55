//! `grpc.health.v1` and what `/readyz` says: serving only with usable keys.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health, HealthServer},
    server::{HealthReporter, HealthService},
};
use tracing::{info, warn};

use crate::{authz::Verifier, identity::InstanceName, keys::Clock, mirror::Credentials};

/// The service's name for health checks.
pub const SERVICE_NAME: &str = "clerkauthz.v1.AuthzService";
/// The name under which the process only says that it lives: serving until it drains, whatever
/// keys it has. For Kubernetes' liveness probe.
pub const LIVENESS_NAME: &str = "liveness";

/// The name under which Clerk's Backend API is reported: serving unless Clerk refuses an instance's
/// secret key. Known only while some instance has one. What needs no Backend API goes on.
pub const BACKEND_API_NAME: &str = "clerk-backend-api";

/// How often the state is looked at: the delay until a change shows.
const INTERVAL: Duration = Duration::from_millis(100);

/// Knows whether the service can answer, and tells health checks.
pub struct HealthReport {
    verifier: Arc<Verifier>,
    clock: Clock,
    reporter: HealthReporter,
    /// Instances that count: those of the start, and a later one from when it first had keys, so
    /// that a mistake in a new instance does not take the others down.
    counted: Mutex<HashSet<InstanceName>>,
    /// Cancelled once the service leaves, while it still answers.
    draining: CancellationToken,
    watches_ended: AtomicBool,
}

impl HealthReport {
    /// Watches the instances of `verifier`; not serving once `draining` is cancelled.
    pub fn new(verifier: Arc<Verifier>, clock: Clock, draining: CancellationToken) -> Self {
        let counted = verifier
            .instances()
            .all()
            .iter()
            .map(|i| i.name.clone())
            .collect();
        Self {
            verifier,
            clock,
            reporter: HealthReporter::new(),
            counted: Mutex::new(counted),
            draining,
            watches_ended: AtomicBool::new(false),
        }
    }

    pub(super) fn service(&self) -> HealthServer<impl Health> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    /// Instances that have no usable keys and keep the service from being ready.
    pub fn waiting_for(&self) -> Vec<InstanceName> {
        let now = (self.clock)();
        let instances = self.verifier.instances();
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.retain(|name| {
            instances
                .all()
                .iter()
                .any(|instance| instance.name == *name)
        });
        let mut waiting = Vec::new();
        for instance in instances.all() {
            if instance.keyring.is_usable(now) {
                if !counted.contains(&instance.name) {
                    counted.insert(instance.name.clone());
                }
            } else if counted.contains(&instance.name) {
                waiting.push(instance.name.clone());
            }
        }
        waiting
    }

    /// Instances whose secret key Clerk refuses; `None` while no instance has one.
    fn backend_apis(&self) -> Option<Vec<InstanceName>> {
        let instances = self.verifier.instances();
        let mut directories = instances
            .all()
            .iter()
            .filter_map(|instance| Some((&instance.name, instance.directory.as_ref()?)))
            .peekable();
        directories.peek()?;
        let refused = directories
            .filter(|(_, directory)| directory.credentials() == Credentials::Refused)
            .map(|(name, _)| name.clone());
        Some(refused.collect())
    }

    /// Instances whose secret key Clerk refuses.
    pub fn credentials_refused(&self) -> Vec<InstanceName> {
        self.backend_apis().unwrap_or_default()
    }

    /// Whether the service is draining.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Ends the streams of whoever watches, once they have been told that the service leaves: else each
    /// would hold its connection open to the end.
    pub async fn end_watches(&self) {
        self.report(&self.look()).await;
        self.watches_ended.store(true, Ordering::Release);
        for name in ["", SERVICE_NAME, LIVENESS_NAME, BACKEND_API_NAME] {
            self.reporter.clone().clear_service_status(name).await;
        }
    }

    /// Reports until `stop`.
    pub(super) async fn run(&self, stop: CancellationToken) {
        let mut last: Option<Seen> = None;
        loop {
            let seen = self.look();
            if last.as_ref() != Some(&seen) {
                let changed = last.as_ref().is_none_or(|last| {
                    (&last.waiting, last.draining) != (&seen.waiting, seen.draining)
                });
                if changed {
                    log_change(&seen.waiting, seen.draining);
                }
                // Said once more, a name would be there again, and a watch of it would have no end.
                if !self.watches_ended.load(Ordering::Acquire) {
                    self.report(&seen).await;
                }
            }
            let draining = seen.draining;
            last = Some(seen);
            tokio::select! {
                () = sleep(INTERVAL) => {}
                () = self.draining.cancelled(), if !draining => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn look(&self) -> Seen {
        Seen {
            waiting: self.waiting_for(),
            refused: self.backend_apis(),
            draining: self.is_draining(),
        }
    }

    async fn report(&self, seen: &Seen) {
        let status = |good| {
            if good {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            }
        };
        let living = !seen.draining;
        let serving = living && seen.waiting.is_empty();
        for (name, good) in [
            ("", serving),
            (SERVICE_NAME, serving),
            (LIVENESS_NAME, living),
        ] {
            self.reporter.set_service_status(name, status(good)).await;
        }
        match &seen.refused {
            Some(refused) => {
                let good = living && refused.is_empty();
                self.reporter
                    .set_service_status(BACKEND_API_NAME, status(good))
                    .await;
            }
            None => {
                self.reporter
                    .clone()
                    .clear_service_status(BACKEND_API_NAME)
                    .await
            }
        }
    }

    /// To be called before the door opens, so that nobody sees a status that is not known yet.
    pub async fn start(&self) {
        self.report(&self.look()).await;
    }
}

/// What is reported.
#[derive(PartialEq, Eq)]
struct Seen {
    /// Instances without usable keys.
    waiting: Vec<InstanceName>,
    /// Instances whose secret key Clerk refuses; `None` while no instance has one.
    refused: Option<Vec<InstanceName>>,
    draining: bool,
}

fn log_change(waiting: &[InstanceName], draining: bool) {
    if draining {
        info!("not serving: draining");
    } else if waiting.is_empty() {
        info!("serving: every instance has usable keys");
    } else {
        let names = waiting
            .iter()
            .map(InstanceName::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        warn!(instances = names, "not serving: no usable keys yet");
    }
}
