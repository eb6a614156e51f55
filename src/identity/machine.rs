use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

use super::{CustomClaims, Issuer, OrganizationId, Texts, Timestamp, UserId, is_clerk_id};

/// The types of token that can be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenType {
    /// A Clerk session token: of a person.
    Session,
    /// A token of a machine, an OAuth client or an API key.
    Machine(MachineType),
}

/// The types of token that are of no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MachineType {
    /// From machine to machine.
    M2m,
    /// An OAuth access token, which an application holds for a user.
    Oauth,
    /// An API key.
    ApiKey,
}

impl TokenType {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Session,
        Self::Machine(MachineType::M2m),
        Self::Machine(MachineType::Oauth),
        Self::Machine(MachineType::ApiKey),
    ];

    /// Clerk's name for it, such as `session_token`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session => "session_token",
            Self::Machine(machine) => machine.name(),
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Session => 1,
            Self::Machine(MachineType::M2m) => 1 << 1,
            Self::Machine(MachineType::Oauth) => 1 << 2,
            Self::Machine(MachineType::ApiKey) => 1 << 3,
        }
    }
}

impl MachineType {
    /// Clerk's name for it, such as `m2m_token`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::M2m => "m2m_token",
            Self::Oauth => "oauth_token",
            Self::ApiKey => "api_key",
        }
    }
}

/// Types of token that are accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenTypes(u8);

impl TokenTypes {
    /// None.
    pub const NONE: Self = Self(0);
    /// Session tokens alone: what is accepted where nothing else is asked for.
    pub const SESSION: Self = Self(TokenType::Session.bit());

    /// These and one more.
    #[must_use]
    pub const fn with(self, token_type: TokenType) -> Self {
        Self(self.0 | token_type.bit())
    }

    /// Those that stand in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether it is one of them.
    pub const fn has(self, token_type: TokenType) -> bool {
        self.0 & token_type.bit() != 0
    }

    /// Whether one of them is of no session.
    pub const fn has_machines(self) -> bool {
        self.0 & !Self::SESSION.0 != 0
    }

    /// Each.
    pub fn iter(self) -> impl Iterator<Item = TokenType> {
        TokenType::ALL
            .into_iter()
            .filter(move |each| self.has(*each))
    }
}

impl Default for TokenTypes {
    fn default() -> Self {
        Self::SESSION
    }
}

impl FromIterator<TokenType> for TokenTypes {
    fn from_iter<I: IntoIterator<Item = TokenType>>(types: I) -> Self {
        types.into_iter().fold(Self::NONE, Self::with)
    }
}

/// Their names, with commas between.
impl fmt::Display for TokenTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, each) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", each.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for TokenTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenTypes({self})")
    }
}

/// What a good token says that is of no session.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Which type.
    pub machine_type: MachineType,
    /// In which form it came.
    pub form: TokenForm,
    /// Its id (`mt_…`, `oat_…`, `ak_…`), where it has one; no secret.
    pub token_id: Option<Box<str>>,
    /// The Clerk instance's issuer.
    pub issuer: Issuer,
    /// For whom it stands.
    pub subject: MachineSubject,
    /// The OAuth client that holds it; of OAuth access tokens only.
    pub client_id: Option<Box<str>>,
    /// What it is for: of a machine's token the machines (`mch_…`) that it may be shown to.
    pub scopes: Texts,
    /// `aud`; opaque tokens have none.
    pub audiences: Texts,
    /// What the application added to it.
    pub claims: Option<CustomClaims>,
    /// When it was made, where it says so.
    pub issued_at: Option<Timestamp>,
    /// `nbf`.
    pub not_before: Option<Timestamp>,
    /// When it expires; `None` is never, which only an opaque token says.
    pub expires_at: Option<Timestamp>,
}

/// How a token says what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenForm {
    /// By itself, signed by Clerk.
    Jwt,
    /// Not at all: only Clerk knows.
    Opaque,
}

/// For whom a token stands that is of no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineSubject {
    /// A machine, `mch_` followed by base62.
    Machine(Box<str>),
    /// A user.
    User(UserId),
    /// An organization.
    Organization(OrganizationId),
}

impl MachineSubject {
    /// The subject of a token of this type; `None` where such a token has no such subject.
    pub fn of(machine_type: MachineType, text: &str) -> Option<Self> {
        let machine = || is_clerk_id(text, "mch_").then(|| Self::Machine(text.into()));
        let user = || text.parse().ok().map(Self::User);
        let organization = || text.parse().ok().map(Self::Organization);
        match machine_type {
            MachineType::M2m => machine(),
            MachineType::Oauth => user(),
            MachineType::ApiKey => user().or_else(organization).or_else(machine),
        }
    }

    /// As Clerk writes it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Machine(id) => id,
            Self::User(id) => id.as_str(),
            Self::Organization(id) => id.as_str(),
        }
    }
}

/// A token that only Clerk can read. `Debug` shows its type alone; it is compared and remembered by
/// its SHA-256.
#[derive(Clone)]
pub struct OpaqueToken {
    machine_type: MachineType,
    text: Box<str>,
    digest: TokenDigest,
}

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl OpaqueToken {
    /// A token of this type.
    pub fn new(machine_type: MachineType, text: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Self {
            machine_type,
            text: text.into(),
            digest: TokenDigest(bytes),
        }
    }

    /// Which type.
    pub const fn machine_type(&self) -> MachineType {
        self.machine_type
    }

    /// The token itself: for Clerk, and for nobody else.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What it is remembered by.
    pub const fn digest(&self) -> TokenDigest {
        self.digest
    }
}

impl fmt::Debug for OpaqueToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpaqueToken({})", self.machine_type.name())
    }
}

/// Nothing of it is printed: whoever knows a token could tell it by its digest.
impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in_and_nothing_else() {
        for token_type in TokenType::ALL {
            let only = TokenTypes::NONE.with(token_type);
            for other in TokenType::ALL {
                assert_eq!(
                    only.has(other),
                    other == token_type,
                    "{token_type:?} {other:?}"
                );
            }
            assert_eq!(only.has_machines(), token_type != TokenType::Session);
            assert_eq!(only.to_string(), token_type.name());
        }
        assert_eq!(TokenTypes::default(), TokenTypes::SESSION);
        let all: TokenTypes = TokenType::ALL.into_iter().collect();
        assert_eq!(all.and(TokenTypes::SESSION), TokenTypes::SESSION);
    }

    #[test]
    fn a_subject_is_one_that_the_type_may_have() {
        use MachineType::{ApiKey, M2m, Oauth};
        for (machine_type, subject, good) in [
            (M2m, "mch_1", true),
            (M2m, "user_1", false),
            (M2m, "org_1", false),
            (M2m, "mch_", false),
            (M2m, "mch_a/b", false),
            (Oauth, "user_1", true),
            (Oauth, "mch_1", false),
            (Oauth, "org_1", false),
            (ApiKey, "user_1", true),
            (ApiKey, "org_1", true),
            (ApiKey, "mch_1", true),
            (ApiKey, "sess_1", false),
            (ApiKey, "", false),
        ] {
            let found = MachineSubject::of(machine_type, subject);
            let found = found.as_ref().map(MachineSubject::as_str);
            assert_eq!(found, good.then_some(subject), "{machine_type:?} {subject}");
        }
    }

    #[test]
    fn an_opaque_token_is_never_printed() {
        let token = OpaqueToken::new(MachineType::ApiKey, "ak_secret");
        let printed = format!("{token:?} {:?}", token.digest());
        assert_eq!(printed, "OpaqueToken(api_key) TokenDigest");
        let other = OpaqueToken::new(MachineType::ApiKey, "ak_secret2");
        assert_ne!(token.digest(), other.digest());
    }
}
