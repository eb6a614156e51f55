//! The claims of a machine's token, in a pass of their own: what is a claim of Clerk's in a session
//! token may be the application's here, and may have any type.
//!
//! Source: `@clerk/backend`, `api/resources/M2MToken.ts` and `IdPOAuthAccessToken.ts`.

use std::fmt;

use serde::{
    Deserializer as _,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::claims::{
    Claim, Claims, InvalidClaim, List, Name, OneOrMany, add_custom, not_empty, parsed, time,
};
use crate::identity::{
    CustomClaims, Issuer, Machine, MachineSubject, MachineType, Texts, TokenForm,
};

const TEXT: &str = "a string";

/// What `claims` and `payload`, which are of one token, say of a machine.
pub(super) fn read(
    machine_type: MachineType,
    claims: Claims,
    payload: &[u8],
) -> Result<Machine, InvalidClaim> {
    let own = OwnClaims::decode(machine_type, payload);
    let own = own.filter(|own| !own.duplicate && !claims.duplicate);
    let own = own.ok_or(InvalidClaim::Duplicate)?;
    let subject = claims.sub.required("sub", TEXT)?;
    let subject = MachineSubject::of(machine_type, &subject).ok_or(InvalidClaim::Value {
        name: "sub",
        expected: "a subject that tokens of this type have",
    })?;
    let audiences = claims
        .aud
        .optional("aud", "a string or a list of strings")?;
    let audiences = audiences.map(|OneOrMany(texts)| texts).unwrap_or_default();
    let scopes = match machine_type {
        MachineType::M2m => own
            .scopes
            .optional("scopes", TEXT)?
            .map(|text| split(&text)),
        MachineType::Oauth | MachineType::ApiKey => {
            // Both are read, so that a wrong type is never overlooked.
            let list = own.scp.optional("scp", "a list of strings")?;
            let text = own.scope.optional("scope", TEXT)?.map(|text| split(&text));
            list.map(|List(texts)| without_empty(&texts)).or(text)
        }
    };
    let scopes = match (machine_type, scopes) {
        (_, Some(scopes)) => scopes,
        (MachineType::M2m, None) => without_empty(&audiences),
        (MachineType::Oauth | MachineType::ApiKey, None) => Texts::default(),
    };
    let expires_at = time(claims.exp, "exp")?.ok_or(InvalidClaim::Absent { name: "exp" })?;
    Ok(Machine {
        machine_type,
        form: TokenForm::Jwt,
        token_id: not_empty(claims.jti.optional("jti", TEXT)?),
        issuer: parsed::<Issuer>(claims.iss.required("iss", TEXT)?, "iss", "an issuer")?,
        subject,
        client_id: not_empty(own.client_id.optional("client_id", TEXT)?),
        scopes,
        audiences,
        claims: own.custom.map(CustomClaims::from_object_text),
        issued_at: time(claims.iat, "iat")?,
        not_before: time(claims.nbf, "nbf")?,
        expires_at: Some(expires_at),
    })
}

fn split(text: &str) -> Texts {
    text.split(' ').filter(|each| !each.is_empty()).collect()
}

fn without_empty(texts: &Texts) -> Texts {
    texts.iter().filter(|each| !each.is_empty()).collect()
}

/// What only tokens of machines say.
struct OwnClaims {
    machine_type: MachineType,
    scopes: Claim<Box<str>>,
    scp: Claim<List>,
    scope: Claim<Box<str>>,
    client_id: Claim<Box<str>>,
    /// The text of a JSON object of all other claims.
    custom: Option<String>,
    /// Whether a member stands twice within a claim.
    duplicate: bool,
}

impl OwnClaims {
    /// `None` when the bytes are no JSON object, or hold a value that cannot be read.
    fn decode(machine_type: MachineType, bytes: &[u8]) -> Option<Self> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let empty = Self {
            machine_type,
            scopes: Claim::Absent,
            scp: Claim::Absent,
            scope: Claim::Absent,
            client_id: Claim::Absent,
            custom: None,
            duplicate: false,
        };
        json.deserialize_map(empty).ok()
    }
}

impl<'de> Visitor<'de> for OwnClaims {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            match (&*name, self.machine_type) {
                ("iss" | "sub" | "exp" | "nbf" | "iat" | "jti" | "aud", _) => {
                    map.next_value::<IgnoredAny>()?;
                }
                ("scopes", MachineType::M2m) => self.scopes = map.next_value()?,
                ("scp", MachineType::Oauth) => self.scp = map.next_value()?,
                ("scope", MachineType::Oauth) => self.scope = map.next_value()?,
                ("client_id", MachineType::Oauth) => self.client_id = map.next_value()?,
                (other, _) => {
                    let raw: &RawValue = map.next_value()?;
                    self.duplicate |= add_custom(&mut self.custom, other, raw)
                        .map_err(serde::de::Error::custom)?;
                }
            }
        }
        if let Some(custom) = &mut self.custom {
            custom.push('}');
        }
        Ok(self)
    }
}
