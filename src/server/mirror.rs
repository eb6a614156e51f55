//! What keeps the mirror true in the background: reconciliation at its time, and look-ups.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    authz::{AskMirror, ComparedAt},
    keys::Clock,
    mirror::{Mirror, StoreError},
    settings::Settings,
    store::SqlStore,
    sync::{Listings, Nightly, ReconcileAt, Settler, process_holder},
};

/// How long a question about a membership waits for the mirror before Clerk is asked.
const MIRROR_WITHIN: Duration = Duration::from_millis(250);

/// Both, and whom they ask.
#[derive(Clone)]
pub(super) struct MirrorKeepers {
    pub(super) listings: Arc<Listings>,
    pub(super) nightly: Arc<Nightly>,
    pub(super) settler: Arc<Settler>,
}

impl MirrorKeepers {
    /// Of the mirror in `store`; they work from [`Self::start`] on.
    pub(super) fn new(settings: &Settings, store: &SqlStore, clock: &Clock) -> Self {
        let (listings, store) = (Arc::new(Listings::default()), Arc::new(store.clone()));
        let at = match settings.reconcile_at_minutes {
            Some(minutes) => ReconcileAt::Daily(minutes),
            None => ReconcileAt::Off,
        };
        let holder = process_holder();
        Self {
            nightly: Arc::new(Nightly::new(
                Arc::clone(&store) as _,
                Arc::clone(&listings),
                at,
                holder.clone(),
                Arc::clone(clock),
            )),
            settler: Arc::new(Settler::new(
                store,
                Arc::clone(&listings),
                holder,
                Arc::clone(clock),
            )),
            listings,
        }
    }

    /// What the mirror knows of a membership, where it says so at once.
    pub(super) fn ask(store: &SqlStore) -> AskMirror {
        let store = Arc::new(store.clone());
        Arc::new(move |instance, organization, user| {
            let store = Arc::clone(&store);
            Box::pin(async move {
                let asked = timeout(
                    MIRROR_WITHIN,
                    store.membership(instance, organization, user),
                );
                asked.await.unwrap_or_else(|_| {
                    Err(StoreError::Unavailable {
                        cause: format!("no answer within {MIRROR_WITHIN:?}"),
                    })
                })
            })
        })
    }

    /// When an instance's mirror was last held against Clerk as a whole.
    pub(super) fn compared_at(&self) -> ComparedAt {
        let nightly = Arc::clone(&self.nightly);
        Arc::new(move |instance| nightly.compared_at(instance))
    }

    pub(super) fn start(&self, stop: &CancellationToken, tasks: &TaskTracker) {
        tasks.spawn(Arc::clone(&self.nightly).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.nightly).watch(stop.clone()));
        tasks.spawn(Arc::clone(&self.settler).run(stop.clone()));
    }
}
