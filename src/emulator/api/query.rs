//! The parameters of an address.

use axum::{extract, http::Uri};

use super::Problem;

/// The most values of one parameter.
const MAX_VALUES: usize = 100;
const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: usize = 500;

pub(super) struct Query {
    pairs: Vec<(String, String)>,
}

/// Which part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) limit: usize,
    pub(super) offset: usize,
}

/// Which way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) by: &'static str,
    pub(super) descending: bool,
}

/// Values to have and values not to have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    include: Vec<String>,
    exclude: Vec<String>,
}

impl Query {
    /// A query that is none counts as empty: it has no parameter that could be wrong.
    pub(super) fn read(uri: &Uri) -> Self {
        let pairs = extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        let pairs = pairs.map(|extract::Query(pairs)| pairs).unwrap_or_default();
        Self { pairs }
    }

    /// The first value; Clerk leaves further ones aside.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| &**value)
    }

    /// All values, of which there may be so many.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<&str>, Problem> {
        let found = self.pairs.iter().filter(|(known, _)| known == name);
        let values: Vec<&str> = found.map(|(_, value)| &**value).collect();
        if values.len() > MAX_VALUES {
            let message = format!("{name}: {} values; at most {MAX_VALUES}", values.len());
            return Err(Problem::invalid(name, message));
        }
        Ok(values)
    }

    /// Values with `+` or nothing before them, and values with `-`.
    pub(super) fn choice(&self, name: &str) -> Result<Choice, Problem> {
        let mut choice = Choice::default();
        for value in self.texts(name)? {
            match value.strip_prefix('-') {
                Some(value) => choice.exclude.push(value.to_owned()),
                None => {
                    let value = value.strip_prefix('+').unwrap_or(value);
                    choice.include.push(value.to_owned());
                }
            }
        }
        Ok(choice)
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.text(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => {
                let message = format!("{name}: {other:?}; expected true or false");
                Err(Problem::invalid(name, message))
            }
        }
    }

    /// Unix milliseconds.
    pub(super) fn millis(&self, name: &str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            let message = format!("{name}: {text:?}; expected Unix milliseconds");
            Problem::invalid(name, message)
        })
    }

    pub(super) fn page(&self) -> Result<Page, Problem> {
        let number = |name, default, least: usize, most: usize| {
            let Some(text) = self.text(name) else {
                return Ok(default);
            };
            let number = text.parse().ok().filter(|n| (least..=most).contains(n));
            number.ok_or_else(|| {
                let message = if most == usize::MAX {
                    format!("{name}: {text:?}; expected a number from {least}")
                } else {
                    format!("{name}: {text:?}; expected a number from {least} to {most}")
                };
                Problem::invalid(name, message)
            })
        };
        Ok(Page {
            limit: number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)?,
            offset: number("offset", 0, 0, usize::MAX)?,
        })
    }

    /// One of `known` with `+`, `-` or nothing before it; without any, the newest first.
    pub(super) fn order(&self, known: &[&'static str]) -> Result<Order, Problem> {
        let text = self.text("order_by").unwrap_or("-created_at");
        let (descending, name) = match text.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        match known.iter().find(|known| **known == name) {
            Some(by) => Ok(Order { by, descending }),
            None => {
                let mut message = format!(
                    "order_by: {text:?}; expected one of {}, with \"+\" or \"-\" before it",
                    known.join(", ")
                );
                if text.starts_with(' ') {
                    message.push_str("; a \"+\" that is not written as %2B is a space");
                }
                Err(Problem::invalid("order_by", message))
            }
        }
    }
}

impl Choice {
    pub(super) fn accepts(&self, value: &str) -> bool {
        self.accepts_any(&[value])
    }

    /// Whether things with all these values belong.
    pub(super) fn accepts_any(&self, values: &[&str]) -> bool {
        let any_of = |list: &[String]| list.iter().any(|known| values.contains(&&**known));
        (self.include.is_empty() || any_of(&self.include)) && !any_of(&self.exclude)
    }
}

impl Page {
    pub(super) fn of<T>(self, all: Vec<T>) -> Vec<T> {
        all.into_iter().skip(self.offset).take(self.limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::read(&format!("/x?{text}").parse().expect("an address"))
    }

    #[test]
    fn pages_have_clerks_bounds() {
        let page = |text| query(text).page().ok();
        let all = Page {
            limit: 10,
            offset: 0,
        };
        assert_eq!(page(""), Some(all));
        assert_eq!(
            page("limit=500&offset=7"),
            Some(Page {
                limit: 500,
                offset: 7
            })
        );
        for wrong in [
            "limit=0",
            "limit=501",
            "limit=-1",
            "limit=x",
            "limit=",
            "offset=-1",
        ] {
            assert_eq!(page(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_sign_includes_or_excludes_and_a_plus_that_is_not_escaped_is_a_space() {
        let choice = query("id=%2Ba&id=b&id=-c").choice("id").expect("good");
        assert!(choice.accepts("a") && choice.accepts("b"));
        assert!(!choice.accepts("c") && !choice.accepts("d"));
        let without = query("id=-c").choice("id").expect("good");
        assert!(without.accepts("a") && !without.accepts("c"));
        assert!(!query("id=+a").choice("id").expect("good").accepts("a"));

        let order = query("order_by=%2Bname").order(&["name"]).expect("good");
        assert_eq!((order.by, order.descending), ("name", false));
        assert!(query("order_by=+name").order(&["name"]).is_err());
    }

    #[test]
    fn at_most_a_hundred_values() {
        let many = |count| vec!["id=a"; count].join("&");
        assert!(query(&many(100)).texts("id").is_ok());
        assert!(query(&many(101)).texts("id").is_err());
    }
}
