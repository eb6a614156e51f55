//! `VerifySession` of a machine's token that is cached.

use clerk_authz::{
    door::grpc::proto,
    emulator::{Kind, TokenSpec},
};

use crate::{
    Bench, ROUNDS,
    client::{Client, VERIFY, about, body_file, framed, h2load},
    empty::EMPTY,
    table::{Row, median, say},
};

/// What is left of the calls of an empty call.
const AT_LEAST: f64 = 0.90;

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let service = bench.serve_apart(&[]);
    service.accepts().await;
    let client = Client::connect(service.addr()).await;
    let mut spec = TokenSpec::of(Kind::M2m).with_scopes(&["orders:read", "orders:write"]);
    spec.lifetime_seconds = Some(3_600);
    let jwt = bench.instance.mint(&spec).expect("a token");
    let opaque = bench.instance.mint(&spec.as_opaque()).expect("a token");
    let mut rows = Vec::new();
    for (figure, token) in [
        (
            "`VerifySession` of a machine's JWT, cached: throughput against the empty call",
            jwt,
        ),
        (
            "likewise of an opaque token that Clerk was asked about",
            opaque,
        ),
    ] {
        say(figure);
        let question = framed(&proto::VerifySessionRequest {
            accepted_token_types: vec![proto::TokenType::M2mToken.into()],
            ..about(&token)
        });
        assert_eq!(client.call(VERIFY, question.clone()).await, "0", "accepted");
        let (body, no_body) = (body_file(&question), body_file(&framed(&())));
        let (mut floor, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            floor.push(h2load(bench.empty.addr(), EMPTY, no_body.path()));
            ours.push(h2load(service.addr(), VERIFY, body.path()));
        }
        let (floor, ours) = (median(floor), median(ours));
        rows.push(Row {
            figure,
            measured: format!("{:.2}× ({ours:.0} of {floor:.0} calls/s)", ours / floor),
            target: format!("≥ {AT_LEAST}×"),
            reached: ours / floor >= AT_LEAST,
        });
    }
    rows
}
