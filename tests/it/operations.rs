//! What whoever runs the service does with its database: docs/operations.md, tried.

mod backup;
mod copy;

use std::process::Output;

use clerk_authz::door::grpc::proto::{
    self, GetUserRequest, get_user_request::Key, watch_users_response::Change,
};
use tonic::{Code, Status, Streaming};

use crate::support::{Fixture, PATIENCE, eventually, reason_of};

/// `clerk-authz` with these arguments and variables, and nothing else.
async fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_clerk-authz"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .await
        .expect("it runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8").trim_end()
}

/// What a command that failed says; nothing else is printed.
fn complaint(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr)
}

impl Fixture {
    /// A user's first name, as `GetUser` says it.
    async fn first_name(&self, user: &str) -> Option<String> {
        let request = GetUserRequest {
            key: Some(Key::UserId(user.to_owned())),
            ..Default::default()
        };
        let answer = self.client.clone().get_user(request).await.ok()?;
        answer.into_inner().user.map(|user| user.first_name)
    }

    async fn is_called(&self, user: &str, first_name: &str) {
        eventually(&format!("{user} is {first_name}"), || async {
            self.first_name(user).await.as_deref() == Some(first_name)
        })
        .await;
    }

    async fn watch(
        &self,
        resume_token: &str,
    ) -> Result<Streaming<proto::WatchUsersResponse>, Status> {
        let request = proto::WatchUsersRequest {
            resume_token: resume_token.to_owned(),
            ..Default::default()
        };
        Ok(self.client.clone().watch_users(request).await?.into_inner())
    }

    /// That what follows a token is not told, and the watcher has to begin anew.
    async fn begins_anew(&self, resume_token: &str) {
        let status = match self.watch(resume_token).await {
            Ok(mut stream) => stream.message().await.err(),
            Err(status) => Some(status),
        };
        let status = status.expect("it is refused");
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        assert_eq!(reason_of(&status), "RESUME_TOKEN_EXPIRED");
    }

    /// A token behind the snapshot.
    async fn watched(&self) -> String {
        let mut stream = self.watch("").await.expect("it opens");
        loop {
            let (token, change) = told(&mut stream).await;
            if matches!(change, Change::SnapshotComplete(_)) {
                return token;
            }
        }
    }
}

/// The next message of a watch.
async fn told(stream: &mut Streaming<proto::WatchUsersResponse>) -> (String, Change) {
    let message = tokio::time::timeout(PATIENCE, stream.message()).await;
    let message = message.expect("something is told").expect("it goes on");
    let message = message.expect("it ends with an error only");
    (message.resume_token, message.change.expect("always set"))
}
