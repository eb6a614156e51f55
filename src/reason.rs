//! The one enum of reasons: why a request was denied, or why it could not be decided.
//!
//! Every room may use it; it knows nothing. The proto enum, `ErrorInfo`, logs, metrics, headers and
//! docs all speak these names.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
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
        }
    };
}

reasons! {
    /// No credential was found.
    TokenMissing = "TOKEN_MISSING",
    /// Not a compact JWS of three base64url parts with JSON objects inside.
    TokenMalformed = "TOKEN_MALFORMED",
    /// Longer than [`crate::credential::MAX_TOKEN_BYTES`].
    TokenTooLarge = "TOKEN_TOO_LARGE",
    /// Several credentials that do not agree.
    CredentialsAmbiguous = "CREDENTIALS_AMBIGUOUS",
    /// Genuine, but not of a type that was asked for.
    TokenTypeNotAccepted = "TOKEN_TYPE_NOT_ACCEPTED",
    /// `alg` is not RS256.
    AlgorithmNotAllowed = "ALGORITHM_NOT_ALLOWED",
    /// No current key of the instance has this `kid`.
    KeyUnknown = "KEY_UNKNOWN",
    /// The signature does not verify.
    SignatureInvalid = "SIGNATURE_INVALID",
    /// A claim of a wrong type or an impossible value, or a member that occurs twice.
    ClaimInvalid = "CLAIM_INVALID",
    /// `iss` names no configured instance.
    IssuerMismatch = "ISSUER_MISMATCH",
    /// `azp` is not one of the authorized parties.
    AuthorizedPartyMismatch = "AUTHORIZED_PARTY_MISMATCH",
    /// `aud` names none of the audiences.
    AudienceMismatch = "AUDIENCE_MISMATCH",
    /// `exp` has passed.
    TokenExpired = "TOKEN_EXPIRED",
    /// `nbf` is still to come.
    TokenNotYetValid = "TOKEN_NOT_YET_VALID",
    /// `iat` is in the future.
    TokenIssuedInFuture = "TOKEN_ISSUED_IN_FUTURE",
    /// `sts` is `pending`.
    SessionPending = "SESSION_PENDING",
    /// No factor was verified recently enough.
    ReverificationRequired = "REVERIFICATION_REQUIRED",
    /// Cannot tell: no usable keys for the token's instance.
    KeysUnavailable = "KEYS_UNAVAILABLE",
    /// Turned away unread because a limit was reached.
    Overloaded = "OVERLOADED",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
