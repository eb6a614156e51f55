//! Whether data about others would be open to whoever reaches the gRPC port.

use std::path::Path;

use super::{InstanceSettings, ListenAddr, Problem};

/// What decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Whether others than this machine can connect.
    pub grpc_is_reachable: bool,
    /// Whether somebody looks who they are.
    pub callers_are_known: bool,
    /// Whether users can be asked for.
    pub has_database: bool,
}

/// Whether nobody but this machine can connect there.
pub(super) fn is_of_this_machine(addr: &ListenAddr) -> bool {
    match addr.tcp() {
        Some(addr) => addr.ip().to_canonical().is_loopback(),
        None => true,
    }
}

/// Whether somebody looks who calls: the rules of a file, or a client CA by whose word everybody is
/// let in who has a certificate.
pub(super) fn callers_are_known(callers_file: Option<&Path>, tls_client_ca: Option<&Path>) -> bool {
    callers_file.is_some() || tls_client_ca.is_some()
}

impl Exposure {
    /// What of others' data would be open, in words.
    fn open(self, instances: &[InstanceSettings]) -> Vec<&'static str> {
        let mut open = Vec::new();
        if !self.grpc_is_reachable || self.callers_are_known {
            return open;
        }
        let has_secret_key = instances.iter().any(|instance| instance.api.is_some());
        if self.has_database && has_secret_key {
            open.push("SyncUser");
        }
        if self.has_database {
            open.extend(["GetUser", "WatchUsers"]);
        }
        // Who is a member is known from Clerk, or from the mirror.
        if self.has_database || has_secret_key {
            open.push("CheckOrgPermission of any user_id");
        }
        open
    }

    /// That data about others would be open to the network, and what to do about it.
    pub fn problem(
        self,
        grpc_addr: &ListenAddr,
        instances: &[InstanceSettings],
    ) -> Option<Problem> {
        let open = self.open(instances);
        if open.is_empty() {
            return None;
        }
        let text = format!(
            "is not set, and CLERK_AUTHZ_GRPC_ADDR is {grpc_addr}: whoever can connect there could \
             call {}; set it to a file that says who may (docs/callers.md), set \
             CLERK_AUTHZ_TLS_CLIENT_CA to let in only who has a certificate of that authority, or \
             listen on 127.0.0.1 or a Unix socket. To leave it open all the same, write into the file: [anyone] \
             rpcs = [\"*\"] any_user = true",
            open.join(", ")
        );
        Some(Problem::new("CLERK_AUTHZ_CALLERS", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_unix_sockets_are_of_this_machine_and_nothing_else() {
        for (addr, expected) in [
            ("127.0.0.1:50051", true),
            ("127.1.2.3:0", true),
            ("[::1]:50051", true),
            ("[::ffff:127.0.0.1]:50051", true),
            ("unix:/run/a.sock", true),
            ("0.0.0.0:50051", false),
            ("[::]:50051", false),
            ("10.0.0.1:50051", false),
            ("[::ffff:10.0.0.1]:50051", false),
        ] {
            let addr = addr.parse().expect("an address");
            assert_eq!(is_of_this_machine(&addr), expected, "{addr}");
        }
    }

    #[test]
    fn a_file_of_rules_and_a_client_ca_each_say_who_calls() {
        let file = Some(Path::new("/file"));
        assert!(callers_are_known(file, None));
        assert!(callers_are_known(None, file));
        assert!(!callers_are_known(None, None));
    }
}
