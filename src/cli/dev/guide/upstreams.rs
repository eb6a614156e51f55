//! The lines about what is vouched to upstreams. Behind a line stands what it answers.

use std::net::SocketAddr;

use super::Cast;

pub(super) fn print(cast: &Cast<'_>, http: SocketAddr) {
    let Cast {
        user, organization, ..
    } = cast;
    let bold = anstyle::Style::new().bold();
    anstream::println!(
        "{bold}# what an upstream is told under our signature, as a proxy asks for it{bold:#}\n\
         TOKEN=$(token '{user}&organization={organization}')\n\
         forwarded() {{ curl -s -o /dev/null -D - http://{http}/forward-auth -H \"authorization: Bearer $TOKEN\" \
         -H \"x-forwarded-method: GET\" -H \"x-forwarded-host: $1\" -H \"x-forwarded-uri: /orders/7\" \
         -H \"x-forwarded-proto: https\"; }}\n\
         forwarded app.example.com | tr -d '\\r' | sed -n 's/^x-clerk-authz-assertion: //p' | cut -d. -f2 \
         | tr _- /+ | base64 -d 2> /dev/null    # \"aud\":\"orders\",\"sub\":\"{user}\"\n\
         curl -s http://{http}/.well-known/jwks.json    # \"crv\":\"P-256\"\n"
    );
}
