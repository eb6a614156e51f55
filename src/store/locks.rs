//! Who may write what at the same time, on PostgreSQL. SQLite has one writer anyway.
//!
//! A row that is not there cannot be locked, so what is locked are numbers. All locks of a
//! transaction are taken at its start, the instance's own first and then in the order of their
//! numbers, so that no two transactions wait for each other.

use std::collections::BTreeMap;

use super::{
    connection::{Session, values},
    postgres::{LOCK, LOCK_SHARED, lock_number},
};
use crate::{
    identity::InstanceName,
    mirror::{Entity, Fact, StoreError},
};

/// The most locks of one transaction; the server's default table has room for 6,400 of everybody's.
/// What needs more has the instance to itself.
const MAX_LOCKS: usize = 500;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Shared,
    Exclusive,
}

/// Takes the locks for these facts.
pub(super) async fn take<'a>(
    session: &mut Session,
    instance: &InstanceName,
    facts: impl Iterator<Item = &'a Fact>,
) -> Result<(), StoreError> {
    if !session.is_postgres() {
        return Ok(());
    }
    let whole = lock_number(["instance", instance.as_str(), "", ""]);
    let needed = needed(instance, facts);
    if needed.len() > MAX_LOCKS {
        return session.run(LOCK, values![whole]).await.map(drop);
    }
    if needed.is_empty() {
        return Ok(());
    }
    session.run(LOCK_SHARED, values![whole]).await?;
    for (number, mode) in needed {
        let sql = match mode {
            Mode::Exclusive => LOCK,
            Mode::Shared => LOCK_SHARED,
        };
        session.run(sql, values![number]).await?;
    }
    Ok(())
}

fn needed<'a>(
    instance: &InstanceName,
    facts: impl Iterator<Item = &'a Fact>,
) -> BTreeMap<i64, Mode> {
    let mut needed = BTreeMap::new();
    let mut need = |[kind, first, second]: [&str; 3], mode: Mode| {
        let number = lock_number([kind, instance.as_str(), first, second]);
        let held = needed.entry(number).or_insert(mode);
        *held = mode.max(*held);
    };
    for fact in facts {
        match fact {
            Fact::UserRevoked { user, .. } => {
                need(["revocation", user.as_str(), ""], Mode::Exclusive);
            }
            Fact::SessionEnded(end) => {
                need(["revocation", end.session.as_str(), ""], Mode::Exclusive);
            }
            Fact::RoleChanged { .. } => {}
            Fact::User(..)
            | Fact::Organization(..)
            | Fact::Membership(..)
            | Fact::Deleted { .. }
            | Fact::Absent { .. } => match fact.incoming().map(|(entity, _)| entity) {
                Some(Entity::User(id)) => {
                    need(["user", id.as_str(), ""], Mode::Exclusive);
                    // An answer of the API may put the user out.
                    need(["revocation", id.as_str(), ""], Mode::Exclusive);
                }
                Some(Entity::Organization(id)) => {
                    need(["organization", id.as_str(), ""], Mode::Exclusive);
                }
                Some(Entity::Membership(organization, user)) => {
                    // Neither may be deleted meanwhile; others of them may be written.
                    need(["user", user.as_str(), ""], Mode::Shared);
                    need(["organization", organization.as_str(), ""], Mode::Shared);
                    need(
                        ["membership", organization.as_str(), user.as_str()],
                        Mode::Exclusive,
                    );
                }
                None => {}
            },
        }
    }
    needed
}
