//! The files of TLS: read at the start, and again when they change.

use std::{
    fs,
    path::Path,
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
    door::{Tls, TlsMaterial, TlsProblem},
    keys::Clock,
    settings::{Settings, TlsSettings},
};

const CERTIFICATE: &str = "CLERK_AUTHZ_TLS_CERT";
const KEY: &str = "CLERK_AUTHZ_TLS_KEY";
const CLIENT_CA: &str = "CLERK_AUTHZ_TLS_CLIENT_CA";

/// A file of more bytes than this is none of TLS.
const MAX_BYTES: u64 = 1 << 20;

/// TLS of the doors, kept as its files are.
pub(super) struct ReloadedTls {
    files: TlsSettings,
    doors: Tls,
    /// What was read at the start.
    loaded: TlsMaterial,
    applied: AtomicU64,
    refused: AtomicU64,
}

/// What is wrong, and with which setting.
#[derive(Clone, PartialEq, Eq)]
struct Wrong {
    variable: &'static str,
    cause: String,
}

impl ReloadedTls {
    /// Reads what the settings name; `None` where they name nothing.
    pub(super) fn load(settings: &Settings, clock: &Clock) -> Result<Option<Self>, StartError> {
        let Some(files) = settings.tls.clone() else {
            return Ok(None);
        };
        let made = read(&files).and_then(|material| {
            let doors = Tls::new(&material, clock).map_err(|problem| wrong(&problem))?;
            Ok((doors, material))
        });
        let (doors, loaded) = made.map_err(|Wrong { variable, cause }| StartError::Tls {
            variable,
            file: file_of(&files, variable).to_owned(),
            cause,
        })?;
        let asks_clients = files.client_ca.is_some();
        info!(expires = %doors.not_after(), asks_clients, "TLS is on");
        Ok(Some(Self {
            files,
            doors,
            loaded,
            applied: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    pub(super) fn doors(&self) -> &Tls {
        &self.doors
    }

    /// Changes that were applied, and that were refused.
    pub(super) fn reloads(&self) -> (u64, u64) {
        (self.applied.load(Relaxed), self.refused.load(Relaxed))
    }

    /// Reads the files until the stop, and puts in force what has changed. What is wrong changes nothing,
    /// and is said once. Neither at the first look: a certificate and its key are two files that change
    /// one after the other, and of a file that is being written there may be a part that is good by itself.
    pub(super) async fn reload_on_change(self: Arc<Self>, stop: CancellationToken) {
        let mut in_force = self.loaded.clone();
        let mut settling = Settling::default();
        let (mut seen, mut said): (Option<Wrong>, Option<Wrong>) = (None, None);
        loop {
            let files = self.files.clone();
            let Some(found) = look(&stop, LOOK_INTERVAL, move || read(&files)).await else {
                return;
            };
            let applied = match found {
                Ok(material) if in_force == material => Ok(()),
                Ok(material) if !settling.is_seen_again(&material) => continue,
                Ok(material) => self.exchange(&material).map(|()| in_force = material),
                Err(wrong) => Err(wrong),
            };
            let fault = applied.err();
            if fault.is_none() {
                said = None;
            } else if fault == seen && fault != said {
                self.refuse(fault.as_ref());
                said.clone_from(&fault);
            }
            seen = fault;
        }
    }

    fn exchange(&self, material: &TlsMaterial) -> Result<(), Wrong> {
        let exchanged = self.doors.exchange(material);
        exchanged.map_err(|problem| wrong(&problem))?;
        self.applied.fetch_add(1, Relaxed);
        info!(expires = %self.doors.not_after(), "TLS reloaded");
        Ok(())
    }

    fn refuse(&self, fault: Option<&Wrong>) {
        if let Some(Wrong { variable, cause }) = fault {
            self.refused.fetch_add(1, Relaxed);
            error!(
                variable, file = %file_of(&self.files, variable).display(), %cause,
                "a file of TLS is wrong; what was before stays in force"
            );
        }
    }
}

/// What was seen at the last look.
#[derive(Debug)]
struct Settling<T>(Option<T>);

impl<T> Default for Settling<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone + PartialEq> Settling<T> {
    /// Whether two looks, one after the other, saw the same.
    fn is_seen_again(&mut self, seen: &T) -> bool {
        let is_same = self.0.as_ref() == Some(seen);
        if !is_same {
            self.0 = Some(seen.clone());
        }
        is_same
    }
}

fn file_of<'a>(files: &'a TlsSettings, variable: &str) -> &'a Path {
    match variable {
        KEY => &files.key,
        CLIENT_CA => files.client_ca.as_deref().unwrap_or(Path::new("")),
        _ => &files.certificate,
    }
}

fn wrong(problem: &TlsProblem) -> Wrong {
    let variable = match problem {
        TlsProblem::Certificate(_) => CERTIFICATE,
        TlsProblem::Key(_) => KEY,
        TlsProblem::ClientCa(_) => CLIENT_CA,
    };
    Wrong {
        variable,
        cause: problem.to_string(),
    }
}

fn read(files: &TlsSettings) -> Result<TlsMaterial, Wrong> {
    let client_ca = files.client_ca.as_deref();
    Ok(TlsMaterial {
        certificate: read_one(CERTIFICATE, &files.certificate)?,
        key: read_one(KEY, &files.key)?,
        client_ca: client_ca
            .map(|file| read_one(CLIENT_CA, file))
            .transpose()?,
    })
}

fn read_one(variable: &'static str, file: &Path) -> Result<Vec<u8>, Wrong> {
    let wrong = |cause| Wrong { variable, cause };
    let cannot = |error: std::io::Error| wrong(format!("it cannot be read: {error}"));
    if fs::metadata(file).map_err(cannot)?.len() > MAX_BYTES {
        return Err(wrong(format!(
            "expected a file of at most {MAX_BYTES} bytes"
        )));
    }
    fs::read(file).map_err(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_file_that_is_being_written_no_part_counts() {
        let mut settling = Settling::default();
        let looks = ["one authority", "both", "both", "both", "one authority"];
        let seen_again = looks.map(|text| settling.is_seen_again(&text));
        assert_eq!(seen_again, [false, false, true, true, false]);
    }
}
