//! What `clerk-authz dev` prints: lines to paste, each with what it answers.

mod machines;
mod sso;
mod upstreams;
mod users;

use std::{net::SocketAddr, path::Path};

use crate::{emulator::Instance, settings::ListenAddr};

/// Whom and what the lines are about: the first of the world, whatever it is.
struct Cast<'a> {
    clerk: &'a str,
    user: &'a str,
    other_user: &'a str,
    organization: &'a str,
    other_organization: &'a str,
}

/// What `make setup` installs, or what is on the path under `otherwise`.
fn tool(name: &str, otherwise: &str) -> String {
    let here = format!(".venv/bin/{name}");
    if Path::new(&here).exists() {
        here
    } else {
        otherwise.to_owned()
    }
}

/// `has_our_policy`: whether the route policy is the one that lines can be printed about.
pub(super) fn print(
    instance: &Instance,
    grpc: &ListenAddr,
    http: SocketAddr,
    has_our_policy: bool,
) {
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
    let grpcurl = tool("grpcurl", "grpcurl");
    // Where there is no environment there may be no `python` either.
    let python = tool("python", "python3");
    let secret_key = instance.secret_key();
    let target = match grpc {
        ListenAddr::Tcp(addr) => addr.to_string(),
        // It would give the path as the authority, which HTTP/2 does not take.
        ListenAddr::Unix(path) => format!("-authority localhost -unix {}", path.display()),
    };
    anstream::println!(
        "{bold}clerk-authz{bold:#}     gRPC {grpc}, HTTP http://{http} (/readyz, /metrics)\n\
         {bold}offline Clerk{bold:#}   {clerk}  (GET / lists what it can do)\n\
         {bold}a browser{bold:#}       {clerk}/sign-in  (make demo-envoy has a page to come back to, behind Envoy)\n\n\
         Paste into another terminal (make setup installs grpcurl and the Python client). First this:\n\n\
         export CLERK_API_URL={clerk} CLERK_SECRET_KEY={secret_key} CLERK_AUTHZ_ISSUER={clerk}\n\
         token() {{ curl -s \"{clerk}/_emulator/token?user=$1\"; }}\n\
         authz() {{ {grpcurl} -plaintext -d \"$2\" {target} clerkauthz.v1.AuthzService/$1; }}\n\
         {}\n\
         {}\n",
        users::definitions(clerk, &secret_key),
        sso::definitions(clerk),
    );
    verification(&cast, &binary, &python, grpc);
    decisions(&cast, &binary);
    users::print(&cast);
    machines::print(&cast, &binary);
    if has_our_policy {
        upstreams::print(&cast, http);
    }
    sso::print(&cast, super::PROVIDER);
    clerk_down(&cast, &binary);
    anstream::println!("Ctrl-C ends both.");
}

fn verification(cast: &Cast<'_>, binary: &str, python: &str, grpc: &ListenAddr) {
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

/// One question in three ways: answered, explained by the service, explained on the command line.
fn in_three_ways(binary: &str, asked: &str, flags: &str) -> String {
    format!(
        "ASKED='{{{asked}}}'\n\
         authz CheckOrgPermission \"$ASKED\"\n\
         authz ExplainDecision '{{\"check_org_permission\":'\"$ASKED\"'}}'\n\
         {binary} check {flags}\n"
    )
}

/// The same, of the user whose token `$TOKEN` is.
fn by_token(binary: &str, asked: &str, flags: &str) -> String {
    let asked = format!("\"token\":\"'$TOKEN'\",{asked}");
    in_three_ways(binary, &asked, &format!("--token \"$TOKEN\" {flags}"))
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
        let ways = by_token(binary, &asked, &flags);
        anstream::println!("{bold}# {title}{bold:#}\nTOKEN=$({token})\n{ways}");
    }
    let (organization, other_user) = (cast.organization, cast.other_user);
    let ways = in_three_ways(
        binary,
        &format!(r#""user_id":"{other_user}","organization_id":"{organization}","role":"member""#),
        &format!("--user {other_user} --organization {organization} --role member"),
    );
    anstream::println!(
        "{bold}# allowed for a user who need not be signed in: by the membership, too{bold:#}\n{ways}"
    );
}

fn clerk_down(cast: &Cast<'_>, binary: &str) {
    let Cast {
        clerk,
        user,
        organization,
        ..
    } = cast;
    let bold = anstyle::Style::new().bold();
    let faults = |faults: &str| {
        format!(
            "curl -s -X PUT {clerk}/_emulator/faults -H 'content-type: application/json' -d '{faults}'"
        )
    };
    let (down, keys) = (
        faults(r#"{"fault":"down"}"#),
        faults(r#"{"endpoint":"jwks"}"#),
    );
    let by_the_token = by_token(binary, r#""role":"admin""#, "--role admin");
    let asked_now = by_token(
        binary,
        r#""role":"admin","consistency":{"level":"CONSISTENCY_LEVEL_FULLY_CONSISTENT"}"#,
        "--role admin --fully-consistent",
    );
    anstream::println!(
        "{bold}# Clerk goes down: what the token answers goes on, what has to be asked cannot be told{bold:#}\n\
         {down}\n\
         {keys}    # but for the keys: the service has them, a command that starts now has not\n\
         TOKEN=$(token '{user}&organization={organization}')\n\
         {by_the_token}{asked_now}\
         curl -s -X DELETE {clerk}/_emulator/faults    # and it is back\n"
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
