//! Reads `corpus.txt`, for the normaliser alone and for every door.

use std::collections::BTreeSet;

use clerk_authz::policy::Path;

/// Everything is for everybody, but for one folder. What is ambiguous no route permits.
pub const POLICY: &str = r"
version: 1
routes:
  - {name: all, path: /**, access: public, credentials: ignored}
  - {name: admin, path: /admin/**, access: denied}
";

/// One host or path.
#[derive(Debug)]
pub struct Line {
    /// Where it stands in the file, from 1.
    pub number: usize,
    /// Whether it is a host; else a request target.
    pub is_host: bool,
    /// As a client sends it.
    pub input: Vec<u8>,
    pub expected: Expected,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Expected {
    /// Denied, whatever the policy says; the names of what is ambiguous.
    Refused(BTreeSet<String>),
    Host(String),
    /// Allowed where a route says so that permits the ambiguities.
    Path {
        ambiguities: BTreeSet<String>,
        text: String,
        segments: Vec<String>,
        /// All of them, the segments too.
        readings: BTreeSet<Vec<String>>,
    },
}

impl Line {
    /// The request target and the host of a request with this line.
    pub fn target_and_host(&self) -> (&[u8], &[u8]) {
        match self.is_host {
            true => (b"/", &self.input),
            false => (&self.input, b"app.example"),
        }
    }

    /// What [`POLICY`] says of it.
    pub fn reason(&self) -> &'static str {
        match &self.expected {
            Expected::Host(_) => "ROUTE_PUBLIC",
            Expected::Refused(_) => "PATH_AMBIGUOUS",
            Expected::Path { ambiguities, .. } if !ambiguities.is_empty() => "PATH_AMBIGUOUS",
            Expected::Path { segments, .. } if segments.first().is_some_and(|it| it == "admin") => {
                "ROUTE_DENIED"
            }
            Expected::Path { .. } => "ROUTE_PUBLIC",
        }
    }

    /// Whether it can stand in a field of HTTP/1 as it is: the space around a value is none of it.
    pub fn is_a_field_value(&self) -> bool {
        let ends = [self.input.first(), self.input.last()];
        let has_space = ends.into_iter().flatten().any(|byte| b" \t".contains(byte));
        !has_space && !self.input.iter().any(|byte| b"\r\n".contains(byte))
    }
}

/// That an upstream may receive this path under [`POLICY`]: it is let through in every reading.
pub fn assert_is_for_everybody(received: &str, what: &str) {
    let path = Path::parse(received.as_bytes());
    let path = path.unwrap_or_else(|refused| panic!("{refused:?}: {what}"));
    assert!(path.ambiguities().is_empty(), "{what}");
    assert_ne!(path.segments().next(), Some("admin"), "{what}");
}

pub fn lines() -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (index, text) in include_str!("corpus.txt").lines().enumerate() {
        let number = index + 1;
        let fields: Vec<&str> = text.split_whitespace().collect();
        let (is_host, input, expected) = match *fields.as_slice() {
            [] => continue,
            // A target may be `#` too, but never the first field.
            [first, ..] if first.starts_with('#') => continue,
            ["host", input, "=", host] => (true, input, Expected::Host(host.to_owned())),
            ["host", input, "!", name] => (true, input, Expected::Refused(set(name))),
            ["path", input, "!", names] => (false, input, Expected::Refused(set(names))),
            ["path", input, "=", text, ref segments @ ..] => {
                (false, input, path(BTreeSet::new(), text, segments))
            }
            ["path", input, "?", names, text, ref segments @ ..] => {
                (false, input, path(set(names), text, segments))
            }
            ["also", ref segments @ ..] => {
                let Some(Expected::Path { readings, .. }) =
                    lines.last_mut().map(|line| &mut line.expected)
                else {
                    panic!("corpus.txt:{number}: no path above it has readings");
                };
                readings.insert(texts(segments));
                continue;
            }
            _ => panic!("corpus.txt:{number}: not a line of the form that its head describes"),
        };
        lines.push(Line {
            number,
            is_host,
            input: bytes(input),
            expected,
        });
    }
    lines
}

fn path(ambiguities: BTreeSet<String>, text: &str, segments: &[&str]) -> Expected {
    let segments = texts(segments);
    Expected::Path {
        ambiguities,
        text: text.to_owned(),
        readings: BTreeSet::from([segments.clone()]),
        segments,
    }
}

fn set(names: &str) -> BTreeSet<String> {
    names.split(',').map(str::to_owned).collect()
}

fn texts(fields: &[&str]) -> Vec<String> {
    let texts = fields.iter().map(|field| String::from_utf8(bytes(field)));
    texts.map(|text| text.expect("a text")).collect()
}

/// Without its escapes.
fn bytes(field: &str) -> Vec<u8> {
    if field == "\"\"" {
        return Vec::new();
    }
    let mut parts = field.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    while let Some(part) = parts.next() {
        if let Some(hex) = part.strip_prefix('x') {
            bytes.push(u8::from_str_radix(&hex[..2], 16).expect("two digits"));
            bytes.extend_from_slice(&hex.as_bytes()[2..]);
        } else {
            assert!(part.is_empty(), "\\x or \\\\ in {field}");
            bytes.push(b'\\');
            bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
        }
    }
    bytes
}
