//! `WatchUsers` through the gRPC door, on both engines.

mod answers;
mod copies;
mod limits;
mod replicas;

use std::{collections::BTreeMap, time::Duration};

use clerk_authz::{
    door::grpc::proto::{
        self, authz_service_client::AuthzServiceClient, watch_users_response::Change,
    },
    identity::Timestamp,
    mirror::{Entity, Fact, Mirror, UserKey},
    server::{Limits, Running, start_under},
};
use tokio::time::timeout;
use tonic::{Status, Streaming, transport::Channel};

use crate::support::{
    PATIENCE, client,
    database::{Database, Place, ms, organization_id, user_id},
    settings,
};

/// A service on a database, without a Clerk: what is watched is in the database.
struct Service {
    running: Running,
    client: AuthzServiceClient<Channel>,
}

impl Service {
    async fn on(place: &Place) -> Self {
        Self::under(Limits::default(), place).await
    }

    async fn under(limits: Limits, place: &Place) -> Self {
        let clock = clerk_authz::server::system_clock();
        let settings = settings(&[
            ("CLERK_AUTHZ_ISSUER", "http://127.0.0.1:9"),
            ("CLERK_AUTHZ_DATABASE_URL", &place.url()),
        ]);
        let running = start_under(limits, &settings, clock).await;
        let running = running.expect("it starts");
        Self {
            client: client(running.grpc_addr()).await,
            running,
        }
    }

    async fn open(
        &self,
        request: proto::WatchUsersRequest,
    ) -> Result<Streaming<proto::WatchUsersResponse>, Status> {
        let opened = self.client.clone().watch_users(request).await?;
        Ok(opened.into_inner())
    }

    async fn refused(&self, request: proto::WatchUsersRequest) -> Status {
        self.open(request).await.expect_err("it is refused")
    }

    async fn stop(self) {
        self.running.stop().await;
    }
}

fn behind(resume_token: &str) -> proto::WatchUsersRequest {
    proto::WatchUsersRequest {
        resume_token: resume_token.to_owned(),
        with_memberships: true,
        ..Default::default()
    }
}

fn users_only() -> proto::WatchUsersRequest {
    proto::WatchUsersRequest::default()
}

async fn next(
    stream: &mut Streaming<proto::WatchUsersResponse>,
) -> Result<proto::WatchUsersResponse, Status> {
    let told = timeout(PATIENCE, stream.message()).await;
    let told = told.expect("something is told");
    told.map(|message| message.expect("it ends with an error only"))
}

/// The next that is no heartbeat.
async fn told(stream: &mut Streaming<proto::WatchUsersResponse>) -> Change {
    loop {
        let message = next(stream).await.expect("the watch goes on");
        assert!(!message.resume_token.is_empty());
        match message.change.expect("always set") {
            Change::Heartbeat(_) => {}
            change => return change,
        }
    }
}

/// How the watch ends, whatever it tells before.
async fn end_of(stream: &mut Streaming<proto::WatchUsersResponse>) -> Status {
    loop {
        if let Err(status) = next(stream).await {
            return status;
        }
    }
}

fn short(change: &Change) -> String {
    match change {
        Change::User(user) => format!("{} {}", user.id, user.first_name),
        Change::UserDeleted(deleted) => format!("{} gone", deleted.user_id),
        Change::Membership(it) => format!("{} in {}", it.user_id, it.organization_id),
        Change::MembershipDeleted(it) => format!("{} out of {}", it.user_id, it.organization_id),
        Change::SnapshotComplete(_) => "complete".to_owned(),
        Change::Heartbeat(_) => "heartbeat".to_owned(),
    }
}

/// What somebody keeps who watches, as docs/watch.md says.
#[derive(Clone, Debug, Default)]
struct Keeper {
    token: String,
    users: BTreeMap<String, (proto::User, Mark)>,
    memberships: BTreeMap<(String, String), (proto::Membership, Mark)>,
    snapshot_is_complete: bool,
    /// The user that a change was last about: what changed during a snapshot comes behind it.
    last_changed: Option<String>,
}

/// Whether an entity has come since the snapshot was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Old,
    Seen,
}

impl Keeper {
    /// Forgets the token, and keeps what it has until the snapshot is complete.
    fn begin_anew(&mut self) {
        self.token.clear();
        self.snapshot_is_complete = false;
        self.last_changed = None;
        for (_, mark) in self.users.values_mut() {
            *mark = Mark::Old;
        }
        for (_, mark) in self.memberships.values_mut() {
            *mark = Mark::Old;
        }
    }

    fn take(&mut self, message: proto::WatchUsersResponse) {
        match message.change.expect("always set") {
            Change::User(user) => {
                if self.snapshot_is_complete {
                    self.last_changed = Some(user.id.clone());
                }
                let before = self
                    .users
                    .insert(user.id.clone(), (user.clone(), Mark::Seen));
                if let Some((before, _)) = before {
                    let version = |user: &proto::User| {
                        let at = user.updated_at.expect("always set");
                        (at.seconds, at.nanos)
                    };
                    let is_newer = version(&before) <= version(&user);
                    assert!(is_newer, "what comes later is never older");
                }
            }
            Change::UserDeleted(deleted) => {
                self.users.remove(&deleted.user_id);
            }
            Change::Membership(membership) => {
                let key = (
                    membership.organization_id.clone(),
                    membership.user_id.clone(),
                );
                self.memberships.insert(key, (membership, Mark::Seen));
            }
            Change::MembershipDeleted(deleted) => {
                self.memberships
                    .remove(&(deleted.organization_id, deleted.user_id));
            }
            Change::SnapshotComplete(_) => {
                self.users.retain(|_, (_, mark)| *mark == Mark::Seen);
                self.memberships.retain(|_, (_, mark)| *mark == Mark::Seen);
                self.snapshot_is_complete = true;
            }
            Change::Heartbeat(_) => {}
        }
        self.token = message.resume_token;
    }

    /// Goes on behind its token and takes messages until `enough`.
    async fn follow(&mut self, service: &Service, mut enough: impl FnMut(&Self) -> bool) {
        let following = async {
            let mut stream = service.open(behind(&self.token)).await.expect("it opens");
            while !enough(self) {
                self.take(next(&mut stream).await.expect("the watch goes on"));
            }
        };
        timeout(PATIENCE, following).await.expect("it is enough");
    }

    /// Whether it has come to the change of this user.
    fn has_reached(&self, user: &str) -> bool {
        self.last_changed.as_deref() == Some(user)
    }

    fn names(&self) -> BTreeMap<String, String> {
        let users = self.users.values();
        users
            .map(|(user, _)| (user.id.clone(), user.first_name.clone()))
            .collect()
    }

    fn roles(&self) -> BTreeMap<(String, String), String> {
        let all = self.memberships.iter();
        all.map(|(key, (it, _))| (key.clone(), it.role.clone()))
            .collect()
    }
}

/// What the mirror has: the first name of each user that is there.
async fn names_in(database: &Database) -> BTreeMap<String, String> {
    let page = database.store.users_after(&database.instance, None, 10_000);
    let users = page.await.expect("answered").into_iter();
    users
        .map(|seen| {
            let user = seen.value;
            let name = user.first_name.map(String::from).unwrap_or_default();
            (user.id.as_str().to_owned(), name)
        })
        .collect()
}

async fn roles_in(database: &Database) -> BTreeMap<(String, String), String> {
    let page = database
        .store
        .memberships_after(&database.instance, None, 10_000);
    let memberships = page.await.expect("answered").into_iter();
    memberships
        .map(|seen| {
            let it = seen.value.membership;
            let organization = it.organization.id.as_str().to_owned();
            (
                (organization, it.user_id.as_str().to_owned()),
                it.role.into(),
            )
        })
        .collect()
}

/// A user's name in the mirror; for asserting on the database itself.
async fn is_there(database: &Database, user: &str) -> bool {
    let id = user_id(user);
    let found = database
        .store
        .user(&database.instance, UserKey::Id(&id))
        .await;
    found.expect("answered").is_some()
}

fn user_deleted(user: &str, at: i64) -> Fact {
    Fact::Deleted {
        entity: Entity::User(user_id(user)),
        at: ms(at),
    }
}

fn organization_deleted(organization: &str, at: i64) -> Fact {
    Fact::Deleted {
        entity: Entity::Organization(organization_id(organization)),
        at: ms(at),
    }
}

fn membership_deleted(organization: &str, user: &str, at: i64) -> Fact {
    Fact::Deleted {
        entity: Entity::Membership(organization_id(organization), user_id(user)),
        at: ms(at),
    }
}

/// Long after everything that was recorded.
fn much_later() -> Timestamp {
    ms(4_000_000_000_000)
}

fn a_moment() -> Duration {
    Duration::from_millis(200)
}
