//! Any bytes as what Envoy asks, through the door as it stands behind the gRPC server. Where they are a
//! message of Envoy's they are answered and never end as an error; nothing passes that the policy shuts;
//! nobody is named without a good token; and of an allowed request no header is left that any server
//! reads as one of ours. A credential `Bearer TOKEN` is a good one.
#![no_main]

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
    time::Duration,
};

use clerk_authz::{
    authz::{Checker, Gatekeeper, Instance, InstanceSerial, Instances, MembershipSettings, TokenCache, Verifier},
    door::{
        DecisionLog,
        grpc::{CallStats, ExtAuthzDoor},
    },
    emulator::{Emulator, TokenSpec, World},
    identity::Timestamp,
    keys::{Keyring, VerifyingKey},
    policy::Policy,
};
use envoy_types::ext_authz::v3::pb::{CheckRequest, CheckResponse, HttpResponse};
use http_body_util::{BodyExt, Full};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tokio::runtime::{Builder, Runtime};
use tonic::body::Body;
use tower::Service;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
const POLICY: &str = r#"
version: 1
sign_in: {url: "https://accounts.example/sign-in", return_to: ["https://app.example"]}
routes:
  - {name: all, path: /**, access: public, permit: [encoded_slash]}
  - {name: closed, path: /closed/**, access: denied}
  - {name: assets, path: /assets/**, access: public, credentials: ignored}
  - {name: me, path: /me/**, access: signed_in, browser: sign_in}
  - {name: org, path: "/orgs/{org}/**", organization: "{org}", access: {role: admin}}
  - {name: header, path: /by-header, organization: "header:x-org", access: {role: admin}}
"#;

struct Scene {
    runtime: Runtime,
    door: ExtAuthzDoor,
    bearer: String,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (token, pem, issuer) = runtime.block_on(async {
        let clerk = Emulator::start(World::default_world(), ([127, 0, 0, 1], 0).into(), Arc::new(|| NOW));
        let clerk = clerk.await.expect("it starts");
        let instance = &clerk.instances()[0];
        let token = instance.mint(&TokenSpec::session("user_alice").in_organization("acme"));
        (token.expect("a token"), instance.public_key_pem(), instance.issuer().clone())
    });
    let instance = Instance {
        serial: InstanceSerial::next(),
        name: "default".parse().expect("a name"),
        issuer: issuer.as_str().parse().expect("an issuer"),
        publishable_key: None,
        authorized_parties: Vec::new(),
        audiences: Vec::new(),
        keyring: Arc::new(Keyring::pinned(VerifyingKey::from_pem(&pem).expect("a key"))),
        directory: None,
        user_directory: None,
        sign_ins: None,
        providers: Vec::new(),
        revocations: None,
        has_webhooks: false,
    };
    let instances = Instances::new(vec![Arc::new(instance)]).expect("one");
    let verifier = Verifier::new(instances, TokenCache::new(1 << 20), Duration::ZERO);
    let checker = Checker::new(Arc::new(verifier), MembershipSettings::default(), Arc::new(|| NOW));
    let policy = Policy::parse(POLICY).expect("a policy");
    let gatekeeper = Arc::new(Gatekeeper::new(Arc::new(checker), policy));
    let door = ExtAuthzDoor::new(gatekeeper, Arc::new(|| NOW), Arc::new(CallStats::default()), DecisionLog::off());
    let scene = Scene { runtime, door, bearer: format!("Bearer {token}") };
    // Else nothing below would ever be about somebody.
    let mut asked = CheckRequest::decode(&include_bytes!("../seeds/check_request/signed-in")[..]).expect("a seed");
    sign(&mut asked, &scene.bearer);
    let answer = ask(&scene, &asked.encode_to_vec()).expect("an answer");
    let Some(HttpResponse::OkResponse(allow)) = answer.http_response else { panic!("{answer:?}") };
    let mut names = allow.headers.iter().flat_map(|option| &option.header).map(|header| &*header.key);
    assert!(names.any(|name| name == "x-clerk-user-id"));
    scene
});

fuzz_target!(|bytes: &[u8]| {
    let scene = &*SCENE;
    let Ok(mut asked) = CheckRequest::decode(bytes) else {
        // To us it may be a message all the same, with bytes where Envoy's protos say text.
        if let Some(answer) = ask(scene, bytes) {
            assert_eq!(is_allow(&answer), code(&answer) == 0);
        }
        return;
    };
    sign(&mut asked, &scene.bearer);
    let answer = ask(scene, &asked.encode_to_vec()).expect("a message of Envoy's is answered");
    assert_eq!(is_allow(&answer), code(&answer) == 0);
    let Some(HttpResponse::OkResponse(allow)) = &answer.http_response else { return };

    let attributes = asked.attributes.unwrap_or_default();
    let http = attributes.request.and_then(|request| request.http).expect("nothing is no request");
    let mut path = http.path.split('?').next().unwrap_or_default().split('/');
    assert!(path.nth(1) != Some("closed"), "{:?}", http.path);
    assert_ne!(attributes.context_extensions.get("access").map(String::as_str), Some("denied"));
    let raw = http.header_map.unwrap_or_default().headers;
    let sent = || {
        let raw = raw.iter().map(|header| &header.key);
        http.headers.keys().chain(raw).map(|name| name.to_ascii_lowercase())
    };
    let set: BTreeSet<&str> = allow.headers.iter().flat_map(|option| &option.header).map(|it| &*it.key).collect();
    let removed: BTreeSet<&str> = allow.headers_to_remove.iter().map(|name| &**name).collect();
    assert!(set.is_disjoint(&removed), "Envoy removes after it has set");
    assert!(set.contains("x-clerk-decision-id"));
    for name in sent().filter(|name| is_read_as_ours(name)) {
        assert!(removed.contains(&*name) || set.contains(&*name), "{name:?} passes");
    }
    if set.contains("x-clerk-user-id") {
        let mut values = raw.iter().filter(|header| header.key.eq_ignore_ascii_case("authorization"));
        let is_good = |value: &[u8]| value == scene.bearer.as_bytes();
        let has_good = http.headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("authorization") && is_good(value.trim().as_bytes())
        }) || values.any(|header| is_good(header.value.trim().as_bytes()) || is_good(header.raw_value.trim_ascii()));
        assert!(has_good, "somebody is named without a token");
    }
});

/// As PHP reads names, which is the widest: every sign that is no letter and no digit is one.
fn is_read_as_ours(name: &str) -> bool {
    let read: String = name
        .chars()
        .map(|sign| if sign.is_ascii_alphanumeric() { sign.to_ascii_lowercase() } else { '_' })
        .collect();
    read.starts_with("x_clerk_")
}

fn sign(asked: &mut CheckRequest, bearer: &str) {
    let http = asked.attributes.as_mut().and_then(|it| it.request.as_mut()).and_then(|it| it.http.as_mut());
    let Some(http) = http else { return };
    let put = |value: &mut String| {
        if value == "Bearer TOKEN" {
            bearer.clone_into(value);
        }
    };
    http.headers.values_mut().for_each(put);
    for header in http.header_map.iter_mut().flat_map(|map| &mut map.headers) {
        put(&mut header.value);
        if header.raw_value == b"Bearer TOKEN" {
            header.raw_value = bearer.as_bytes().to_vec();
        }
    }
}

/// The answer; `None` where the call ends as an error.
fn ask(scene: &Scene, message: &[u8]) -> Option<CheckResponse> {
    let length = u32::try_from(message.len()).expect("short");
    let frame = [&[0][..], &length.to_be_bytes(), message].concat();
    let request = http::Request::post("/envoy.service.auth.v3.Authorization/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(bytes::Bytes::from(frame))))
        .expect("a request");
    scene.runtime.block_on(async {
        let response = scene.door.clone().call(request).await.unwrap_or_else(|never| match never {});
        if response.headers().contains_key("grpc-status") {
            return None;
        }
        let body = response.into_body().collect().await.expect("a body");
        assert_eq!(body.trailers().and_then(|all| all.get("grpc-status")).expect("a status"), "0");
        let frame = body.to_bytes();
        Some(CheckResponse::decode(&frame[5..]).expect("a message of Envoy's"))
    })
}

fn code(answer: &CheckResponse) -> i32 {
    answer.status.as_ref().expect("a status").code
}

fn is_allow(answer: &CheckResponse) -> bool {
    match answer.http_response.as_ref().expect("an answer in HTTP") {
        HttpResponse::OkResponse(_) => true,
        HttpResponse::DeniedResponse(_) => false,
        HttpResponse::ErrorResponse(_) => panic!("Envoy may take it for a yes"),
    }
}
