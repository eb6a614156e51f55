//! Which type of token it is. Clerk signs them all with the same key, so that a signature alone
//! says nothing about the type (docs/verification.md).

use std::fmt;

use super::{
    claims::{Claim, Claims},
    jws::Header,
};

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
    /// None of these: no `sid` or no `sub`, or a category that we do not know.
    Other,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "session token",
            Self::Template => "JWT-template token",
            Self::M2m => "machine-to-machine token",
            Self::OAuth => "OAuth access token",
            Self::Handshake => "handshake token",
            Self::Other => "token without a session (sid) or of an unknown category",
        })
    }
}

/// Source: `@clerk/backend`, `tokens/machine.ts` and `tokens/jwtCategories.ts`; that a session token
/// must have a string `sid` is ours (docs/differences.md).
pub(super) fn of(header: &Header, claims: &Claims) -> Kind {
    if header
        .typ
        .as_present()
        .is_some_and(|typ| typ.ends_with("at+jwt"))
    {
        return Kind::OAuth;
    }
    match &header.cat {
        Claim::Absent => {}
        Claim::Present(cat) => match &**cat {
            CATEGORY_SESSION | CATEGORY_INSTANCE => {}
            CATEGORY_TEMPLATE => return Kind::Template,
            CATEGORY_M2M => return Kind::M2m,
            _ => return Kind::Other,
        },
        Claim::Invalid => return Kind::Other,
    }
    if claims
        .sub
        .as_present()
        .is_some_and(|sub| sub.starts_with("mch_"))
    {
        return Kind::M2m;
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
