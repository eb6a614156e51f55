//! `grpc.health.v1` and what `/readyz` says: serving only with usable keys.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
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

use crate::{authz::Verifier, identity::InstanceName, keys::Clock};

/// The service's name for health checks.
pub const SERVICE_NAME: &str = "clerkauthz.v1.AuthzService";
/// The name under which the process only says that it lives: serving until it drains, whatever
/// keys it has. For Kubernetes' liveness probe.
pub const LIVENESS_NAME: &str = "liveness";

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
    draining: CancellationToken,
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

    /// Whether the service is draining.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Reports until `stop`.
    pub(super) async fn run(&self, stop: CancellationToken) {
        let mut last = None;
        loop {
            let waiting = self.waiting_for();
            let draining = self.is_draining();
            if last.as_ref() != Some(&(waiting.clone(), draining)) {
                let serving = waiting.is_empty() && !draining;
                log_change(&waiting, draining);
                self.report(serving, !draining).await;
                last = Some((waiting, draining));
            }
            tokio::select! {
                () = sleep(INTERVAL) => {}
                () = self.draining.cancelled(), if !draining => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn report(&self, serving: bool, living: bool) {
        let status = |good| {
            if good {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            }
        };
        for name in ["", SERVICE_NAME] {
            self.reporter
                .set_service_status(name, status(serving))
                .await;
        }
        self.reporter
            .set_service_status(LIVENESS_NAME, status(living))
            .await;
    }

    /// To be called before the door opens, so that nobody sees a status that is not known yet.
    pub async fn start(&self) {
        let serving = self.waiting_for().is_empty();
        self.report(serving, true).await;
    }
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
