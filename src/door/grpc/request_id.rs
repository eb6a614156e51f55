//! What names a request, and a decision, in answers and in logs.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderName, HeaderValue};
use tonic::{Request, Response, Status, metadata::MetadataValue};

/// The header that names a request, in and out.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id in bytes that is believed; a longer one is replaced.
const MAX_REQUEST_ID_BYTES: usize = 128;

type Text = MetadataValue<tonic::metadata::Ascii>;

/// Names a request in answers and in logs. Where the caller gave none it is made when something is
/// first said under it: an answer that nothing was logged about needs none.
pub(super) struct RequestId(OnceLock<Text>);

impl RequestId {
    fn text(&self) -> &Text {
        self.0.get_or_init(|| {
            let digits = new_digits();
            Text::try_from(&digits[..]).unwrap_or_else(|_| Text::from_static("0"))
        })
    }

    /// One that was given or logged.
    pub(super) fn known(&self) -> Option<&str> {
        self.0.get()?.to_str().ok()
    }
}

/// As it stands in the log.
impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}

/// The caller's request id where it has a good one, else one that is made when it is needed.
pub(super) fn of<T>(request: &Request<T>) -> RequestId {
    let given = request.metadata().as_ref().get(&REQUEST_ID);
    let given = given.map(HeaderValue::as_bytes).filter(|id| is_good(id));
    let given = given.and_then(|id| Text::try_from(id).ok());
    RequestId(given.map_or_else(OnceLock::new, Into::into))
}

/// Whether a request id is believed.
pub(in crate::door) fn is_good(id: &[u8]) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// A new name for a decision: 16 hexadecimal digits.
pub fn new_decision_id() -> String {
    DecisionId::new().as_str().to_owned()
}

/// The same, without memory of its own.
pub(in crate::door) struct DecisionId([u8; 16]);

impl DecisionId {
    pub(in crate::door) fn new() -> Self {
        Self(new_digits())
    }

    pub(in crate::door) fn as_str(&self) -> &str {
        // Digits are UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Unique in this process by a counter, and among processes by its random start; not a secret.
fn new_digits() -> [u8; 16] {
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(std::process::id())));
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    std::array::from_fn(|position| b"0123456789abcdef"[(id >> (60 - 4 * position)) as usize & 0xf])
}

/// Returns the request's id with its answer: one that was given or logged, and with an error always.
pub(super) fn identified<T>(
    id: RequestId,
    answer: Result<T, Status>,
) -> Result<Response<T>, Status> {
    // It never comes again: HPACK must not remember it (RFC 7541 §7.1.3 has the same flag).
    let unique = |mut text: Text| {
        text.set_sensitive(true);
        text
    };
    match answer {
        Ok(answer) => {
            let mut response = Response::new(answer);
            if let Some(text) = id.0.into_inner() {
                response
                    .metadata_mut()
                    .insert(REQUEST_ID.as_str(), unique(text));
            }
            Ok(response)
        }
        Err(mut status) => {
            let text = id.text().clone();
            status
                .metadata_mut()
                .insert(REQUEST_ID.as_str(), unique(text));
            Err(status)
        }
    }
}
