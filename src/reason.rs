//! The one enum of reasons: why a request was allowed or denied, or why it could not be decided.
//!
//! Every room may use it; it knows nothing. The proto enum, `ErrorInfo`, logs, metrics, headers and
//! docs all speak these names.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $description:literal;)*) => {
        /// Why a request was allowed or denied, or why it could not be decided.
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
    /// Neither a compact JWS of three base64url parts with JSON objects inside, nor an opaque token that
    /// Clerk knows.
    TokenMalformed = "TOKEN_MALFORMED", "the credential is neither a compact JWS nor an opaque token that Clerk knows";
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
    /// Used before, where it may be used once.
    TokenReplayed = "TOKEN_REPLAYED", "the token was used before, where it may be used once";
    /// The session ended, was removed or was revoked; or the opaque token was.
    SessionRevoked = "SESSION_REVOKED", "the session has ended, or the token was revoked";
    /// The user was deleted.
    UserDeleted = "USER_DELETED", "the user was deleted";
    /// No factor was verified recently enough.
    ReverificationRequired = "REVERIFICATION_REQUIRED", "the user has not verified a factor recently enough";
    /// Clerk says that the user is banned.
    UserBanned = "USER_BANNED", "the user is banned";
    /// Clerk says that the user was taken out of service.
    UserDeprovisioned = "USER_DEPROVISIONED", "the user was deprovisioned by the identity provider";
    /// No identity provider of this name is configured.
    ProviderUnknown = "PROVIDER_UNKNOWN", "no identity provider of this name is configured";
    /// An identity provider's assertion breaks a rule; the error says which.
    AssertionInvalid = "ASSERTION_INVALID", "the identity provider's assertion cannot be believed";
    /// The assertion was exchanged before.
    AssertionReplayed = "ASSERTION_REPLAYED", "the identity provider's assertion was exchanged before";
    /// The assertion does not show the second factor that the provider's policy asks for.
    MfaRequired = "MFA_REQUIRED", "the identity provider does not say that the user has shown a second factor";
    /// No user is meant by the assertion, or more than one.
    UserUnmatched = "USER_UNMATCHED", "the assertion does not lead to exactly one user";
    /// Clerk says that the user may not sign in for a while.
    UserLocked = "USER_LOCKED", "the user is locked";
    /// Everything that was asked holds.
    Allowed = "ALLOWED", "everything that was asked holds";
    /// A role or a permission is asked, and no organization is named or active.
    OrganizationMissing = "ORGANIZATION_MISSING", "no organization is named, and none is active in the session";
    /// A feature or a plan is asked of another organization than the token's active one.
    OrganizationMismatch = "ORGANIZATION_MISMATCH", "the token speaks for another organization than the one that is asked about";
    /// The organization was deleted.
    OrganizationDeleted = "ORGANIZATION_DELETED", "the organization was deleted";
    /// The user is not in the organization.
    NotAMember = "NOT_A_MEMBER", "the user is not a member of the organization";
    /// The user's role does not have the permission; or the machine's token does not have the scope.
    PermissionMissing = "PERMISSION_MISSING", "the permission or the scope is missing";
    /// The user has another role.
    RoleMismatch = "ROLE_MISMATCH", "the user does not have the role in the organization";
    /// Neither the user nor the organization has the feature.
    FeatureMissing = "FEATURE_MISSING", "neither the user nor the organization has the feature";
    /// Neither the user nor the organization has the plan.
    PlanMismatch = "PLAN_MISMATCH", "neither the user nor the organization has the plan";
    /// Somebody acts in the user's place.
    ImpersonationNotAllowed = "IMPERSONATION_NOT_ALLOWED", "somebody acts in the user's place, which is not allowed here";
    /// Nothing was asked that could be allowed.
    NoRequirement = "NO_REQUIREMENT", "nothing was asked that could be allowed";
    /// The route is for everybody.
    RoutePublic = "ROUTE_PUBLIC", "the route is for everybody";
    /// The route is for nobody.
    RouteDenied = "ROUTE_DENIED", "the route is for nobody";
    /// No route is about the request.
    RouteUnmatched = "ROUTE_UNMATCHED", "no route of the policy is about this request";
    /// Servers read the path, or the host, in several ways.
    PathAmbiguous = "PATH_AMBIGUOUS", "the path or the host can be read in several ways";
    /// Clerk has no such organization.
    OrganizationNotFound = "ORGANIZATION_NOT_FOUND", "Clerk has no such organization";
    /// The mirror has no such user.
    UserNotFound = "USER_NOT_FOUND", "the mirror has no such user";
    /// What a watch would go on behind is not kept, or is of another database.
    ResumeTokenExpired = "RESUME_TOKEN_EXPIRED", "what follows the resume token is no longer kept; begin anew, without a token";
    /// A watch's messages were not taken.
    WatchTooSlow = "WATCH_TOO_SLOW", "the watch's messages were not taken for too long; go on behind the last one";
    /// The replica ends.
    Draining = "DRAINING", "this replica ends; go on at another";
    /// By the callers' rules its caller may not ask this.
    CallerNotAllowed = "CALLER_NOT_ALLOWED", "the caller may not ask this of the service";
    /// Cannot tell: Clerk cannot be asked.
    ClerkUnavailable = "CLERK_UNAVAILABLE", "Clerk's API cannot be asked, and nothing that is known is fresh enough; retry";
    /// Cannot tell: a rate limit of Clerk's API is reached.
    ClerkRateLimited = "CLERK_RATE_LIMITED", "the rate limit of Clerk's API is reached, and nothing that is known is fresh enough; retry";
    /// Cannot tell: the store does not answer.
    StoreUnavailable = "STORE_UNAVAILABLE", "the database is not configured, not reachable or not writable; retry";
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
