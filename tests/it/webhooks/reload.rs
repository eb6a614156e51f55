//! Endpoints of several instances, and secrets that are rotated while the service runs.

use crate::support::{
    Fixture,
    database::{Database, Place},
    eventually, offline_clerk, settings,
    webhook::{NEXT_SECRET, SECRET, user_updated},
};

#[tokio::test]
async fn each_instance_has_an_endpoint_and_secrets_are_rotated_without_a_restart() {
    let clerk = offline_clerk().await;
    let database = Database::on(Place::sqlite()).await;
    let [secret, file] = [(); 2].map(|()| tempfile::NamedTempFile::new().expect("a file"));
    std::fs::write(secret.path(), SECRET).expect("written");
    let text = format!(
        "[[instance]]\nname = \"shop\"\nissuer = \"{}\"\nwebhook_signing_secret_files = [{:?}]\n\
         [[instance]]\nname = \"lab\"\nissuer = \"http://127.0.0.1:9\"\n",
        clerk.instances()[0].issuer(),
        secret.path()
    );
    std::fs::write(file.path(), text).expect("written");
    let settings = settings(&[
        (
            "CLERK_AUTHZ_INSTANCES",
            file.path().to_str().expect("UTF-8"),
        ),
        ("CLERK_AUTHZ_DATABASE_URL", &database.place.url()),
    ]);
    let fixture = Fixture::start_on(clerk, &settings).await;
    let addr = fixture.service.http_addr();
    let status = async |path: &str, secret| {
        let message = user_updated("msg_1", "user_1", "Ada", 5).signed_with(secret);
        let answer = message.request(addr, path).send().await;
        answer.expect("an answer").status().as_u16()
    };
    assert_eq!(status("/webhooks/clerk/shop", SECRET).await, 204);
    for path in [
        "/webhooks/clerk",
        "/webhooks/clerk/lab",
        "/webhooks/clerk/none",
    ] {
        assert_eq!(status(path, SECRET).await, 404, "{path}");
    }
    assert_eq!(status("/webhooks/clerk/shop", NEXT_SECRET).await, 401);

    std::fs::write(secret.path(), NEXT_SECRET).expect("written");

    eventually("the new secret counts", || async {
        status("/webhooks/clerk/shop", NEXT_SECRET).await == 204
    })
    .await;
    assert_eq!(status("/webhooks/clerk/shop", SECRET).await, 401);
    fixture.stop().await;
}
