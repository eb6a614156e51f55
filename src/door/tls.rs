//! TLS of the doors: what a certificate, its key and an authority's certificates make of a connection.
//! They may be exchanged while connections are open.

mod material;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig, ServerConnection,
    pki_types::{CertificateDer, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    time_provider::TimeProvider,
};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

pub use self::material::{TlsMaterial, TlsProblem};
use super::peer::ClientIdentity;
use crate::{identity::Timestamp, keys::Clock};

/// What one connection is opened under.
pub(super) struct Terms {
    pub(super) server: Arc<ServerConfig>,
    /// `None` where no certificate is asked for.
    clients: Option<Clients>,
}

/// By which clients are verified.
#[derive(Clone)]
struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    /// The text of their authorities.
    authorities: Arc<[u8]>,
}

impl Terms {
    fn authorities(&self) -> Option<&[u8]> {
        self.clients.as_ref().map(|clients| &*clients.authorities)
    }
}

/// TLS of one door.
#[derive(Clone)]
pub struct DoorTls {
    terms: Arc<ArcSwap<Terms>>,
    clock: Clock,
}

impl fmt::Debug for DoorTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DoorTls").finish_non_exhaustive()
    }
}

/// TLS of both doors, by the same certificate.
#[derive(Debug)]
pub struct Tls {
    /// Clients show a certificate where an authority is named.
    pub grpc: DoorTls,
    /// No certificate is asked for: probes, Prometheus and webhooks have none.
    pub http: DoorTls,
    not_after_millis: AtomicI64,
}

impl Tls {
    /// From what the files hold.
    pub fn new(material: &TlsMaterial, clock: &Clock) -> Result<Self, TlsProblem> {
        let made = Made::of(material, clock)?;
        let door = |terms| DoorTls {
            terms: Arc::new(ArcSwap::from_pointee(terms)),
            clock: Arc::clone(clock),
        };
        Ok(Self {
            grpc: door(made.grpc),
            http: door(made.http),
            not_after_millis: AtomicI64::new(made.not_after.unix_millis()),
        })
    }

    /// Puts others in their place, for connections that are made from now on. Those that are open stay,
    /// unless their client's certificate is not one of the new authority's.
    pub fn exchange(&self, material: &TlsMaterial) -> Result<(), TlsProblem> {
        let made = Made::of(material, &self.grpc.clock)?;
        self.grpc.terms.store(Arc::new(made.grpc));
        self.http.terms.store(Arc::new(made.http));
        let not_after = made.not_after.unix_millis();
        self.not_after_millis.store(not_after, Relaxed);
        Ok(())
    }

    /// When the certificate in use ends.
    pub fn not_after(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.not_after_millis.load(Relaxed))
    }
}

impl DoorTls {
    pub(super) fn terms(&self) -> Arc<Terms> {
        self.terms.load_full()
    }

    /// Whether a connection that was opened under `terms` is one of today's, too: its client is verified
    /// again where they are others.
    pub(super) fn still_good(&self, terms: &mut Arc<Terms>, connection: &ServerConnection) -> bool {
        let current = self.terms.load();
        if Arc::ptr_eq(&current, terms) {
            return true;
        }
        // Who was let in by the same authorities stays, also where its certificate has ended since.
        if let Some(clients) = &current.clients
            && current.authorities() != terms.authorities()
        {
            let Some((own, between)) = connection.peer_certificates().and_then(<[_]>::split_first)
            else {
                return false;
            };
            let now = Now(Arc::clone(&self.clock)).current_time();
            let verified = now.map(|now| clients.verifier.verify_client_cert(own, between, now));
            let is_good = verified.is_some_and(|verified| verified.is_ok());
            if !is_good {
                return false;
            }
        }
        *terms = Arc::clone(&current);
        true
    }
}

/// Of both doors, from the same material.
struct Made {
    grpc: Terms,
    http: Terms,
    not_after: Timestamp,
}

impl Made {
    fn of(material: &TlsMaterial, clock: &Clock) -> Result<Self, TlsProblem> {
        let read = material.read(clock())?;
        let clients = match read.authorities.zip(material.client_ca.as_deref()) {
            Some((roots, text)) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(
                    Arc::new(roots),
                    Arc::clone(&read.provider),
                );
                let verifier = verifier.build();
                Some(Clients {
                    verifier: verifier.map_err(|error| TlsProblem::ClientCa(error.to_string()))?,
                    authorities: text.into(),
                })
            }
            None => None,
        };
        let door = |clients: Option<Clients>, protocols: &[&[u8]]| {
            let now = Arc::new(Now(Arc::clone(clock)));
            let server = ServerConfig::builder_with_details(Arc::clone(&read.provider), now)
                .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
                .map_err(|error| TlsProblem::Certificate(error.to_string()))?;
            let server = match &clients {
                Some(clients) => server.with_client_cert_verifier(Arc::clone(&clients.verifier)),
                None => server.with_no_client_auth(),
            };
            let mut server = server.with_cert_resolver(Arc::new(
                rustls::sign::SingleCertAndKey::from(Arc::clone(&read.certified)),
            ));
            if clients.is_some() {
                // A session that is resumed shows no certificate again: it may have expired meanwhile.
                server.session_storage = Arc::new(NoServerSessionStorage {});
                server.send_tls13_tickets = 0;
            }
            server.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Ok(Terms {
                server: Arc::new(server),
                clients,
            })
        };
        Ok(Self {
            grpc: door(clients, &[b"h2"])?,
            http: door(None, &[b"h2", b"http/1.1"])?,
            not_after: read.not_after,
        })
    }
}

/// The service's clock, for rustls.
struct Now(Clock);

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Now")
    }
}

impl TimeProvider for Now {
    /// `None`, with which nobody is verified, before 1970.
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from((self.0)().unix_seconds()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            seconds,
        )))
    }
}

/// Whom a certificate names that was verified. One that cannot be read names nobody.
pub(super) fn identity_of(certificate: &CertificateDer<'_>) -> ClientIdentity {
    let mut identity = ClientIdentity::default();
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else {
        return identity;
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return identity;
    };
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => identity.uris.push((*uri).into()),
            GeneralName::DNSName(name) => identity.dns_names.push((*name).into()),
            _ => {}
        }
    }
    identity
}

#[cfg(test)]
mod tests;
