use rcgen::{CertificateParams, KeyPair, SanType};

use super::*;

#[test]
fn a_certificate_names_uris_and_dns_names_and_nothing_else() {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["a.example".to_owned()]).expect("names");
    let uri = "spiffe://example.org/a".try_into().expect("ASCII");
    let mail = "a@example.org".try_into().expect("ASCII");
    params.subject_alt_names.push(SanType::URI(uri));
    params.subject_alt_names.push(SanType::Rfc822Name(mail));
    let certificate = params.self_signed(&key).expect("signed");

    let identity = identity_of(certificate.der());

    assert_eq!(
        identity,
        ClientIdentity {
            uris: vec!["spiffe://example.org/a".into()],
            dns_names: vec!["a.example".into()],
        }
    );
    let nobody = identity_of(&CertificateDer::from(vec![0; 8]));
    assert_eq!(nobody, ClientIdentity::default());
}

#[test]
fn before_1970_nobody_is_verified() {
    let at = |seconds| Now(Arc::new(move || Timestamp::from_unix_seconds(seconds)));
    assert!(at(-1).current_time().is_none());
    assert_eq!(at(7).current_time().map(|now| now.as_secs()), Some(7));
}
