//! The lines about tokens that are of no session. Behind a line stands what it answers.

use super::Cast;

/// The id of a token that is verified; no secret.
const ITS_ID: &str = r#"sed -n 's/.*"tokenId": "\(.*\)".*/\1/p'"#;

pub(super) fn print(cast: &Cast<'_>, binary: &str) {
    let Cast { clerk, user, .. } = cast;
    let bold = anstyle::Style::new().bold();
    let asked = |variable: &str, token_type: &str| {
        format!(r#"{{"token":"'${variable}'","accepted_token_types":["{token_type}"]}}"#)
    };
    let machine = asked("TOKEN", "TOKEN_TYPE_M2M_TOKEN");
    let key = asked("KEY", "TOKEN_TYPE_API_KEY");
    anstream::println!(
        "{bold}# a call from machine to machine: a JWT, and the same opaque{bold:#}\n\
         TOKEN=$(token '{user}&kind=m2m')\n\
         authz VerifySession '{machine}'    # \"machine\"\n\
         authz VerifySession '{{\"token\":\"'$TOKEN'\"}}'    # TOKEN_TYPE_NOT_ACCEPTED\n\
         authz ExplainDecision '{{\"verify_session\":{machine}}}'\n\
         TOKEN=$(token '{user}&kind=m2m&opaque=true')\n\
         authz VerifySession '{machine}'    # \"machine\"\n\
         {binary} verify --accept m2m_token \"$TOKEN\"\n\n\
         {bold}# an API key, until it is revoked{bold:#}\n\
         KEY=$(token '{user}&kind=api_key&scopes=reports')\n\
         ID=$(authz VerifySession '{key}' | {ITS_ID}); echo $ID\n\
         authz ExplainDecision '{{\"verify_session\":{key}}}'\n\
         curl -s -X DELETE {clerk}/_emulator/tokens/$ID\n\
         authz ExplainDecision '{{\"verify_session\":{key}}}'    # SESSION_REVOKED\n\
         authz VerifySession '{key}'    # SESSION_REVOKED\n"
    );
}
