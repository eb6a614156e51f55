//! `SyncUser` and `GetUser`: the mirror of users.

use std::{sync::Arc, time::Duration};

use tonic::Status;
use tracing::warn;

use super::{Asking, AuthzDoor};
use crate::{
    authz::{Instance, Question, Verdict},
    door::grpc::{
        convert,
        proto::{self, sync_user_request::Subject},
        request_id::RequestId,
        stats::{CallOutcome, Rpc},
        status::{self, Violation},
    },
    explain::Steps,
    identity::{Timestamp, UserId},
    mirror::{DirectoryError, StoreError},
    reason::Reason,
    sync::{SyncError, SyncUser, UserSync},
};

/// When it is worth asking a store again that does not answer.
const STORE_RETRY_AFTER: Duration = Duration::from_secs(1);
/// When it is worth asking again where something has to be configured first.
const CONFIGURATION_RETRY_AFTER: Duration = Duration::from_secs(60);

impl AuthzDoor {
    pub(super) async fn sync(
        &self,
        asking: Asking<'_>,
        request: &proto::SyncUserRequest,
        patience: Duration,
    ) -> Result<proto::SyncUserResponse, Status> {
        const RPC: Rpc = Rpc::SyncUser;
        let (now, id) = ((self.clock)(), asking.1);
        let max_staleness = convert::max_staleness(request.max_staleness)
            .map_err(|violation| self.invalid(RPC, vec![violation]))?;
        let (instance, user) = self.whom(asking, request, now).await?;
        let users = self.users(RPC, id)?;
        let Some(directory) = instance.user_directory.as_deref() else {
            warn!(instance = %instance.name, "SyncUser needs CLERK_SECRET_KEY");
            return Err(self.unavailable(
                RPC,
                id,
                Reason::ClerkUnavailable,
                CONFIGURATION_RETRY_AFTER,
            ));
        };
        let asked = SyncUser {
            instance: &instance.name,
            directory,
            user: &user,
            max_staleness,
            patience,
        };
        match users.sync(&asked, now).await {
            Ok(synced) => {
                self.calls.count(RPC, CallOutcome::Accepted);
                Ok(convert::synced(&synced))
            }
            Err(error) => Err(self.sync_failed(RPC, id, &error)),
        }
    }

    pub(super) async fn get(
        &self,
        id: &RequestId,
        request: &proto::GetUserRequest,
    ) -> Result<proto::GetUserResponse, Status> {
        const RPC: Rpc = Rpc::GetUser;
        let key =
            convert::user_key(request).map_err(|violation| self.invalid(RPC, vec![violation]))?;
        let instance = self.named(RPC, &request.instance)?;
        let found = self
            .users(RPC, id)?
            .known(&instance.name, key.as_key())
            .await;
        match found {
            Ok(Some(seen)) => {
                self.calls.count(RPC, CallOutcome::Accepted);
                let user = Some(convert::user(&seen));
                Ok(proto::GetUserResponse { user })
            }
            Ok(None) => {
                self.calls
                    .count(RPC, CallOutcome::Decided(Reason::UserNotFound));
                Err(status::denied(Reason::UserNotFound))
            }
            Err(error) => Err(self.sync_failed(RPC, id, &error)),
        }
    }

    /// Of which instance, and who.
    async fn whom(
        &self,
        (_, id, caller): Asking<'_>,
        request: &proto::SyncUserRequest,
        now: Timestamp,
    ) -> Result<(Arc<Instance>, UserId), Status> {
        const RPC: Rpc = Rpc::SyncUser;
        match &request.subject {
            None => {
                let violation = Violation::new("subject", "is not set; set user_id or token");
                Err(self.invalid(RPC, vec![violation]))
            }
            Some(Subject::UserId(user)) => {
                let user = convert::user_id(user)
                    .map_err(|violation| self.invalid(RPC, vec![violation]))?;
                Ok((self.named(RPC, &request.instance)?, user))
            }
            Some(Subject::Token(_)) if !request.instance.is_empty() => {
                let description = "is set beside a token, which says it itself; leave it out";
                Err(self.invalid(RPC, vec![Violation::new("instance", description)]))
            }
            Some(Subject::Token(token)) => {
                let asked = self.asked(RPC, id, caller, || now);
                let question = Question::about(token);
                let mut steps = Steps::off();
                let verdict = self.verifier().verify_session(&question, now, &mut steps);
                match verdict.await {
                    Ok(Verdict::Accepted(verified)) => Ok((
                        Arc::clone(verified.instance()),
                        verified.session.user_id.clone(),
                    )),
                    // Session tokens alone were asked for.
                    Ok(Verdict::Machine(_)) => {
                        Err(self.token_denied(asked, Reason::TokenTypeNotAccepted))
                    }
                    Ok(Verdict::Denied(reason)) => Err(self.token_denied(asked, reason)),
                    Err(cannot_tell) => Err(self.cannot_tell(asked, cannot_tell)),
                }
            }
        }
    }

    pub(super) fn named(&self, rpc: Rpc, name: &str) -> Result<Arc<Instance>, Status> {
        convert::instance(name, &self.verifier().instances())
            .map_err(|description| self.invalid(rpc, vec![Violation::new("instance", description)]))
    }

    fn users(&self, rpc: Rpc, id: &RequestId) -> Result<&UserSync, Status> {
        let users = self.users.as_ref();
        users.ok_or_else(|| self.without_database(rpc, id))
    }

    pub(super) fn without_database(&self, rpc: Rpc, id: &RequestId) -> Status {
        warn!(rpc = rpc.name(), "needs CLERK_AUTHZ_DATABASE_URL");
        self.unavailable(rpc, id, Reason::StoreUnavailable, CONFIGURATION_RETRY_AFTER)
    }

    fn sync_failed(&self, rpc: Rpc, id: &RequestId, error: &SyncError) -> Status {
        let (reason, retry_after) = match error {
            SyncError::Clerk(DirectoryError::RateLimited { retry_after }) => {
                (Reason::ClerkRateLimited, *retry_after)
            }
            SyncError::Clerk(
                DirectoryError::Unavailable { retry_after, .. }
                | DirectoryError::CredentialsRefused { retry_after, .. },
            ) => (Reason::ClerkUnavailable, *retry_after),
            // The id has the form that Clerk wants: this is a fault of ours.
            SyncError::Clerk(DirectoryError::Rejected { .. }) => {
                (Reason::ClerkUnavailable, CONFIGURATION_RETRY_AFTER)
            }
            SyncError::Store(error) => (Reason::StoreUnavailable, store_retry_after(error)),
        };
        warn!(rpc = rpc.name(), %error, "cannot tell");
        self.unavailable(rpc, id, reason, retry_after)
    }

    pub(super) fn unavailable(
        &self,
        rpc: Rpc,
        id: &RequestId,
        reason: Reason,
        retry_after: Duration,
    ) -> Status {
        self.calls.count(rpc, CallOutcome::Decided(reason));
        warn!(rpc = rpc.name(), request_id = ?id, reason = reason.name(), "cannot tell");
        status::unavailable(reason, retry_after)
    }
}

/// When it is worth asking again after the store failed.
pub(super) const fn store_retry_after(error: &StoreError) -> Duration {
    match error {
        StoreError::Unavailable { .. } | StoreError::Conflict { .. } | StoreError::ClaimLost => {
            STORE_RETRY_AFTER
        }
        StoreError::NotWritable { .. }
        | StoreError::Refused { .. }
        | StoreError::NewerSchema { .. }
        | StoreError::TooManyFacts { .. }
        | StoreError::Broken { .. } => CONFIGURATION_RETRY_AFTER,
    }
}
