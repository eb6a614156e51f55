//! The members of a request's JSON body, taken one by one. What nobody took is unknown.

use axum::http::{HeaderMap, header};
use serde_json::{Map, Value};

use super::{Answer, Problem};
use crate::emulator::directory::Metadata;

pub(super) struct Form {
    members: Map<String, Value>,
}

/// What a member says of a value that may be absent.
pub(super) enum Edit<T> {
    /// Nothing.
    Keep,
    /// That there is to be none.
    Clear,
    /// That it is to be this.
    Set(T),
}

impl<T> Edit<T> {
    /// The value, where absent and `null` mean the same.
    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Clear => None,
        }
    }

    pub(super) fn apply(self, to: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Clear => *to = None,
            Self::Set(value) => *to = Some(value),
        }
    }

    /// For a value that is never absent: `null` says nothing.
    pub(super) fn apply_to(self, to: &mut T) {
        if let Self::Set(value) = self {
            *to = value;
        }
    }
}

impl Form {
    /// No body is an empty object.
    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
        if body.is_empty() {
            let members = Map::new();
            return Ok(Self { members });
        }
        let content_type = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(Problem::content_type(content_type));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => Ok(Self { members }),
            Ok(_) => Err(Problem::body("the body is no JSON object")),
            Err(error) => Err(Problem::body(format!("the body is no JSON: {error}"))),
        }
    }

    fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Result<Edit<T>, Problem> {
        match self.members.remove(name) {
            None => Ok(Edit::Keep),
            Some(Value::Null) => Ok(Edit::Clear),
            Some(value) => read(value)
                .map(Edit::Set)
                .ok_or_else(|| Problem::invalid(name, format!("{name}: expected {expected}"))),
        }
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Edit<String>, Problem> {
        self.take(name, "text", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    pub(super) fn required_text(&mut self, name: &str) -> Result<String, Problem> {
        let text = self.text(name)?.value().filter(|text| !text.is_empty());
        text.ok_or_else(|| Problem::missing(name))
    }

    pub(super) fn texts(&mut self, name: &str) -> Result<Edit<Vec<String>>, Problem> {
        self.take(name, "a list of texts", |value| {
            let Value::Array(items) = value else {
                return None;
            };
            let texts = items.into_iter().map(|item| match item {
                Value::String(text) => Some(text),
                _ => None,
            });
            texts.collect()
        })
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Edit<bool>, Problem> {
        self.take(name, "true or false", |value| value.as_bool())
    }

    /// A number from `least` to `most`.
    pub(super) fn number(
        &mut self,
        name: &str,
        least: i64,
        most: i64,
    ) -> Result<Edit<i64>, Problem> {
        let expected = format!("a whole number from {least} to {most}");
        self.take(name, &expected, |value| {
            value.as_i64().filter(|n| (least..=most).contains(n))
        })
    }

    pub(super) fn metadata(&mut self, name: &str) -> Result<Edit<Metadata>, Problem> {
        self.take(name, "an object", |value| match value {
            Value::Object(members) => Some(members),
            _ => None,
        })
    }

    /// A point in time as RFC 3339, in Unix milliseconds.
    pub(super) fn time(&mut self, name: &str) -> Result<Edit<i64>, Problem> {
        let expected = "a time such as \"2012-10-20T07:15:20.902Z\"";
        self.take(name, expected, |value| {
            let time = humantime::parse_rfc3339(value.as_str()?).ok()?;
            Some(crate::identity::Timestamp::from(time).unix_millis())
        })
    }

    /// Takes what has a meaning at Clerk and none here.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.members.remove(*name);
        }
    }

    /// That every member was known.
    pub(super) fn finish(&mut self) -> Result<(), Problem> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(name) => Err(Problem::unknown(name)),
        }
    }
}

/// Puts `changes` into `base`, object by object; `null` takes a member away.
pub(super) fn merge(base: &mut Metadata, changes: Metadata) {
    for (name, change) in changes {
        match (base.get_mut(&name), change) {
            (_, Value::Null) => {
                base.remove(&name);
            }
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, Value::Object(new)) => {
                let mut fresh = Metadata::new();
                merge(&mut fresh, new);
                base.insert(name, Value::Object(fresh));
            }
            (_, value) => {
                base.insert(name, value);
            }
        }
    }
}

/// Clerk's answer to a deletion.
pub(super) fn deleted(object: &str, id: &str) -> Answer {
    Ok(serde_json::json!({ "object": object, "id": id, "deleted": true }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Metadata {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn metadata_merges_deeply_and_null_takes_away() {
        let mut base = object(json!({"a": {"x": 1, "y": 2}, "b": 1, "c": [1, 2]}));
        merge(
            &mut base,
            object(json!({"a": {"x": null, "z": 3}, "b": {"q": null, "r": 1}, "c": [3]})),
        );
        let expected = json!({"a": {"y": 2, "z": 3}, "b": {"r": 1}, "c": [3]});
        assert_eq!(Value::Object(base), expected);
    }
}
