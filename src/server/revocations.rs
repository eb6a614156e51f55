//! What is known of each instance's revocations, each kept new by a task of its own.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    authz::Revocations,
    identity::InstanceName,
    keys::Clock,
    mirror::Store,
    settings::{InstanceSettings, Problem},
    sync::{self, Ear},
};

/// The revocations of the instances that there are. What is known of one stays known when its
/// settings change.
pub(super) struct RevocationSet {
    store: Arc<dyn Store>,
    ear: Arc<Ear>,
    memory: Duration,
    clock: Clock,
    stop: CancellationToken,
    tasks: TaskTracker,
    all: HashMap<InstanceName, Member>,
}

struct Member {
    revocations: Arc<Revocations>,
    /// Ends its task.
    stop: CancellationToken,
}

impl RevocationSet {
    pub(super) fn new(
        store: Arc<dyn Store>,
        ear: Arc<Ear>,
        memory: Duration,
        clock: Clock,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            store,
            ear,
            memory,
            clock,
            stop,
            tasks,
            all: HashMap::new(),
        }
    }

    /// Loads what is known of the instances that are new. Nothing of them is answered before.
    pub(super) async fn load(&mut self, wanted: &[InstanceSettings]) -> Result<(), Problem> {
        for settings in wanted {
            let name = &settings.name;
            if self.all.contains_key(name) {
                continue;
            }
            let revocations = Arc::new(Revocations::new(self.memory));
            let loaded = revocations.load(&*self.store, name, &self.clock).await;
            loaded.map_err(|error| {
                Problem::new(
                    "CLERK_AUTHZ_DATABASE_URL",
                    format!("cannot say what was revoked of instance \"{name}\": {error}"),
                )
            })?;
            let stop = self.stop.child_token();
            self.tasks.spawn(sync::follow_revocations(
                Arc::clone(&revocations),
                name.clone(),
                Arc::clone(&self.store),
                Arc::clone(&self.ear),
                Arc::clone(&self.clock),
                stop.clone(),
            ));
            self.all.insert(name.clone(), Member { revocations, stop });
        }
        Ok(())
    }

    /// Of an instance that was loaded.
    pub(super) fn of(&self, name: &InstanceName) -> Option<Arc<Revocations>> {
        let member = self.all.get(name)?;
        Some(Arc::clone(&member.revocations))
    }

    /// Lets go of all but these.
    pub(super) fn keep(&mut self, wanted: &[InstanceSettings]) {
        self.all.retain(|name, member| {
            let is_wanted = wanted.iter().any(|settings| settings.name == *name);
            if !is_wanted {
                member.stop.cancel();
            }
            is_wanted
        });
    }
}
