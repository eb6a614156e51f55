//! The Unix socket of `/forward-auth`: made at the start, removed at the end.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;
use tracing::warn;

use super::StartError;

/// The owner and the group may connect: the proxy is to be of the group.
const MODE: u32 = 0o660;

/// Removes the file that it names.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            warn!(file = %self.0.display(), %error, "cannot remove the socket");
        }
    }
}

/// Listens at `path`. What a service left there that was killed is replaced; what is alive, or is no
/// socket, is not.
pub(super) fn listen(path: &Path) -> Result<(UnixListener, SocketFile), StartError> {
    bind(path).map_err(|source| StartError::Socket {
        variable: "CLERK_AUTHZ_FORWARD_AUTH_SOCKET",
        path: path.to_owned(),
        source,
    })
}

fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err() {
        fs::remove_file(path)?;
    }
    // Until the mode is set, nobody but the owner may connect by any usual mask.
    let listener = UnixListener::bind(path)?;
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok((listener, file))
}
