//! How the probe speaks TLS.

use std::{io, net::IpAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::Args;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Whom the probe trusts, and what it shows. Beside the service, in its environment, nothing has to be
/// given.
#[derive(Args)]
pub(super) struct Tls {
    /// Speak TLS and trust these authorities, a PEM file. Without it and with --tls-cert whatever listens
    /// on this machine's own address is asked, as without TLS, and at another address the service must
    /// have exactly that certificate
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Speak TLS, and show this certificate, a PEM file, where one is asked for
    #[arg(
        long,
        value_name = "FILE",
        env = "CLERK_AUTHZ_TLS_CERT",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,
    /// The file of its private key
    #[arg(
        long,
        value_name = "FILE",
        env = "CLERK_AUTHZ_TLS_KEY",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,
    /// Which name the service's certificate must have, where it is not that of the address
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    tls_server_name: Option<String>,
}

impl Tls {
    pub(super) fn is_on(&self) -> bool {
        self.tls_ca.is_some() || self.tls_cert.is_some()
    }

    /// Connects to `addr`, a host and a port.
    pub(super) async fn connect(&self, addr: &str) -> anyhow::Result<Channel> {
        let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = self.tls_server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).context("the name is no host's")?;
        let connector = TlsConnector::from(Arc::new(self.config(is_own(host))?));
        let target = addr.to_owned();
        let connect = service_fn(move |_| {
            let (connector, name, target) = (connector.clone(), name.clone(), target.clone());
            async move {
                let stream = TcpStream::connect(target).await?;
                io::Result::Ok(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        let endpoint = Endpoint::try_from(format!("http://{addr}"))?;
        Ok(endpoint.connect_with_connector(connect).await?)
    }

    fn config(&self, is_own: bool) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let own = match &self.tls_cert {
            Some(file) => certificates(file)?,
            None => Vec::new(),
        };
        let builder: rustls::ConfigBuilder<ClientConfig, WantsClientCert> = match &self.tls_ca {
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file)? {
                    let added = roots.add(certificate);
                    added.with_context(|| format!("{} holds no authority", file.display()))?;
                }
                builder.with_root_certificates(roots)
            }
            None => {
                let first = own.first().cloned();
                let first = first.context("--tls-cert holds no certificate")?;
                // Where a new file was refused the service goes on with the certificate of before, and
                // is not to be restarted for it.
                let expected = (!is_own).then_some(first);
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(Exactly { expected, provider }))
            }
        };
        let mut config = match &self.tls_key {
            Some(file) => {
                let key = PrivateKeyDer::from_pem_file(file)
                    .with_context(|| format!("{} holds no private key", file.display()))?;
                builder.with_client_auth_cert(own, key)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

fn certificates(file: &PathBuf) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    read.with_context(|| format!("{} holds no certificate", file.display()))
}

/// Whether the host is this machine, by its own address.
fn is_own(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Takes one certificate and no other, whatever name it has, or any: what the service reads itself needs
/// no authority to say whose it is. That the other side has its key is verified as always.
#[derive(Debug)]
struct Exactly {
    expected: Option<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        found: &CertificateDer<'_>,
        _between: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self
            .expected
            .as_ref()
            .is_none_or(|expected| found == expected)
        {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General(
                "it has another certificate than that of --tls-cert; give --tls-ca".into(),
            ))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
