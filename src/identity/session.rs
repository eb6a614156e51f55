use std::{fmt, sync::Arc, time::Duration};

use super::{Issuer, OrganizationId, SessionId, Texts, TextsBuilder, Timestamp, UserId};

/// What a verified session token says about its user.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// The user; where `actor` is set, the impersonated one.
    pub user_id: UserId,
    /// The session.
    pub session_id: SessionId,
    /// `jti`, where the token has one.
    pub token_id: Option<Box<str>>,
    /// The version of Clerk's session token: 1 where the token has no `v`.
    pub token_version: i32,
    /// The Clerk instance's issuer.
    pub issuer: Issuer,
    /// `azp`, where the token has one that is not empty.
    pub authorized_party: Option<Arc<str>>,
    /// `aud`, as a list.
    pub audiences: Texts,
    /// `iat`.
    pub issued_at: Option<Timestamp>,
    /// `nbf`.
    pub not_before: Option<Timestamp>,
    /// `exp`.
    pub expires_at: Timestamp,
    /// `sts`; active where the token has none.
    pub status: SessionStatus,
    /// The active organization.
    pub organization: Option<Box<Organization>>,
    /// `fea`, in the token's order; a feature of both scopes stands twice, the organization's first.
    pub features: ScopedSlugs,
    /// `pla`, likewise.
    pub plans: ScopedSlugs,
    /// `fva`.
    pub factor_ages: Option<FactorAges>,
    /// `act`: who acts in place of the user.
    pub actor: Option<Box<Actor>>,
    /// Claims that the application added.
    pub custom_claims: Option<CustomClaims>,
}

/// The organization that is active in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// Its slug; can change and be reused.
    pub slug: Option<Box<str>>,
    /// The user's role, always with exactly one `org:`.
    pub role: Option<Box<str>>,
    /// The user's custom permissions, with `org:`.
    pub permissions: Texts,
}

/// Whose feature or plan it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The user's own.
    User,
    /// The active organization's.
    Organization,
}

/// A feature or a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopedSlug<'a> {
    /// Whose.
    pub scope: Scope,
    /// Which.
    pub slug: &'a str,
}

/// Features or plans, in the token's order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ScopedSlugs {
    /// Each slug behind the first letter of its scope.
    lettered: Texts,
}

impl ScopedSlugs {
    /// Each with its scope.
    pub fn iter(&self) -> impl Iterator<Item = ScopedSlug<'_>> {
        self.lettered.iter().map(|text| match text.split_at(1) {
            (Self::USER, slug) => ScopedSlug {
                scope: Scope::User,
                slug,
            },
            (_, slug) => ScopedSlug {
                scope: Scope::Organization,
                slug,
            },
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lettered.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lettered.is_empty()
    }

    /// What they hold on the heap, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.lettered.heap_bytes()
    }

    const USER: &str = "u";
    const ORGANIZATION: &str = "o";
}

impl fmt::Debug for ScopedSlugs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> FromIterator<ScopedSlug<'a>> for ScopedSlugs {
    fn from_iter<I: IntoIterator<Item = ScopedSlug<'a>>>(slugs: I) -> Self {
        let mut lettered = TextsBuilder::default();
        for ScopedSlug { scope, slug } in slugs {
            let letter = match scope {
                Scope::User => Self::USER,
                Scope::Organization => Self::ORGANIZATION,
            };
            lettered.push(&[letter, slug]);
        }
        Self {
            lettered: lettered.finish(),
        }
    }
}

/// How long before `iat` a factor was verified; `None` means never, or that there is none.
///
/// Minutes, as Clerk writes them. A fraction is kept, because the SDK compares it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FactorAge(f64);

impl FactorAge {
    /// From minutes; `None` unless finite and not negative.
    pub fn from_minutes(minutes: f64) -> Option<Self> {
        (minutes.is_finite() && minutes >= 0.0).then_some(Self(minutes))
    }

    /// In minutes.
    pub fn minutes(self) -> f64 {
        self.0
    }

    /// As a duration; `None` when it is too long for one.
    pub fn duration(self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.0 * 60.0).ok()
    }
}

/// `fva`: the ages of the first and the second factor, as of `iat`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FactorAges {
    /// The first factor.
    pub first: Option<FactorAge>,
    /// The second factor.
    pub second: Option<FactorAge>,
}

/// Who acts in place of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// `act.sub`: the impersonator, usually a user id.
    pub subject: Box<str>,
    /// `act.iss`.
    pub issuer: Option<Box<str>>,
    /// `act.sid`.
    pub session_id: Option<Box<str>>,
    /// `act.type`, such as `agent`.
    pub kind: Option<Box<str>>,
}

/// A session's status, `sts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionStatus {
    /// Signed in.
    Active,
    /// Signed in, with tasks to finish before it counts.
    Pending,
}

/// A JSON object as text: claims that Clerk does not define. Never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct CustomClaims(Box<str>);

impl CustomClaims {
    /// From the text of a JSON object; the caller has checked that it is one.
    pub(crate) fn from_object_text(text: String) -> Self {
        Self(text.into())
    }

    /// The text of a JSON object.
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CustomClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CustomClaims({} bytes)", self.0.len())
    }
}
