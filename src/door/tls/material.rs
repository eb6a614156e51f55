//! PEM → what rustls takes, with what is wrong said of the file that it stands in.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use thiserror::Error;
use x509_parser::parse_x509_certificate;

use crate::identity::Timestamp;

/// What the files hold, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsMaterial {
    /// The certificate, and behind it those between it and an authority.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// Certificates of authorities; who asks over gRPC shows one that they signed.
    pub client_ca: Option<Vec<u8>>,
}

/// What is wrong, and in which file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TlsProblem {
    /// In the certificate's.
    #[error("{0}")]
    Certificate(String),
    /// In the key's, or that it is another's.
    #[error("{0}")]
    Key(String),
    /// In the authorities'.
    #[error("{0}")]
    ClientCa(String),
}

/// The same, read.
pub(super) struct Read {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) authorities: Option<RootCertStore>,
    pub(super) not_after: Timestamp,
}

impl TlsMaterial {
    pub(super) fn read(&self, now: Timestamp) -> Result<Read, TlsProblem> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = certificates(&self.certificate).map_err(TlsProblem::Certificate)?;
        let mut not_after = None;
        for certificate in &chain {
            let (from, until) = validity(certificate).map_err(TlsProblem::Certificate)?;
            if until < now {
                return Err(TlsProblem::Certificate(format!("it expired at {until}")));
            }
            if from > now {
                let text = format!("it is not valid before {from}");
                return Err(TlsProblem::Certificate(text));
            }
            not_after = not_after.into_iter().chain([until]).min();
        }
        let not_after = not_after.ok_or_else(|| TlsProblem::Certificate(NO_CERTIFICATE.into()))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| TlsProblem::Key("it holds no private key as PEM".into()))?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| TlsProblem::Key(error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsProblem::Key("it is not the key of the certificate".into())
            }
            error => TlsProblem::Certificate(error.to_string()),
        })?;
        let authorities = match &self.client_ca {
            Some(pem) => Some(authorities(pem).map_err(TlsProblem::ClientCa)?),
            None => None,
        };
        Ok(Read {
            provider,
            certified: Arc::new(certified),
            authorities,
            not_after,
        })
    }
}

const NO_CERTIFICATE: &str = "it holds no certificate as PEM";

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err(NO_CERTIFICATE.into()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("it is no PEM: {error}")),
    }
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        let added = roots.add(certificate);
        added.map_err(|error| format!("it holds a certificate that is no authority's: {error}"))?;
    }
    Ok(roots)
}

/// From when until when.
fn validity(certificate: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp), String> {
    let (_, certificate) = parse_x509_certificate(certificate)
        .map_err(|error| format!("it holds what is no certificate: {error}"))?;
    let validity = certificate.validity();
    Ok((
        Timestamp::from_unix_seconds(validity.not_before.timestamp()),
        Timestamp::from_unix_seconds(validity.not_after.timestamp()),
    ))
}
