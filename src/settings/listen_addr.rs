//! Where a door listens: an address of TCP, or a Unix socket.

use std::{
    fmt,
    net::SocketAddr,
    os::unix::net::SocketAddr as UnixAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Where a door listens. As text `ADDRESS:PORT`, `unix:PATH`, or `unix:///PATH` for an absolute path,
/// which is how clients of gRPC name their targets (gRPC, "Name Resolution").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// An IP address and a port; port 0 is one that is free.
    Tcp(SocketAddr),
    /// A Unix socket's file.
    Unix(PathBuf),
}

impl ListenAddr {
    /// The address, unless it is a Unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(addr) => Some(*addr),
            Self::Unix(_) => None,
        }
    }

    /// The socket's file, if it is one.
    pub fn unix(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

/// A text that is no address. It holds nothing: whoever reads a setting says what it expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAddress;

impl FromStr for ListenAddr {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Tcp).map_err(|_| NotAnAddress);
        };
        let path = match path.strip_prefix("//") {
            // What stands behind two slashes and is not absolute would be a host.
            Some(path) if !path.starts_with('/') => return Err(NotAnAddress),
            Some(path) => path,
            None => path,
        };
        // The system's own bounds: 107 bytes on Linux, and no NUL.
        let fits = UnixAddr::from_pathname(path).is_ok();
        if path.is_empty() || path.ends_with('/') || !fits {
            return Err(NotAnAddress);
        }
        Ok(Self::Unix(PathBuf::from(path)))
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for ListenAddr {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(addr)
    }
}

impl From<&ListenAddr> for ListenAddr {
    fn from(addr: &ListenAddr) -> Self {
        addr.clone()
    }
}
