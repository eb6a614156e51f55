//! `WatchUsers`: a stream for as long as somebody takes it.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, stream};
use tonic::Status;
use tracing::{info, warn};

use super::{AuthzDoor, users::store_retry_after};
use crate::{
    callers::{GuardedRpc, KnownCaller},
    door::grpc::{
        convert, proto,
        request_id::RequestId,
        stats::{CallOutcome, Rpc},
        status::{self, Violation},
    },
    reason::Reason,
    sync::{NotOpened, WatchEnd, WatchScope, Watching},
};

const RPC: Rpc = Rpc::WatchUsers;
/// When it is worth asking again where too many watches were open.
const OVERLOADED_RETRY_AFTER: Duration = Duration::from_secs(5);
/// Those whom one replica sends away are sent at different times, so that they do not all come to
/// another at once.
const DRAINING_RETRY_WITHIN: Duration = Duration::from_secs(1);

pub(super) type Messages =
    Pin<Box<dyn Stream<Item = Result<proto::WatchUsersResponse, Status>> + Send>>;

impl AuthzDoor {
    pub(super) async fn watch(
        &self,
        id: &RequestId,
        caller: Option<KnownCaller>,
        request: &proto::WatchUsersRequest,
    ) -> Result<Messages, Status> {
        let proto::WatchUsersRequest {
            instance,
            resume_token,
            with_memberships,
        } = request;
        let instance = self.named(RPC, instance)?;
        let watches = self.watches.as_ref();
        let watches = watches.ok_or_else(|| self.without_database(RPC, id))?;
        let scope = if *with_memberships {
            WatchScope::UsersAndMemberships
        } else {
            WatchScope::Users
        };
        match watches.open(&instance.name, resume_token, scope).await {
            Ok(watching) => {
                self.calls.count(RPC, CallOutcome::Accepted);
                info!(request_id = ?id, instance = %instance.name, "a watch began");
                let name = request.instance.clone();
                Ok(self.clone().messages(name, caller, watching))
            }
            Err(NotOpened::Token(invalid)) => {
                let violation = Violation::new("resume_token", invalid.to_string());
                Err(self.invalid(RPC, vec![violation]))
            }
            Err(NotOpened::TooMany) => {
                let reason = Reason::Overloaded;
                Err(self.unavailable(RPC, id, reason, OVERLOADED_RETRY_AFTER))
            }
            Err(NotOpened::Ended(ended)) => {
                let (reason, status) = status_of(&ended);
                self.calls.count(RPC, CallOutcome::Decided(reason));
                Err(status)
            }
        }
    }

    /// Until the watch ends, its instance is configured no more, or the rules let its caller watch no
    /// more.
    fn messages(
        self,
        instance: String,
        caller: Option<KnownCaller>,
        watching: Watching,
    ) -> Messages {
        Box::pin(stream::unfold(Some(watching), move |watching| {
            let (door, instance, caller) = (self.clone(), instance.clone(), caller.clone());
            async move {
                let mut watching = watching?;
                let told = watching.next().await?;
                if let Err(description) = convert::instance(&instance, &door.verifier().instances())
                {
                    let violation = Violation::new("instance", description);
                    return Some((Err(status::invalid(vec![violation])), None));
                }
                if let Some(refused) = door.watches_no_more(caller.as_ref()) {
                    return Some((Err(refused), None));
                }
                match told {
                    Ok(message) => Some((Ok(convert::watch_message(&message)), Some(watching))),
                    Err(ended) => Some((Err(status_of(&ended).1), None)),
                }
            }
        }))
    }

    fn watches_no_more(&self, caller: Option<&KnownCaller>) -> Option<Status> {
        let refused = self
            .callers
            .as_ref()?
            .still_admits(caller?, GuardedRpc::WatchUsers);
        Some(status::refused_caller(&refused.err()?, RPC.name()))
    }
}

/// What a watch that ended is told.
fn status_of(ended: &WatchEnd) -> (Reason, Status) {
    match ended {
        WatchEnd::Expired => {
            let reason = Reason::ResumeTokenExpired;
            (reason, status::denied(reason))
        }
        WatchEnd::TooSlow => {
            let reason = Reason::WatchTooSlow;
            (reason, status::denied(reason))
        }
        WatchEnd::Draining => {
            let reason = Reason::Draining;
            let retry_after = DRAINING_RETRY_WITHIN.mul_f64(0.1 + 0.9 * fastrand::f64());
            (reason, status::unavailable(reason, retry_after))
        }
        WatchEnd::Store(error) => {
            warn!(rpc = RPC.name(), %error, "cannot tell");
            let reason = Reason::StoreUnavailable;
            (
                reason,
                status::unavailable(reason, store_retry_after(error)),
            )
        }
    }
}
