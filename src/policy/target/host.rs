//! An authority, as a proxy hands it over → the host in one spelling.

use std::{
    borrow::{Borrow, Cow},
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use thiserror::Error;

/// The longest host in bytes, as in the DNS.
pub const MAX_HOST_BYTES: usize = 253;

/// The longest part of a host between two dots, in bytes, as in the DNS.
const MAX_LABEL_BYTES: usize = 63;

/// The host that a request is for: lower case, without a port and without a dot at the end. A name of
/// other scripts stands in its `xn--` form; an IPv6 address stands in brackets, shortened.
///
/// It compares and hashes as its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host<'a>(Cow<'a, str>);

/// An authority that is no host, or not one alone: to be denied with `PATH_AMBIGUOUS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AmbiguousHost {
    /// There is none.
    #[error("the host is empty")]
    Empty,
    /// Longer than the DNS permits.
    #[error("the host is longer than {MAX_HOST_BYTES} bytes")]
    TooLong,
    /// Any other byte than those of host names: `@`, `%`, `,`, `/`, spaces, control characters,
    /// other scripts as they are.
    #[error(
        "the host has a character that host names do not have; expected letters, digits, `-`, `_` \
         and `.`, other scripts as `xn--`"
    )]
    Character,
    /// `a..b`, `.a`, `a..`.
    #[error("the host has two dots in a row, or one before it")]
    EmptyLabel,
    /// Longer than the DNS permits.
    #[error("a part of the host is longer than {MAX_LABEL_BYTES} bytes")]
    LabelTooLong,
    /// Behind a colon stands something else than one port.
    #[error("behind the host stands no port of 1 to 65535")]
    Port,
    /// `127.1`, `0x7f.0.0.1`, `2130706433`: an address to some, a name to others.
    #[error("the host is a number that is no IPv4 address of four decimal parts")]
    Number,
    /// In brackets stands something else than an IPv6 address without a zone.
    #[error("the host is in brackets and is no IPv6 address")]
    Ipv6,
}

impl AmbiguousHost {
    /// All of them, in the order in which they are documented.
    pub const ALL: &[Self] = &[
        Self::Empty,
        Self::TooLong,
        Self::Character,
        Self::EmptyLabel,
        Self::LabelTooLong,
        Self::Port,
        Self::Number,
        Self::Ipv6,
    ];

    /// The name in logs and docs/paths.md.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLong => "too_long",
            Self::Character => "character",
            Self::EmptyLabel => "empty_label",
            Self::LabelTooLong => "label_too_long",
            Self::Port => "port",
            Self::Number => "number",
            Self::Ipv6 => "ipv6",
        }
    }
}

impl<'a> Host<'a> {
    /// Reads a `host` header's value or that of `:authority`: a host, and perhaps `:` and a port.
    ///
    /// # Errors
    ///
    /// When it is anything else, or when servers could take different hosts from it.
    pub fn parse(authority: &'a [u8]) -> Result<Self, AmbiguousHost> {
        if authority.first() == Some(&b'[') {
            return ipv6(authority);
        }
        let colon = authority.iter().position(|&byte| byte == b':');
        let (name, port) = authority.split_at(colon.unwrap_or(authority.len()));
        let is_of_a_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        let name = match std::str::from_utf8(name) {
            Ok(text) if name.iter().all(is_of_a_name) => text,
            _ => return Err(AmbiguousHost::Character),
        };
        check_port(port)?;
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() {
            return Err(if authority.first() == Some(&b'.') {
                AmbiguousHost::EmptyLabel
            } else {
                AmbiguousHost::Empty
            });
        }
        if name.len() > MAX_HOST_BYTES {
            return Err(AmbiguousHost::TooLong);
        }
        let mut last = "";
        for label in name.split('.') {
            match label.len() {
                0 => return Err(AmbiguousHost::EmptyLabel),
                1..=MAX_LABEL_BYTES => last = label,
                _ => return Err(AmbiguousHost::LabelTooLong),
            }
        }
        if is_number(last) && name.parse::<Ipv4Addr>().is_err() {
            return Err(AmbiguousHost::Number);
        }
        let has_capitals = name.bytes().any(|byte| byte.is_ascii_uppercase());
        Ok(Self(if has_capitals {
            name.to_ascii_lowercase().into()
        } else {
            name.into()
        }))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its labels from left to right. An address has one: no pattern of names matches it by parts.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        let is_address =
            self.0.starts_with('[') || self.0.rsplit('.').next().is_some_and(is_number);
        let (whole, parts) = if is_address {
            (Some(&*self.0), "")
        } else {
            (None, &*self.0)
        };
        let parts = parts.split('.').filter(|label| !label.is_empty());
        whole.into_iter().chain(parts)
    }

    /// The same, on its own.
    pub fn into_owned(self) -> Host<'static> {
        Host(Cow::Owned(self.0.into_owned()))
    }
}

impl Borrow<str> for Host<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a host that ends so is an address to the URL standard: digits, or `0x` and hexadecimal
/// digits.
fn is_number(label: &str) -> bool {
    let hexadecimal = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    label.bytes().all(|byte| byte.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn ipv6<'a>(authority: &[u8]) -> Result<Host<'a>, AmbiguousHost> {
    let text = std::str::from_utf8(authority).map_err(|_| AmbiguousHost::Character)?;
    let (address, port) = text[1..].split_once(']').ok_or(AmbiguousHost::Ipv6)?;
    let address: Ipv6Addr = address.parse().map_err(|_| AmbiguousHost::Ipv6)?;
    check_port(port.as_bytes())?;
    Ok(Host(format!("[{address}]").into()))
}

/// Nothing, or a colon and a port.
fn check_port(port: &[u8]) -> Result<(), AmbiguousHost> {
    let Some((colon, digits)) = port.split_first() else {
        return Ok(());
    };
    // Its own digits only: `parse` would take a sign.
    let is_port = *colon == b':'
        && (1..=5).contains(&digits.len())
        && digits.iter().all(u8::is_ascii_digit)
        && std::str::from_utf8(digits)
            .is_ok_and(|digits| digits.parse::<u16>().is_ok_and(|port| port != 0));
    if is_port {
        Ok(())
    } else {
        Err(AmbiguousHost::Port)
    }
}
