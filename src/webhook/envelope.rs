//! What stands around a change: its type, its time, its instance.

use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use thiserror::Error;

use super::EventType;
use crate::identity::{InstanceId, Timestamp};

/// Below this a time is in seconds: as milliseconds it would be in 1973, before there was a Clerk.
const MILLISECONDS_FROM: i64 = 100_000_000_000;
/// The last millisecond of the year 9999, which RFC 3339 can still write.
const MAX_MILLISECONDS: i64 = 253_402_300_799_999;

/// A body that says nothing that we can read, though its signature holds. Never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidEnvelope {
    /// Not UTF-8, not JSON, not an object, or with one of our members twice.
    #[error("the body is not a JSON object in UTF-8 whose members are there once")]
    NotAnObject,
    /// A member is not there, or is of a form that it never has.
    #[error("the envelope's \"{0}\" is not as it should be; expected {1}")]
    Member(&'static str, &'static str),
}

/// A message without its signature.
#[derive(Clone)]
pub struct Envelope {
    /// What happened.
    pub event_type: EventType,
    /// When it happened. Clerk always says it; where the envelope does not, the only time is the
    /// data's own `updated_at`, and a deletion has none.
    pub time: Option<EnvelopeTime>,
    /// The Clerk instance that it happened in. Clerk always says it.
    pub instance_id: Option<InstanceId>,
    /// What it happened to: a JSON object, of the shape that the type has. `None` of a type
    /// whose data nobody may keep ([`EventType::keeps_data`]).
    pub data: Option<Box<RawValue>>,
}

/// The time of an envelope, in either unit that Clerk is documented to use: its guide has
/// milliseconds, its schema file seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeTime {
    earliest: Timestamp,
    latest: Timestamp,
}

impl EnvelopeTime {
    /// The time to order by. Seconds count as their first millisecond, so that such a time never
    /// beats an `updated_at` within its second.
    pub fn earliest(self) -> Timestamp {
        self.earliest
    }

    /// The time to judge by what was issued before: seconds count as their last millisecond.
    pub fn latest(self) -> Timestamp {
        self.latest
    }

    fn from_number(number: i64) -> Option<Self> {
        let (earliest, length) = match number {
            0..MILLISECONDS_FROM => (number * 1_000, 1_000),
            MILLISECONDS_FROM.. => (number, 1),
            ..0 => return None,
        };
        (earliest <= MAX_MILLISECONDS).then(|| Self {
            earliest: Timestamp::from_unix_millis(earliest),
            latest: Timestamp::from_unix_millis(earliest + length - 1),
        })
    }
}

/// The members that we know, not yet looked at.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, rename = "type", deserialize_with = "present")]
    event_type: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    instance_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// A member that is there, `null` included: a wrong type is never an absent member.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Envelope {
    /// Reads a body. It does not ask who sent it: [`super::verify`] does, before.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidEnvelope> {
        let text = std::str::from_utf8(body).map_err(|_| InvalidEnvelope::NotAnObject)?;
        // A struct can be read from an array too.
        if !text
            .trim_start_matches([' ', '\t', '\r', '\n'])
            .starts_with('{')
        {
            return Err(InvalidEnvelope::NotAnObject);
        }
        let members: Members<'_> =
            serde_json::from_str(text).map_err(|_| InvalidEnvelope::NotAnObject)?;

        let invalid = |name, expected| move || InvalidEnvelope::Member(name, expected);
        let event_type = members.event_type.and_then(read::<String>);
        let event_type = event_type
            .and_then(EventType::from_text)
            .ok_or_else(invalid("type", "1 to 255 visible ASCII characters"))?;
        let data = members.data.filter(|data| data.get().starts_with('{'));
        let data = data.ok_or_else(invalid("data", "an object"))?;
        let time = members.timestamp.map(|given| {
            read(given)
                .and_then(EnvelopeTime::from_number)
                .ok_or_else(invalid("timestamp", "whole Unix milliseconds or seconds"))
        });
        let instance_id = members.instance_id.map(|given| {
            read::<String>(given)
                .and_then(|text| text.parse().ok())
                .ok_or_else(invalid("instance_id", "1 to 255 visible ASCII characters"))
        });
        Ok(Self {
            time: time.transpose()?,
            instance_id: instance_id.transpose()?,
            data: event_type.keeps_data().then(|| data.to_owned()),
            event_type,
        })
    }
}

fn read<'a, T: Deserialize<'a>>(member: &'a RawValue) -> Option<T> {
    serde_json::from_str(member.get()).ok()
}

/// Data is people's: it is in no log.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("event_type", &self.event_type)
            .field("time", &self.time)
            .field("instance_id", &self.instance_id)
            .field("data_bytes", &self.data.as_ref().map(|it| it.get().len()))
            .finish()
    }
}
