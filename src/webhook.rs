//! What Clerk tells us about changes: whether a message is Clerk's, and what it is about.
//!
//! Called by the door that receives webhooks, which reads the body as bytes and hands them on as they
//! came. Clerk sends through Svix; the signature is Svix's, over the raw bytes
//! (docs/adr/0006-webhook-signatures.md). Pure: no I/O, no clock, no effect; what a change means is
//! not decided here.

mod envelope;
mod event_type;
mod headers;
mod secret;

use std::{fmt, time::Duration};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine, engine::general_purpose::STANDARD};
use thiserror::Error;

pub use self::envelope::{Envelope, EnvelopeTime, InvalidEnvelope};
pub use self::event_type::EventType;
pub use self::headers::{InvalidHeader, SignatureHeader};
use self::headers::{SIGNATURE_BYTES, SignatureHeaders};
pub use self::secret::{InvalidSecret, SigningSecret};
use crate::identity::{MessageId, Timestamp};

/// The largest body in bytes. Clerk's own are a few kilobytes; what is larger is refused unread.
pub const MAX_BODY_BYTES: usize = 1_048_576;

/// How far the attempt's time may be from ours, either way. Svix's own tolerance.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// A message that Clerk sent, once more or for the first time.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The same for every attempt and replay of a message.
    pub message_id: MessageId,
    /// When this attempt was made: never the time of the change.
    pub attempted_at: Timestamp,
    /// The position of the secret that it was signed with, among those that were given. In a
    /// rotation it says whether the old one is still in use.
    pub secret: usize,
    /// What it says.
    pub envelope: Envelope,
}

/// A message that is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The body is above [`MAX_BODY_BYTES`].
    #[error("the body is larger than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    /// The headers are not those of a signed message.
    #[error(transparent)]
    Header(#[from] InvalidHeader),
    /// The attempt's time is too far from ours.
    #[error(transparent)]
    Time(#[from] OutOfTolerance),
    /// No signature is of one of the secrets over these bytes.
    #[error("no signature is of a secret of this endpoint over these bytes")]
    WrongSignature,
    /// The signature holds and the body says nothing that we can read: Clerk's fault or ours.
    #[error(transparent)]
    Envelope(#[from] InvalidEnvelope),
}

/// The attempt's time is too far from ours: a recording, or a wrong clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OutOfTolerance {
    /// In the past.
    #[error("the attempt is more than {} s old; is the clock right?", TOLERANCE.as_secs())]
    TooOld,
    /// In the future.
    #[error("the attempt is more than {} s ahead; is the clock right?", TOLERANCE.as_secs())]
    TooNew,
}

/// Says whether a request is a message of whoever has one of `secrets`, and what it says.
///
/// `headers` are all headers of the request, or at least those of the signature, each as often as it
/// came; `body` is the bytes as they came. The steps are in this order, and the first that fails says
/// why: size, headers, time, signature, envelope. Nothing of the body is looked at before its
/// signature holds.
pub fn verify<'a>(
    secrets: &[SigningSecret],
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
    now: Timestamp,
) -> Result<Delivery, Refused> {
    if body.len() > MAX_BODY_BYTES {
        return Err(Refused::TooLarge);
    }
    let headers = SignatureHeaders::read(headers)?;
    check_time(headers.attempted_at, now)?;
    let secret = signed_with(secrets, &headers, body).ok_or(Refused::WrongSignature)?;
    let envelope = Envelope::parse(body)?;
    Ok(Delivery {
        message_id: headers.message_id,
        attempted_at: headers.attempted_at,
        secret,
        envelope,
    })
}

fn check_time(attempted_at: Timestamp, now: Timestamp) -> Result<(), OutOfTolerance> {
    // The header has whole seconds, so ours are compared.
    let now = Timestamp::from_unix_seconds(now.unix_seconds());
    if now.since(attempted_at) > TOLERANCE {
        Err(OutOfTolerance::TooOld)
    } else if attempted_at.since(now) > TOLERANCE {
        Err(OutOfTolerance::TooNew)
    } else {
        Ok(())
    }
}

/// The first secret of which one of the signatures is.
fn signed_with(
    secrets: &[SigningSecret],
    headers: &SignatureHeaders<'_>,
    body: &[u8],
) -> Option<usize> {
    let parts = [
        headers.message_id.as_str().as_bytes(),
        b".",
        headers.timestamp.as_bytes(),
        b".",
        body,
    ];
    secrets.iter().position(|secret| {
        let expected = secret.signature(&parts);
        headers
            .signatures()
            .any(|given| verify_slices_are_equal(&given, expected.as_ref()).is_ok())
    })
}

/// Exactly one signature's bytes in base64, or nothing.
fn decode_signature(text: &str) -> Option<[u8; SIGNATURE_BYTES]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

impl fmt::Display for SignatureHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
