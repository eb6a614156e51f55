//! Who is at the other end of a connection.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

/// The names of a client certificate that was verified: its subject alternative names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Its URIs, such as SPIFFE IDs.
    pub uris: Vec<Box<str>>,
    /// Its DNS names.
    pub dns_names: Vec<Box<str>>,
}

/// What is known of a connection's other end; the doors find it in a request's extensions.
#[derive(Clone, Debug, Default)]
pub struct PeerInfo {
    /// `None` over a Unix socket.
    pub addr: Option<SocketAddr>,
    /// Filled once the TLS handshake has ended; empty without a client certificate.
    pub identity: Arc<OnceLock<ClientIdentity>>,
}
