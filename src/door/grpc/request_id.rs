//! What names a request, and a decision, in answers and in logs.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tonic::{Request, Response, Status, metadata::MetadataValue};

/// The header that names a request, in and out.
const REQUEST_ID: &str = "x-request-id";
/// The longest request id in bytes that is believed; a longer one is replaced.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Names a request in answers and in logs.
pub(super) type RequestId = MetadataValue<tonic::metadata::Ascii>;

/// The caller's request id where it has a good one, else a new one.
pub(super) fn of<T>(request: &Request<T>) -> RequestId {
    let given = request.metadata().get(REQUEST_ID);
    match given {
        Some(given)
            if (1..=MAX_REQUEST_ID_BYTES).contains(&given.len())
                && given.as_bytes().iter().all(u8::is_ascii_graphic) =>
        {
            given.clone()
        }
        _ => {
            let digits = new_digits();
            MetadataValue::try_from(&digits[..]).unwrap_or_else(|_| MetadataValue::from_static("0"))
        }
    }
}

/// A new name for a decision: 16 hexadecimal digits.
pub fn new_decision_id() -> String {
    new_digits().iter().copied().map(char::from).collect()
}

/// Unique in this process by a counter, and among processes by its random start; not a secret.
fn new_digits() -> [u8; 16] {
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(std::process::id())));
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    std::array::from_fn(|position| b"0123456789abcdef"[(id >> (60 - 4 * position)) as usize & 0xf])
}

/// Returns the request's id with its answer.
pub(super) fn identified<T>(
    mut id: RequestId,
    answer: Result<T, Status>,
) -> Result<Response<T>, Status> {
    // It never comes again: HPACK must not remember it (RFC 7541 §7.1.3 has the same flag).
    id.set_sensitive(true);
    match answer {
        Ok(answer) => {
            let mut response = Response::new(answer);
            response.metadata_mut().insert(REQUEST_ID, id);
            Ok(response)
        }
        Err(mut status) => {
            status.metadata_mut().insert(REQUEST_ID, id);
            Err(status)
        }
    }
}
