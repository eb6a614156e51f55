//! All integration tests are one binary, so that linking happens once.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(clippy::print_stdout, reason = "suites say what they ran")]

mod advisories;
mod authorize_request;
mod bad_input;
mod callers;
mod check_org_permission;
mod clerk_api;
mod clerk_client;
mod clerk_webhooks;
mod command_line;
mod convergence;
mod drain;

mod emulator;
mod envoy;
mod faults;
mod forward_auth;
mod grpc_socket;
mod handshake;
mod health;
mod instances;
mod jwks;
mod limits;
mod machine_tokens;
mod memberships;
mod mirrored_memberships;
mod operations;
mod oracle;
mod paths;
mod policy;
mod reconcile;
mod revocation;
mod rooms;
mod second_opinion;
mod sso;
mod store;
mod store_faults;
mod support;
mod telemetry;
mod tls;
mod token_cache;
mod upstream_assertion;
mod users;
mod verify_session;
mod watch;
mod webhooks;
