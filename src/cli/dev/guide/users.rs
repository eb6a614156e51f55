//! The lines about what changes at Clerk: each change, and where it is seen within a second. Behind a
//! line stands what it answers.

use super::Cast;

/// The id of the user that the Backend API answers with.
const ITS_ID: &str = r#"sed -E 's/.*"id":"(user_[^"]*)".*/\1/'"#;
/// The session of a token that is verified.
const ITS_SESSION: &str = r#"sed -n 's/.*"sessionId": "\(.*\)".*/\1/p'"#;

/// What the lines below use besides what all use.
pub(super) fn definitions(clerk: &str, secret_key: &str) -> String {
    format!(
        "clerk() {{ curl -s -X $1 {clerk}/v1$2 -H 'authorization: Bearer {secret_key}' \
         -H 'content-type: application/json' -d \"$3\"; echo; }}\n\
         soon() {{ sleep 1; \"$@\"; }}"
    )
}

pub(super) fn print(cast: &Cast<'_>) {
    let Cast {
        user,
        other_user,
        organization,
        ..
    } = cast;
    let bold = anstyle::Style::new().bold();
    let verify = r#"authz VerifySession '{"token":"'$TOKEN'"}'"#;
    let dave = r#"authz GetUser '{"user_id":"'$DAVE'"}'"#;
    let lines = format!(
        r#"authz WatchUsers '{{"with_memberships":true}}' & WATCH=$!    # tells of all that follows, here
authz SyncUser '{{"user_id":"{user}"}}'    # "outcome"
DAVE=$(clerk POST /users '{{"email_address":["dave@example.com"],"first_name":"Dave"}}' | {ITS_ID})
soon {dave}    # "firstName": "Dave"
clerk PATCH /users/$DAVE '{{"first_name":"David"}}'
soon {dave}    # "firstName": "David"
TOKEN=$(token $DAVE)
{verify}    # "session"
clerk POST /users/$DAVE/ban
soon {dave}    # "banned": true
soon {verify}    # USER_BANNED
clerk POST /users/$DAVE/unban
TOKEN=$(soon token $DAVE)
{verify}    # "session"
clerk DELETE /users/$DAVE
soon {dave}    # USER_NOT_FOUND
soon {verify}    # USER_DELETED
kill $WATCH"#
    );
    anstream::println!(
        "{bold}# users are made, changed, banned and deleted: seen within a second{bold:#}\n{lines}\n"
    );
    let lines = format!(
        r#"TOKEN=$(token {other_user})
SESSION=$({verify} | {ITS_SESSION})
clerk POST /sessions/$SESSION/revoke
soon {verify}    # SESSION_REVOKED"#
    );
    anstream::println!(
        "{bold}# a session ends: its tokens with it, within a second{bold:#}\n{lines}\n"
    );
    let check = r#"authz CheckOrgPermission '{"token":"'$TOKEN'","role":"member"}'"#;
    let lines = format!(
        r#"authz WatchUsers '{{"with_memberships":true}}' & WATCH=$!    # tells of what follows
authz SyncUser '{{"user_id":"{other_user}"}}'    # "outcome"
TOKEN=$(token '{other_user}&organization={organization}')
{check}    # "allowed": true
clerk DELETE /organizations/{organization}/memberships/{other_user}
soon {check}    # REASON_NOT_A_MEMBER
clerk POST /organizations/{organization}/memberships '{{"user_id":"{other_user}","role":"org:member"}}'
authz SyncUser '{{"user_id":"{other_user}"}}'    # "SYNC_OUTCOME_UPDATED"
kill $WATCH"#
    );
    anstream::println!(
        "{bold}# a member is dropped: the token that still names the organization is not believed{bold:#}\n{lines}\n"
    );
}
