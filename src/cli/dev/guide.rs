//! What `clerk-authz dev` prints: lines to paste, each with what it answers.

use std::{net::SocketAddr, path::Path};

use crate::emulator::Instance;

/// Whom and what the lines are about: the first of the world, whatever it is.
struct Cast<'a> {
    clerk: &'a str,
    user: &'a str,
    other_user: &'a str,
    organization: &'a str,
    other_organization: &'a str,
}

/// What `make setup` installs, or what is on the path.
fn tool(name: &str) -> String {
    let here = format!(".venv/bin/{name}");
    if Path::new(&here).exists() {
        here
    } else {
        name.to_owned()
    }
}

pub(super) fn print(instance: &Instance, grpc: SocketAddr, http: SocketAddr) {
    let seed = instance.seed();
    let user = |index: usize| seed.users.get(index).map_or("", |user| &*user.id);
    let organization = |index: usize| seed.organizations.get(index).map_or("", |org| &*org.id);
    let cast = Cast {
        clerk: instance.issuer().as_str(),
        user: user(0),
        other_user: user(1),
        organization: organization(0),
        other_organization: organization(1),
    };
    let binary = std::env::args()
        .next()
        .unwrap_or_else(|| "clerk-authz".to_owned());
    let clerk = cast.clerk;
    let bold = anstyle::Style::new().bold();
    let (grpcurl, python, secret_key) = (tool("grpcurl"), tool("python"), instance.secret_key());
    anstream::println!(
        "{bold}clerk-authz{bold:#}     gRPC {grpc}, HTTP http://{http} (/readyz, /metrics)\n\
         {bold}offline Clerk{bold:#}   {clerk}  (GET / lists what it can do)\n\n\
         Paste into another terminal (make setup installs grpcurl and the Python client). First this:\n\n\
         export CLERK_API_URL={clerk} CLERK_SECRET_KEY={secret_key} CLERK_AUTHZ_ISSUER={clerk}\n\
         token() {{ curl -s \"{clerk}/_emulator/token?user=$1\"; }}\n\
         authz() {{ {grpcurl} -plaintext -d \"$2\" {grpc} clerkauthz.v1.AuthzService/$1; }}\n"
    );
    verification(&cast, &binary, &python, grpc);
    decisions(&cast, &binary);
    anstream::println!(
        "{bold}# Clerk goes down: what the token answers goes on, what has to be asked cannot be told{bold:#}\n\
         curl -s -X PUT {clerk}/_emulator/faults -H 'content-type: application/json' -d '{{\"fault\":\"down\"}}'\n\
         TOKEN=$(token '{user}&organization={organization}')\n\
         authz CheckOrgPermission '{{\"token\":\"'$TOKEN'\",\"role\":\"admin\"}}'\n\
         authz CheckOrgPermission '{{\"token\":\"'$TOKEN'\",\"role\":\"admin\",\"consistency\":{{\"level\":\"CONSISTENCY_LEVEL_FULLY_CONSISTENT\"}}}}'\n\
         curl -s -X DELETE {clerk}/_emulator/faults    # and it is back\n\n\
         Ctrl-C ends both.",
        user = cast.user,
        organization = cast.organization,
    );
}

fn verification(cast: &Cast<'_>, binary: &str, python: &str, grpc: SocketAddr) {
    let Cast {
        user,
        other_user,
        organization,
        ..
    } = cast;
    let bold = anstyle::Style::new().bold();
    for (title, token) in [
        (
            "an allow: a user in an organization",
            format!("{user}&organization={organization}"),
        ),
        ("denied, TOKEN_EXPIRED", format!("{user}&expired=true")),
        (
            "denied, SIGNATURE_INVALID: forged",
            format!("{user}&forged=true"),
        ),
        (
            "an allow that shows who acts: impersonated",
            format!("{user}&impersonated_by={other_user}"),
        ),
    ] {
        anstream::println!(
            "{bold}# {title}{bold:#}\n\
             TOKEN=$(token '{token}')\n\
             authz VerifySession '{{\"token\":\"'$TOKEN'\"}}'\n\
             authz ExplainDecision '{{\"verify_session\":{{\"token\":\"'$TOKEN'\"}}}}'\n"
        );
    }
    anstream::println!(
        "{bold}# the same from Python, and from the command line{bold:#}\n\
         TOKEN=$(token {user})\n\
         AUTHZ_ADDR={grpc} {python} examples/python/verify.py \"$TOKEN\"\n\
         {binary} verify \"$TOKEN\"\n"
    );
}

/// A decision to try: its title, the token's query, what is asked over gRPC and on the command line.
struct Try {
    title: &'static str,
    token: String,
    asked: String,
    flags: String,
}

fn decisions(cast: &Cast<'_>, binary: &str) {
    let bold = anstyle::Style::new().bold();
    for Try {
        title,
        token,
        asked,
        flags,
    } in tries(cast)
    {
        anstream::println!(
            "{bold}# {title}{bold:#}\n\
             TOKEN=$({token}); ASKED='{{\"token\":\"'$TOKEN'\",{asked}}}'\n\
             authz CheckOrgPermission \"$ASKED\"\n\
             authz ExplainDecision '{{\"check_org_permission\":'$ASKED'}}'\n\
             {binary} check --token \"$TOKEN\" {flags}\n"
        );
    }
    let (organization, other_user) = (cast.organization, cast.other_user);
    anstream::println!(
        "{bold}# allowed for a user who need not be signed in: by the membership, too{bold:#}\n\
         authz CheckOrgPermission '{{\"user_id\":\"{other_user}\",\"organization_id\":\"{organization}\",\"role\":\"member\"}}'\n\
         {binary} check --user {other_user} --organization {organization} --role member\n"
    );
}

fn tries(cast: &Cast<'_>) -> Vec<Try> {
    let Cast {
        clerk,
        user,
        other_user,
        organization,
        other_organization,
    } = cast;
    let token = |query: String| format!("token '{query}'");
    let member = || token(format!("{user}&organization={organization}"));
    vec![
        Try {
            title: "allowed: a permission, by the token",
            token: member(),
            asked: r#""permission":"org:invoices:create""#.to_owned(),
            flags: "--permission org:invoices:create".to_owned(),
        },
        Try {
            title: "denied, PERMISSION_MISSING: another member",
            token: token(format!("{other_user}&organization={organization}")),
            asked: r#""permission":"org:invoices:create""#.to_owned(),
            flags: "--permission org:invoices:create".to_owned(),
        },
        Try {
            title: "allowed: a system permission, which no token carries: by the membership",
            token: member(),
            asked: r#""permission":"org:sys_memberships:manage""#.to_owned(),
            flags: "--permission org:sys_memberships:manage".to_owned(),
        },
        Try {
            title: "allowed: another organization than the active one: by the membership",
            token: member(),
            asked: format!(
                r#""organization_id":"{other_organization}","permission":"org:reports:read""#
            ),
            flags: format!("--organization {other_organization} --permission org:reports:read"),
        },
        Try {
            title: "allowed: a plan of the organization",
            token: member(),
            asked: r#""plan":"org:gold""#.to_owned(),
            flags: "--plan org:gold".to_owned(),
        },
        Try {
            title: "denied, REVERIFICATION_REQUIRED: a factor was verified 15 minutes ago",
            token: format!(
                r#"curl -s {clerk}/_emulator/tokens -H 'content-type: application/json' -d '{{"user":"{user}","factor_ages":[15,-1]}}' | sed -E 's/.*"jwt":"([^"]+)".*/\1/'"#
            ),
            asked: r#""reverification":{"preset":"REVERIFICATION_PRESET_STRICT"}"#.to_owned(),
            flags: "--reverification strict".to_owned(),
        },
        Try {
            title: "denied, IMPERSONATION_NOT_ALLOWED",
            token: token(format!(
                "{user}&organization={organization}&impersonated_by={other_user}"
            )),
            asked: r#""role":"admin","allow_impersonation":false"#.to_owned(),
            flags: "--role admin --deny-impersonation".to_owned(),
        },
    ]
}
