//! Which events Clerk sends for a change, and what they say.
//!
//! What Clerk documents and no more: a deletion is one event of the thing itself, whatever goes with
//! it; a role that may do something else is one event of the role and none of its members; and a
//! session that has run out is none.

use serde_json::{Value, json};

use crate::emulator::{
    directory::{Change, Changes, Membership, Role, Row, Session, SessionStatus, Tables},
    objects,
};

/// What happened, before it is a message.
pub(super) struct Event {
    pub(super) event_type: String,
    /// Unix milliseconds: never before the `updated_at` of the data.
    pub(super) at: i64,
    pub(super) data: Value,
}

/// The events of one change. `tables` are as they are after it.
pub(super) fn events(tables: &Tables, changes: &Changes, now: i64) -> Vec<Event> {
    let mut all = Vec::new();
    for change in &changes.users {
        all.push(event("user", change, now, objects::user, |user| {
            let mut object = deleted("user", &user.id);
            if let Some(external_id) = &user.external_id {
                object["external_id"] = json!(external_id);
            }
            object
        }));
    }
    for change in &changes.organizations {
        let object = |it: &_| objects::organization_with_count(tables, it);
        all.push(event("organization", change, now, object, |it| {
            let mut object = deleted("organization", &it.id);
            object["slug"] = json!(it.slug);
            object
        }));
    }
    for change in &changes.memberships {
        if is_told(tables, change, &changes.roles) {
            let object = |it: &_| objects::membership(tables, it);
            all.push(event("organizationMembership", change, now, object, object));
        }
    }
    for change in &changes.roles {
        let object = |it: &_| objects::role(tables, it);
        all.push(event("role", change, now, object, |it| {
            deleted("role", &it.id)
        }));
    }
    for change in &changes.permissions {
        all.push(event(
            "permission",
            change,
            now,
            objects::permission,
            |it| deleted("permission", &it.id),
        ));
    }
    let sessions = changes.sessions.iter();
    all.extend(sessions.filter_map(|change| of_session(tables, change, now)));
    all
}

fn event<R: Row>(
    name: &str,
    change: &Change<R>,
    now: i64,
    object: impl Fn(&R) -> Value,
    removed: impl Fn(&R) -> Value,
) -> Event {
    let (verb, at, data) = match change {
        Change::Made(row) => ("created", row.stamp().updated_at, object(row)),
        Change::Changed { after, .. } => ("updated", after.stamp().updated_at, object(after)),
        // Newer than the last change, even within one millisecond.
        Change::Removed(row) => ("deleted", row.stamp().updated_at + 1, removed(row)),
    };
    Event {
        event_type: format!("{name}.{verb}"),
        at: now.max(at),
        data,
    }
}

fn deleted(object: &str, id: &str) -> Value {
    json!({ "object": object, "id": id, "deleted": true })
}

/// Not of memberships that went with their user or organization, nor of those whose role was given
/// another key.
fn is_told(tables: &Tables, change: &Change<Membership>, roles: &[Change<Role>]) -> bool {
    match change {
        Change::Made(_) => true,
        Change::Changed { before, after } => !roles.iter().any(|role| match role {
            Change::Changed {
                before: old,
                after: new,
            } => old.key != new.key && old.key == before.role && new.key == after.role,
            Change::Made(_) | Change::Removed(_) => false,
        }),
        Change::Removed(it) => {
            tables.users.get(&it.user).is_some()
                && tables.organizations.get(&it.organization).is_some()
        }
    }
}

/// A session's event is its new status, with its user.
fn of_session(tables: &Tables, change: &Change<Session>, now: i64) -> Option<Event> {
    let (old, session) = match change {
        Change::Made(session) => (None, session),
        Change::Changed { before, after } => (Some(before.status), after),
        // With its user, whose event says so.
        Change::Removed(_) => return None,
    };
    if old == Some(session.status) {
        return None;
    }
    let verb = match session.status {
        SessionStatus::Active if old.is_none() => "created",
        SessionStatus::Pending => "pending",
        SessionStatus::Ended => "ended",
        SessionStatus::Removed => "removed",
        SessionStatus::Revoked => "revoked",
        SessionStatus::Active
        | SessionStatus::Expired
        | SessionStatus::Abandoned
        | SessionStatus::Replaced => return None,
    };
    let mut data = objects::session(session, now);
    // Clerk's schema of the event has no tasks.
    if let Value::Object(members) = &mut data {
        members.remove("tasks");
    }
    data["user"] = objects::user(tables.users.get(&session.user)?);
    Some(Event {
        event_type: format!("session.{verb}"),
        at: now.max(session.stamp.updated_at),
        data,
    })
}
