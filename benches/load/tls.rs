//! A token that is cached, over TLS, on connections that are kept.

use rcgen::{CertificateParams, KeyPair};

use crate::{
    Bench, ROUNDS,
    client::{CALLS, Client, VERIFY, about, body_file, framed, h2load, h2load_over_tls},
    table::{Row, median, say},
};

/// What is left of the calls for the same CPU time.
const AT_LEAST: f64 = 0.85;

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    say("TLS");
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(names).expect("names");
    let certificate = params.self_signed(&key).expect("signed").pem();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let (certificate, key) = (
        write("tls.crt", &certificate),
        write("tls.key", &key.serialize_pem()),
    );
    let files = [
        ("CLERK_AUTHZ_TLS_CERT", &*certificate),
        ("CLERK_AUTHZ_TLS_KEY", &*key),
    ];
    let plain = bench.serve_apart(&[]);
    let tls = bench.serve_apart(&files);
    for service in [&plain, &tls] {
        service.accepts().await;
    }

    let question = framed(&about(&bench.mint(|_| {})));
    let client = Client::connect(plain.addr()).await;
    assert_eq!(client.call(VERIFY, question.clone()).await, "0", "accepted");
    let body = body_file(&question);
    let (mut floor, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // By what the server uses: h2load has more to do with TLS, too, and would bound the rate.
        floor.push(plain.cpu_while(CALLS, || {
            h2load(plain.addr(), VERIFY, body.path());
        }));
        ours.push(tls.cpu_while(CALLS, || {
            h2load_over_tls(tls.addr(), VERIFY, body.path());
        }));
    }
    let (floor, ours) = (median(floor), median(ours));
    vec![Row {
        figure: "`VerifySession`, cached, over TLS 1.3 on kept connections: calls per CPU time against plain",
        measured: format!("{:.2}× ({ours:.1} µs; plain {floor:.1} µs)", floor / ours),
        target: format!("≥ {AT_LEAST}×"),
        reached: floor / ours >= AT_LEAST,
    }]
}
