//! What the mirror says of a membership, where that is young enough. Only "yes, a member" answers:
//! of what the mirror lacks, or holds as ended, Clerk may know better, and is asked.

use std::{sync::Arc, time::Duration};

use tracing::debug;

use super::LookUp;
use crate::{
    authz::asking::Freshness,
    identity::{InstanceName, OrganizationId, Timestamp, UserId},
    mirror::{Answered, KnownMembership, Membership, Storing},
};

/// When an instance's whole mirror was last held against Clerk and found, or made, the same: all that
/// had happened before is in it. `None` where that is not known.
pub type ComparedAt = Arc<dyn Fn(&InstanceName) -> Option<Timestamp> + Send + Sync>;

/// Asks the mirror what is known of one user in one organization, for a short time: Clerk can be asked
/// too.
pub type AskMirror = Arc<
    dyn for<'a> Fn(&'a InstanceName, &'a OrganizationId, &'a UserId) -> Storing<'a, KnownMembership>
        + Send
        + Sync,
>;

/// A mirror, and how far it is believed.
pub(super) struct Mirrored {
    pub(super) ask: AskMirror,
    pub(super) compared_at: ComparedAt,
    /// How long after a membership was last known for certain.
    pub(super) max_age: Duration,
}

impl Mirrored {
    /// The membership, where the mirror has it and it is as fresh as asked: as of when it was last known
    /// for certain. A mirror that fails leaves the question to Clerk.
    pub(super) async fn membership(
        &self,
        instance: &InstanceName,
        organization: &OrganizationId,
        user: &UserId,
        look_up: LookUp<'_>,
    ) -> Option<Answered<Membership>> {
        let max_age = match look_up.freshness {
            Freshness::AtHand => self.max_age,
            Freshness::AtMost(age) => age.min(self.max_age),
            Freshness::Now => return None,
        };
        if max_age.is_zero() || look_up.patience.is_zero() {
            return None;
        }
        let seen = match (self.ask)(instance, organization, user).await {
            Ok(KnownMembership::Member(seen)) => *seen,
            Ok(_) => return None,
            Err(error) => {
                debug!(%instance, %error, "the mirror does not say; Clerk is asked");
                return None;
            }
        };
        let membership = seen.value.membership;
        let changed_at = Some(membership.updated_at);
        let as_of = seen
            .seen_at
            .max(changed_at)
            .max((self.compared_at)(instance))?;
        let young = as_of <= look_up.now && look_up.now.since(as_of) < max_age;
        let since_the_change = look_up.mirrored_not_before.is_none_or(|at| as_of >= at);
        (young && since_the_change).then_some(Answered {
            value: membership,
            as_of,
        })
    }
}
