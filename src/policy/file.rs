//! The policy file as it is written: YAML, each part with its place.

use serde::Deserialize;
use serde_saphyr::{Location, Options, Spanned};

use super::{PolicyProblem, cases::CaseText};

/// The greatest size of a policy in bytes: 10,000 routes take about 2 MB.
const MAX_BYTES: usize = 16 << 20;
/// The most words of a list that a message names.
const MAX_SUGGESTED: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyText {
    pub version: Spanned<u32>,
    pub sign_in: Option<SignInText>,
    pub routes: Vec<Spanned<RouteText>>,
    #[serde(default)]
    pub tests: Vec<Spanned<CaseText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignInText {
    pub url: Spanned<String>,
    pub return_parameter: Option<Spanned<String>>,
    pub return_to: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteText {
    pub name: Option<Spanned<String>>,
    #[serde(default)]
    pub hosts: Vec<Spanned<String>>,
    #[serde(default)]
    pub methods: Vec<Spanned<String>>,
    pub path: Spanned<String>,
    pub access: Spanned<AccessText>,
    pub organization: Option<Spanned<String>>,
    pub accept: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    pub scopes: Vec<Spanned<String>>,
    pub consistency: Option<Spanned<ConsistencyText>>,
    pub credentials: Option<Spanned<String>>,
    pub on_cannot_tell: Option<Spanned<String>>,
    pub browser: Option<Spanned<String>>,
    pub upstream: Option<Spanned<String>>,
    #[serde(default)]
    pub permit: Vec<Spanned<String>>,
}

/// `public`, `signed_in`, `denied`, or what is required.
pub(super) enum AccessText {
    Word(String),
    Required(Box<RequirementText>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequirementText {
    pub signed_in: Option<Spanned<bool>>,
    pub permission: Option<Spanned<String>>,
    pub role: Option<Spanned<String>>,
    pub feature: Option<Spanned<String>>,
    pub plan: Option<Spanned<String>>,
    pub reverification: Option<Spanned<String>>,
    pub impersonation: Option<Spanned<String>>,
}

/// `minimize_latency`, `fully_consistent`, or a greatest age.
pub(super) enum ConsistencyText {
    Word(String),
    MaxStaleness(Spanned<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MaxStaleness {
    max_staleness: Spanned<String>,
}

/// Reads a word or a mapping, without trying one after the other: the error is then about what is
/// there.
macro_rules! word_or_mapping {
    ($name:ident, $expecting:literal, $mapping:ty, $of:expr) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use std::fmt;

                use serde::{
                    Deserialize,
                    de::{self, MapAccess, value::MapAccessDeserializer},
                };

                struct Visitor;

                impl<'de> de::Visitor<'de> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, word: &str) -> Result<$name, E> {
                        Ok($name::Word(word.to_owned()))
                    }

                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
                        let mapping = <$mapping>::deserialize(MapAccessDeserializer::new(map))?;
                        Ok($of(mapping))
                    }
                }

                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

pub(super) use word_or_mapping;

word_or_mapping!(
    AccessText,
    "public, signed_in, denied, or what is required",
    RequirementText,
    |required| AccessText::Required(Box::new(required))
);
word_or_mapping!(
    ConsistencyText,
    "minimize_latency, fully_consistent, or a mapping with max_staleness",
    MaxStaleness,
    |mapping: MaxStaleness| ConsistencyText::MaxStaleness(mapping.max_staleness)
);

/// Reads the text. The first fault of form ends it.
pub(super) fn read(text: &str) -> Result<PolicyText, PolicyProblem> {
    if text.len() > MAX_BYTES {
        let message = format!("is larger than {MAX_BYTES} bytes");
        return Err(PolicyProblem::new(None, message));
    }
    serde_saphyr::from_str_with_options(text, Options::default()).map_err(|error| {
        let location = error.location();
        let rendered = error.without_snippet().to_string();
        let place = location.map(|at| format!(" at line {}, column {}", at.line(), at.column()));
        let message = place
            .and_then(|place| rendered.strip_suffix(&place))
            .unwrap_or(&rendered);
        PolicyProblem::new(location.as_ref(), with_nearest(message))
    })
}

/// "unknown field `acess`, expected one of name, path, access" with the nearest of them.
fn with_nearest(message: &str) -> String {
    let unknown = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split_once('`'));
    let Some((word, rest)) = unknown else {
        return message.to_owned();
    };
    let Some((_, known)) = rest.split_once("expected ") else {
        return message.to_owned();
    };
    let known = known.strip_prefix("one of ").unwrap_or(known);
    let known = known.split(", ").map(|word| word.trim_matches('`'));
    format!("unknown key \"{word}\"{}", suggestion(word, known))
}

/// The nearest right word, or all of them.
pub(super) fn suggestion<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let near = known
        .clone()
        .map(|each| (strsim::damerau_levenshtein(word, each), each))
        .min()
        .filter(|(distance, each)| *distance <= (each.len() / 3).max(1));
    match near {
        Some((_, nearest)) => format!("; did you mean \"{nearest}\"?"),
        None => {
            let (all, most) = (known.clone().count(), MAX_SUGGESTED);
            let shown = known.take(most).collect::<Vec<_>>().join(", ");
            let more = if all > most { ", …" } else { "" };
            format!("; expected one of {shown}{more}")
        }
    }
}

/// Where something stands.
pub(super) fn place<T>(spanned: &Spanned<T>) -> &Location {
    &spanned.referenced
}
