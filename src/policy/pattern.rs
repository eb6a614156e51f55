//! What a route says of hosts and paths.

use std::fmt;

/// The most segments of a path pattern.
const MAX_SEGMENTS: usize = 64;

/// Which hosts: exactly one, or those with one label before a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// This one.
    Exact(Box<str>),
    /// One label, a dot, and this: `*.example.com`.
    OneLabelBefore(Box<str>),
}

impl HostPattern {
    /// From `example.com` or `*.example.com`; what is wrong with it otherwise.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, is_wild) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        };
        let is_name = !name.is_empty() && name.len() <= 253 && name.split('.').all(is_label);
        let is_ipv6 = !is_wild && name.starts_with('[') && name.ends_with(']');
        if !is_name && !is_ipv6 {
            return Err(
                "is no host; expected lower-case labels with dots between, without a port, such as \
                 api.example.com or *.example.com",
            );
        }
        Ok(if is_wild {
            Self::OneLabelBefore(name.into())
        } else {
            Self::Exact(name.into())
        })
    }

    /// Whether a host, in the form in which hosts are matched, is one of these.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::OneLabelBefore(name) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && *rest == **name),
        }
    }

    /// Whether each host of `other` is one of these.
    pub fn includes(&self, other: &Self) -> bool {
        match other {
            Self::Exact(host) => self.matches(host),
            Self::OneLabelBefore(_) => self == other,
        }
    }

    /// Whether a host is one of both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.includes(other) || other.includes(self)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::OneLabelBefore(name) => write!(f, "*.{name}"),
        }
    }
}

/// A segment of a path pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// This text.
    Literal(Box<str>),
    /// Any text that is not empty; its place among the pattern's variables.
    Variable,
}

/// Which paths: `/orgs/{organization_id}/invoices/**`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
    /// The names of the variables, in order.
    variables: Vec<Box<str>>,
    /// Ends with `**`: any number of further segments, none included.
    is_prefix: bool,
}

impl PathPattern {
    /// From its text; what is wrong with it otherwise.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err("does not begin with \"/\"".to_owned());
        };
        let (mut segments, mut variables) = (Vec::new(), Vec::<Box<str>>::new());
        let mut is_prefix = false;
        // "/" has no segment.
        let parts = rest.split('/').filter(|_| !rest.is_empty());
        for part in parts {
            if is_prefix {
                return Err("has something behind \"**\", which can only stand last".to_owned());
            }
            if part == "**" {
                is_prefix = true;
                continue;
            }
            segments.push(match part.strip_prefix('{') {
                Some(open) => {
                    let name = open.strip_suffix('}').filter(|name| is_name(name));
                    let name = name.ok_or_else(|| {
                        format!(
                            "has the segment {part:?}; a variable is a whole segment, {{name}}, of \
                             lower-case letters, digits and \"_\""
                        )
                    })?;
                    if variables.iter().any(|known| **known == *name) {
                        return Err(format!("has the variable {{{name}}} twice"));
                    }
                    variables.push(name.into());
                    Segment::Variable
                }
                None => Segment::Literal(literal(part)?.into()),
            });
        }
        if segments.contains(&Segment::Literal("".into())) {
            return Err(
                "has an empty segment; leave out \"//\" and a \"/\" at the end, which changes nothing"
                    .to_owned(),
            );
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(format!("has more than {MAX_SEGMENTS} segments"));
        }
        Ok(Self {
            segments,
            variables,
            is_prefix,
        })
    }

    /// Its segments, without a `**` at the end.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether it ends with `**`.
    pub const fn is_prefix(&self) -> bool {
        self.is_prefix
    }

    /// The names of its variables, in order.
    pub fn variables(&self) -> &[Box<str>] {
        &self.variables
    }

    /// Whether a path of these segments is one of these. The slow way, for explanations and tests.
    pub fn matches<S: AsRef<str>>(&self, path: &[S]) -> bool {
        let long_enough = match self.is_prefix {
            true => path.len() >= self.segments.len(),
            false => path.len() == self.segments.len(),
        };
        long_enough
            && self.segments.iter().zip(path).all(|(segment, text)| {
                let text = text.as_ref();
                match segment {
                    Segment::Literal(literal) => **literal == *text,
                    Segment::Variable => !text.is_empty(),
                }
            })
    }

    /// The text of a variable in a path that matches.
    pub fn value<'p, S: AsRef<str>>(&self, name: &str, path: &'p [S]) -> Option<&'p str> {
        let wanted = self.variables.iter().position(|known| **known == *name)?;
        let is_variable = |(_, segment): &(usize, &Segment)| **segment == Segment::Variable;
        let mut places = self.segments.iter().enumerate().filter(is_variable);
        let (place, _) = places.nth(wanted)?;
        path.get(place).map(AsRef::as_ref)
    }

    /// Whether each path of `other` is one of these.
    pub fn includes(&self, other: &Self) -> bool {
        let long_enough = match (self.is_prefix, other.is_prefix) {
            (true, _) => other.segments.len() >= self.segments.len(),
            (false, false) => other.segments.len() == self.segments.len(),
            (false, true) => false,
        };
        long_enough
            && self
                .segments
                .iter()
                .zip(&other.segments)
                .all(|pair| match pair {
                    (Segment::Variable, _) => true,
                    (Segment::Literal(_), _) => pair.0 == pair.1,
                })
    }

    /// Whether a path is one of both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.segments.len(), other.segments.len());
        let reaches =
            |longer: usize, shorter: usize, is_prefix: bool| longer <= shorter || is_prefix;
        reaches(theirs, mine, self.is_prefix)
            && reaches(mine, theirs, other.is_prefix)
            && self
                .segments
                .iter()
                .zip(&other.segments)
                .all(|pair| match pair {
                    (Segment::Variable, _) | (_, Segment::Variable) => true,
                    (Segment::Literal(a), Segment::Literal(b)) => a == b,
                })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut variables = self.variables.iter();
        if self.segments.is_empty() && !self.is_prefix {
            return f.write_str("/");
        }
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Variable => {
                    write!(f, "/{{{}}}", variables.next().map_or("", |name| name))?;
                }
            }
        }
        if self.is_prefix {
            f.write_str("/**")?;
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// A segment that stands for itself, in the form in which paths are matched.
fn literal(part: &str) -> Result<&str, String> {
    if part == "." || part == ".." {
        return Err(format!("has the segment {part:?}, which no path has"));
    }
    if part.contains('*') {
        return Err(format!(
            "has the segment {part:?}; \"**\" stands alone and last, and {{name}} is any one segment"
        ));
    }
    let forbidden =
        |c: char| c.is_control() || matches!(c, '{' | '}' | '?' | '#' | '\\' | ';' | '%' | ' ');
    match part.chars().find(|c| forbidden(*c)) {
        Some(c) => Err(format!(
            "has {c:?} in the segment {part:?}; write paths decoded"
        )),
        None => Ok(part),
    }
}
