//! Signing in with a ticket, and the tokens of the session that comes of it.
//!
//! Clerk tells browsers apart by a cookie of theirs, and gives a session's tokens to its own browser
//! only. Here whoever knows the id of a session has its tokens: the offline Clerk hands out tokens to
//! everybody who asks.

use std::sync::Arc;

use axum::{
    Form, Json, Router,
    extract::{Path, State, rejection::FormRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::emulator::{
    Instance, Kind, TokenSpec,
    api::{error, not_found},
    directory::Session,
    ids::new_id,
    objects,
};

pub(super) fn router() -> Router<Arc<Instance>> {
    Router::new()
        .route("/v1/client/sign_ins", post(sign_in))
        .route("/v1/client/sessions/{session_id}/tokens", post(token))
}

/// The Frontend API takes forms.
#[derive(Deserialize)]
struct SignIn {
    strategy: String,
    ticket: Option<String>,
}

async fn sign_in(
    State(instance): State<Arc<Instance>>,
    form: Result<Form<SignIn>, FormRejection>,
) -> Response {
    let refused = |code, message: &str| error(StatusCode::UNPROCESSABLE_ENTITY, code, message);
    let form = match form {
        Ok(Form(form)) => form,
        Err(rejection) => return refused("form_param_invalid", &rejection.body_text()),
    };
    if form.strategy != "ticket" {
        let message = "strategy: the offline Clerk signs in by \"ticket\" only";
        return refused("strategy_for_user_invalid", message);
    }
    let now = instance.directory().now();
    let ticket = form.ticket.unwrap_or_default();
    // Of a ticket nothing is repeated.
    let Some(redeemed) = instance.sign_in_tokens.redeem(&ticket, now) else {
        return error(
            StatusCode::BAD_REQUEST,
            "ticket_invalid_code",
            "the ticket is unknown, used or expired",
        );
    };
    let organization = redeemed.organization.as_deref();
    let session = instance
        .directory()
        .create_session(&redeemed.user, organization);
    let session = match session {
        Ok(session) => session,
        Err(refused_for) => return refused("user_invalid", &refused_for.to_string()),
    };
    match jwt(&instance, &session) {
        Some(jwt) => Json(signed_in(&session, &jwt, now)).into_response(),
        None => not_found().await,
    }
}

fn signed_in(session: &Session, jwt: &str, now: i64) -> Value {
    let mut shown = objects::session(session, now);
    shown["last_active_token"] = json!({ "object": "token", "jwt": jwt });
    json!({
        "response": {
            "object": "sign_in_attempt",
            "id": new_id("sia_"),
            "status": "complete",
            "created_session_id": session.id,
        },
        "client": {
            "object": "client",
            "id": session.client,
            "sessions": [shown],
            "last_active_session_id": session.id,
            "created_at": now,
            "updated_at": now,
        },
    })
}

async fn token(State(instance): State<Arc<Instance>>, Path(id): Path<String>) -> Response {
    let session = instance.directory().session(&id);
    let now = instance.directory().now();
    let live = session.filter(|session| session.status_at(now).is_live());
    match live.and_then(|session| jwt(&instance, &session)) {
        Some(jwt) => Json(json!({ "object": "token", "jwt": jwt })).into_response(),
        None => error(
            StatusCode::NOT_FOUND,
            "resource_not_found",
            "no live session with this id",
        ),
    }
}

fn jwt(instance: &Instance, session: &Session) -> Option<String> {
    let spec = TokenSpec {
        kind: Kind::Session,
        user: Some(session.user.clone()),
        organization: session.organization.clone(),
        session: Some(session.id.clone()),
        ..TokenSpec::default()
    };
    instance.mint(&spec).ok()
}
