//! What a proxy's own configuration asks beside the policy: it can only ask for more.

use std::{fmt::Display, str::FromStr};

use thiserror::Error;

use super::Access;
use crate::decision::{Impersonation, Requirement};

/// Why it cannot be read. Nothing that a client sends is in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidNarrowing {
    /// There is no such key.
    #[error(
        "unknown key {0:?}; expected permission, role, feature, plan, reverification, \
         impersonation or access"
    )]
    UnknownKey(String),
    /// A key stands twice.
    #[error("{0} stands twice")]
    Twice(&'static str),
    /// The value of a key cannot be read.
    #[error("{key} {cause}")]
    Value {
        /// Which.
        key: &'static str,
        /// What is expected.
        cause: String,
    },
}

impl Access {
    /// From keys and values, as they stand under `access` of a route: `permission`, `role`,
    /// `feature`, `plan`, `reverification`, `impersonation: deny`, and `access: signed_in` or
    /// `denied`. `None` where there is none.
    ///
    /// # Errors
    ///
    /// For the first key that is not known or whose value cannot be read: nobody is to be let
    /// through then.
    pub fn narrowing<'a>(
        pairs: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Option<Self>, InvalidNarrowing> {
        let mut asked = Requirement::default();
        let (mut signed_in, mut denied, mut denies_impersonation) = (None, None, None);
        let mut is_empty = true;
        for (key, value) in pairs {
            is_empty = false;
            match key {
                "permission" => set("permission", &mut asked.permission, value)?,
                "role" => set("role", &mut asked.role, value)?,
                "feature" => set("feature", &mut asked.feature, value)?,
                "plan" => set("plan", &mut asked.plan, value)?,
                "reverification" => set("reverification", &mut asked.reverification, value)?,
                "impersonation" if value == "deny" => {
                    once("impersonation", &mut denies_impersonation, ())?;
                }
                "impersonation" => return Err(expected("impersonation", "deny")),
                "access" if value == "signed_in" => once("access", &mut signed_in, ())?,
                "access" if value == "denied" => once("access", &mut denied, ())?,
                "access" => return Err(expected("access", "signed_in or denied")),
                unknown => return Err(InvalidNarrowing::UnknownKey(unknown.to_owned())),
            }
        }
        if is_empty {
            return Ok(None);
        }
        if denied.is_some() {
            return Ok(Some(Self::Denied));
        }
        let denies_impersonation = denies_impersonation.is_some();
        if asked.asks_nothing() {
            return Ok(Some(Self::SignedIn {
                denies_impersonation,
            }));
        }
        if denies_impersonation {
            asked.impersonation = Impersonation::Denied;
        }
        Ok(Some(Self::Required(asked)))
    }
}

fn set<T: FromStr<Err: Display>>(
    key: &'static str,
    place: &mut Option<T>,
    value: &str,
) -> Result<(), InvalidNarrowing> {
    let value = value.parse().map_err(|error: T::Err| {
        let cause = error.to_string();
        InvalidNarrowing::Value { key, cause }
    })?;
    once(key, place, value)
}

fn once<T>(key: &'static str, place: &mut Option<T>, value: T) -> Result<(), InvalidNarrowing> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(InvalidNarrowing::Twice(key)),
    }
}

fn expected(key: &'static str, words: &str) -> InvalidNarrowing {
    let cause = format!("has another value; expected {words}");
    InvalidNarrowing::Value { key, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Access>, InvalidNarrowing> {
        Access::narrowing(pairs.iter().copied())
    }

    #[test]
    fn it_only_ever_asks_for_more() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("access", "denied")]), Ok(Some(Access::Denied)));
        let both = read(&[("role", "admin"), ("access", "denied")]);
        assert_eq!(both, Ok(Some(Access::Denied)));
        let signed_in = |denies_impersonation| {
            let access = Access::SignedIn {
                denies_impersonation,
            };
            Ok(Some(access))
        };
        assert_eq!(read(&[("access", "signed_in")]), signed_in(false));
        assert_eq!(read(&[("impersonation", "deny")]), signed_in(true));
        let asked = read(&[("role", "admin"), ("impersonation", "deny")]);
        let Ok(Some(Access::Required(requirement))) = asked else {
            panic!("{asked:?}");
        };
        assert_eq!(requirement.impersonation, Impersonation::Denied);
        assert!(requirement.role.is_some());
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_it() {
        for (pairs, names) in [
            (&[("permision", "a:b")][..], "permision"),
            (&[("access", "public")], "signed_in or denied"),
            (&[("impersonation", "allow")], "deny"),
            (&[("role", "")], "role is empty"),
            (&[("reverification", "loose")], "strict_mfa"),
            (&[("role", "a"), ("role", "b")], "role stands twice"),
        ] {
            let error = read(pairs).expect_err("an error").to_string();
            assert!(error.contains(names), "{pairs:?}: {error}");
        }
    }
}
