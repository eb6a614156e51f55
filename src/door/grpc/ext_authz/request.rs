//! What Envoy sends, as far as it is read.
//!
//! The messages are Envoy's on the wire, with bytes where its protos say text: a client's bytes that
//! are no UTF-8 are to be denied, and not to end the call as an error, which Envoy may be told to
//! take for a yes (CVE-2023-27488). What is not read is not kept either.

use std::{borrow::Cow, fmt};

use bytes::Bytes;

use crate::authz::Headers;

/// `envoy.service.auth.v3.CheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

/// `envoy.service.auth.v3.AttributeContext`.
#[derive(Clone, PartialEq, prost::Message)]
struct Attributes {
    #[prost(message, optional, tag = "4")]
    request: Option<Request>,
    #[prost(message, repeated, tag = "10")]
    context_extensions: Vec<Entry>,
}

/// `envoy.service.auth.v3.AttributeContext.Request`.
#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(message, optional, tag = "2")]
    http: Option<Http>,
}

/// `envoy.service.auth.v3.AttributeContext.HttpRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Http {
    #[prost(bytes = "bytes", tag = "2")]
    method: Bytes,
    #[prost(message, repeated, tag = "3")]
    headers: Vec<Entry>,
    /// With the query.
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) path: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) host: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    scheme: Bytes,
    #[prost(message, optional, tag = "13")]
    header_map: Option<HeaderMap>,
}

/// An entry of a map of texts, and `envoy.config.core.v3.HeaderValue`.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    raw_value: Bytes,
}

/// `Debug` shows no value.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// `envoy.config.core.v3.HeaderMap`.
#[derive(Clone, PartialEq, prost::Message)]
struct HeaderMap {
    #[prost(message, repeated, tag = "1")]
    headers: Vec<Entry>,
}

impl CheckRequest {
    /// The request, where there is one.
    pub(super) fn http(&self) -> Option<&Http> {
        let request = self.attributes.as_ref()?.request.as_ref()?;
        request.http.as_ref()
    }

    /// What the proxy's own configuration says, with `U+FFFD` for bytes that are no text.
    pub(super) fn context(&self) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
        let attributes = self.attributes.iter();
        let entries = attributes.flat_map(|attributes| &attributes.context_extensions);
        let texts = entries.map(|entry| {
            let key = String::from_utf8_lossy(&entry.key);
            (key, String::from_utf8_lossy(&entry.value))
        });
        texts.collect()
    }
}

impl Http {
    /// With `U+FFFD` for bytes that are no text: a method of no route.
    pub(super) fn method(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.method)
    }

    pub(super) fn is_https(&self) -> bool {
        self.scheme.eq_ignore_ascii_case(b"https")
    }

    fn raw(&self) -> &[Entry] {
        self.header_map.as_ref().map_or(&[], |map| &map.headers)
    }

    /// Every name, as it came.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        // Envoy refuses other bytes in a name.
        let entries = self.headers.iter().chain(self.raw());
        entries.filter_map(|entry| std::str::from_utf8(&entry.key).ok())
    }

    /// Each value of a header. Where both forms are sent, they must say the same; else there is a
    /// value more.
    fn bytes_of(&self, name: &str) -> Vec<&[u8]> {
        let is_it = |entry: &&Entry| entry.key.eq_ignore_ascii_case(name.as_bytes());
        let mut values: Vec<&[u8]> = self.raw().iter().filter(is_it).map(Entry::bytes).collect();
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
        let texts = values.map(|value| String::from_utf8_lossy(value).into_owned());
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

impl Entry {
    fn bytes(&self) -> &[u8] {
        match &*self.raw_value {
            [] => &self.value,
            raw => raw,
        }
    }
}

impl Headers for Http {
    fn values<'h>(&'h self, name: &str) -> Vec<&'h str> {
        let values = self.bytes_of(name).into_iter();
        // One that is no text is a value all the same.
        let texts = values.map(|value| std::str::from_utf8(value).unwrap_or("\u{fffd}"));
        texts.collect()
    }
}
