//! Opaque tokens: what they stand for is known here, and nowhere in the token.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use serde_json::{Map, Value, json};

use super::ids::random_id;

/// Which type an opaque token is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpaqueKind {
    M2m,
    Oauth,
    ApiKey,
}

/// What an opaque token stands for.
#[derive(Clone, Debug)]
pub(super) struct MachineToken {
    pub(super) kind: OpaqueKind,
    pub(super) subject: String,
    pub(super) client_id: String,
    pub(super) scopes: Vec<String>,
    pub(super) claims: Map<String, Value>,
    /// Unix seconds, like all times here.
    pub(super) created_at: i64,
    pub(super) expires_at: Option<i64>,
    pub(super) revoked: bool,
}

/// The opaque tokens of an instance, by their text. Held only for a moment, never across I/O.
#[derive(Default)]
pub(super) struct MachineTokens(RwLock<BTreeMap<String, Known>>);

struct Known {
    id: String,
    token: MachineToken,
}

impl OpaqueKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::M2m => "mt_",
            Self::Oauth => "oat_",
            Self::ApiKey => "ak_",
        }
    }
}

impl MachineTokens {
    /// Makes the token's text, which says nothing.
    pub(super) fn issue(&self, token: MachineToken) -> String {
        let prefix = token.kind.prefix();
        let secret = format!("{}{}", random_id(), random_id());
        let text = match token.kind {
            OpaqueKind::M2m | OpaqueKind::Oauth => format!("{prefix}{secret}"),
            // Clerk's have such signs, too.
            OpaqueKind::ApiKey => format!("{prefix}{}/{}=", &secret[..32], &secret[32..]),
        };
        let id = format!("{prefix}{}", random_id());
        let mut tokens = self.0.write().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(text.clone(), Known { id, token });
        text
    }

    /// The id of the token with this text; no secret.
    pub(super) fn id(&self, text: &str) -> Option<String> {
        let tokens = self.0.read().unwrap_or_else(PoisonError::into_inner);
        tokens.get(text).map(|known| known.id.clone())
    }

    /// Revokes the token with this text or this id; false when there is none.
    pub(super) fn revoke(&self, text_or_id: &str) -> bool {
        let mut tokens = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_it =
            |(text, known): &(&String, &mut Known)| *text == text_or_id || known.id == text_or_id;
        let Some((_, known)) = tokens.iter_mut().find(is_it) else {
            return false;
        };
        known.token.revoked = true;
        true
    }

    /// What verifying the text answers; `None` where there is no such token of this kind.
    pub(super) fn verify(&self, kind: OpaqueKind, text: &str, now_seconds: i64) -> Option<Value> {
        let tokens = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Known { id, token } = tokens.get(text).filter(|known| known.token.kind == kind)?;
        let millis = |seconds: i64| json!(seconds * 1_000);
        let mut object = json!({
            "id": id,
            "subject": token.subject,
            "scopes": token.scopes,
            "revoked": token.revoked,
            "revocation_reason": token.revoked.then_some("Revoked by user"),
            "expired": token.expires_at.is_some_and(|at| at <= now_seconds),
            "expiration": token.expires_at.map(millis),
            "created_at": millis(token.created_at),
            "updated_at": millis(token.created_at),
        });
        let claims = match token.claims.is_empty() {
            true => Value::Null,
            false => Value::Object(token.claims.clone()),
        };
        match kind {
            OpaqueKind::M2m => {
                object["object"] = json!("machine_to_machine_token");
                object["claims"] = claims;
                object["last_used_at"] = Value::Null;
            }
            OpaqueKind::Oauth => {
                object["object"] = json!("clerk_idp_oauth_access_token");
                object["client_id"] = json!(token.client_id);
            }
            OpaqueKind::ApiKey => {
                object["object"] = json!("api_key");
                object["type"] = json!("api_key");
                object["name"] = json!("a key of the offline Clerk");
                object["claims"] = claims;
                object["created_by"] = Value::Null;
                object["last_used_at"] = Value::Null;
            }
        }
        Some(object)
    }
}
