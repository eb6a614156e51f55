//! One line for each decision about a proxied request.

use std::fmt::Debug;

use tracing::{debug, info, warn};

use crate::authz::{Authorization, Outcome};

/// A denial is found in the log by its id at `info`, an allow at `debug`.
pub(super) fn log(
    rpc: &'static str,
    request_id: &dyn Debug,
    authorization: &Authorization,
    decision_id: &str,
) {
    let Authorization {
        reason,
        route,
        policy_version,
        outcome,
    } = authorization;
    let (reason, route) = (reason.name(), route.as_deref());
    match outcome {
        Outcome::Allowed { .. } => {
            debug!(rpc, request_id = ?request_id, decision_id, reason, route, policy_version, "allowed");
        }
        Outcome::Unauthenticated { .. } | Outcome::Forbidden { .. } => {
            info!(rpc, request_id = ?request_id, decision_id, reason, route, policy_version, "denied");
        }
        Outcome::Unavailable { retry_after } => {
            warn!(
                rpc, request_id = ?request_id, decision_id, reason, route, policy_version, ?retry_after,
                "cannot tell"
            );
        }
    }
}
