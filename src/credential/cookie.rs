//! Clerk's cookies: `__session` and `__client_uat`, each with and without the instance's suffix.
//!
//! Source: `@clerk/backend`, `tokens/clerkRequest.ts` and `tokens/authenticateContext.ts`.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use thiserror::Error;

use super::{Cookies, Selected};
use crate::{
    identity::{Environment, PublishableKey, Timestamp},
    token::Hint,
};

pub(super) const SESSION: &str = "__session";
const CLIENT_UAT: &str = "__client_uat";

/// The most cookies that are looked at in one request; browsers send fewer than 200 for a site.
pub(super) const MAX_COOKIES: usize = 1_000;

/// What tells one instance's cookies from another's.
#[derive(Clone, Debug)]
pub struct CookieNames {
    pub(super) session: Box<str>,
    pub(super) client_uat: Box<str>,
    host: Box<str>,
    environment: Environment,
    suffix: Box<str>,
}

impl CookieNames {
    /// The cookies of the instance that the key belongs to.
    pub fn new(key: &PublishableKey) -> Self {
        let suffix = key.cookie_suffix();
        Self {
            session: format!("{SESSION}_{suffix}").into(),
            client_uat: format!("{CLIENT_UAT}_{suffix}").into(),
            host: key.frontend_api_host().into(),
            environment: key.environment(),
            suffix: suffix.into(),
        }
    }

    /// What stands behind a name and `_`.
    pub fn suffix(&self) -> &str {
        &self.suffix
    }

    /// Of what kind the instance is.
    pub fn environment(&self) -> Environment {
        self.environment
    }
}

/// Why cookies name no one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Ambiguous {
    #[error("a session cookie stands twice with different values")]
    Twice,
    #[error("session cookies of several instances")]
    Instances,
    #[error("more cookies than are looked at")]
    TooMany,
}

/// The session token of the cookies, if the browser is signed in.
pub(super) fn read(
    values: &[String],
    cookies: &Cookies<'_>,
    hint: impl Fn(&str) -> Option<Hint>,
    now: Timestamp,
) -> Result<Option<Selected<'static>>, Ambiguous> {
    let Cookies::Of(instances) = cookies else {
        return Ok(None);
    };
    let mut selected: Option<Selected<'static>> = None;
    for names in *instances {
        let found = Found::in_values(values, names)?;
        let Some(candidate) = found.choose(names, &hint, now) else {
            continue;
        };
        match &selected {
            Some(other) if other.token != candidate.token => return Err(Ambiguous::Instances),
            Some(_) => {}
            None => selected = Some(candidate),
        }
    }
    Ok(selected)
}

/// One instance's cookies, in the letters of docs/verification.md.
#[derive(Default)]
pub(super) struct Found<'a> {
    /// `U`: the plain `__session`.
    session: Option<Cow<'a, str>>,
    /// `S`: the suffixed one.
    session_suffixed: Option<Cow<'a, str>>,
    /// `u`: the plain `__client_uat`.
    client_uat: Option<Cow<'a, str>>,
    /// `s`: the suffixed one.
    client_uat_suffixed: Option<Cow<'a, str>>,
}

/// What counts of one instance's cookies.
pub(super) struct Chosen<'a> {
    pub(super) session: Option<Cow<'a, str>>,
    pub(super) client_changed_at: Option<Timestamp>,
    /// Whether it is those with the suffix.
    pub(super) suffixed: bool,
}

impl<'a> Found<'a> {
    /// The first of two equal names wins, as in the SDK, but for session cookies, where two values
    /// are refused: the second may have been planted, or the first.
    pub(super) fn in_values(values: &'a [String], names: &CookieNames) -> Result<Self, Ambiguous> {
        let mut found = Self::default();
        let pairs = values.iter().flat_map(|value| value.split(';'));
        for (count, pair) in pairs.enumerate() {
            if count == MAX_COOKIES {
                return Err(Ambiguous::TooMany);
            }
            let Some((name, value)) = pair.split_once('=') else {
                continue;
            };
            let name = name.trim();
            let (slot, is_session) = match name {
                SESSION => (&mut found.session, true),
                CLIENT_UAT => (&mut found.client_uat, false),
                _ if *name == *names.session => (&mut found.session_suffixed, true),
                _ if *name == *names.client_uat => (&mut found.client_uat_suffixed, false),
                _ => continue,
            };
            let value = percent_decode_str(value.trim()).decode_utf8_lossy();
            match slot {
                Some(first) if is_session && *first != value => return Err(Ambiguous::Twice),
                Some(_) => {}
                None => *slot = Some(value),
            }
        }
        // An empty value counts as absent.
        for slot in [
            &mut found.session,
            &mut found.session_suffixed,
            &mut found.client_uat,
            &mut found.client_uat_suffixed,
        ] {
            slot.take_if(|value| value.is_empty());
        }
        Ok(found)
    }

    fn choose(
        self,
        names: &CookieNames,
        hint: impl Fn(&str) -> Option<Hint>,
        now: Timestamp,
    ) -> Option<Selected<'static>> {
        let chosen = self.chosen(names, hint, now);
        Some(Selected {
            token: chosen.session?.into_owned().into(),
            client_changed_at: Some(chosen.client_changed_at?),
        })
    }

    /// The cookies of the one form that counts.
    pub(super) fn chosen(
        self,
        names: &CookieNames,
        hint: impl Fn(&str) -> Option<Hint>,
        now: Timestamp,
    ) -> Chosen<'a> {
        let suffixed = self.uses_suffixed(names, hint, now);
        let (session, client_uat) = if suffixed {
            (self.session_suffixed, self.client_uat_suffixed)
        } else {
            (self.session, self.client_uat)
        };
        // No `__client_uat`, 0 or something unreadable: the browser is signed out.
        let seconds = client_uat.and_then(|text| text.parse::<u32>().ok());
        let seconds = seconds.filter(|&seconds| seconds > 0);
        Chosen {
            session,
            client_changed_at: seconds.map(|seconds| Timestamp::from_unix_seconds(seconds.into())),
            suffixed,
        }
    }

    /// One decision for both cookies; the first row that matches wins.
    fn uses_suffixed(
        &self,
        names: &CookieNames,
        hint: impl Fn(&str) -> Option<Hint>,
        now: Timestamp,
    ) -> bool {
        let is_zero = |uat: &Option<Cow<'_, str>>| uat.as_deref() == Some("0");
        let plain = match self.session.as_deref() {
            None => None,
            Some(token) => match hint(token) {
                // 1: undecodable, or without an issuer.
                None | Some(Hint { issuer: None, .. }) => return false,
                // 2: another instance's.
                Some(hint) if hint.issuer.as_deref().map(host) != Some(&*names.host) => {
                    return true;
                }
                Some(hint) => Some(hint),
            },
        };
        // 3
        if self.client_uat_suffixed.is_none() && self.session_suffixed.is_none() {
            return false;
        }
        let suffixed = self.session_suffixed.as_deref().and_then(hint);
        // 0 where it cannot be read.
        let issued_at = |hint: &Option<Hint>| {
            let seconds = hint.as_ref().and_then(|hint| hint.issued_at_seconds);
            seconds.unwrap_or_default()
        };
        let (zero, zero_suffixed) = (
            is_zero(&self.client_uat),
            is_zero(&self.client_uat_suffixed),
        );
        // 4: the plain token is newer.
        if !zero_suffixed && !zero && issued_at(&plain) > issued_at(&suffixed) {
            return false;
        }
        // 5
        if zero_suffixed && !zero {
            return false;
        }
        // 6: in development, the suffixed one has expired.
        if names.environment == Environment::Development && !zero_suffixed && zero {
            let expires_at = suffixed.and_then(|hint| hint.expires_at_seconds);
            if expires_at.is_some_and(|at| Timestamp::from_unix_seconds(at) <= now) {
                return false;
            }
        }
        // 7, and otherwise 8.
        !(self.client_uat_suffixed.is_none() && self.session_suffixed.is_some())
    }
}

fn host(issuer: &str) -> &str {
    issuer
        .strip_prefix("https://")
        .or_else(|| issuer.strip_prefix("http://"))
        .unwrap_or(issuer)
}
