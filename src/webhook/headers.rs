//! The three headers of a signature (Svix, and Standard Webhooks under names of their own).

use thiserror::Error;

use super::decode_signature;
use crate::identity::{MessageId, Timestamp};

/// HMAC-SHA256.
pub(super) const SIGNATURE_BYTES: usize = 32;

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureHeader {
    /// `svix-id`: the message.
    Id,
    /// `svix-timestamp`: the attempt's Unix seconds.
    Timestamp,
    /// `svix-signature`: one or more signatures.
    Signature,
}

impl SignatureHeader {
    /// Svix's name of it. Without it, `webhook-…` counts, header by header, as in Svix's own library.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Id => "svix-id",
            Self::Timestamp => "svix-timestamp",
            Self::Signature => "svix-signature",
        }
    }

    const fn unbranded(self) -> &'static str {
        match self {
            Self::Id => "webhook-id",
            Self::Timestamp => "webhook-timestamp",
            Self::Signature => "webhook-signature",
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Id => "1 to 255 visible ASCII characters",
            Self::Timestamp => "Unix seconds in digits, without a zero before them",
            Self::Signature => "visible ASCII characters and spaces",
        }
    }
}

/// A header of the signature is not there as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidHeader {
    /// Under neither name.
    #[error("there is no header {0}")]
    Missing(SignatureHeader),
    /// More than once: which one counts would be a guess.
    #[error("the header {0} is there more than once")]
    Repeated(SignatureHeader),
    /// With a value of another form.
    #[error("the header {0} is not as it should be; expected {expected}", expected = .0.expected())]
    Malformed(SignatureHeader),
}

/// The headers of a request that may be a signed message.
pub(super) struct SignatureHeaders<'a> {
    pub(super) message_id: MessageId,
    /// As it came: what was signed.
    pub(super) timestamp: &'a str,
    pub(super) attempted_at: Timestamp,
    signatures: &'a str,
}

impl<'a> SignatureHeaders<'a> {
    pub(super) fn read(
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, InvalidHeader> {
        use SignatureHeader::{Id, Signature, Timestamp as Time};
        let mut found = Found::default();
        for (name, value) in headers {
            found.take(name, value);
        }
        let id = found.value(Id)?;
        let timestamp = found.value(Time)?;
        let signatures = found.value(Signature)?;
        Ok(Self {
            message_id: id.parse().map_err(|_| InvalidHeader::Malformed(Id))?,
            attempted_at: seconds(timestamp).ok_or(InvalidHeader::Malformed(Time))?,
            timestamp,
            signatures,
        })
    }

    /// Every signature of the first version that can be one. Other versions are other schemes.
    pub(super) fn signatures(&self) -> impl Iterator<Item = [u8; SIGNATURE_BYTES]> {
        self.signatures
            .split(' ')
            .filter_map(|entry| entry.strip_prefix("v1,"))
            .filter_map(decode_signature)
    }
}

/// Svix formats the number anew before it computes; in this form both texts are one.
fn seconds(text: &str) -> Option<Timestamp> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    let seconds = is_plain.then(|| text.parse().ok())?;
    seconds.map(Timestamp::from_unix_seconds)
}

const ALL: [SignatureHeader; 3] = [
    SignatureHeader::Id,
    SignatureHeader::Timestamp,
    SignatureHeader::Signature,
];

/// A header's values.
#[derive(Clone, Copy, Default)]
enum Values<'a> {
    #[default]
    None,
    One(&'a [u8]),
    Several,
}

impl<'a> Values<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::None => Self::One(value),
            Self::One(_) | Self::Several => Self::Several,
        };
    }
}

#[derive(Default)]
struct Found<'a> {
    branded: [Values<'a>; 3],
    unbranded: [Values<'a>; 3],
}

impl<'a> Found<'a> {
    fn take(&mut self, name: &str, value: &'a [u8]) {
        for (index, header) in ALL.into_iter().enumerate() {
            if name.eq_ignore_ascii_case(header.name()) {
                self.branded[index].add(value);
            } else if name.eq_ignore_ascii_case(header.unbranded()) {
                self.unbranded[index].add(value);
            }
        }
    }

    fn value(&self, header: SignatureHeader) -> Result<&'a str, InvalidHeader> {
        let index = header as usize;
        let values = match self.branded[index] {
            Values::None => self.unbranded[index],
            branded => branded,
        };
        let value = match values {
            Values::None => return Err(InvalidHeader::Missing(header)),
            Values::Several => return Err(InvalidHeader::Repeated(header)),
            Values::One(value) => value,
        };
        let is_allowed = |b: &u8| b.is_ascii_graphic() || *b == b' ';
        let text = std::str::from_utf8(value).ok();
        text.filter(|_| value.iter().all(is_allowed))
            .ok_or(InvalidHeader::Malformed(header))
    }
}
