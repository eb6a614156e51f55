//! Listeners as the settings name them: TCP or a Unix socket, under the limits of their door.

use std::path::Path;

use super::{
    StartError,
    socket::{self, SocketFile},
};
use crate::{
    door::{DoorTls, GuardedListener, ListenerLimits},
    settings::ListenAddr,
};

/// A listener, and what belongs to it.
pub(super) struct Listening {
    pub(super) listener: GuardedListener,
    /// Where it listens, with the port that it has.
    pub(super) addr: ListenAddr,
    /// Of a Unix socket.
    pub(super) file: Option<SocketFile>,
}

impl Listening {
    /// Where the setting `variable` says.
    pub(super) async fn at(
        variable: &'static str,
        addr: &ListenAddr,
        limits: ListenerLimits,
        tls: Option<DoorTls>,
    ) -> Result<Self, StartError> {
        let listening = match addr {
            ListenAddr::Tcp(tcp) => GuardedListener::bind(*tcp, limits).await.map(|listener| {
                let bound = listener.local_addr().ok().flatten();
                (listener, bound.unwrap_or(*tcp).into(), None)
            }),
            ListenAddr::Unix(path) => socket::bind(path).map(|(socket, file)| {
                let listener = GuardedListener::over(socket, limits);
                (listener, addr.clone(), Some(file))
            }),
        };
        let (listener, addr, file) = listening.map_err(|source| StartError::Listen {
            variable,
            addr: addr.clone(),
            source,
        })?;
        Ok(Self {
            listener: listener.with_tls(tls),
            addr,
            file,
        })
    }

    /// The Unix socket of `/forward-auth`, which is no address of HTTP's other answers.
    pub(super) fn for_forward_auth(
        path: &Path,
        limits: ListenerLimits,
    ) -> Result<Self, StartError> {
        let bound = socket::bind(path).map_err(|source| StartError::Socket {
            variable: "CLERK_AUTHZ_FORWARD_AUTH_SOCKET",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            listener: GuardedListener::over(bound.0, limits),
            addr: ListenAddr::Unix(path.to_owned()),
            file: Some(bound.1),
        })
    }
}
