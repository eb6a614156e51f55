//! What Envoy sends, as far as it is read: where it stands, and nothing is copied.
//!
//! The messages are Envoy's on the wire, with bytes where its protos say text: a client's bytes that
//! are no UTF-8 are to be denied, and not to end the call as an error, which Envoy may be told to
//! take for a yes (CVE-2023-27488). What is not read is skipped.

use std::{borrow::Cow, fmt};

use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use crate::authz::Headers;

/// About as many headers as a browser sends.
const HEADERS: usize = 32;

/// It is no message of protobuf.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl From<DecodeError> for Malformed {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

/// Calls `take` with the number and the bytes of each field that is a message, a text or bytes. Of a
/// field that comes again, a message adds to the one before, and a text replaces it, as protobuf wants
/// it.
fn fields<'a>(
    mut message: &'a [u8],
    mut take: impl FnMut(u32, &'a [u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !message.is_empty() {
        let (number, wire_type) = decode_key(&mut message)?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, number, &mut message, DecodeContext::default())?;
            continue;
        }
        let length = usize::try_from(decode_varint(&mut message)?).map_err(|_| Malformed)?;
        let (field, behind) = message.split_at_checked(length).ok_or(Malformed)?;
        message = behind;
        take(number, field)?;
    }
    Ok(())
}

/// `envoy.service.auth.v3.CheckRequest`, without the messages around what is read.
#[derive(Debug, Default, PartialEq)]
pub(super) struct CheckRequest<'a> {
    /// The request, where there is one.
    pub(super) http: Option<Http<'a>>,
    context_extensions: Vec<Entry<'a>>,
}

/// `envoy.service.auth.v3.AttributeContext.HttpRequest`. `Debug` shows no value of a header.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Http<'a> {
    method: &'a [u8],
    headers: Vec<Entry<'a>>,
    /// With the query.
    pub(super) path: &'a [u8],
    pub(super) host: &'a [u8],
    scheme: &'a [u8],
    /// Of `header_map`.
    raw: Vec<Entry<'a>>,
}

/// An entry of a map of texts, and `envoy.config.core.v3.HeaderValue`.
#[derive(Clone, Copy, Default, PartialEq)]
struct Entry<'a> {
    key: &'a [u8],
    value: &'a [u8],
    raw_value: &'a [u8],
}

/// `Debug` shows no value.
impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &String::from_utf8_lossy(self.key))
            .finish_non_exhaustive()
    }
}

impl<'a> CheckRequest<'a> {
    /// Reads a message.
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut read = Self::default();
        // CheckRequest, AttributeContext, AttributeContext.Request.
        fields(message, |number, field| match number {
            1 => fields(field, |number, field| match number {
                4 => fields(field, |number, field| match number {
                    2 => read.http.get_or_insert_default().read(field),
                    _ => Ok(()),
                }),
                10 => push(&mut read.context_extensions, field),
                _ => Ok(()),
            }),
            _ => Ok(()),
        })?;
        Ok(read)
    }

    /// What the proxy's own configuration says, with `U+FFFD` for bytes that are no text.
    pub(super) fn context(&self) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        let texts = self.context_extensions.iter().map(|entry| {
            let key = String::from_utf8_lossy(entry.key);
            (key, String::from_utf8_lossy(entry.value))
        });
        texts.collect()
    }
}

fn push<'a>(entries: &mut Vec<Entry<'a>>, field: &'a [u8]) -> Result<(), Malformed> {
    let mut entry = Entry::default();
    fields(field, |number, field| {
        match number {
            1 => entry.key = field,
            2 => entry.value = field,
            3 => entry.raw_value = field,
            _ => {}
        }
        Ok(())
    })?;
    if entries.is_empty() {
        entries.reserve(HEADERS);
    }
    entries.push(entry);
    Ok(())
}

impl<'a> Http<'a> {
    fn read(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        fields(message, |number, field| {
            match number {
                2 => self.method = field,
                3 => push(&mut self.headers, field)?,
                4 => self.path = field,
                5 => self.host = field,
                6 => self.scheme = field,
                13 => fields(field, |number, field| match number {
                    1 => push(&mut self.raw, field),
                    _ => Ok(()),
                })?,
                _ => {}
            }
            Ok(())
        })
    }

    /// With `U+FFFD` for bytes that are no text: a method of no route.
    pub(super) fn method(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.method)
    }

    pub(super) fn is_https(&self) -> bool {
        self.scheme.eq_ignore_ascii_case(b"https")
    }

    /// Every name, as it came.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        // Envoy refuses other bytes in a name.
        let entries = self.headers.iter().chain(&self.raw);
        entries.filter_map(|entry| std::str::from_utf8(entry.key).ok())
    }

    /// Each value of a header. Where both forms are sent, they must say the same; else there is a
    /// value more.
    fn bytes_of(&self, name: &str) -> Vec<&'a [u8]> {
        let is_it = |entry: &&Entry<'_>| entry.key.eq_ignore_ascii_case(name.as_bytes());
        let raw = self.raw.iter().filter(is_it);
        let mut values: Vec<&[u8]> = raw.map(Entry::bytes).collect();
        if self.headers.is_empty() {
            return values;
        }
        let joined = values.join(&b","[..]);
        for entry in self.headers.iter().filter(is_it) {
            if values.is_empty() || entry.bytes() != joined {
                values.push(entry.bytes());
            }
        }
        values
    }

    /// Each value of a header, with `U+FFFD` for bytes that are no text, so that none goes unseen.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let values = self.bytes_of(name).into_iter();
        let texts = values.map(|value| match std::str::from_utf8(value) {
            Ok(text) => text.to_owned(),
            Err(_) => String::from_utf8_lossy(value).into_owned(),
        });
        texts.collect()
    }

    /// Whether gRPC asks, as Envoy finds out.
    pub(super) fn is_grpc(&self) -> bool {
        match self.values("content-type")[..] {
            [one] => one
                .strip_prefix("application/grpc")
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('+')),
            _ => false,
        }
    }
}

impl<'a> Entry<'a> {
    fn bytes(&self) -> &'a [u8] {
        match self.raw_value {
            [] => self.value,
            raw => raw,
        }
    }
}

impl Headers for Http<'_> {
    fn values<'h>(&'h self, name: &str) -> Vec<&'h str> {
        let values = self.bytes_of(name).into_iter();
        // One that is no text is a value all the same.
        let texts = values.map(|value| std::str::from_utf8(value).unwrap_or("\u{fffd}"));
        texts.collect()
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::{
        ext_authz::v3::pb as envoy,
        pb::envoy::{
            config::core::v3::{HeaderMap, HeaderValue},
            service::auth::v3::{
                AttributeContext,
                attribute_context::{HttpRequest, Peer, Request},
            },
        },
        pb::google::protobuf::Timestamp,
    };
    use proptest::{collection::vec, prelude::*};
    use prost::Message;

    use super::*;

    type Pairs = Vec<(String, String)>;

    fn pairs() -> impl Strategy<Value = Pairs> {
        vec(("[a-z:-]{0,20}", "\\PC{0,200}"), 0..40)
    }

    fn sorted(mut pairs: Pairs) -> Pairs {
        pairs.sort();
        // Of a map: the last of a name.
        pairs
            .into_iter()
            .collect::<std::collections::BTreeMap<_, _>>()
            .into_iter()
            .collect()
    }

    fn texts(entries: &[Entry<'_>], value: fn(&Entry<'_>) -> Vec<u8>) -> Pairs {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        entries
            .iter()
            .map(|entry| (text(entry.key), text(&value(entry))))
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_envoys_own_messages_say(
            [method, path, host, scheme] in proptest::array::uniform4("\\PC{0,300}"),
            (headers, raw, context) in (pairs(), pairs(), pairs()),
            seconds in any::<i64>(),
        ) {
            let (headers, context) = (sorted(headers), sorted(context));
            let raw_headers = raw.iter().map(|(key, value)| HeaderValue {
                key: key.clone(),
                value: String::new(),
                raw_value: value.clone().into_bytes(),
            });
            let http = HttpRequest {
                id: "skipped".to_owned(),
                method: method.clone(),
                headers: headers.iter().cloned().collect(),
                path: path.clone(),
                host: host.clone(),
                scheme: scheme.clone(),
                query: "skipped".to_owned(),
                size: seconds,
                header_map: Some(HeaderMap { headers: raw_headers.collect() }),
                raw_body: vec![b'x'; 300],
                ..HttpRequest::default()
            };
            let message = envoy::CheckRequest {
                attributes: Some(AttributeContext {
                    source: Some(Peer::default()),
                    request: Some(Request {
                        time: Some(Timestamp { seconds, nanos: 1 }),
                        http: Some(http),
                    }),
                    context_extensions: context.iter().cloned().collect(),
                    ..AttributeContext::default()
                }),
            }
            .encode_to_vec();

            let read = CheckRequest::read(&message).expect("a message");

            let http = read.http.as_ref().expect("there");
            prop_assert_eq!(
                [http.method, http.path, http.host, http.scheme],
                [&method, &path, &host, &scheme].map(|text| text.as_bytes())
            );
            let value = |entry: &Entry<'_>| entry.value.to_vec();
            prop_assert_eq!(sorted(texts(&http.headers, value)), headers);
            prop_assert_eq!(texts(&http.raw, |entry| entry.raw_value.to_vec()), raw);
            prop_assert_eq!(sorted(texts(&read.context_extensions, value)), context);
        }

        #[test]
        fn what_prost_reads_is_read_and_no_bytes_panic(
            bytes in vec(any::<u8>(), 0..200),
        ) {
            let is_message = envoy::CheckRequest::decode(&*bytes).is_ok();
            let read = CheckRequest::read(&bytes);
            // It looks at less of it, and takes bytes for text.
            prop_assert!(read.is_ok() || !is_message);
        }
    }

    #[test]
    fn a_message_that_comes_in_two_parts_is_one() {
        let part = |http: HttpRequest| envoy::CheckRequest {
            attributes: Some(AttributeContext {
                request: Some(Request {
                    time: None,
                    http: Some(http),
                }),
                ..AttributeContext::default()
            }),
        };
        let mut bytes = part(HttpRequest {
            method: "GET".to_owned(),
            path: "/a".to_owned(),
            ..HttpRequest::default()
        })
        .encode_to_vec();
        bytes.extend(
            part(HttpRequest {
                path: "/b".to_owned(),
                ..HttpRequest::default()
            })
            .encode_to_vec(),
        );

        let read = CheckRequest::read(&bytes).expect("a message");

        let http = read.http.expect("there");
        assert_eq!((http.method, http.path), (&b"GET"[..], &b"/b"[..]));
    }

    #[test]
    fn a_length_beyond_the_end_is_malformed() {
        for bytes in [
            &b"\x0a\x05\x00"[..],
            b"\x0a",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        ] {
            assert_eq!(CheckRequest::read(bytes), Err(Malformed), "{bytes:?}");
        }
    }
}
