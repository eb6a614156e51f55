//! An identity provider beside the offline Clerk: a discovery document, a key set, and assertions of
//! whoever is asked for, good and bad. Nobody signs in here.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use axum::{
    Json, Router,
    extract::{
        Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Instance, MintError, api::error, ids::random_id, mint::overlay, signing_key::SigningKey,
};

/// Where it is, below the instance's address.
const PATH: &str = "/_emulator/identity_provider";
/// Whose sign-ins it tells of where nothing else is said.
pub const CLIENT_ID: &str = "emulator-client";
const RSA_KEY_ID: &str = "idp_rs256";
const P256_KEY_ID: &str = "idp_es256";

/// What an assertion is to be. Without anything else: a good one of the first user, signed in with a
/// password and a second factor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AssertionSpec {
    /// Whose address it has; without it the first user's of the instance.
    pub user: Option<String>,
    /// `sub`; the user's id where absent.
    pub subject: Option<String>,
    /// `nonce`; none where absent.
    pub nonce: Option<String>,
    /// `amr`; `["pwd", "mfa"]` where absent.
    pub amr: Option<Vec<String>>,
    /// Seconds from now to `iat`; negative is the past.
    pub issued_in_seconds: i64,
    /// Expired a minute ago.
    pub expired: bool,
    /// With ES256 in place of RS256.
    pub es256: bool,
    /// Signed with a stranger's key under the right `kid`.
    pub forged: bool,
    /// Claims on top of everything; `null` takes a claim away.
    pub claims: Map<String, Value>,
    /// Header parameters on top of everything; `null` takes one away.
    pub header: Map<String, Value>,
}

impl AssertionSpec {
    /// A good one of this user.
    pub fn of(user: &str) -> Self {
        Self {
            user: Some(user.to_owned()),
            ..Self::default()
        }
    }

    /// With this claim on top.
    pub fn with_claim(mut self, name: &str, value: Value) -> Self {
        self.claims.insert(name.to_owned(), value);
        self
    }
}

/// The keys of the provider, made when they are first asked for.
#[derive(Default)]
pub(super) struct IdentityProviderKeys(OnceLock<Option<Keys>>);

struct Keys {
    rsa: SigningKey,
    p256: EcdsaKeyPair,
    stranger: SigningKey,
}

impl IdentityProviderKeys {
    fn get(&self) -> Option<&Keys> {
        let made = self.0.get_or_init(|| {
            Some(Keys {
                rsa: SigningKey::generate(RSA_KEY_ID)?,
                p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?,
                stranger: SigningKey::of_a_stranger(RSA_KEY_ID)?,
            })
        });
        made.as_ref()
    }
}

impl Keys {
    fn jwks(&self) -> Value {
        let point = self.p256.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
        json!({ "keys": [self.rsa.jwk(), {
            "use": "sig", "kty": "EC", "kid": P256_KEY_ID, "alg": "ES256", "crv": "P-256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }] })
    }

    fn sign_es256(&self, header: &Value, payload: &Value) -> Option<String> {
        let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let input = format!("{}.{}", encode(header), encode(payload));
        let signature = self
            .p256
            .sign(&SystemRandom::new(), input.as_bytes())
            .ok()?;
        Some(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl Instance {
    /// The issuer of the identity provider beside this instance.
    pub fn identity_provider(&self) -> String {
        format!("{}{PATH}", self.issuer())
    }

    /// Makes an assertion of the identity provider beside this instance.
    pub fn assertion(&self, spec: &AssertionSpec) -> Result<String, MintError> {
        let keys = self.identity_provider_keys.get().ok_or(MintError::NoKey)?;
        let who = super::TokenSpec {
            user: spec.user.clone(),
            ..super::TokenSpec::default()
        };
        let user = self.directory().subject(&who)?.user;
        let now = (self.clock)().unix_seconds();
        let late = if spec.expired { 360 } else { 0 };
        let issued_at = now + spec.issued_in_seconds - late;
        let mut claims = Map::new();
        let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        set("iss", json!(self.identity_provider()));
        set("sub", json!(spec.subject.as_ref().unwrap_or(&user.id)));
        set("aud", json!(CLIENT_ID));
        set("iat", json!(issued_at));
        set("exp", json!(issued_at + 300));
        set("auth_time", json!(issued_at));
        set("jti", json!(random_id()));
        set(
            "amr",
            match &spec.amr {
                Some(amr) => json!(amr),
                None => json!(["pwd", "mfa"]),
            },
        );
        set("email", json!(user.email()));
        set("email_verified", json!(true));
        if let Some(nonce) = &spec.nonce {
            set("nonce", json!(nonce));
        }
        overlay(&mut claims, &spec.claims);
        let (algorithm, key_id) = match spec.es256 {
            true => ("ES256", P256_KEY_ID),
            false => ("RS256", RSA_KEY_ID),
        };
        let mut header = Map::new();
        header.insert("alg".into(), json!(algorithm));
        header.insert("kid".into(), json!(key_id));
        header.insert("typ".into(), json!("JWT"));
        overlay(&mut header, &spec.header);
        let (header, claims) = (Value::Object(header), Value::Object(claims));
        let signed = match (spec.forged, spec.es256) {
            (true, _) => keys.stranger.sign(&header, &claims),
            (false, true) => keys.sign_es256(&header, &claims),
            (false, false) => keys.rsa.sign(&header, &claims),
        };
        signed.ok_or(MintError::NoKey)
    }
}

pub(super) fn router<S>(instance: &Arc<Instance>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let at = |rest: &str| format!("{PATH}{rest}");
    Router::new()
        .route(&at("/.well-known/openid-configuration"), get(discovery))
        .route(&at("/jwks"), get(jwks))
        .route(&at("/assertion"), get(assertion))
        .route(&at("/assertions"), post(assertions))
        .with_state(Arc::clone(instance))
}

async fn discovery(State(instance): State<Arc<Instance>>) -> Json<Value> {
    let issuer = instance.identity_provider();
    Json(json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256"],
    }))
}

async fn jwks(State(instance): State<Arc<Instance>>) -> Response {
    match instance.identity_provider_keys.get() {
        Some(keys) => Json(keys.jwks()).into_response(),
        None => refused(&MintError::NoKey),
    }
}

/// What can be said of an assertion in an address.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct AssertionQuery {
    user: Option<String>,
    subject: Option<String>,
    nonce: Option<String>,
    /// With commas between.
    amr: Option<String>,
    expired: bool,
    es256: bool,
    forged: bool,
}

async fn assertion(
    State(instance): State<Arc<Instance>>,
    query: Result<Query<AssertionQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return bad_request(&rejection.body_text()),
    };
    let spec = AssertionSpec {
        user: query.user,
        subject: query.subject,
        nonce: query.nonce,
        amr: query
            .amr
            .map(|amr| amr.split(',').map(str::to_owned).collect()),
        expired: query.expired,
        es256: query.es256,
        forged: query.forged,
        ..AssertionSpec::default()
    };
    match instance.assertion(&spec) {
        Ok(assertion) => assertion.into_response(),
        Err(error) => refused(&error),
    }
}

async fn assertions(
    State(instance): State<Arc<Instance>>,
    spec: Result<Json<AssertionSpec>, JsonRejection>,
) -> Response {
    let spec = match spec {
        Ok(Json(spec)) => spec,
        Err(rejection) => return bad_request(&rejection.body_text()),
    };
    match instance.assertion(&spec) {
        Ok(assertion) => Json(json!({ "id_token": assertion })).into_response(),
        Err(error) => refused(&error),
    }
}

fn refused(error: &MintError) -> Response {
    bad_request(&error.to_string())
}

fn bad_request(message: &str) -> Response {
    error(
        StatusCode::UNPROCESSABLE_ENTITY,
        "form_param_invalid",
        message,
    )
}
