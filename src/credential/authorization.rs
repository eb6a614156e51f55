//! The `authorization` header (RFC 9110 §11.6.2, RFC 6750 §2.1).

use memchr::{memchr2, memchr3};

/// What the values of `authorization` hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Authorization<'a> {
    /// A token: `Bearer T`, the scheme in any case, or `T` alone, as Clerk's SDK takes it.
    Token(&'a str),
    /// Nothing of ours: no value, or another scheme such as `Basic`.
    None,
    /// The scheme without a token.
    Empty,
    /// Several values, or several joined with commas by a proxy.
    Ambiguous,
    /// A token and something after it, or more than one space before it.
    Malformed,
}

pub(super) fn read(values: &[String]) -> Authorization<'_> {
    let value = match values {
        [] => return Authorization::None,
        [value] => value.trim_matches([' ', '\t']),
        [..] => return Authorization::Ambiguous,
    };
    // Tokens are long: they are searched with all the machine has for it.
    let space = memchr2(b' ', b'\t', value.as_bytes());
    match space.and_then(|at| Some((value.get(..at)?, value.get(at + 1..)?))) {
        None if value.is_empty() => Authorization::None,
        None if value.eq_ignore_ascii_case("bearer") => Authorization::Empty,
        // `T` alone; a comma cannot stand in a token.
        None if value.contains(',') => Authorization::Ambiguous,
        None => Authorization::Token(value),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => {
            match memchr3(b',', b' ', b'\t', rest.as_bytes()) {
                None => Authorization::Token(rest),
                Some(_) if rest.contains(',') => Authorization::Ambiguous,
                Some(_) => Authorization::Malformed,
            }
        }
        // `Basic x, Bearer T` is a joined header too; a comma alone also stands in other schemes.
        Some((_, rest)) if joins_a_bearer(rest) => Authorization::Ambiguous,
        Some(_) => Authorization::None,
    }
}

fn joins_a_bearer(rest: &str) -> bool {
    rest.split(',').skip(1).any(|part| {
        let scheme = part
            .trim_start_matches([' ', '\t'])
            .split([' ', '\t'])
            .next();
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer"))
    })
}
