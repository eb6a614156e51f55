//! Configurations of Envoy: one listener that answers by itself, and one filter in front of it.

use std::net::SocketAddr;

use clerk_authz::settings::ListenAddr;

/// What stands in front of the answer.
#[derive(Clone)]
pub(super) enum Filter {
    None,
    /// `jwt_authn` with these keys, of this issuer.
    Jwt {
        issuer: String,
        jwks: String,
        is_cached: bool,
    },
    ExtAuthz(ExtAuthz),
}

/// The question, as `deploy/envoy/envoy.yaml` has it but for what is said here.
#[derive(Clone)]
pub(super) struct ExtAuthz {
    pub(super) authorizer: ListenAddr,
    /// Settings of the filter that it has not, or has otherwise.
    pub(super) settings: &'static str,
    pub(super) raw_headers: bool,
    pub(super) timeout: &'static str,
    pub(super) access_log: bool,
}

impl ExtAuthz {
    pub(super) fn of(authorizer: ListenAddr) -> Self {
        Self {
            authorizer,
            settings: "",
            raw_headers: true,
            timeout: "2s",
            access_log: false,
        }
    }
}

/// As JSON, which is YAML, so that no value needs to be quoted by hand.
pub(super) fn config(listener: SocketAddr, filter: &Filter) -> String {
    let mut filters = Vec::new();
    let mut clusters = Vec::new();
    let mut access_log = Vec::new();
    match filter {
        Filter::None => {}
        Filter::Jwt {
            issuer,
            jwks,
            is_cached,
        } => filters.push(jwt_authn(issuer, jwks, *is_cached)),
        Filter::ExtAuthz(asked) => {
            filters.push(ext_authz(asked));
            clusters.push(cluster(&asked.authorizer));
            if asked.access_log {
                access_log.push(access_log_of_the_shipped_file());
            }
        }
    }
    filters.push(serde_json::json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }));
    let manager = serde_json::json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "use_remote_address": true,
        "normalize_path": true,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "http2_protocol_options": {"max_concurrent_streams": 100},
        "access_log": access_log,
        "http_filters": filters,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{
            "match": {"prefix": "/"},
            "direct_response": {"status": 200, "body": {"inline_string": "{}"}},
        }]}]},
    });
    serde_json::json!({
        "static_resources": {
            "listeners": [{
                "name": "ingress",
                "address": address(&ListenAddr::Tcp(listener)),
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": manager,
                }]}],
            }],
            "clusters": clusters,
        },
    })
    .to_string()
}

fn address(addr: &ListenAddr) -> serde_json::Value {
    match addr {
        ListenAddr::Tcp(addr) => serde_json::json!({"socket_address": {
            "address": addr.ip().to_string(), "port_value": addr.port(),
        }}),
        ListenAddr::Unix(path) => serde_json::json!({"pipe": {"path": path}}),
    }
}

fn jwt_authn(issuer: &str, jwks: &str, is_cached: bool) -> serde_json::Value {
    let mut provider = serde_json::json!({
        "issuer": issuer,
        "local_jwks": {"inline_string": jwks},
        "claim_to_headers": [{"header_name": "x-clerk-user-id", "claim_name": "sub"}],
    });
    if is_cached {
        provider["jwt_cache_config"] = serde_json::json!({"jwt_cache_size": 1_000});
    }
    serde_json::json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"clerk": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "clerk"}}],
        },
    })
}

fn ext_authz(asked: &ExtAuthz) -> serde_json::Value {
    let mut typed = serde_json::json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": asked.timeout},
        "failure_mode_allow": false,
        "encode_raw_headers": asked.raw_headers,
    });
    if !asked.settings.is_empty() {
        let more =
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(asked.settings);
        let typed = typed.as_object_mut().expect("an object");
        typed.extend(more.expect("settings"));
    }
    serde_json::json!({"name": "envoy.filters.http.ext_authz", "typed_config": typed})
}

fn cluster(authorizer: &ListenAddr) -> serde_json::Value {
    serde_json::json!({
        "name": "authz",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "authz", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address(authorizer)}},
        ]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
    })
}

fn access_log_of_the_shipped_file() -> serde_json::Value {
    let of =
        |key: &str| format!("%DYNAMIC_METADATA(envoy.filters.http.ext_authz:clerk_authz:{key})%");
    serde_json::json!({
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"json_format": {
                "method": "%REQ(:METHOD)%",
                "status": "%RESPONSE_CODE%",
                "details": "%RESPONSE_CODE_DETAILS%",
                "reason": of("reason"),
                "decision_id": of("decision_id"),
                "route": of("route"),
                "user_id": of("user_id"),
            }},
        },
    })
}
