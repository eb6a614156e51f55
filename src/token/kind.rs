//! Which type of token it is. Clerk signs them all with the same key, so that a signature alone
//! says nothing about the type (docs/verification.md).

use std::fmt;

use super::{
    claims::{Claim, Claims},
    jws::Header,
};
use crate::identity::{MachineType, TokenType};

/// `cat` of session tokens, and of handshake tokens.
const CATEGORY_SESSION: &str = "cl_B7d4PD111AAA";
/// `cat` of JWT-template tokens.
const CATEGORY_TEMPLATE: &str = "cl_B7d4PD222AAA";
/// `cat` of machine-to-machine tokens.
const CATEGORY_M2M: &str = "cl_B7d4PD333AAA";
/// An instance stamps this one on every type: it says nothing.
const CATEGORY_INSTANCE: &str = "cl_I7d4PD111III";

/// The type of a token, from its header and its claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A session token: a string `sid` and a `sub`, and nothing that says otherwise.
    Session,
    /// Made from a JWT template.
    Template,
    /// A machine-to-machine token.
    M2m,
    /// An OAuth access token (RFC 9068).
    OAuth,
    /// The payload of a browser handshake.
    Handshake,
    /// None of these: no `sid` or no `sub`, a category that we do not know, or the marks of two.
    Other,
}

impl Kind {
    /// As what it may be accepted; `None` for what never is.
    pub const fn token_type(self) -> Option<TokenType> {
        match self {
            Self::Session => Some(TokenType::Session),
            Self::M2m => Some(TokenType::Machine(MachineType::M2m)),
            Self::OAuth => Some(TokenType::Machine(MachineType::Oauth)),
            Self::Template | Self::Handshake | Self::Other => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "session token",
            Self::Template => "JWT-template token",
            Self::M2m => "machine-to-machine token",
            Self::OAuth => "OAuth access token",
            Self::Handshake => "handshake token",
            Self::Other => {
                "token without a session (sid), of an unknown category, or of no one type"
            }
        })
    }
}

/// The type of an opaque token, by its prefix; `None` for everything else. No JWT has one of these
/// prefixes: none of them is the beginning of a JSON object in base64url.
///
/// Source: `@clerk/backend`, `tokens/machine.ts`; `m2m_` is of Clerk's Python SDK.
pub fn opaque_type(text: &str) -> Option<MachineType> {
    const PREFIXES: [(&str, MachineType); 4] = [
        ("mt_", MachineType::M2m),
        ("m2m_", MachineType::M2m),
        ("oat_", MachineType::Oauth),
        ("ak_", MachineType::ApiKey),
    ];
    let found = PREFIXES.iter().find(|(prefix, _)| text.starts_with(prefix));
    found.map(|(_, machine_type)| *machine_type)
}

/// Source: `@clerk/backend`, `tokens/machine.ts` and `tokens/jwtCategories.ts`; that a session token
/// must have a string `sid` is ours (docs/differences.md).
pub(super) fn of(header: &Header, claims: &Claims) -> Kind {
    let is_machine = claims
        .sub
        .as_present()
        .is_some_and(|sub| sub.starts_with("mch_"));
    let typ = header.typ.as_present().map(|typ| &**typ);
    if matches!(typ, Some("at+jwt" | "application/at+jwt")) {
        // With the marks of both the SDK takes it for a machine's, and refuses it for its `typ`.
        return if is_machine { Kind::Other } else { Kind::OAuth };
    }
    if is_machine {
        return match &header.cat {
            Claim::Absent => Kind::M2m,
            Claim::Present(cat) if **cat == *CATEGORY_M2M => Kind::M2m,
            // The SDK refuses one that the instance has stamped, too.
            Claim::Present(_) | Claim::Invalid => Kind::Other,
        };
    }
    match &header.cat {
        Claim::Absent => {}
        Claim::Present(cat) => match &**cat {
            CATEGORY_SESSION | CATEGORY_INSTANCE => {}
            CATEGORY_TEMPLATE => return Kind::Template,
            // A machine's whose subject is no machine, too.
            _ => return Kind::Other,
        },
        Claim::Invalid => return Kind::Other,
    }
    let has_session = matches!(claims.sid, Claim::Present(_));
    let has_subject = !matches!(claims.sub, Claim::Absent);
    match (has_session, has_subject) {
        (true, true) => Kind::Session,
        _ if claims.handshake => Kind::Handshake,
        // Templates from before the categories look just like this.
        (false, true) => Kind::Template,
        _ => Kind::Other,
    }
}
