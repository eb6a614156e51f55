//! The answer that lets a request go on, written straight into its bytes: of all answers the one that is
//! given most, with some thirty texts that Envoy's messages would each hold as a copy of its own.

use std::borrow::Cow;

use envoy_types::ext_authz::v3::pb::HeaderAppendAction;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::codec::Encoded;
use crate::{door::answer::IdentityHeaders, handshake::SetCookie};

/// Names, and what there is under them.
pub(super) type Texts<'a> = [(&'static str, Option<&'a str>); 9];

/// `envoy.service.auth.v3.CheckResponse` with an `OkHttpResponse`.
pub(super) struct Yes<'a> {
    pub(super) reason: &'a str,
    pub(super) headers: &'a IdentityHeaders<'a>,
    /// Set on the answer of the upstream, beside its own.
    pub(super) cookies: &'a [SetCookie],
    pub(super) removed: &'a [Cow<'static, str>],
    /// One member of the dynamic metadata: an object of texts.
    pub(super) metadata: (&'static str, &'a Texts<'a>),
}

/// Field numbers, by message. All are below 16: with the wire type they make one byte.
mod field {
    pub(super) const RESPONSE_STATUS: u8 = 1;
    pub(super) const RESPONSE_OK: u8 = 3;
    pub(super) const RESPONSE_METADATA: u8 = 4;
    pub(super) const STATUS_MESSAGE: u8 = 2;
    pub(super) const OK_HEADERS: u8 = 2;
    pub(super) const OK_HEADERS_TO_REMOVE: u8 = 5;
    pub(super) const OK_RESPONSE_HEADERS_TO_ADD: u8 = 6;
    pub(super) const OPTION_HEADER: u8 = 1;
    pub(super) const OPTION_APPEND_ACTION: u8 = 3;
    pub(super) const STRUCT_FIELDS: u8 = 1;
    pub(super) const VALUE_STRING: u8 = 3;
    pub(super) const VALUE_STRUCT: u8 = 5;
    /// Of `HeaderValue`, and of an entry of a map.
    pub(super) const KEY: u8 = 1;
    pub(super) const VALUE: u8 = 2;
}

const SET_COOKIE: &str = "set-cookie";
/// Of an answer with a browser's cookies, whatever the upstream says: a shared cache that keeps it would
/// give them to the next one (RFC 9111, 7.3).
const NOT_KEPT: (&str, &str) = ("cache-control", "no-store");

/// Wire types of protobuf.
const VARINT: u8 = 0;
const LENGTH_DELIMITED: u8 = 2;

/// In place of every value of that name.
const OVERWRITE: [u8; 2] = [
    field::OPTION_APPEND_ACTION << 3 | VARINT,
    HeaderAppendAction::OverwriteIfExistsOrAdd as u8,
];

/// The bytes of a field with so many bytes in it.
fn field_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// The bytes of a header's `HeaderValue`, or of an entry with a text.
fn pair_len(name: &str, text: &str) -> usize {
    field_len(name.len()) + field_len(text.len())
}

/// Of a header that stands beside others of its name: what to do is that which is not written.
fn added_len(name: &str, value: &str) -> usize {
    field_len(pair_len(name, value))
}

fn option_len(name: &str, value: &str) -> usize {
    field_len(pair_len(name, value)) + OVERWRITE.len()
}

/// Of an entry of a `Struct` with a text.
fn entry_len(name: &str, text: &str) -> usize {
    field_len(name.len()) + field_len(field_len(text.len()))
}

/// What is written, field by field.
struct Writer(Vec<u8>);

impl Writer {
    /// Begins a field with so many bytes in it.
    fn open(&mut self, field: u8, length: usize) {
        self.0.push(field << 3 | LENGTH_DELIMITED);
        encode_varint(length as u64, &mut self.0);
    }

    fn text(&mut self, field: u8, text: &str) {
        self.open(field, text.len());
        self.0.extend_from_slice(text.as_bytes());
    }
}

impl Yes<'_> {
    /// Headers of the answer beside its cookies.
    fn on_the_way_back(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        (!self.cookies.is_empty()).then_some(NOT_KEPT).into_iter()
    }

    pub(super) fn encode(&self) -> Encoded {
        let headers = || {
            let set = self.headers.set();
            set.map(|(name, value)| (name.as_str(), value))
        };
        let (key, texts) = self.metadata;
        let texts = || {
            let texts = texts.iter();
            texts.filter_map(|(name, text)| Some((*name, (*text)?)))
        };
        // The code is that of `OK`, zero, which is not written.
        let status = field_len(self.reason.len());
        let ok = headers()
            .map(|(name, value)| field_len(option_len(name, value)))
            .chain(self.removed.iter().map(|name| field_len(name.len())))
            .chain(
                self.cookies
                    .iter()
                    .map(|cookie| field_len(added_len(SET_COOKIE, cookie.as_str()))),
            )
            .chain(
                self.on_the_way_back()
                    .map(|(name, value)| field_len(option_len(name, value))),
            )
            .sum();
        let object = texts()
            .map(|(name, text)| field_len(entry_len(name, text)))
            .sum();
        let entry = field_len(key.len()) + field_len(field_len(object));
        let metadata = field_len(entry);

        let length = field_len(status) + field_len(ok) + field_len(metadata);
        let mut to = Writer(Vec::with_capacity(length));
        to.open(field::RESPONSE_STATUS, status);
        to.text(field::STATUS_MESSAGE, self.reason);
        to.open(field::RESPONSE_OK, ok);
        for (name, value) in headers() {
            to.open(field::OK_HEADERS, option_len(name, value));
            to.open(field::OPTION_HEADER, pair_len(name, value));
            to.text(field::KEY, name);
            to.text(field::VALUE, value);
            to.0.extend_from_slice(&OVERWRITE);
        }
        for name in self.removed {
            to.text(field::OK_HEADERS_TO_REMOVE, name);
        }
        for cookie in self.cookies {
            let cookie = cookie.as_str();
            to.open(
                field::OK_RESPONSE_HEADERS_TO_ADD,
                added_len(SET_COOKIE, cookie),
            );
            to.open(field::OPTION_HEADER, pair_len(SET_COOKIE, cookie));
            to.text(field::KEY, SET_COOKIE);
            to.text(field::VALUE, cookie);
        }
        for (name, value) in self.on_the_way_back() {
            to.open(field::OK_RESPONSE_HEADERS_TO_ADD, option_len(name, value));
            to.open(field::OPTION_HEADER, pair_len(name, value));
            to.text(field::KEY, name);
            to.text(field::VALUE, value);
            to.0.extend_from_slice(&OVERWRITE);
        }
        to.open(field::RESPONSE_METADATA, metadata);
        to.open(field::STRUCT_FIELDS, entry);
        to.text(field::KEY, key);
        to.open(field::VALUE, field_len(object));
        to.open(field::VALUE_STRUCT, object);
        for (name, text) in texts() {
            to.open(field::STRUCT_FIELDS, entry_len(name, text));
            to.text(field::KEY, name);
            to.open(field::VALUE, field_len(text.len()));
            to.text(field::VALUE_STRING, text);
        }
        debug_assert_eq!(to.0.len(), length, "measured as written");
        Encoded(to.0)
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::{
        ext_authz::v3::pb::{
            CheckResponse, HeaderValue, HeaderValueOption, HttpResponse, OkHttpResponse,
        },
        pb::google::{
            protobuf::{Struct, Value, value::Kind},
            rpc,
        },
    };
    use proptest::{array, collection::vec, option, prelude::*};
    use prost::Message;

    use super::*;
    use crate::handshake::Directives;

    /// The same in Envoy's own messages.
    fn in_messages(yes: &Yes<'_>) -> CheckResponse {
        let option = |(name, value): (&str, &str)| HeaderValueOption {
            header: Some(HeaderValue {
                key: name.to_owned(),
                value: value.to_owned(),
                raw_value: Vec::new(),
            }),
            append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
            ..HeaderValueOption::default()
        };
        let added = |cookie: &SetCookie| HeaderValueOption {
            header: Some(HeaderValue {
                key: "set-cookie".to_owned(),
                value: cookie.as_str().to_owned(),
                raw_value: Vec::new(),
            }),
            append_action: HeaderAppendAction::AppendIfExistsOrAdd.into(),
            ..HeaderValueOption::default()
        };
        let (key, texts) = yes.metadata;
        let texts = texts.iter().filter_map(|(name, text)| {
            let kind = Some(Kind::StringValue((*text)?.to_owned()));
            Some(((*name).to_owned(), Value { kind }))
        });
        let object = Struct {
            fields: texts.collect(),
        };
        let kind = Some(Kind::StructValue(object));
        CheckResponse {
            status: Some(rpc::Status {
                code: 0,
                message: yes.reason.to_owned(),
                details: Vec::new(),
            }),
            http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
                headers: yes
                    .headers
                    .set()
                    .map(|(name, value)| option((name.as_str(), value)))
                    .collect(),
                headers_to_remove: yes.removed.iter().map(ToString::to_string).collect(),
                response_headers_to_add: yes
                    .cookies
                    .iter()
                    .map(added)
                    .chain((!yes.cookies.is_empty()).then(|| option(("cache-control", "no-store"))))
                    .collect(),
                ..OkHttpResponse::default()
            })),
            dynamic_metadata: Some(Struct {
                fields: [(key.to_owned(), Value { kind })].into(),
            }),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_envoys_own_messages_say(
            values in array::uniform12(option::of("[!-~]{0,300}")),
            spoofed in vec("[a-z_.-]{1,200}", 0..20),
            texts in array::uniform9(option::of("\\PC{0,200}")),
            cookies in vec("__session=[a-z]{0,200}; Path=/", 0..4),
        ) {
            let headers = IdentityHeaders::with(values.map(|value| value.map(Cow::Owned)));
            let cookies = Directives::read(&cookies, "").expect("cookies").into_cookies();
            let removed: Vec<Cow<'static, str>> = spoofed.into_iter().map(Cow::Owned).collect();
            let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
            let texts = std::array::from_fn(|at| (names[at], texts[at].as_deref()));
            let yes = Yes {
                reason: "ALLOWED",
                headers: &headers,
                cookies: &cookies,
                removed: &removed,
                metadata: ("clerk_authz", &texts),
            };

            let Encoded(bytes) = yes.encode();

            prop_assert_eq!(CheckResponse::decode(&*bytes), Ok(in_messages(&yes)));
        }
    }
}
