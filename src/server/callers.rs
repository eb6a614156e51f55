//! The rules for callers: read with the settings, read again when their file changes, or a secret in
//! a file that it names.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::looks::{LOOK_INTERVAL, look};
use crate::{
    callers::Callers,
    settings::{self, Settings},
};

/// The rules of a running service.
pub(super) struct CallerRules {
    callers: Arc<Callers>,
    file: PathBuf,
    reloaded: AtomicU64,
    refused: AtomicU64,
}

impl CallerRules {
    /// `None` where the settings name no file.
    pub(super) fn of(settings: &Settings) -> Option<Self> {
        let (rules, file) = settings
            .callers
            .clone()
            .zip(settings.callers_file.clone())?;
        info!(file = %file.display(), callers = rules.callers().len(), "callers' rules read");
        Some(Self {
            callers: Arc::new(Callers::new(rules, Instant::now())),
            file,
            reloaded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Lets calls in.
    pub(super) fn callers(&self) -> &Arc<Callers> {
        &self.callers
    }

    /// Reloads that were applied, and that were refused.
    pub(super) fn reloads(&self) -> (u64, u64) {
        (self.reloaded.load(Relaxed), self.refused.load(Relaxed))
    }

    /// Reads the files until the stop, and puts in force what has changed. What is wrong changes
    /// nothing, and is said once.
    pub(super) async fn reload_on_change(self: Arc<Self>, stop: CancellationToken) {
        let mut said = None;
        loop {
            let file = self.file.clone();
            let read = move || settings::load_callers(&file);
            let Some(read) = look(&stop, LOOK_INTERVAL, read).await else {
                return;
            };
            match read {
                Ok(rules) => {
                    said = None;
                    if !self.callers.are(&rules) {
                        let (file, callers) = (self.file.display(), rules.callers().len());
                        info!(%file, callers, "callers' rules reloaded");
                        self.callers.replace(rules);
                        self.reloaded.fetch_add(1, Relaxed);
                    }
                }
                Err(problems) if said.as_ref() != Some(&problems) => {
                    error!(
                        file = %self.file.display(), %problems,
                        "the callers' file is wrong; the rules before stay in force"
                    );
                    self.refused.fetch_add(1, Relaxed);
                    said = Some(problems);
                }
                Err(_) => {}
            }
        }
    }
}
