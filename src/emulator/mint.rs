//! Tokens as Clerk makes them, good and bad.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::{
    directory::{ActiveOrganization, Directory},
    ids::random_id,
    machine_tokens::{MachineToken, OpaqueKind},
    signing_key::SigningKey,
};
use crate::identity::Timestamp;

/// Which type of token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A session token, version 2.
    #[default]
    Session,
    /// A session token, version 1.
    SessionV1,
    /// A token from a JWT template.
    Template,
    /// A machine-to-machine token.
    M2m,
    /// An OAuth access token.
    Oauth,
    /// An API key, which is always opaque.
    ApiKey,
    /// The payload of a handshake.
    Handshake,
}

impl Kind {
    /// Whether it says who is signed in, and in which organization.
    pub(super) const fn is_of_a_session(self) -> bool {
        match self {
            Self::Session | Self::SessionV1 => true,
            Self::Template | Self::M2m | Self::Oauth | Self::ApiKey | Self::Handshake => false,
        }
    }
}

/// Minutes since the first and the second factor were verified; -1 for never.
pub type FactorAges = [i64; 2];

/// What a token is to be. Without anything else: a good session token of the first user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenSpec {
    /// Which type.
    pub kind: Kind,
    /// The user; without it the first of the instance.
    pub user: Option<String>,
    /// The active organization, by id or slug; without it none.
    pub organization: Option<String>,
    /// Seconds from now to `iat`; negative is the past.
    pub issued_in_seconds: i64,
    /// Seconds from `iat` to `exp`; 60 where absent, as at Clerk.
    pub lifetime_seconds: Option<i64>,
    /// Expired a minute ago.
    pub expired: bool,
    /// `nbf` in an hour.
    pub not_yet_valid: bool,
    /// The session has tasks to finish (`sts`).
    pub pending: bool,
    /// Who acts in place of the user (`act`).
    pub impersonated_by: Option<String>,
    /// `fva`; `[0, -1]` where absent.
    pub factor_ages: Option<FactorAges>,
    /// `azp`; the instance's where absent, none where empty.
    pub authorized_party: Option<String>,
    /// `aud`.
    pub audience: Option<Value>,
    /// `sid`; made up where absent.
    pub session: Option<String>,
    /// Claims on top of everything; `null` takes a claim away.
    pub claims: Map<String, Value>,
    /// Header parameters on top of everything; `null` takes one away.
    pub header: Map<String, Value>,
    /// Signed with a stranger's key under the right `kid`.
    pub forged: bool,
    /// Of a machine's token: not a JWT, but one that only the Backend API knows.
    pub opaque: bool,
    /// Of a machine's token or an API key: for whom it stands; made up, or the user, where absent.
    pub subject: Option<String>,
    /// Of a machine's token, an OAuth access token or an API key: what it is for.
    pub scopes: Option<Vec<String>>,
}

/// A token that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MintError {
    /// No such user.
    #[error("user: no {user:?}; there are {known}")]
    UnknownUser {
        /// Who was asked for.
        user: String,
        /// Who is there.
        known: String,
    },
    /// No such organization.
    #[error("organization: no {organization:?}; there are {known}")]
    UnknownOrganization {
        /// Which was asked for.
        organization: String,
        /// Which are there.
        known: String,
    },
    /// The user is not in the organization.
    #[error("organization: {user} is not a member of {organization}")]
    NotAMember {
        /// Who.
        user: String,
        /// Of which.
        organization: String,
    },
    /// Tokens of sessions are always JWTs.
    #[error(
        "opaque: kind is neither m2m nor oauth; only these are JWTs or opaque, and api_key is always opaque"
    )]
    NeverOpaque,
    /// Every key was removed, or none can be made.
    #[error("there is no key to sign with; rotate to make one")]
    NoKey,
}

impl TokenSpec {
    /// A good session token of `user`.
    pub fn session(user: &str) -> Self {
        Self {
            user: Some(user.to_owned()),
            ..Self::default()
        }
    }

    /// A good token of this kind.
    pub fn of(kind: Kind) -> Self {
        Self {
            kind,
            ..Self::default()
        }
    }

    /// The same as an opaque token.
    pub fn as_opaque(mut self) -> Self {
        self.opaque = true;
        self
    }

    /// With these scopes.
    pub fn with_scopes(mut self, scopes: &[&str]) -> Self {
        self.scopes = Some(scopes.iter().map(|&scope| scope.to_owned()).collect());
        self
    }

    /// As what it is opaque; `None` for a JWT.
    pub(super) const fn opaque_kind(&self) -> Option<OpaqueKind> {
        match (self.kind, self.opaque) {
            (Kind::ApiKey, _) => Some(OpaqueKind::ApiKey),
            (Kind::M2m, true) => Some(OpaqueKind::M2m),
            (Kind::Oauth, true) => Some(OpaqueKind::Oauth),
            (Kind::M2m | Kind::Oauth, false)
            | (Kind::Session | Kind::SessionV1 | Kind::Template | Kind::Handshake, _) => None,
        }
    }

    /// `iat` and `exp`.
    const fn times(&self, now: i64) -> (i64, i64) {
        let lifetime = match self.lifetime_seconds {
            Some(seconds) => seconds,
            None => 60,
        };
        let late = if self.expired { lifetime + 60 } else { 0 };
        let issued_at = now + self.issued_in_seconds - late;
        (issued_at, issued_at + lifetime)
    }

    /// In this organization.
    pub fn in_organization(mut self, organization: &str) -> Self {
        self.organization = Some(organization.to_owned());
        self
    }

    /// With this claim on top.
    pub fn with_claim(mut self, name: &str, value: Value) -> Self {
        self.claims.insert(name.to_owned(), value);
        self
    }

    /// With this header parameter on top.
    pub fn with_header(mut self, name: &str, value: Value) -> Self {
        self.header.insert(name.to_owned(), value);
        self
    }
}

/// `cat` of the types that have one.
const fn category(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Session | Kind::SessionV1 | Kind::Handshake => Some("cl_B7d4PD111AAA"),
        Kind::Template => Some("cl_B7d4PD222AAA"),
        Kind::M2m => Some("cl_B7d4PD333AAA"),
        Kind::Oauth | Kind::ApiKey => None,
    }
}

/// A machine of which nothing else is known.
const MACHINE: &str = "mch_2EmulatorMachine00000000000";
/// To which its tokens may be shown.
const OTHER_MACHINE: &str = "mch_2EmulatorOther0000000000000";
/// An OAuth client, likewise.
const CLIENT: &str = "client_2EmulatorClient000000000000";

/// What an opaque token is to stand for.
pub(super) fn opaque(
    kind: OpaqueKind,
    spec: &TokenSpec,
    directory: &Directory,
    now: Timestamp,
) -> Result<MachineToken, MintError> {
    let (created_at, expires_at) = spec.times(now.unix_seconds());
    let never_expires =
        kind == OpaqueKind::ApiKey && spec.lifetime_seconds.is_none() && !spec.expired;
    Ok(MachineToken {
        kind,
        subject: subject(spec, directory)?,
        client_id: CLIENT.to_owned(),
        scopes: scopes(spec),
        claims: spec.claims.clone(),
        created_at,
        expires_at: (!never_expires).then_some(expires_at),
        revoked: false,
    })
}

/// For whom a token of a machine stands.
fn subject(spec: &TokenSpec, directory: &Directory) -> Result<String, MintError> {
    Ok(match (&spec.subject, spec.kind) {
        (Some(subject), _) => subject.clone(),
        (None, Kind::M2m) => MACHINE.to_owned(),
        (None, _) => directory.subject(spec)?.user.id,
    })
}

fn scopes(spec: &TokenSpec) -> Vec<String> {
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    match (&spec.scopes, spec.kind) {
        (Some(scopes), _) => scopes.clone(),
        (None, Kind::M2m) => texts(&[OTHER_MACHINE]),
        (None, Kind::Oauth) => texts(&["profile", "email"]),
        (None, _) => Vec::new(),
    }
}

/// What is the same in all tokens of an instance.
pub(super) struct Mint<'a> {
    pub(super) directory: &'a Directory,
    pub(super) issuer: &'a str,
    /// The `azp` of a token that names none.
    pub(super) authorized_party: &'a str,
    pub(super) key: &'a SigningKey,
    pub(super) now: Timestamp,
}

impl Mint<'_> {
    pub(super) fn token(&self, spec: &TokenSpec) -> Result<String, MintError> {
        let mut header = Map::new();
        header.insert("alg".into(), json!("RS256"));
        if let Some(category) = category(spec.kind) {
            header.insert("cat".into(), json!(category));
        }
        header.insert("kid".into(), json!(self.key.key_id()));
        header.insert(
            "typ".into(),
            json!(if spec.kind == Kind::Oauth {
                "at+jwt"
            } else {
                "JWT"
            }),
        );
        overlay(&mut header, &spec.header);
        let mut payload = self.payload(spec)?;
        overlay(&mut payload, &spec.claims);
        self.key
            .sign(&Value::Object(header), &Value::Object(payload))
            .ok_or(MintError::NoKey)
    }

    fn payload(&self, spec: &TokenSpec) -> Result<Map<String, Value>, MintError> {
        let now = self.now.unix_seconds();
        let (issued_at, expires_at) = spec.times(now);
        let not_before = if spec.not_yet_valid {
            now + 3_600
        } else {
            issued_at - 10
        };
        let mut claims = Map::new();
        let mut set = |name: &str, value: Value| {
            claims.insert(name.to_owned(), value);
        };
        if spec.kind == Kind::Handshake {
            set("handshake", json!([]));
            return Ok(claims);
        }
        set("iss", json!(self.issuer));
        set("iat", json!(issued_at));
        set("nbf", json!(not_before));
        set("exp", json!(expires_at));
        if let Some(audience) = &spec.audience {
            set("aud", audience.clone());
        }
        match spec.kind {
            Kind::M2m => {
                set("sub", json!(subject(spec, self.directory)?));
                set("jti", json!(format!("mt_{}", random_id())));
                set("scopes", json!(scopes(spec).join(" ")));
                return Ok(claims);
            }
            Kind::Oauth => {
                set("sub", json!(subject(spec, self.directory)?));
                set("jti", json!(format!("oat_{}", random_id())));
                set("client_id", json!(CLIENT));
                set("scp", json!(scopes(spec)));
                return Ok(claims);
            }
            Kind::Template => {
                set("sub", json!(self.directory.subject(spec)?.user.id));
                set("jti", json!(random_id()));
                return Ok(claims);
            }
            Kind::Session | Kind::SessionV1 | Kind::ApiKey | Kind::Handshake => {}
        }
        let subject = self.directory.subject(spec)?;
        let user = &subject.user;
        set("sub", json!(user.id));
        set(
            "sid",
            json!(spec.session.as_ref().or(subject.session.as_ref())),
        );
        set("fva", json!(spec.factor_ages.unwrap_or([0, -1])));
        set(
            "sts",
            json!(if spec.pending { "pending" } else { "active" }),
        );
        let party = spec
            .authorized_party
            .as_deref()
            .unwrap_or(self.authorized_party);
        if !party.is_empty() {
            set("azp", json!(party));
        }
        if let Some(actor) = &spec.impersonated_by {
            set(
                "act",
                json!({ "iss": "https://dashboard.clerk.com", "sid": "sess_actor", "sub": actor }),
            );
        }
        let organization = subject.organization.as_ref();
        if spec.kind == Kind::SessionV1 {
            if let Some(organization) = organization {
                set("org_id", json!(organization.id));
                set("org_slug", json!(organization.slug));
                set("org_role", json!(format!("org:{}", organization.role)));
                set("org_permissions", json!(organization.permissions));
            }
            return Ok(claims);
        }
        set("v", json!(2));
        set("jti", json!(random_id()));
        let scoped = |scope: &str, slugs: &[String]| {
            slugs
                .iter()
                .map(|slug| format!("{scope}:{slug}"))
                .collect::<Vec<_>>()
        };
        let mut features = Vec::new();
        let mut plans = scoped("u", &user.plans);
        if let Some(organization) = organization {
            features = scoped("o", &organization.features);
            plans = scoped("o", &organization.plans);
            set("o", organization_claim(organization));
        }
        features.extend(scoped("u", &user.features));
        set("fea", json!(features.join(",")));
        set("pla", json!(plans.join(",")));
        Ok(claims)
    }
}

pub(super) fn overlay(base: &mut Map<String, Value>, changes: &Map<String, Value>) {
    for (name, value) in changes {
        if value.is_null() {
            base.remove(name);
        } else {
            base.insert(name.clone(), value.clone());
        }
    }
}

/// `o`: distinct permission names, and for each feature a mask of those that it has.
fn organization_claim(organization: &ActiveOrganization) -> Value {
    let granted: Vec<(&str, &str)> = organization
        .permissions
        .iter()
        .filter_map(|permission| permission.strip_prefix("org:")?.split_once(':'))
        .collect();
    let mut names: Vec<&str> = Vec::new();
    for (_, name) in &granted {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let masks: Vec<String> = organization
        .features
        .iter()
        .map(|feature| {
            let bits: Vec<bool> = names
                .iter()
                .map(|name| granted.contains(&(feature.as_str(), name)))
                .collect();
            decimal(&bits)
        })
        .collect();
    json!({
        "id": organization.id, "slg": organization.slug, "rol": organization.role,
        "per": names.join(","), "fpm": masks.join(","),
    })
}

/// A number of any length from its bits, the least first.
fn decimal(bits: &[bool]) -> String {
    let mut digits = vec![0_u8];
    for &bit in bits.iter().rev() {
        let mut carry = u8::from(bit);
        for digit in &mut digits {
            let doubled = *digit * 2 + carry;
            *digit = doubled % 10;
            carry = doubled / 10;
        }
        if carry > 0 {
            digits.push(carry);
        }
    }
    digits
        .iter()
        .rev()
        .map(|digit| char::from(b'0' + digit))
        .collect()
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;

    use super::*;

    #[test]
    fn ids_that_are_made_up_have_the_form_of_clerks() {
        for (id, prefix) in [
            (MACHINE, "mch_"),
            (OTHER_MACHINE, "mch_"),
            (CLIENT, "client_"),
        ] {
            let rest = id.strip_prefix(prefix).expect("its prefix");
            assert_eq!(rest.len(), 27, "{id}");
        }
    }

    #[test]
    fn masks_are_exact_at_any_length() {
        for width in 0..200 {
            let bits: Vec<bool> = (0..width).map(|i| i % 3 == 0 || i == 53).collect();
            let mut expected = BigUint::ZERO;
            for (position, &bit) in bits.iter().enumerate() {
                expected.set_bit(position as u64, bit);
            }
            assert_eq!(decimal(&bits), expected.to_string(), "{width}");
        }
    }
}
