//! Certificates for tests, and clients that trust and show them.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clerk_authz::door::grpc::proto::authz_service_client::AuthzServiceClient;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use super::PATIENCE;

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Certificate {
    pub pem: String,
    pub key: String,
}

/// Signs certificates.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).expect("signed").pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// For the service, at localhost and 127.0.0.1.
    pub fn server(&self) -> Certificate {
        self.signed(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    /// For a client with this SPIFFE ID, and a DNS name.
    pub fn client(&self, id: &str) -> Certificate {
        self.signed(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let uri = id.try_into().expect("ASCII");
            params.subject_alt_names.push(SanType::URI(uri));
        })
    }

    /// As [`Self::client`], and no longer valid.
    pub fn expired_client(&self, id: &str) -> Certificate {
        self.signed(|params| {
            let uri = id.try_into().expect("ASCII");
            params.subject_alt_names.push(SanType::URI(uri));
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        })
    }

    pub fn signed(&self, change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Certificate {
            pem: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// The files of a service's TLS.
pub struct TlsFiles {
    folder: tempfile::TempDir,
    has_client_ca: bool,
}

impl TlsFiles {
    pub fn new(certificate: &Certificate, client_ca: Option<&str>) -> Self {
        let files = Self {
            folder: tempfile::tempdir().expect("a folder"),
            has_client_ca: client_ca.is_some(),
        };
        files.put(certificate);
        if let Some(pem) = client_ca {
            files.put_client_ca(pem);
        }
        files
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn put(&self, certificate: &Certificate) {
        std::fs::write(self.file("cert.pem"), &certificate.pem).expect("written");
        std::fs::write(self.file("key.pem"), &certificate.key).expect("written");
    }

    pub fn put_certificate(&self, pem: &str) {
        std::fs::write(self.file("cert.pem"), pem).expect("written");
    }

    pub fn put_client_ca(&self, pem: &str) {
        std::fs::write(self.file("ca.pem"), pem).expect("written");
    }

    /// The settings that name them.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let file = |name| self.file(name).to_str().expect("UTF-8").to_owned();
        let mut variables = vec![
            ("CLERK_AUTHZ_TLS_CERT", file("cert.pem")),
            ("CLERK_AUTHZ_TLS_KEY", file("key.pem")),
        ];
        if self.has_client_ca {
            variables.push(("CLERK_AUTHZ_TLS_CLIENT_CA", file("ca.pem")));
        }
        variables
    }
}

/// A client that trusts an authority, and shows a certificate where it has one.
pub fn trusting(authority: &str, own: Option<&Certificate>, alpn: &[&str]) -> TlsConnector {
    trusting_by(rustls::DEFAULT_VERSIONS, authority, own, alpn)
}

pub fn trusting_by(
    versions: &[&'static rustls::SupportedProtocolVersion],
    authority: &str,
    own: Option<&Certificate>,
    alpn: &[&str],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let chain =
                CertificateDer::pem_slice_iter(own.pem.as_bytes()).collect::<Result<_, _>>();
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key");
            let with = config.with_client_auth_cert(chain.expect("PEM"), key);
            with.expect("a pair")
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// A connection behind its handshake, which says nothing yet of whether the service likes the client's
/// certificate.
pub async fn handshake(
    connector: &TlsConnector,
    addr: SocketAddr,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    connector.connect(name, stream).await
}

/// A channel that makes its connections so.
pub async fn tls_channel(
    connector: TlsConnector,
    addr: SocketAddr,
) -> Result<Channel, tonic::transport::Error> {
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = handshake(&connector, addr).await?;
            io::Result::Ok(hyper_util::rt::TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://localhost")
        .connect_timeout(PATIENCE)
        .timeout(Duration::from_secs(10))
        .connect_with_connector(connect)
        .await
}

pub async fn tls_client(
    connector: TlsConnector,
    addr: SocketAddr,
) -> Result<AuthzServiceClient<Channel>, tonic::transport::Error> {
    Ok(AuthzServiceClient::new(tls_channel(connector, addr).await?))
}
