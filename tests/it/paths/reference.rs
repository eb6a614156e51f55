//! The same rules again, slowly, from docs/paths.md: each byte remembers how often it was encoded.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::corpus::Expected;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Atom {
    byte: u8,
    /// How often it was encoded.
    times: usize,
}

impl Atom {
    fn is_hex(self) -> bool {
        self.byte.is_ascii_hexdigit()
    }

    fn is(self, byte: u8) -> bool {
        self.byte == byte
    }
}

/// Every `%` and two digits becomes the byte that it stands for, from left to right, once.
fn decode(atoms: &[Atom]) -> Vec<Atom> {
    match atoms {
        [] => Vec::new(),
        [percent, high, low, rest @ ..] if percent.is(b'%') && high.is_hex() && low.is_hex() => {
            let digits = [high.byte, low.byte];
            let text = std::str::from_utf8(&digits).expect("digits");
            let byte = u8::from_str_radix(text, 16).expect("digits");
            // As often as the one of its three that was encoded most.
            let times = 1 + percent.times.max(high.times).max(low.times);
            let mut decoded = vec![Atom { byte, times }];
            decoded.extend(decode(rest));
            decoded
        }
        [first, rest @ ..] => {
            let mut decoded = vec![*first];
            decoded.extend(decode(rest));
            decoded
        }
    }
}

pub fn path(target: &[u8]) -> Expected {
    let text = target.split(|&byte| byte == b'?').next().expect("a part");
    let query = &target[text.len()..];
    let refuse =
        |names: &[&str]| Expected::Refused(names.iter().map(ToString::to_string).collect());
    if text.len() > 8192 {
        return refuse(&["too_long"]);
    }
    if !text.starts_with(b"/") {
        let lossy = String::from_utf8_lossy(text).to_ascii_lowercase();
        let scheme = lossy.split_once("://").map(|(scheme, _)| scheme);
        let is_scheme = |scheme: &str| {
            scheme.starts_with(|c: char| c.is_ascii_lowercase())
                && scheme
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        };
        return refuse(if scheme.is_some_and(is_scheme) {
            &["absolute_form"]
        } else {
            &["no_leading_slash"]
        });
    }

    let mut found: BTreeSet<&str> = BTreeSet::new();
    if query.contains(&b'#') {
        found.insert("fragment");
    }
    if query.iter().any(|&byte| byte <= 32 || byte == 127) {
        found.insert("control");
    }
    let raw: Vec<Atom> = text.iter().map(|&byte| Atom { byte, times: 0 }).collect();
    let once = decode(&raw);
    let twice = decode(&once);
    let is_encoded_twice =
        (0..once.len()).any(|at| once[at].is(b'%') && once[at].times > 0 && is_escape(&once, at));
    if is_encoded_twice {
        found.insert("double_encoding");
    }
    let is_text = find(&once, &mut found);
    let owned = |found: &BTreeSet<&str>| found.iter().map(ToString::to_string).collect();
    if !is_text || found.iter().any(|name| !PERMITTED.contains(name)) {
        return Expected::Refused(owned(&found));
    }
    if is_encoded_twice {
        if decode(&twice) != twice {
            found.insert("repeated_encoding");
        }
        find(&twice, &mut found);
        if found.iter().any(|name| !PERMITTED.contains(name)) {
            return Expected::Refused(owned(&found));
        }
    }

    let mut readings = BTreeSet::from([segments(&once, &[])]);
    for atoms in [&once, &twice] {
        for number in 0..1 << STRUCTURE.len() {
            let taken = (0..STRUCTURE.len()).filter(|bit| number >> bit & 1 == 1);
            let taken: Vec<&str> = taken.map(|bit| STRUCTURE[bit]).collect();
            if taken.iter().all(|name| found.contains(name)) {
                readings.insert(segments(atoms, &taken));
            }
        }
    }
    Expected::Path {
        ambiguities: owned(&found),
        text: canonical(&once),
        segments: segments(&once, &[]),
        readings,
    }
}

const STRUCTURE: [&str; 5] = [
    "encoded_slash",
    "semicolon",
    "empty_segment",
    "encoded_question_mark",
    "encoded_hash",
];

const PERMITTED: [&str; 6] = [
    "encoded_slash",
    "semicolon",
    "empty_segment",
    "double_encoding",
    "encoded_question_mark",
    "encoded_hash",
];

/// What is ambiguous to one who sees these; whether it is a text.
fn find(atoms: &[Atom], found: &mut BTreeSet<&str>) -> bool {
    let bytes: Vec<u8> = atoms.iter().map(|atom| atom.byte).collect();
    for (index, &Atom { byte, times }) in atoms.iter().enumerate() {
        let rest = &atoms[index + 1..];
        let is_u = rest.len() > 4
            && rest[0].byte.eq_ignore_ascii_case(&b'u')
            && rest[1..5].iter().all(|atom| atom.is_hex());
        match (byte, times > 0) {
            (b'%', false) => found.insert("malformed_percent"),
            (b'%', true) if is_u => found.insert("malformed_percent"),
            (b'/', true) => found.insert("encoded_slash"),
            (b'?', true) => found.insert("encoded_question_mark"),
            (b'#', true) => found.insert("encoded_hash"),
            (b'#', false) => found.insert("fragment"),
            (b'.', true) => found.insert("encoded_dot"),
            (b';', _) => found.insert("semicolon"),
            (b'\\', _) => found.insert("backslash"),
            (0..32 | 127, _) | (32, false) => found.insert("control"),
            _ => false,
        };
    }
    let Ok(text) = String::from_utf8(bytes) else {
        found.insert("non_utf8");
        return false;
    };
    if text.chars().any(|c| ('\u{80}'..'\u{a0}').contains(&c)) {
        found.insert("control");
    }
    let pieces: Vec<&str> = text[1..].split('/').collect();
    for (index, piece) in pieces.iter().enumerate() {
        let name = piece.split([';', '?', '#']).next().expect("a part");
        if name == "." || name == ".." {
            found.insert("dot_segment");
        }
        let is_empty = piece.split(';').next() == Some("");
        if is_empty && index + 1 < pieces.len() {
            found.insert(if index == 0 {
                "leading_slashes"
            } else {
                "empty_segment"
            });
        }
    }
    true
}

/// The segments for one who does what each of `taken` stands for.
fn segments(atoms: &[Atom], taken: &[&str]) -> Vec<String> {
    let takes = |name: &str| taken.contains(&name);
    let mut path = vec![Vec::new()];
    for (index, &atom) in atoms.iter().enumerate().skip(1) {
        if (atom.is(b'?') && takes("encoded_question_mark"))
            || (atom.is(b'#') && takes("encoded_hash"))
        {
            break;
        }
        if atom.is(b'/') && (atom.times == 0 || takes("encoded_slash")) {
            path.push(Vec::new());
        } else {
            let text = match atom.byte {
                b'/' => b"%2F".to_vec(),
                b'%' if is_escape(atoms, index) => b"%25".to_vec(),
                byte => vec![byte],
            };
            path.last_mut().expect("one").push((atom.byte, text));
        }
    }
    let mut segments: Vec<String> = Vec::new();
    let last = path.len() - 1;
    for (index, segment) in path.into_iter().enumerate() {
        let name = segment
            .into_iter()
            .take_while(|&(byte, _)| !(byte == b';' && takes("semicolon")));
        let name = name.flat_map(|(_, text)| text).collect::<Vec<u8>>();
        let is_dropped = name.is_empty() && (index == last || takes("empty_segment"));
        if !is_dropped {
            segments.push(String::from_utf8(name).expect("a text"));
        }
    }
    segments
}

/// Whether `%` and two digits stand there.
fn is_escape(atoms: &[Atom], index: usize) -> bool {
    let digits = atoms.get(index + 1..index + 3);
    digits.is_some_and(|digits| digits.iter().all(|atom| atom.is_hex()))
}

fn canonical(atoms: &[Atom]) -> String {
    let mut text = String::new();
    for &Atom { byte, times } in atoms {
        let is_itself = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@;".contains(&byte);
        if is_itself || (byte == b'/' && times == 0) {
            text.push(char::from(byte));
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    text
}

pub fn host(authority: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(authority).ok()?;
    let (name, port) = match (text.rfind(':'), text.rfind(']')) {
        (Some(colon), bracket) if bracket.is_none_or(|bracket| bracket < colon) => {
            (&text[..colon], Some(&text[colon + 1..]))
        }
        _ => (text, None),
    };
    if let Some(port) = port {
        let number: u32 = port
            .chars()
            .all(|c| c.is_ascii_digit())
            .then(|| port.parse().ok())??;
        if port.len() > 5 || !(1..=65535).contains(&number) {
            return None;
        }
    }
    if let Some(address) = name.strip_prefix('[') {
        let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let name = name.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let labels: Vec<&str> = name.split('.').collect();
    let is_label = |label: &&str| {
        let is_of_it = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        (1..=63).contains(&label.len()) && label.chars().all(is_of_it)
    };
    if name.len() > 253 || !labels.iter().all(is_label) {
        return None;
    }
    let last = labels.last()?;
    let is_number = last.chars().all(|c| c.is_ascii_digit())
        || last.starts_with("0x") && last[2..].chars().all(|c| c.is_ascii_hexdigit());
    (!is_number || name.parse::<Ipv4Addr>().is_ok()).then(|| name.to_owned())
}
