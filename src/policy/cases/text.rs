//! Cases as they are written, each part with its place.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::policy::file::word_or_mapping;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct CaseText {
    pub(super) name: Option<Spanned<String>>,
    pub(super) request: RequestText,
    pub(super) token: Spanned<TokenText>,
    pub(super) memberships: Option<Vec<MembershipText>>,
    pub(super) expect: ExpectText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestText {
    pub(super) method: Option<Spanned<String>>,
    pub(super) scheme: Option<Spanned<String>>,
    pub(super) host: Option<Spanned<String>>,
    pub(super) path: Spanned<String>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Spanned<String>>,
}

/// `none`, why a token is denied, or what it says.
pub(super) enum TokenText {
    Word(String),
    Says(Box<SessionText>),
}

word_or_mapping!(
    TokenText,
    "none, the reason of a denied token, or what a token says",
    SessionText,
    |says| TokenText::Says(Box::new(says))
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionText {
    pub(super) user: Option<Spanned<String>>,
    pub(super) organization: Option<Spanned<String>>,
    pub(super) organization_slug: Option<Spanned<String>>,
    pub(super) role: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) permissions: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) features: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) plans: Vec<Spanned<String>>,
    pub(super) factor_ages: Option<FactorAgesText>,
    pub(super) impersonated_by: Option<Spanned<String>>,
    pub(super) r#type: Option<Spanned<String>>,
    pub(super) subject: Option<Spanned<String>>,
    pub(super) client_id: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) scopes: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FactorAgesText {
    pub(super) first: Option<Spanned<f64>>,
    pub(super) second: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MembershipText {
    pub(super) organization: Spanned<String>,
    pub(super) organization_slug: Option<Spanned<String>>,
    pub(super) role: Spanned<String>,
    #[serde(default)]
    pub(super) permissions: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectText {
    pub(super) decision: Spanned<String>,
    pub(super) reason: Option<Spanned<String>>,
    pub(super) route: Option<Spanned<String>>,
}
