use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;

use crate::{identity::InstanceName, mirror::Listing};

/// One instance, and its Clerk where there is a secret key.
pub type InstanceListing = (InstanceName, Option<Arc<dyn Listing>>);

/// Clerk's API of every instance, for work in the background; replaced when instances come and go.
#[derive(Default)]
pub struct Listings(ArcSwap<Vec<InstanceListing>>);

impl fmt::Debug for Listings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.load();
        f.debug_list()
            .entries(all.iter().map(|(instance, _)| instance))
            .finish()
    }
}

impl Listings {
    /// These, in place of what was there.
    pub fn set(&self, all: Vec<InstanceListing>) {
        self.0.store(Arc::new(all));
    }

    /// All of them.
    pub fn all(&self) -> Vec<InstanceListing> {
        self.0.load().to_vec()
    }
}
