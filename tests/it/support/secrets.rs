//! Nothing that lets anybody in may stand in anything that a service says. What tests get to see of it
//! passes here: the log lines of services in processes and in this one, metrics, errors, spans.

use std::{
    io::{self, Write},
    process::abort,
    sync::Once,
};

use memchr::memmem;
use tracing_subscriber::{
    Layer, filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

/// How a secret key begins, a webhook's secret, a private key, and the head of each JWT. The same as in
/// `scripts/running.py`; `scripts/test.sh` wants more of each.
const SECRET: [&str; 5] = ["sk_test_", "sk_live_", "whsec_", "PRIVATE KEY", "eyJ"];

/// Fails where a secret is in what was said.
pub fn none_in(place: &str, said: &str) {
    let found = found_in(said);
    assert!(found.is_none(), "{found:?} is in {place}: {said}");
}

/// As quick in a development build as it can be: some tests look at how soon hundreds of calls are answered.
fn found_in(said: impl AsRef<[u8]>) -> Option<&'static str> {
    let said = said.as_ref();
    let is_in = |secret: &&str| memmem::find(said, secret.as_bytes()).is_some();
    SECRET.into_iter().find(is_in)
}

/// From now on what services in this process log is looked at, at its most verbose.
pub fn look_at_logs() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        let ours = Targets::new().with_target("clerk_authz", tracing::Level::TRACE);
        let lines = fmt::layer().without_time().with_ansi(false);
        let lines = lines.with_writer(|| Looked);
        tracing_subscriber::registry()
            .with(lines.with_filter(ours))
            .init();
    });
}

/// Takes a line at a time.
struct Looked;

impl Write for Looked {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(found) = found_in(line) {
            let said = String::from_utf8_lossy(line);
            // Whose task this is, it may be one whose panic nobody sees.
            let _ = writeln!(io::stderr(), "{found:?} is in a service's log: {said}");
            abort();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_secret_is_found() {
    assert_eq!(found_in("denied token=eyJhbGciOi"), Some("eyJ"));
    assert_eq!(found_in("denied reason=TOKEN_EXPIRED"), None);
}
