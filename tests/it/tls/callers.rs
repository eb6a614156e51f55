//! The rules for callers, by what a verified certificate says.

use clerk_authz::{
    door::grpc::proto::{GetUserRequest, get_user_request::Key},
    server,
};
use tonic::Code;

use super::{ALICE, PATIENCE, Scene};
use crate::support::{
    about,
    authority::{Authority, TlsFiles, tls_client, trusting},
    offline_clerk, reason_of, settings_on,
};

const BOB: &str = "spiffe://example.org/bob";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_may_call_what_its_rule_says_and_no_other_certificate_may() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let files = TlsFiles::new(&authority.server(), Some(&clients.pem));
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("callers.toml");
    let text = format!(
        "[anyone]\nrpcs = [\"VerifySession\"]\n[[caller]]\nname = \"alice\"\nspiffe = [\"{ALICE}\"]\n\
         rpcs = [\"VerifySession\", \"GetUser\"]\n"
    );
    std::fs::write(&rules, text).expect("written");
    let url = format!("sqlite://{}", folder.path().join("mirror.db").display());
    let rules = rules.display().to_string();
    let clerk = offline_clerk().await;
    let mut variables = files.variables();
    variables.push(("CLERK_AUTHZ_CALLERS", rules));
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect();
    let settings = settings_on(&clerk, &url, &variables);
    let service = server::start(&settings, server::system_clock()).await;
    let scene = Scene {
        authority,
        clients,
        files,
        clerk,
        service: service.expect("it starts"),
    };

    let codes = async |id| {
        let own = scene.clients.client(id);
        let connector = trusting(&scene.authority.pem, Some(&own), &["h2"]);
        let client = tls_client(connector, scene.grpc()).await;
        let mut client = client.expect("a connection");
        let verified = client.verify_session(about(&scene.token())).await;
        let user = GetUserRequest {
            key: Some(Key::UserId("user_nobody".to_owned())),
            ..Default::default()
        };
        let user = client.get_user(user).await.expect_err("there is none");
        let reason = reason_of(&user);
        (verified.is_ok(), user.code(), reason)
    };
    let told = tokio::time::timeout(PATIENCE, async { (codes(ALICE).await, codes(BOB).await) });
    let (alice, bob) = told.await.expect("in time");

    assert_eq!((alice.0, alice.1), (true, Code::NotFound), "{alice:?}");
    assert_eq!((bob.0, bob.1), (true, Code::PermissionDenied), "{bob:?}");
    assert_eq!(bob.2, "CALLER_NOT_ALLOWED", "{bob:?}");
    scene.stop().await;
}
