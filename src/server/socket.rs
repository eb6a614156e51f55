//! Unix sockets: their files are made at the start and removed at the end.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;
use tracing::warn;

/// The owner and the group may connect: the proxy is to be of the group.
const MODE: u32 = 0o660;

/// The file of a socket; removed when this is dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and number: what another service has put there since is not ours to remove.
    identity: (u64, u64),
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !identity(&self.path).is_ok_and(|found| found == self.identity) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            warn!(file = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// Listens at `path`. What a service left there that was killed is replaced; what is alive, or is no
/// socket, is not.
pub(super) fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && is_dead(path) {
        fs::remove_file(path)?;
    }
    // Until the mode is set, nobody but the owner may connect by any usual mask.
    let listener = UnixListener::bind(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path)?,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok((listener, file))
}

/// Whether nobody listens. Any other failure, of a full queue or of permissions, says nothing of that.
fn is_dead(path: &Path) -> bool {
    UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
