//! Users that are asked for by id at the same time, in one question.

use super::{
    SqlStore,
    contents::{find_user, find_users},
    line::Together,
};
use crate::{
    identity::{InstanceName, UserId},
    mirror::{Seen, StoreError, User, UserKey},
};

/// A user by its id.
#[derive(Clone)]
pub(super) struct UserById {
    instance: InstanceName,
    id: UserId,
}

impl UserById {
    pub(super) fn new(instance: &InstanceName, id: &UserId) -> Self {
        Self {
            instance: instance.clone(),
            id: id.clone(),
        }
    }
}

impl Together for UserById {
    type Answer = Option<Seen<User>>;
    const MOST: usize = 16;

    async fn serve(store: &SqlStore, group: &[Self]) -> Result<Vec<Self::Answer>, StoreError> {
        let mut session = store.reading().await?;
        let mut answers = vec![None; group.len()];
        let is_one_instance = group
            .windows(2)
            .all(|two| two[0].instance == two[1].instance);
        if let ([first, _, ..], true) = (group, is_one_instance) {
            let ids = group.iter().map(|asked| &asked.id);
            for found in find_users(&mut session, &first.instance, ids).await? {
                for (asked, answer) in group.iter().zip(&mut answers) {
                    if asked.id == found.value.id {
                        *answer = Some(found.clone());
                    }
                }
            }
        } else {
            for (asked, answer) in group.iter().zip(&mut answers) {
                let key = UserKey::Id(&asked.id);
                *answer = find_user(&mut session, &asked.instance, key).await?;
            }
        }
        Ok(answers)
    }
}
