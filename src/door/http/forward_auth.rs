//! `/forward-auth`: nginx, Traefik, Caddy and their like ask whether a request may go on.
//!
//! It translates; the route policy and `authz` decide. What the original request was stands in
//! headers that anybody could send, so that only configured peers are heard at all.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State, connect_info::Connected},
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
    routing::any,
    serve::IncomingStream,
};
use ipnet::IpNet;
use tracing::debug;

use crate::{
    authz::{CookiesOnTheWayBack, Gatekeeper, Headers, ProxiedRequest},
    door::{
        GuardedListener,
        answer::{Answer, Vouching, answer},
        decision_log::{self, DecisionLog},
        grpc::{CallOutcome, CallStats, Rpc, is_good_request_id, new_decision_id},
    },
    explain::Steps,
    keys::Clock,
    trace::{self, SpanKind},
};

/// How long Clerk is waited for: HTTP says nothing of it, and proxies give up by themselves.
const PATIENCE: Duration = Duration::from_secs(5);

const METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: &str = "x-request-id";

/// Whose word is taken for what the original request was.
#[derive(Clone, Debug)]
pub enum Peers {
    /// Everybody's: whoever reaches the socket was let in by the file system.
    All,
    /// Those with such an address; empty is nobody.
    Of(Arc<[IpNet]>),
}

/// Answers `/forward-auth`.
#[derive(Clone)]
pub struct ForwardAuthDoor {
    gatekeeper: Arc<Gatekeeper>,
    clock: Clock,
    calls: Arc<CallStats>,
    decisions: DecisionLog,
    vouching: Vouching,
}

impl ForwardAuthDoor {
    /// Asks `gatekeeper` by `clock`, counts in `calls`, records in `decisions`.
    pub fn new(
        gatekeeper: Arc<Gatekeeper>,
        clock: Clock,
        calls: Arc<CallStats>,
        decisions: DecisionLog,
    ) -> Self {
        Self {
            gatekeeper,
            clock,
            calls,
            decisions,
            vouching: Vouching::default(),
        }
    }

    /// Vouches for who sends a request, where its route asks for it.
    pub fn with_vouching(self, vouching: Vouching) -> Self {
        Self { vouching, ..self }
    }

    /// Where it counts.
    pub(super) fn calls(&self) -> Arc<CallStats> {
        Arc::clone(&self.calls)
    }
}

/// The address of who is connected; `None` over a Unix socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(Option<SocketAddr>);

impl Connected<IncomingStream<'_, GuardedListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, GuardedListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Peers {
    /// Whether what this peer says counts; `None` is one without an address.
    fn include(&self, peer: Option<IpAddr>) -> bool {
        match self {
            Self::All => true,
            Self::Of(nets) => peer.is_some_and(|peer| {
                // A listener for both families shows IPv4 peers as `::ffff:…`.
                let peer = peer.to_canonical();
                nets.iter().any(|net| net.contains(&peer))
            }),
        }
    }
}

#[derive(Clone)]
struct Parts {
    /// Where there is a policy.
    door: Option<ForwardAuthDoor>,
    peers: Peers,
}

/// The one path; without a `door` it says what is missing.
pub(super) fn router(door: Option<ForwardAuthDoor>, peers: Peers) -> Router {
    Router::new()
        .route("/forward-auth", any(forward_auth))
        .with_state(Parts { door, peers })
}

async fn forward_auth(State(parts): State<Parts>, request: Request) -> Response<Body> {
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let peer = peer.and_then(|ConnectInfo(Peer(addr))| Some((*addr)?.ip()));
    if !parts.peers.include(peer) {
        debug!(
            ?peer,
            "forward-auth was asked by a peer that is not trusted"
        );
        return refused("this address is not in CLERK_AUTHZ_FORWARD_AUTH_FROM");
    }
    match parts.door {
        Some(door) => door.answer(request.headers()).await,
        None => refused("there is no route policy; set CLERK_AUTHZ_POLICY"),
    }
}

/// A fault of the configuration, for whoever looks for it; to a proxy it is a denial.
fn refused(why: &'static str) -> Response<Body> {
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (StatusCode::FORBIDDEN, headers, format!("{why}\n")).into_response()
}

impl ForwardAuthDoor {
    async fn answer(self, headers: &HeaderMap) -> Response<Body> {
        let now = (self.clock)();
        let began = self.decisions.begin(|| now);
        let texts = |name| -> Vec<String> {
            let values = headers.get_all(name).into_iter();
            let texts = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            texts.collect()
        };
        let original = Original::of(headers);
        let proxied = ProxiedRequest {
            method: original.method,
            authority: original.host,
            target: original.uri,
            is_https: original.is_https,
            authorization: &texts(header::AUTHORIZATION),
            cookie: &texts(header::COOKIE),
            headers: &Received(headers),
            narrowing: None,
            patience: PATIENCE,
            cookies_on_the_way_back: CookiesOnTheWayBack::ByRedirect,
        };
        let mut steps = Steps::off();
        let deciding = self.gatekeeper.authorize(&proxied, now, &mut steps);
        let authorization = trace::within("authorize", SpanKind::Internal, deciding).await;
        let decision_id = new_decision_id();
        let outcome = CallOutcome::Decided(authorization.reason);
        self.calls.count(Rpc::ForwardAuth, outcome);
        let id = headers.get(REQUEST_ID);
        let good_id = id.filter(|id| is_good_request_id(id.as_bytes()));
        decision_log::log(
            &self.decisions,
            began,
            Rpc::ForwardAuth,
            (&id, good_id.and_then(|id| id.to_str().ok())),
            // The rules for callers are of the gRPC port.
            None,
            &authorization,
            &decision_id,
        );
        let vouching = &self.vouching;
        let assertion = vouching.assertion(&authorization, &proxied, &decision_id, now);
        let mut response = match answer(&authorization, assertion.as_deref(), &decision_id) {
            Answer::Forward(headers) => {
                let mut response = Response::new(Body::empty());
                // What is set is visible ASCII.
                let values = headers.set().filter_map(|(name, value)| {
                    Some((name.clone(), HeaderValue::from_str(value).ok()?))
                });
                response.headers_mut().extend(values);
                response
            }
            Answer::Refuse(refusal) => {
                let mut response = Response::new(Body::from(refusal.body));
                *response.status_mut() = refusal.status;
                response.headers_mut().extend(refusal.headers);
                response
            }
        };
        // Proxies may keep answers to subrequests; a decision is for one request.
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// The request that the proxy asks about.
#[derive(Debug, PartialEq, Eq)]
struct Original<'a> {
    method: &'a str,
    host: &'a [u8],
    uri: &'a [u8],
    is_https: bool,
}

impl<'a> Original<'a> {
    /// A request without a host or a path: ambiguous, and of no route.
    const UNKNOWN: Self = Self {
        method: "",
        host: b"",
        uri: b"",
        is_https: false,
    };

    /// Each is said once, or it is not known: of two nobody knows which the upstream sees.
    fn of(headers: &'a HeaderMap) -> Self {
        let one = |name: HeaderName| {
            let mut values = headers.get_all(name).into_iter();
            values.next().filter(|_| values.next().is_none())
        };
        let parts = || {
            Some(Self {
                method: one(METHOD)?.to_str().ok()?,
                host: one(HOST)?.as_bytes(),
                uri: one(URI)?.as_bytes(),
                is_https: match one(PROTO)?.as_bytes() {
                    b"https" | b"wss" => true,
                    b"http" | b"ws" => false,
                    _ => return None,
                },
            })
        };
        parts().unwrap_or(Self::UNKNOWN)
    }
}

struct Received<'a>(&'a HeaderMap);

impl Headers for Received<'_> {
    fn values<'h>(&'h self, name: &str) -> Vec<&'h str> {
        let values = self.0.get_all(name).into_iter();
        // One that is no text is a value all the same.
        let texts = values.map(|value| value.to_str().unwrap_or("\u{fffd}"));
        texts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    const GOOD: [(&str, &str); 4] = [
        ("x-forwarded-method", "GET"),
        ("x-forwarded-host", "app.example.com"),
        ("x-forwarded-uri", "/a?b"),
        ("x-forwarded-proto", "https"),
    ];

    #[test]
    fn each_part_of_the_request_is_said_exactly_once() {
        let good = headers(&GOOD);
        assert_eq!(
            Original::of(&good),
            Original {
                method: "GET",
                host: b"app.example.com",
                uri: b"/a?b",
                is_https: true,
            }
        );
        for (name, value) in GOOD {
            let mut twice = good.clone();
            twice.append(name, HeaderValue::from_static(value));
            assert_eq!(Original::of(&twice), Original::UNKNOWN, "{name} twice");
            let mut without = good.clone();
            without.remove(name);
            assert_eq!(Original::of(&without), Original::UNKNOWN, "no {name}");
        }
    }

    #[test]
    fn peers_are_those_of_the_list() {
        let nets = ["10.0.0.0/8", "::1/128"].map(|net| net.parse().expect("a network"));
        let listed = Peers::Of(Arc::new(nets));
        for (peer, included) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.1.2.3", false),
            ("::1", true),
            ("::2", false),
        ] {
            let peer = Some(peer.parse().expect("an address"));
            assert_eq!(listed.include(peer), included, "{peer:?}");
        }
        assert!(!listed.include(None));
        assert!(!Peers::Of(Arc::new([])).include(Some(IpAddr::from([127, 0, 0, 1]))));
        assert!(Peers::All.include(None));
    }
}
