//! `clerk-authz verify`

use clap::Args;
use serde_json::json;

use super::{
    DENIED, FAILED, SUCCESS,
    args::{TokenArgs, token},
    report,
};
use crate::{
    authz::{Question, Verdict},
    decision::Reverification,
    door::grpc::{machine_json, session_json},
    explain::{Rule, Steps},
    reason::Reason,
};

/// Verifies one token as the service would, and prints every rule in order.
#[derive(Args)]
#[command(
    after_help = "Example: clerk-authz verify --publishable-key pk_test_… \"$TOKEN\"\n\
                  Exit codes: 0 accepted, 1 denied, 2 could not tell"
)]
pub(super) struct Verify {
    /// The token, or - to read it from standard input
    #[arg(
        value_name = "TOKEN|-",
        default_value = "-",
        allow_hyphen_values = true
    )]
    token: String,
    /// A factor that must have been verified recently: strict_mfa, strict, moderate, lax or
    /// LEVEL:MINUTES
    #[arg(long, value_name = "PRESET|LEVEL:MINUTES")]
    reverification: Option<Reverification>,
    /// The instance that the token must be of; needed for an opaque token where there are several
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    instance: String,
    #[command(flatten)]
    args: TokenArgs,
}

impl Verify {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let (asker, clock) = self.args.asker().await?;
        let token = token(&self.token)?;
        let question = Question {
            accepted: self.args.accepted(),
            instance: &self.instance,
            reverification: self.reverification,
            ..Question::about(&token)
        };
        let mut steps = Steps::on(Rule::OF_VERIFICATION);
        let answer = asker
            .checker
            .verifier()
            .verify_session(&question, clock(), &mut steps)
            .await;
        let steps = steps.finish();
        asker.stop().await;
        let (code, reason, session, machine) = match &answer {
            Ok(Verdict::Accepted(verified)) => {
                (SUCCESS, None, Some(session_json(&verified.session)), None)
            }
            Ok(Verdict::Machine(verified)) => {
                (SUCCESS, None, None, Some(machine_json(&verified.machine)))
            }
            Ok(Verdict::Denied(reason)) => (DENIED, Some(*reason), None, None),
            Err(cannot_tell) => (FAILED, Some(cannot_tell.reason()), None, None),
        };
        if self.args.json {
            let answer = json!({
                "accepted": code == SUCCESS,
                "reason": reason.map(Reason::name),
                "session": session,
                "machine": machine,
                "steps": report::steps_json(&steps),
            });
            anstream::println!("{answer}");
            return Ok(code);
        }
        report::print(code, "accepted", reason, &steps);
        if let Some(verified) = session.or(machine) {
            anstream::println!("{}", serde_json::to_string_pretty(&verified)?);
        }
        Ok(code)
    }
}
