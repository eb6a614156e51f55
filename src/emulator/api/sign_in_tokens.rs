//! Tickets for sign-ins, over HTTP: made, and nothing else.

use axum::http::Method;
use serde_json::json;

use super::{Answer, Call, Operation, Problem, operation};
use crate::emulator::{Endpoint, directory::membership_key};

/// Thirty days; Clerk's.
const LIFETIME_SECONDS: i64 = 2_592_000;

pub(super) fn operations() -> Vec<Operation> {
    vec![operation(
        "CreateSignInToken",
        Method::POST,
        "/v1/sign_in_tokens",
        Endpoint::SignInTokens,
        create,
    )]
}

fn create(call: &mut Call<'_>) -> Answer {
    let user = call.form.required_text("user_id")?;
    let organization = call.form.text("org_id")?.value();
    let lifetime = call
        .form
        .number("expires_in_seconds", 1, i64::from(i32::MAX))?;
    call.form.finish()?;
    if call.directory().user(&user).is_none() {
        return Err(Problem::not_found(format!("no user {user:?}")));
    }
    if let Some(organization) = &organization {
        let key = membership_key(organization, &user);
        let is_member = call
            .directory()
            .read(|tables| tables.memberships.get(&key).is_some());
        if !is_member {
            let message = format!("org_id: {user} is not a member of {organization}");
            return Err(Problem::invalid("org_id", message));
        }
    }
    let made = call.instance.sign_in_tokens.make(
        &user,
        organization.as_deref(),
        call.directory().now(),
        lifetime.value().unwrap_or(LIFETIME_SECONDS),
    );
    Ok(json!({
        "object": "sign_in_token",
        "id": made.id,
        "status": "pending",
        "user_id": made.user,
        "token": made.token,
        "url": format!("{}/v1/tickets/accept?ticket={}", call.instance.issuer(), made.token),
        "created_at": made.created_at,
        "updated_at": made.created_at,
    }))
}
