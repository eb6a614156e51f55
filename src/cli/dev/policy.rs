//! A route policy for who has none, so that what proxies ask can be tried.

use std::fs;

use anyhow::Context;

use super::is_set;
use crate::settings::{EnvironmentVariables, SettingsArgs};

const POLICY: &str = "CLERK_AUTHZ_POLICY";
const FORWARD_AUTH_FROM: &str = "CLERK_AUTHZ_FORWARD_AUTH_FROM";

/// One upstream, which is told who sends a request.
const TEXT: &str = "version: 1\nroutes:\n  \
    - {name: orders, path: /orders/**, access: signed_in, upstream: orders}\n";

/// Where no policy is given, one in a folder that goes when it is dropped; this machine may ask
/// `/forward-auth` by it.
pub(super) fn policy(
    args: &SettingsArgs,
    environment: &mut EnvironmentVariables,
) -> anyhow::Result<Option<tempfile::TempDir>> {
    let is_given =
        |name: &str, environment: &_| args.get(name).is_some() || is_set(environment, name);
    // What is set beside a policy is about that one.
    if [POLICY, FORWARD_AUTH_FROM, "CLERK_AUTHZ_SHADOW_POLICY"]
        .iter()
        .any(|name| is_given(name, environment))
    {
        return Ok(None);
    }
    let folder = tempfile::Builder::new()
        .prefix("clerk-authz-dev-policy-")
        .tempdir();
    let folder = folder.context("cannot make a folder for the route policy")?;
    let file = folder.path().join("policy.yaml");
    fs::write(&file, TEXT).context("cannot write the route policy")?;
    environment.insert(POLICY.to_owned(), file.into());
    environment.insert(FORWARD_AUTH_FROM.to_owned(), "127.0.0.1,::1".into());
    Ok(Some(folder))
}
