//! What makes a path ambiguous: each kind by name.

use std::fmt;

macro_rules! ambiguities {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $permit:ident, $found:literal;)*) => {
        /// Something in a path that servers do not agree about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Ambiguity {
            $($(#[$doc])* $variant,)*
        }

        impl Ambiguity {
            /// All of them, in the order in which they are documented.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in policy files, logs and docs/paths.md.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Whether a route may permit it. What may not be permitted could lead out of every
            /// route, or has no reading that is anybody's.
            pub const fn can_be_permitted(self) -> bool {
                match self {
                    $(Self::$variant => ambiguities!(@ $permit),)*
                }
            }

            /// What was found, for people, such as "`;`".
            pub const fn found(self) -> &'static str {
                match self {
                    $(Self::$variant => $found,)*
                }
            }
        }
    };
    (@ may_be_permitted) => { true };
    (@ never) => { false };
}

ambiguities! {
    /// Some servers decode it and then split, some split first, some refuse it.
    EncodedSlash = "encoded_slash", may_be_permitted, "`%2F`";
    /// Java's servlets cut a segment there; to the others it is a character.
    Semicolon = "semicolon", may_be_permitted, "`;` or `%3B`";
    /// Some servers merge slashes, some keep them apart.
    EmptySegment = "empty_segment", may_be_permitted, "an empty segment, as in `/a//b`";
    /// Who decodes twice reads something else than who decodes once.
    DoubleEncoding = "double_encoding", may_be_permitted, "an escape that is encoded again, as in `%2541`";
    /// Who decodes and parses again takes what follows for the query.
    EncodedQuestionMark = "encoded_question_mark", may_be_permitted, "`%3F`";
    /// Who decodes and parses again takes what follows for a fragment.
    EncodedHash = "encoded_hash", may_be_permitted, "`%23`";
    /// `.` or `..`, in any reading. The path that is served is another than the one that is written.
    DotSegment = "dot_segment", never, "a segment `.` or `..`";
    /// Nobody needs to encode a dot; whoever does wants one not to be seen.
    EncodedDot = "encoded_dot", never, "`%2E`";
    /// A slash to browsers, URL parsers and Windows; a character to the others.
    Backslash = "backslash", never, "`\\` or `%5C`";
    /// Where C ends its strings, and where lines and words end.
    Control = "control", never, "a control character or a space that is not encoded";
    /// Some servers cut there, some refuse it; no client sends one.
    Fragment = "fragment", never, "`#`";
    /// Some servers keep it, some drop it, some refuse it.
    MalformedPercent = "malformed_percent", never, "`%` without two hexadecimal digits";
    /// Encoded three times or more.
    RepeatedEncoding = "repeated_encoding", never, "an escape that is encoded three times or more";
    /// Bytes that are no text are replaced, dropped or kept, as each server pleases.
    NonUtf8 = "non_utf8", never, "bytes that are not UTF-8";
    /// URL parsers take what follows for a host.
    LeadingSlashes = "leading_slashes", never, "two slashes at the start";
    /// `http://…`: a second host, and who reads which is a guess.
    AbsoluteForm = "absolute_form", never, "a URL instead of a path";
    /// `*`, `host:443`, nothing, or a path that passes by rules that start with a slash.
    NoLeadingSlash = "no_leading_slash", never, "no slash at the start";
    /// Longer than [`MAX_PATH_BYTES`](super::MAX_PATH_BYTES); nothing else of it is looked at.
    TooLong = "too_long", never, "more than 8 KiB";
}

/// A set of them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Ambiguities(u32);

impl Ambiguities {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Those that change where a path is divided: each has a reading of its own.
    pub(super) const OF_STRUCTURE: Self = Self(
        Self::bit(Ambiguity::EncodedSlash)
            | Self::bit(Ambiguity::Semicolon)
            | Self::bit(Ambiguity::EmptySegment)
            | Self::bit(Ambiguity::EncodedQuestionMark)
            | Self::bit(Ambiguity::EncodedHash),
    );

    const fn bit(ambiguity: Ambiguity) -> u32 {
        1 << ambiguity as u32
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is among them.
    pub const fn contains(self, ambiguity: Ambiguity) -> bool {
        self.0 & Self::bit(ambiguity) != 0
    }

    /// Adds one.
    pub const fn insert(&mut self, ambiguity: Ambiguity) {
        self.0 |= Self::bit(ambiguity);
    }

    /// Those of either.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of both.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are not among `others`.
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Each, in the order of [`Ambiguity::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Ambiguity> {
        let each = Ambiguity::ALL.iter().copied();
        each.filter(move |&ambiguity| self.contains(ambiguity))
    }

    /// Every set of some of them but the empty one.
    pub(super) fn subsets(self) -> impl Iterator<Item = Self> {
        // The next smaller number of which every bit is ours.
        let mut next = self.0;
        std::iter::from_fn(move || {
            let subset = (next != 0).then_some(Self(next))?;
            next = (next - 1) & self.0;
            Some(subset)
        })
    }
}

impl FromIterator<Ambiguity> for Ambiguities {
    fn from_iter<I: IntoIterator<Item = Ambiguity>>(ambiguities: I) -> Self {
        let mut set = Self::NONE;
        for ambiguity in ambiguities {
            set.insert(ambiguity);
        }
        set
    }
}

/// Their names, with commas between.
impl fmt::Display for Ambiguities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ambiguity) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", ambiguity.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Ambiguities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
