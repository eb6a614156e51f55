//! The one enum of reasons: why a request was denied, or why it could not be decided.
//!
//! Every room may use it; it knows nothing. The proto enum, `ErrorInfo`, logs, metrics, headers and
//! docs all speak these names.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $description:literal;)*) => {
        /// Why a request was denied, or why it could not be decided.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// All of them, in the order in which they are documented.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name that is used everywhere outside Rust, such as `TOKEN_EXPIRED`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// A sentence for people, without anything of the request.
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => $description,)*
                }
            }
        }
    };
}

reasons! {
    /// No credential was found.
    TokenMissing = "TOKEN_MISSING", "no credential was found";
    /// Not a compact JWS of three base64url parts with JSON objects inside.
    TokenMalformed = "TOKEN_MALFORMED", "the credential is not a compact JWS";
    /// Longer than [`crate::credential::MAX_TOKEN_BYTES`].
    TokenTooLarge = "TOKEN_TOO_LARGE", "the credential is longer than 16 KiB";
    /// Several credentials that do not agree.
    CredentialsAmbiguous = "CREDENTIALS_AMBIGUOUS", "several credentials do not agree";
    /// Genuine, but not of a type that was asked for.
    TokenTypeNotAccepted = "TOKEN_TYPE_NOT_ACCEPTED", "the token is not of a type that is accepted here";
    /// `alg` is not RS256.
    AlgorithmNotAllowed = "ALGORITHM_NOT_ALLOWED", "the token's algorithm is not RS256";
    /// No current key of the instance has this `kid`.
    KeyUnknown = "KEY_UNKNOWN", "the token names a key that its Clerk instance does not have";
    /// The signature does not verify.
    SignatureInvalid = "SIGNATURE_INVALID", "the token's signature does not verify";
    /// A claim of a wrong type or an impossible value, or a member that occurs twice.
    ClaimInvalid = "CLAIM_INVALID", "a claim of the token has a wrong type or an impossible value";
    /// `iss` names no configured instance.
    IssuerMismatch = "ISSUER_MISMATCH", "the token's issuer is not a configured Clerk instance";
    /// `azp` is not one of the authorized parties.
    AuthorizedPartyMismatch = "AUTHORIZED_PARTY_MISMATCH", "the token was not made for an authorized party";
    /// `aud` names none of the audiences.
    AudienceMismatch = "AUDIENCE_MISMATCH", "the token was not made for an accepted audience";
    /// `exp` has passed.
    TokenExpired = "TOKEN_EXPIRED", "the token has expired";
    /// `nbf` is still to come.
    TokenNotYetValid = "TOKEN_NOT_YET_VALID", "the token is not valid yet";
    /// `iat` is in the future.
    TokenIssuedInFuture = "TOKEN_ISSUED_IN_FUTURE", "the token was issued in the future";
    /// `sts` is `pending`.
    SessionPending = "SESSION_PENDING", "the session has tasks to finish before it counts as signed in";
    /// No factor was verified recently enough.
    ReverificationRequired = "REVERIFICATION_REQUIRED", "the user has not verified a factor recently enough";
    /// Cannot tell: no usable keys for the token's instance.
    KeysUnavailable = "KEYS_UNAVAILABLE", "there are no usable keys for the token's Clerk instance; retry";
    /// Turned away unread because a limit was reached.
    Overloaded = "OVERLOADED", "a limit of the service was reached; retry";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/reasons.md and this enum are one list.
    #[test]
    fn the_document_has_every_reason_with_its_description() {
        let document = include_str!("../docs/reasons.md");
        for reason in Reason::ALL {
            let row = format!("| `{reason}` | {} |", reason.description());
            assert!(
                document.contains(&row),
                "docs/reasons.md lacks the row {row}"
            );
        }
    }
}
