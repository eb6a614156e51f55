//! The payload in one typed pass: each claim is absent, present with its type, or wrongly typed.
//! A wrongly typed claim is never taken for an absent one (CVE-2026-25537).

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Claimed, permissions};
use crate::identity::{
    Actor, CustomClaims, FactorAge, FactorAges, Issuer, Organization, OrganizationId, ScopedSlugs,
    Session, SessionId, SessionStatus, Texts, TextsBuilder, Timestamp, UserId,
};

/// The last second of the year 9999: later times cannot be written as a `Timestamp`.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// A member of a JSON object that may have any type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Claim<T> {
    #[default]
    Absent,
    Present(T),
    /// It has another type, `null` included.
    Invalid,
}

impl<T> Claim<T> {
    pub(crate) fn present(self) -> Option<T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Absent | Self::Invalid => None,
        }
    }

    pub(crate) fn as_present(&self) -> Option<&T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Absent | Self::Invalid => None,
        }
    }

    pub(crate) fn required(
        self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<T, InvalidClaim> {
        self.optional(name, expected)?
            .ok_or(InvalidClaim::Absent { name })
    }

    pub(crate) fn optional(
        self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, InvalidClaim> {
        match self {
            Self::Present(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Invalid => Err(InvalidClaim::Value { name, expected }),
        }
    }
}

/// A claim that cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum InvalidClaim {
    #[error("{name} is absent")]
    Absent { name: &'static str },
    #[error("{name} is not {expected}")]
    Value {
        name: &'static str,
        expected: &'static str,
    },
    #[error("a member stands twice")]
    Duplicate,
}

/// The payload of a token of any type. Strings are as they stand; nothing is judged yet.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) iss: Claim<Box<str>>,
    pub(super) sub: Claim<Box<str>>,
    pub(super) sid: Claim<Box<str>>,
    pub(super) iat: Claim<f64>,
    pub(super) exp: Claim<f64>,
    pub(super) nbf: Claim<f64>,
    pub(super) jti: Claim<Box<str>>,
    azp: Claim<Box<str>>,
    pub(super) aud: Claim<OneOrMany>,
    v: Claim<f64>,
    sts: Claim<Box<str>>,
    fva: Claim<Pair>,
    act: Claim<ActorClaim>,
    o: Claim<OrganizationClaim>,
    org_id: Claim<Box<str>>,
    org_slug: Claim<Box<str>>,
    org_role: Claim<Box<str>>,
    org_permissions: Claim<List>,
    fea: Claim<Box<str>>,
    pla: Claim<Box<str>>,
    /// Whether there is a `handshake` claim.
    pub(super) handshake: bool,
    /// The text of a JSON object of all other claims.
    custom: Option<String>,
    /// Whether a member stands twice, at any depth.
    pub(super) duplicate: bool,
}

impl Claims {
    /// `None` when the bytes are not a JSON object in UTF-8.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        decode_object(bytes, ClaimsVisitor)
    }

    /// The session that the claims describe.
    pub(super) fn into_session(self) -> Result<Claimed, InvalidClaim> {
        const TEXT: &str = "a string";
        if self.duplicate {
            return Err(InvalidClaim::Duplicate);
        }
        let user_id = parsed::<UserId>(self.sub.required("sub", TEXT)?, "sub", "a user id")?;
        let session_id =
            parsed::<SessionId>(self.sid.required("sid", TEXT)?, "sid", "a session id")?;
        let issuer = parsed::<Issuer>(self.iss.required("iss", TEXT)?, "iss", "an issuer")?;
        let expires_at = time(self.exp, "exp")?.ok_or(InvalidClaim::Absent { name: "exp" })?;
        let not_before = time(self.nbf, "nbf")?;
        let issued_at = time(self.iat, "iat")?;
        let version = self.v.optional("v", "a number")?.unwrap_or(1.0);
        let slugs = |claim: Claim<Box<str>>, name| {
            let list = claim.optional(name, "a string")?.unwrap_or_default();
            permissions::scoped_slugs(&list).ok_or(InvalidClaim::Value {
                name,
                expected: "a list of scope:slug",
            })
        };
        let features = slugs(self.fea, "fea")?;
        let plans = slugs(self.pla, "pla")?;
        // Both forms are read whatever the version is, so that a wrong type is never overlooked.
        let v1 = organization_v1(
            self.org_id,
            self.org_slug,
            self.org_role,
            self.org_permissions,
        )?;
        let o = self.o.optional("o", "an object")?;
        let v2 = o.map(|o| o.into_organization(&features)).transpose()?;
        // Only the number 2 selects version 2; any other number is read as version 1, as the SDK
        // does.
        let organization = if version == 2.0 { v2 } else { v1 };
        let features_out_of_order =
            organization.is_some() && permissions::user_before_organization(&features);
        let session = Session {
            user_id,
            session_id,
            token_id: not_empty(self.jti.optional("jti", TEXT)?),
            token_version: version as i32,
            issuer,
            authorized_party: not_empty(self.azp.optional("azp", TEXT)?).map(Into::into),
            audiences: self
                .aud
                .optional("aud", "a string or a list of strings")?
                .map(|OneOrMany(audiences)| audiences)
                .unwrap_or_default(),
            issued_at,
            not_before,
            expires_at,
            status: status(self.sts)?,
            organization: organization.map(Box::new),
            features,
            plans,
            factor_ages: factor_ages(self.fva)?,
            actor: self
                .act
                .optional("act", "an object")?
                .map(ActorClaim::into_actor)
                .transpose()?
                .map(Box::new),
            custom_claims: self.custom.map(CustomClaims::from_object_text),
        };
        Ok(Claimed {
            session,
            features_out_of_order,
        })
    }
}

pub(super) fn parsed<T: TryFrom<Box<str>>>(
    text: Box<str>,
    name: &'static str,
    expected: &'static str,
) -> Result<T, InvalidClaim> {
    T::try_from(text).map_err(|_| InvalidClaim::Value { name, expected })
}

pub(super) fn not_empty(text: Option<Box<str>>) -> Option<Box<str>> {
    text.filter(|text| !text.is_empty())
}

/// Whole seconds from 1970 to 9999; `1.0` is whole.
pub(crate) fn time(
    claim: Claim<f64>,
    name: &'static str,
) -> Result<Option<Timestamp>, InvalidClaim> {
    const EXPECTED: &str = "whole Unix seconds before the year 10000";
    let Some(seconds) = claim.optional(name, EXPECTED)? else {
        return Ok(None);
    };
    if seconds.fract() != 0.0 || !(0.0..=LAST_SECOND).contains(&seconds) {
        return Err(InvalidClaim::Value {
            name,
            expected: EXPECTED,
        });
    }
    Ok(Some(Timestamp::from_unix_seconds(seconds as i64)))
}

fn status(claim: Claim<Box<str>>) -> Result<SessionStatus, InvalidClaim> {
    const EXPECTED: &str = "\"active\" or \"pending\"";
    match claim.optional("sts", EXPECTED)?.as_deref() {
        None | Some("active") => Ok(SessionStatus::Active),
        Some("pending") => Ok(SessionStatus::Pending),
        Some(_) => Err(InvalidClaim::Value {
            name: "sts",
            expected: EXPECTED,
        }),
    }
}

/// Two ages in minutes, -1 for never.
fn factor_ages(claim: Claim<Pair>) -> Result<Option<FactorAges>, InvalidClaim> {
    const EXPECTED: &str = "two ages in minutes, each -1 or at least 0";
    let invalid = InvalidClaim::Value {
        name: "fva",
        expected: EXPECTED,
    };
    let Some(Pair(first, second)) = claim.optional("fva", EXPECTED)? else {
        return Ok(None);
    };
    let age = |minutes: f64| match minutes {
        -1.0 => Ok(None),
        _ => FactorAge::from_minutes(minutes)
            .map(Some)
            .ok_or_else(|| invalid.clone()),
    };
    Ok(Some(FactorAges {
        first: age(first)?,
        second: age(second)?,
    }))
}

fn organization_v1(
    id: Claim<Box<str>>,
    slug: Claim<Box<str>>,
    role: Claim<Box<str>>,
    permissions: Claim<List>,
) -> Result<Option<Organization>, InvalidClaim> {
    let slug = not_empty(slug.optional("org_slug", "a string")?);
    let role = not_empty(role.optional("org_role", "a string")?);
    let permissions = permissions.optional("org_permissions", "a list of strings")?;
    let Some(id) = not_empty(id.optional("org_id", "a string")?) else {
        return Ok(None);
    };
    Ok(Some(Organization {
        id: parsed::<OrganizationId>(id, "org_id", "an organization id")?,
        slug,
        role: role.map(|role| prefixed(&role)),
        permissions: permissions
            .map(|List(permissions)| permissions)
            .unwrap_or_default(),
    }))
}

/// Exactly one `org:` in front, as the SDK compares roles.
fn prefixed(role: &str) -> Box<str> {
    let mut bare = role;
    while let Some(rest) = bare.strip_prefix("org:") {
        bare = rest;
    }
    format!("org:{bare}").into()
}

/// A string, or a list of strings.
#[derive(Debug)]
pub(crate) struct OneOrMany(pub(crate) Texts);

/// A list of strings.
#[derive(Debug)]
pub(crate) struct List(pub(crate) Texts);

/// Two numbers.
#[derive(Debug)]
struct Pair(f64, f64);

/// `act`.
#[derive(Debug, Default)]
struct ActorClaim {
    sub: Claim<Box<str>>,
    iss: Claim<Box<str>>,
    sid: Claim<Box<str>>,
    kind: Claim<Box<str>>,
    duplicate: bool,
}

impl ActorClaim {
    fn into_actor(self) -> Result<Actor, InvalidClaim> {
        const TEXT: &str = "a string";
        if self.duplicate {
            return Err(InvalidClaim::Duplicate);
        }
        let absent = InvalidClaim::Absent { name: "act.sub" };
        Ok(Actor {
            subject: not_empty(self.sub.optional("act.sub", TEXT)?).ok_or(absent)?,
            issuer: not_empty(self.iss.optional("act.iss", TEXT)?),
            session_id: not_empty(self.sid.optional("act.sid", TEXT)?),
            kind: not_empty(self.kind.optional("act.type", TEXT)?),
        })
    }
}

/// `o` of a version-2 token.
#[derive(Debug, Default)]
struct OrganizationClaim {
    id: Claim<Box<str>>,
    slg: Claim<Box<str>>,
    rol: Claim<Box<str>>,
    per: Claim<Box<str>>,
    fpm: Claim<Box<str>>,
    duplicate: bool,
}

impl OrganizationClaim {
    fn into_organization(self, features: &ScopedSlugs) -> Result<Organization, InvalidClaim> {
        const TEXT: &str = "a string";
        if self.duplicate {
            return Err(InvalidClaim::Duplicate);
        }
        let id = self.id.required("o.id", TEXT)?;
        let names = self.per.optional("o.per", TEXT)?.unwrap_or_default();
        let masks = self.fpm.optional("o.fpm", TEXT)?.unwrap_or_default();
        Ok(Organization {
            id: parsed::<OrganizationId>(id, "o.id", "an organization id")?,
            slug: not_empty(self.slg.optional("o.slg", TEXT)?),
            role: not_empty(self.rol.optional("o.rol", TEXT)?).map(|role| prefixed(&role)),
            permissions: permissions::decode(features, &names, &masks),
        })
    }
}

// === decoding ===

/// The name of a member, borrowed where it has no escapes.
#[derive(Deserialize)]
pub(crate) struct Name<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// Finds names that stand twice, in n log n.
#[derive(Default)]
pub(crate) struct Names<'a>(Vec<Cow<'a, str>>);

impl<'a> Names<'a> {
    pub(crate) fn push(&mut self, name: Cow<'a, str>) {
        self.0.push(name);
    }

    pub(crate) fn has_duplicate(mut self) -> bool {
        self.0.sort_unstable();
        self.0.windows(2).any(|pair| pair[0] == pair[1])
    }
}

/// Reads one JSON object in UTF-8; `None` for anything else, and for what the visitor refuses.
pub(crate) fn decode_object<'de, V: Visitor<'de>>(
    bytes: &'de [u8],
    visitor: V,
) -> Option<V::Value> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut json = serde_json::Deserializer::from_str(text);
    let read = json.deserialize_map(visitor).ok()?;
    json.end().ok()?;
    Some(read)
}

struct ClaimsVisitor;

impl<'de> Visitor<'de> for ClaimsVisitor {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
        let mut claims = Claims::default();
        let mut names = Names(Vec::with_capacity(24));
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                "iss" => claims.iss = map.next_value()?,
                "sub" => claims.sub = map.next_value()?,
                "sid" => claims.sid = map.next_value()?,
                "iat" => claims.iat = map.next_value()?,
                "exp" => claims.exp = map.next_value()?,
                "nbf" => claims.nbf = map.next_value()?,
                "jti" => claims.jti = map.next_value()?,
                "azp" => claims.azp = map.next_value()?,
                "aud" => claims.aud = map.next_value()?,
                "v" => claims.v = map.next_value()?,
                "sts" => claims.sts = map.next_value()?,
                "fva" => claims.fva = map.next_value()?,
                "act" => claims.act = map.next_value()?,
                "o" => claims.o = map.next_value()?,
                "org_id" => claims.org_id = map.next_value()?,
                "org_slug" => claims.org_slug = map.next_value()?,
                "org_role" => claims.org_role = map.next_value()?,
                "org_permissions" => claims.org_permissions = map.next_value()?,
                "fea" => claims.fea = map.next_value()?,
                "pla" => claims.pla = map.next_value()?,
                other => {
                    claims.handshake |= other == "handshake";
                    let raw: &RawValue = map.next_value()?;
                    claims.duplicate |= add_custom(&mut claims.custom, other, raw)
                        .map_err(serde::de::Error::custom)?;
                }
            }
            names.push(name);
        }
        if let Some(custom) = &mut claims.custom {
            custom.push('}');
        }
        claims.duplicate |= names.has_duplicate();
        Ok(claims)
    }
}

/// Appends `"name":value`; says whether the value has a member that stands twice.
pub(super) fn add_custom(
    custom: &mut Option<String>,
    name: &str,
    raw: &RawValue,
) -> Result<bool, serde_json::Error> {
    // `RawValue` is only scanned: numbers, escapes and depth are checked here.
    let StrictValue { has_duplicate } = serde_json::from_str(raw.get())?;
    let object = custom.get_or_insert_with(String::new);
    object.push(if object.is_empty() { '{' } else { ',' });
    object.push_str(&serde_json::to_string(name)?);
    object.push(':');
    object.push_str(raw.get());
    Ok(has_duplicate)
}

/// Any JSON value, checked for members that stand twice at any depth and not kept.
pub(crate) struct StrictValue {
    pub(crate) has_duplicate: bool,
}

impl<'de> Deserialize<'de> for StrictValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(StrictVisitor)
            .map(|has_duplicate| Self { has_duplicate })
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let mut duplicate = false;
        while let Some(value) = seq.next_element::<StrictValue>()? {
            duplicate |= value.has_duplicate;
        }
        Ok(duplicate)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut duplicate = false;
        let mut names = Names::default();
        while let Some(Name(name)) = map.next_key()? {
            names.push(name);
            duplicate |= map.next_value::<StrictValue>()?.has_duplicate;
        }
        Ok(duplicate || names.has_duplicate())
    }
}

/// What a JSON type becomes; `None` where the type is wrong.
pub(crate) trait FromJson: Sized {
    fn from_text(_: &str) -> Option<Self> {
        None
    }

    fn from_number(_: f64) -> Option<Self> {
        None
    }

    fn from_bool(_: bool) -> Option<Self> {
        None
    }

    fn from_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Option<Self>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn from_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl FromJson for Box<str> {
    fn from_text(text: &str) -> Option<Self> {
        Some(text.into())
    }
}

impl FromJson for f64 {
    fn from_number(number: f64) -> Option<Self> {
        Some(number)
    }
}

impl FromJson for bool {
    fn from_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl FromJson for OneOrMany {
    fn from_text(text: &str) -> Option<Self> {
        // The SDK takes an empty `aud` for an absent one.
        Some(Self(if text.is_empty() {
            Texts::default()
        } else {
            [text].into_iter().collect()
        }))
    }

    fn from_seq<'de, A: SeqAccess<'de>>(seq: A) -> Result<Option<Self>, A::Error> {
        Ok(List::from_seq(seq)?.map(|List(list)| Self(list)))
    }
}

impl FromJson for List {
    fn from_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Option<Self>, A::Error> {
        let mut list = Some(TextsBuilder::default());
        while let Some(element) = seq.next_element::<Claim<Box<str>>>()? {
            match (element, &mut list) {
                (Claim::Present(text), Some(list)) => list.push(&[&*text]),
                _ => list = None,
            }
        }
        Ok(list.map(|list| Self(list.finish())))
    }
}

impl FromJson for Pair {
    fn from_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Option<Self>, A::Error> {
        let mut numbers = [None; 2];
        let mut count = 0;
        while let Some(element) = seq.next_element::<Claim<f64>>()? {
            if let Some(slot) = numbers.get_mut(count) {
                *slot = element.present();
            }
            count += 1;
        }
        Ok(match (count, numbers) {
            (2, [Some(first), Some(second)]) => Some(Self(first, second)),
            _ => None,
        })
    }
}

impl FromJson for ActorClaim {
    fn from_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut actor = Self::default();
        let mut names = Names::default();
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                "sub" => actor.sub = map.next_value()?,
                "iss" => actor.iss = map.next_value()?,
                "sid" => actor.sid = map.next_value()?,
                "type" => actor.kind = map.next_value()?,
                _ => actor.duplicate |= map.next_value::<StrictValue>()?.has_duplicate,
            }
            names.push(name);
        }
        actor.duplicate |= names.has_duplicate();
        Ok(Some(actor))
    }
}

impl FromJson for OrganizationClaim {
    fn from_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut organization = Self::default();
        let mut names = Names::default();
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                "id" => organization.id = map.next_value()?,
                "slg" => organization.slg = map.next_value()?,
                "rol" => organization.rol = map.next_value()?,
                "per" => organization.per = map.next_value()?,
                "fpm" => organization.fpm = map.next_value()?,
                _ => organization.duplicate |= map.next_value::<StrictValue>()?.has_duplicate,
            }
            names.push(name);
        }
        organization.duplicate |= names.has_duplicate();
        Ok(Some(organization))
    }
}

impl<'de, T: FromJson> Deserialize<'de> for Claim<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ClaimVisitor(PhantomData))
    }
}

struct ClaimVisitor<T>(PhantomData<T>);

fn claim<T>(value: Option<T>) -> Claim<T> {
    value.map_or(Claim::Invalid, Claim::Present)
}

impl<'de, T: FromJson> Visitor<'de> for ClaimVisitor<T> {
    type Value = Claim<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Claim<T>, E> {
        Ok(Claim::Invalid)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Claim<T>, E> {
        Ok(claim(T::from_bool(value)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Claim<T>, E> {
        Ok(claim(T::from_number(number as f64)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Claim<T>, E> {
        Ok(claim(T::from_number(number as f64)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Claim<T>, E> {
        Ok(claim(T::from_number(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Claim<T>, E> {
        Ok(claim(T::from_text(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Claim<T>, A::Error> {
        T::from_seq(seq).map(claim)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Claim<T>, A::Error> {
        T::from_map(map).map(claim)
    }
}
