//! Sessions and their tokens, over HTTP.

use axum::http::Method;
use serde_json::{Value, json};

use super::{
    Answer, Call, Operation, Problem,
    lists::{Key, paged, sort},
    objects, operation,
    query::Order,
};
use crate::emulator::{Endpoint, Kind, TokenSpec, directory::Session};

/// What a list can be narrowed to; `pending` is none of them at Clerk.
const STATUSES: [&str; 7] = [
    "abandoned",
    "active",
    "ended",
    "expired",
    "removed",
    "replaced",
    "revoked",
];
/// Clerk's bounds of a token's lifetime.
const LIFETIME_SECONDS: (i64, i64) = (30, 315_360_000);

pub(super) fn operations() -> Vec<Operation> {
    let on = |id, method, path, run| operation(id, method, path, Endpoint::Sessions, run);
    vec![
        on("GetSessionList", Method::GET, "/v1/sessions", list),
        on("createSession", Method::POST, "/v1/sessions", create),
        on("GetSession", Method::GET, "/v1/sessions/{session_id}", get),
        on(
            "RevokeSession",
            Method::POST,
            "/v1/sessions/{session_id}/revoke",
            revoke,
        ),
        on(
            "CreateSessionToken",
            Method::POST,
            "/v1/sessions/{session_id}/tokens",
            |call| token(call, Kind::Session),
        ),
        on(
            "CreateSessionTokenFromTemplate",
            Method::POST,
            "/v1/sessions/{session_id}/tokens/{template_name}",
            |call| token(call, Kind::Template),
        ),
    ]
}

fn list(call: &mut Call<'_>) -> Answer {
    let query = &call.query;
    let (user, client) = (query.text("user_id"), query.text("client_id"));
    let status = query.text("status");
    if let Some(status) = status.filter(|status| !STATUSES.contains(status)) {
        let known = STATUSES.join(", ");
        let message = format!("status: {status:?}; expected one of {known}");
        return Err(Problem::invalid("status", message));
    }
    let is_paged = query.flag("paginated")?.unwrap_or(false);
    let page = query.page()?;
    let newest_first = Order {
        by: "created_at",
        descending: true,
    };
    let now = call.directory().now();
    call.directory().read(|tables| {
        let sessions = tables.sessions.iter();
        let mut sessions: Vec<&Session> = sessions
            .filter(|session| {
                user.is_none_or(|user| session.user == user)
                    && client.is_none_or(|client| session.client == client)
                    && status.is_none_or(|status| session.status_at(now).name() == status)
            })
            .collect();
        sort(&mut sessions, newest_first, |session| {
            Key::Number(session.stamp.created_at)
        });
        let object = |session: &Session| objects::session(session, now);
        Ok(if is_paged {
            paged(sessions, page, object)
        } else {
            Value::Array(page.of(sessions).into_iter().map(object).collect())
        })
    })
}

fn found(call: &Call<'_>) -> Result<Session, Problem> {
    let id = call.id("session_id");
    let session = call.directory().session(id);
    session.ok_or_else(|| Problem::not_found(format!("no session {id:?}")))
}

fn answer(call: &Call<'_>, session: &Session) -> Answer {
    Ok(objects::session(session, call.directory().now()))
}

fn get(call: &mut Call<'_>) -> Answer {
    answer(call, &found(call)?)
}

fn create(call: &mut Call<'_>) -> Answer {
    let user = call.form.required_text("user_id")?;
    let organization = call.form.text("active_organization_id")?.value();
    call.form.finish()?;
    let session = call
        .directory()
        .create_session(&user, organization.as_deref())?;
    answer(call, &session)
}

fn revoke(call: &mut Call<'_>) -> Answer {
    let session = call.directory().revoke_session(call.id("session_id"))?;
    answer(call, &session)
}

/// A template of any name is one: which claims it has is nowhere said.
fn token(call: &mut Call<'_>, kind: Kind) -> Answer {
    let (least, most) = LIFETIME_SECONDS;
    let lifetime = call.form.number("expires_in_seconds", least, most)?.value();
    call.form.finish()?;
    let session = found(call)?;
    let status = session.status_at(call.directory().now());
    if !status.is_live() {
        let message = format!("session {:?} is {}", session.id, status.name());
        return Err(Problem::not_found(message));
    }
    let spec = TokenSpec {
        kind,
        user: Some(session.user),
        organization: session.organization,
        session: Some(session.id),
        lifetime_seconds: lifetime,
        ..TokenSpec::default()
    };
    match call.instance.mint(&spec) {
        Ok(jwt) => Ok(json!({ "object": "token", "jwt": jwt })),
        Err(error) => Err(Problem::not_found(error.to_string())),
    }
}
