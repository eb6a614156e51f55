//! The segments of a path, and the other ways in which servers divide an ambiguous one.

use super::{Ambiguities, Ambiguity};

/// The segments between slashes. A slash at the end begins no segment; `/` has none.
#[derive(Clone, Debug)]
pub struct Segments<'a>(Option<std::str::Split<'a, char>>);

impl<'a> Segments<'a> {
    /// `path` has a slash before it.
    pub(super) fn of(path: &'a str) -> Self {
        let inside = path.strip_prefix('/').unwrap_or(path);
        let inside = inside.strip_suffix('/').unwrap_or(inside);
        // Only `//` has an empty one, and that is no path.
        Self((!inside.is_empty()).then(|| inside.split('/')))
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.0.as_mut()?.next()
    }
}

/// An ambiguous path as some servers read it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reading(String);

impl Reading {
    /// The path as one reads it who does what each of `taken` stands for. To whom they are not all
    /// there the path is the same as with fewer of them.
    pub(super) fn of(decoded: &str, taken: Ambiguities) -> Self {
        let takes = |ambiguity| taken.contains(ambiguity);
        let is_end = |c| {
            (c == '?' && takes(Ambiguity::EncodedQuestionMark))
                || (c == '#' && takes(Ambiguity::EncodedHash))
        };
        let mut path = decoded[..decoded.find(is_end).unwrap_or(decoded.len())].to_owned();
        if takes(Ambiguity::EncodedSlash) {
            path = path.replace("%2F", "/");
        }
        if takes(Ambiguity::Semicolon) {
            let names = path.split('/').map(|segment| {
                let name = segment.split(';').next();
                name.unwrap_or_default()
            });
            path = names.collect::<Vec<_>>().join("/");
        }
        if takes(Ambiguity::EmptySegment) {
            while path.contains("//") {
                path = path.replace("//", "/");
            }
        }
        Self(path)
    }

    /// Its segments.
    pub fn segments(&self) -> Segments<'_> {
        Segments::of(&self.0)
    }
}
