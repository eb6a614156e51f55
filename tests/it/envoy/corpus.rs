//! The corpus of docs/paths.md through the real Envoy: for no line may the upstream serve what the
//! policy denies.

use clerk_authz::policy::Path;

use super::{Envoy, SetUp, proxy::request, service};
use crate::{
    paths::corpus::{self, Expected},
    support::upstream::Upstream,
};

/// Everything is for everybody, but for one folder. What is ambiguous no route permits.
const POLICY: &str = r"
version: 1
routes:
  - {name: all, path: /**, access: public, credentials: ignored}
  - {name: admin, path: /admin/**, access: denied}
";

#[tokio::test]
async fn no_line_of_the_corpus_serves_what_the_policy_denies() {
    let (fixture, _policy) = service(POLICY).await;
    for set_up in [SetUp::Bare, SetUp::Shipped] {
        let upstream = Upstream::start().await;
        let envoy = Envoy::start(set_up, fixture.service.grpc_addr(), upstream.addr).await;
        let (mut served, mut lines) = (0, 0);
        for line in corpus::lines() {
            lines += 1;
            let (target, host) = match line.is_host {
                true => (&b"/"[..], &line.input[..]),
                false => (&line.input[..], &b"app.example"[..]),
            };
            let before = upstream.served();
            let answer = envoy.raw(&request(target, &[("host", host)])).await;
            let what = format!("{set_up:?}: corpus.txt:{}: {answer:?}", line.number);
            assert_eq!(
                upstream.served() - before,
                u64::from(answer.status == 200),
                "{what}"
            );
            if answer.status != 200 {
                assert!((400..500).contains(&answer.status), "{what}");
                continue;
            }
            served += 1;

            // The path that is served is one that the policy lets through, in every reading.
            let json = answer.json();
            let received = json["request_line"].as_str().expect("a line");
            let mut words = received.split(' ');
            let received = words.nth(1).unwrap_or_default();
            let path = Path::parse(received.as_bytes());
            let path = path.unwrap_or_else(|refused| panic!("{refused:?}: {what}"));
            assert!(path.ambiguities().is_empty(), "{what}");
            assert_ne!(path.segments().next(), Some("admin"), "{what}");
            // What Envoy does not mend is served only where the corpus says so.
            let hosts = answer.received("host");
            let sent_on = match line.is_host {
                true => hosts.first().map_or("", String::as_str),
                false => received,
            };
            if sent_on.as_bytes() == line.input {
                let as_expected = match &line.expected {
                    Expected::Host(_) => true,
                    Expected::Refused(_) => false,
                    Expected::Path { ambiguities, .. } => ambiguities.is_empty(),
                };
                assert!(as_expected, "{what}");
            }
        }
        assert!(
            lines > 200 && served > 50,
            "{set_up:?}: {served} of {lines}"
        );
    }
    fixture.stop().await;
}
