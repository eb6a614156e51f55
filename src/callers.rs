//! Who may call which RPC over gRPC, and how much: rules, whom they name, limits by caller.
//!
//! Called by `settings`, which reads the rules from a file, and by the gRPC door, which asks for each
//! call. It reads no file and no clock, and knows neither TLS nor HTTP: what a caller shows comes in
//! as texts, and time as a value.

mod account;
mod gate;
mod rules;
#[cfg(test)]
mod tests;

pub use self::account::{CallerOutcome, CallerStats};
pub use self::gate::{Callers, KnownCaller, Place, Refused};
pub use self::rules::{
    ANYONE, Bearer, Caller, Fault, GuardedRpc, Limits, MAX_BEARER_BYTES, MAX_CALLERS,
    MIN_BEARER_BYTES, Rights, RpcSet, Rules, SecretDigest, Shown, UNRECOGNIZED,
};
