//! A request target, as a proxy hands it over → its path, decoded once, and what is ambiguous in it.

use std::{borrow::Cow, fmt};

use thiserror::Error;

use super::{Ambiguities, Ambiguity, Reading, Segments};

/// The longest path in bytes, without the query: as long as nginx's longest request line.
pub const MAX_PATH_BYTES: usize = 8 * 1024;

/// How much of a refused path is shown, in bytes as received.
const SHOWN_BYTES: usize = 200;

/// The path of a request, decoded once, with its query apart.
///
/// It holds only ambiguities that a route may permit; without any, every server reads it alike. Two
/// paths of one text are one path: `/%61` is `/a`. Case counts. A slash at the end does not: `/a/`
/// has the segments of `/a`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    /// With the slash before it, decoded, but for what would change its meaning: `%2F`, and `%25`
    /// before two hexadecimal digits. So `%` with two digits is an escape, and any other is itself.
    decoded: Cow<'a, str>,
    /// What it is decoded twice; only with [`Ambiguity::DoubleEncoding`].
    decoded_twice: Option<String>,
    query: Option<&'a [u8]>,
    ambiguities: Ambiguities,
}

/// A path that no route may permit: to be denied with `PATH_AMBIGUOUS`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the path {path} has {}", found_list(*.ambiguities))]
pub struct AmbiguousPath {
    ambiguities: Ambiguities,
    path: String,
}

impl AmbiguousPath {
    /// What was found; at least one of them can not be permitted.
    pub const fn ambiguities(&self) -> Ambiguities {
        self.ambiguities
    }

    /// The path for logs: as received, but in visible ASCII, without the query and cut after 200
    /// bytes.
    pub fn text(&self) -> &str {
        &self.path
    }
}

fn found_list(ambiguities: Ambiguities) -> String {
    let found: Vec<&str> = ambiguities.iter().map(Ambiguity::found).collect();
    found.join(", ")
}

impl<'a> Path<'a> {
    /// Reads the target of a request line or the value of `:path`: a path that starts with a slash,
    /// and perhaps `?` and a query.
    ///
    /// # Errors
    ///
    /// When it has an ambiguity that no route may permit.
    pub fn parse(target: &'a [u8]) -> Result<Self, AmbiguousPath> {
        let cut = target.iter().position(|&byte| byte == b'?');
        let (path, query) = cut.map_or((target, None), |cut| {
            (&target[..cut], Some(&target[cut + 1..]))
        });
        let refused = |ambiguities| AmbiguousPath {
            ambiguities,
            path: shown(path),
        };
        let only = |ambiguity| refused(Ambiguities::from_iter([ambiguity]));
        if path.len() > MAX_PATH_BYTES {
            return Err(only(Ambiguity::TooLong));
        }
        if path.first() != Some(&b'/') {
            return Err(only(if has_scheme(path) {
                Ambiguity::AbsoluteForm
            } else {
                Ambiguity::NoLeadingSlash
            }));
        }

        let mut found = Ambiguities::NONE;
        for &byte in query.unwrap_or_default() {
            match byte {
                b'#' => found.insert(Ambiguity::Fragment),
                ..=b' ' | 0x7f => found.insert(Ambiguity::Control),
                _ => {}
            }
        }
        let decoded = match std::str::from_utf8(path) {
            Ok(plain) if path.iter().all(|&byte| is_plain(byte)) => Cow::Borrowed(plain),
            _ => decode(path, &mut found).map_err(refused)?.into(),
        };
        find_in_structure(&decoded, &mut found);
        if !found.iter().all(Ambiguity::can_be_permitted) {
            return Err(refused(found));
        }

        let decoded_twice = if found.contains(Ambiguity::DoubleEncoding) {
            let (again, found_again) = decode_again(&decoded);
            found = found.union(found_again);
            if !found.iter().all(Ambiguity::can_be_permitted) {
                return Err(refused(found));
            }
            Some(again)
        } else {
            None
        };
        Ok(Self {
            decoded,
            decoded_twice,
            query,
            ambiguities: found,
        })
    }

    /// What a route must permit for this path to be allowed.
    pub const fn ambiguities(&self) -> Ambiguities {
        self.ambiguities
    }

    /// What was behind the first `?`, as received.
    pub const fn query(&self) -> Option<&'a [u8]> {
        self.query
    }

    /// Its segments, decoded: what routes are matched with, and what their variables hold. Of what is
    /// permitted, `%2F` stays `%2F` in its segment, `;` and what follows it belong to theirs, an empty
    /// segment is one, and what is encoded twice is decoded once, up to `%` and two digits.
    pub fn segments(&self) -> Segments<'_> {
        Segments::of(&self.decoded)
    }

    /// Every other way in which servers read an ambiguous path; none where it is not ambiguous.
    ///
    /// A route that permits the ambiguities may allow the path only when each of these readings
    /// matches that same route and gives the variables that the decision uses the same values. Then it
    /// does not matter which reading the upstream takes.
    pub fn other_readings(&self) -> impl Iterator<Item = Reading> {
        let structure = self.ambiguities.intersection(Ambiguities::OF_STRUCTURE);
        let once = structure.subsets();
        let once = once.map(|taken| Reading::of(&self.decoded, taken));
        let twice = self.decoded_twice.iter().flat_map(move |twice| {
            let taken = std::iter::once(Ambiguities::NONE).chain(structure.subsets());
            taken.map(|taken| Reading::of(twice, taken))
        });
        once.chain(twice)
    }

    /// The canonical text, in visible ASCII, without the query: for logs, and for people to copy.
    /// Parsed again it is the same path.
    pub fn text(&self) -> Cow<'_, str> {
        if self.decoded.bytes().all(is_plain) {
            return Cow::Borrowed(&self.decoded);
        }
        encode(&self.decoded).into()
    }
}

/// The canonical text.
impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// What stands for itself in a path, to everybody: RFC 3986's `pchar` without `%` and `;`, and the
/// slash.
const fn is_plain(byte: u8) -> bool {
    const PLAIN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = matches!(
                byte as u8,
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9'
                    | b'-' | b'.' | b'_' | b'~'
                    | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'='
                    | b':' | b'@' | b'/'
            );
            byte += 1;
        }
        table
    };
    PLAIN[byte as usize]
}

/// Decodes once. Fails when the result is no text; what else is wrong stands in `found`.
fn decode(path: &[u8], found: &mut Ambiguities) -> Result<String, Ambiguities> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some((byte, next)) = decoded_at(path, at) {
        let is_escape = next - at == 3;
        match (is_escape, byte) {
            (true, b'/') => {
                found.insert(Ambiguity::EncodedSlash);
                decoded.extend_from_slice(b"%2F");
            }
            (true, b'%') => {
                if followed_by_digits(path, next, 2) {
                    found.insert(Ambiguity::DoubleEncoding);
                    decoded.extend_from_slice(b"%25");
                } else {
                    decoded.push(b'%');
                }
                // Old Windows servers read `%u002F` as a slash.
                if let Some((b'u' | b'U', digits)) = decoded_at(path, next)
                    && followed_by_digits(path, digits, 4)
                {
                    found.insert(Ambiguity::MalformedPercent);
                }
            }
            (is_escape, byte) => {
                match (is_escape, byte) {
                    (true, b'?') => found.insert(Ambiguity::EncodedQuestionMark),
                    (true, b'#') => found.insert(Ambiguity::EncodedHash),
                    (true, b'.') => found.insert(Ambiguity::EncodedDot),
                    (false, b'%') => found.insert(Ambiguity::MalformedPercent),
                    (false, b'#') => found.insert(Ambiguity::Fragment),
                    (_, b';') => found.insert(Ambiguity::Semicolon),
                    (_, b'\\') => found.insert(Ambiguity::Backslash),
                    (_, ..b' ' | 0x7f) | (false, b' ') => found.insert(Ambiguity::Control),
                    _ => {}
                }
                decoded.push(byte);
            }
        }
        at = next;
    }
    let Ok(decoded) = String::from_utf8(decoded) else {
        found.insert(Ambiguity::NonUtf8);
        return Err(*found);
    };
    if decoded.chars().any(|c| c.is_control()) {
        found.insert(Ambiguity::Control);
    }
    Ok(decoded)
}

/// The byte that stands at `at`, decoded, and where the next one starts. `%` without two digits is
/// itself.
fn decoded_at(path: &[u8], at: usize) -> Option<(u8, usize)> {
    let digit = |offset| char::from(*path.get(at + offset)?).to_digit(16);
    let byte = *path.get(at)?;
    if byte == b'%'
        && let (Some(high), Some(low)) = (digit(1), digit(2))
    {
        // Two hexadecimal digits are at most 255.
        return Some((u8::try_from(high * 16 + low).unwrap_or(u8::MAX), at + 3));
    }
    Some((byte, at + 1))
}

/// Whether the next `count` bytes, decoded, are hexadecimal digits.
fn followed_by_digits(path: &[u8], mut at: usize, count: usize) -> bool {
    (0..count).all(|_| {
        let Some((byte, next)) = decoded_at(path, at) else {
            return false;
        };
        at = next;
        byte.is_ascii_hexdigit()
    })
}

/// Finds dot segments and empty ones, in every reading at once: whether a slash is encoded or not, and
/// whether a segment ends at `;`, `?` or `#` or not.
fn find_in_structure(decoded: &str, found: &mut Ambiguities) {
    let mut rest = &decoded.as_bytes()[1..];
    let mut is_first = true;
    loop {
        let slash = rest.iter().enumerate().find_map(|(at, byte)| match byte {
            b'/' => Some((at, 1)),
            b'%' if rest[at..].starts_with(b"%2F") => Some((at, 3)),
            _ => None,
        });
        let segment = &rest[..slash.map_or(rest.len(), |(at, _)| at)];
        let name = segment.iter().position(|byte| b";?#".contains(byte));
        if matches!(&segment[..name.unwrap_or(segment.len())], b"." | b"..") {
            found.insert(Ambiguity::DotSegment);
        }
        let Some((at, width)) = slash else { return };
        if segment.is_empty() || segment[0] == b';' {
            found.insert(if is_first {
                Ambiguity::LeadingSlashes
            } else {
                Ambiguity::EmptySegment
            });
        }
        is_first = false;
        rest = &rest[at + width..];
    }
}

/// What someone reads who decodes once more, and what is ambiguous about that.
fn decode_again(decoded: &str) -> (String, Ambiguities) {
    let mut found = Ambiguities::NONE;
    let text = encode(decoded);
    let mut target = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        target.push(byte);
        let is_encoded_again = rest.starts_with(b"%25") && followed_by_digits(rest, 3, 2);
        rest = if is_encoded_again { &rest[3..] } else { behind };
    }
    let Ok(again) = decode(&target, &mut found) else {
        return (String::new(), found);
    };
    if found.contains(Ambiguity::DoubleEncoding) {
        found.insert(Ambiguity::RepeatedEncoding);
    }
    find_in_structure(&again, &mut found);
    (again, found)
}

/// The canonical text of what was decoded.
fn encode(decoded: &str) -> String {
    let mut encoded = String::with_capacity(decoded.len() + 16);
    for (at, byte) in decoded.bytes().enumerate() {
        let is_escape = || {
            ["%2F", "%25"]
                .iter()
                .any(|kept| decoded[at..].starts_with(kept))
        };
        if is_plain(byte) || byte == b';' || (byte == b'%' && is_escape()) {
            encoded.push(char::from(byte));
        } else {
            push_escaped(&mut encoded, byte);
        }
    }
    encoded
}

fn push_escaped(text: &mut String, byte: u8) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    text.push('%');
    text.push(DIGITS[usize::from(byte >> 4)]);
    text.push(DIGITS[usize::from(byte & 15)]);
}

fn has_scheme(target: &[u8]) -> bool {
    let Some(colon) = target.iter().position(|&byte| byte == b':') else {
        return false;
    };
    let (scheme, rest) = target.split_at(colon);
    rest.starts_with(b"://")
        && scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
}

fn shown(path: &[u8]) -> String {
    let mut text = String::new();
    for &byte in &path[..path.len().min(SHOWN_BYTES)] {
        if byte.is_ascii_graphic() {
            text.push(char::from(byte));
        } else {
            push_escaped(&mut text, byte);
        }
    }
    if path.len() > SHOWN_BYTES {
        text.push_str("...");
    }
    text
}
