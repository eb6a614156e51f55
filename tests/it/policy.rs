//! The route policy as people meet it: the commands, the schema, reload and the shadow.

mod commands;
mod reload;
mod schema;

use std::path::PathBuf;

/// A policy in a folder of its own.
pub struct PolicyFile {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl PolicyFile {
    pub fn of(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("policy.yaml");
        std::fs::write(&path, text).expect("written");
        Self {
            _folder: folder,
            path,
        }
    }

    /// Of these routes.
    pub fn routes(routes: &str) -> Self {
        Self::of(&routes_of(routes))
    }

    pub fn text(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    /// In one step, as editors and ConfigMaps do it.
    pub fn replace(&self, text: &str) {
        let new = self.path.with_extension("new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(&new, &self.path).expect("renamed");
    }
}

pub fn routes_of(routes: &str) -> String {
    format!("version: 1\nroutes:\n{routes}")
}
