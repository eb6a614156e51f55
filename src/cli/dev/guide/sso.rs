//! The lines about who signs in at an identity provider. Behind a line stands what it answers.

use super::Cast;

/// What the lines below use besides what all use.
pub(super) fn definitions(clerk: &str) -> String {
    format!("vouched() {{ curl -s \"{clerk}/_emulator/identity_provider/assertion?user=$1\"; }}")
}

pub(super) fn print(cast: &Cast<'_>, provider: &str) {
    let Cast {
        clerk,
        user,
        organization,
        ..
    } = cast;
    let bold = anstyle::Style::new().bold();
    let asked = format!(
        r#"{{"provider":"{provider}","assertion":"'$ASSERTION'","nonce":"n-1","organization_id":"{organization}"}}"#
    );
    let its = |name: &str| format!(r#"sed -n 's/.*"{name}": "\([^"]*\)".*/\1/p'"#);
    let ticket = its("ticket");
    let jwt = r#"sed -E 's/.*"jwt":"([^"]+)".*/\1/'"#;
    anstream::println!(
        "{bold}# somebody signed in at an identity provider, with a second factor: a ticket, a session{bold:#}\n\
         ASSERTION=$(vouched '{user}&nonce=n-1')\n\
         authz ExplainDecision '{{\"exchange_assertion\":{asked}}}'    # \"DECISION_OUTCOME_ACCEPTED\"\n\
         TICKET=$(authz ExchangeAssertion '{asked}' | {ticket})\n\
         TOKEN=$(curl -s {clerk}/v1/client/sign_ins -d strategy=ticket -d ticket=$TICKET | {jwt})\n\
         authz VerifySession '{{\"token\":\"'$TOKEN'\"}}'    # \"session\"\n\
         authz ExchangeAssertion '{asked}'    # ASSERTION_REPLAYED\n\n\
         {bold}# the same identity provider, and a password alone{bold:#}\n\
         ASSERTION=$(vouched '{user}&nonce=n-1&amr=pwd')\n\
         authz ExchangeAssertion '{asked}'    # MFA_REQUIRED\n\
         authz ExplainDecision '{{\"exchange_assertion\":{asked}}}'    # MFA_REQUIRED\n"
    );
}
