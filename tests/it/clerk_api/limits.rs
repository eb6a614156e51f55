//! Faults, limits and counts, endpoint by endpoint.

use clerk_authz::emulator::{Endpoint, Fault, Faults, RateLimit};
use serde_json::json;

use super::Api;

#[tokio::test]
async fn an_endpoints_faults_hit_it_alone_and_several_at_once() {
    let api = Api::start().await;
    let instance = api.instance();
    instance.set_faults_for(Endpoint::Memberships, Faults::always(Fault::ServerError));
    instance.set_faults_for(
        Endpoint::Users,
        Faults {
            times: Some(1),
            ..Faults::rate_limited(7)
        },
    );
    let limited = api.call("GetUser", &["user_bob"], "", None).await;
    assert_eq!(
        (limited.status, &limited.headers["retry-after"]),
        (429, &"7".parse().expect("a value"))
    );
    assert_eq!(
        api.call("GetUser", &["user_bob"], "", None).await.status,
        200,
        "it was for one"
    );
    let members = async || {
        api.call("ListOrganizationMemberships", &["org_acme"], "", None)
            .await
            .status
    };
    assert_eq!(members().await, 500);
    let body = Some(json!({"user_id": "user_carol", "role": "org:member"}));
    assert_eq!(
        api.call("CreateOrganizationMembership", &["org_acme"], "", body)
            .await
            .status,
        500
    );
    assert!(
        api.directory()
            .membership("org_acme", "user_carol")
            .is_none(),
        "nothing was done"
    );
    assert_eq!(
        api.call("GetOrganization", &["acme"], "", None)
            .await
            .status,
        200
    );
    assert_eq!(api.call("GetJWKS", &[], "", None).await.status, 200);

    instance.set_faults(Faults::always(Fault::ServerError));
    instance.set_faults_for(Endpoint::Users, Faults::default());
    assert_eq!(
        api.call("GetJWKS", &[], "", None).await.status,
        500,
        "everywhere"
    );
    assert_eq!(
        api.call("GetUser", &["user_bob"], "", None).await.status,
        200,
        "but where another is"
    );
    instance.clear_faults();
    assert_eq!(members().await, 200);
    api.clerk.stop().await;
}

#[tokio::test]
async fn a_full_budget_is_429_with_retry_after_and_keys_are_free() {
    let api = Api::start().await;
    let instance = api.instance();
    instance.set_rate_limit(Some(RateLimit {
        requests: 3,
        seconds: 10,
    }));
    for _ in 0..3 {
        api.get("GetUsersCount", &[], "").await;
    }
    api.pass_millis(2_500);
    let refused = api.call("GetOrganization", &["acme"], "", None).await;
    assert_eq!(
        (refused.status, &refused.headers["retry-after"]),
        (429, &"8".parse().expect("a value"))
    );
    assert_eq!(refused.body["errors"][0]["code"], "too_many_requests");
    api.get("GetJWKS", &[], "").await;
    api.pass_millis(7_500);
    api.get("GetOrganization", &["acme"], "").await;

    assert_eq!(instance.api_requests(Endpoint::Users), 3);
    assert_eq!(
        instance.api_requests(Endpoint::Organizations),
        2,
        "refused ones too"
    );
    assert_eq!(instance.api_requests(Endpoint::Jwks), 1);
    assert_eq!(instance.api_requests_total(), 5);
    assert_eq!(
        (
            instance.api_peaks().one_second,
            instance.api_peaks().ten_seconds
        ),
        (3, 4)
    );
    instance.reset_counts();
    assert_eq!(
        (
            instance.api_requests_total(),
            instance.api_peaks().ten_seconds
        ),
        (0, 0)
    );
    api.clerk.stop().await;
}
