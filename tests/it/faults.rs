//! What users see while a part is down, and how it heals: the rows of docs/operations.md, run under
//! load. Rows that other promises have already are told there, and in their own files.

mod clerk;
mod clocks;
mod database;
mod paused;
mod table;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clerk_authz::{
    door::grpc::proto::{
        CheckOrgPermissionRequest, CheckOrgPermissionResponse,
        check_org_permission_request::Subject,
    },
    emulator::{Emulator, TokenSpec, World},
    server::Limits,
    settings::Settings,
};
use tonic::{Request, Status};

use crate::support::{Fixture, about, directory::TestClock, eventually, loopback};

/// A call that takes longer has waited for what is down.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A Clerk that goes by a clock of the test.
async fn clerk_by(clock: &TestClock) -> Emulator {
    Emulator::start(World::default_world(), loopback(), clock.as_clock())
        .await
        .expect("an offline Clerk")
}

/// A service that goes by a clock of the test, on that Clerk.
async fn service_by(clock: &TestClock, clerk: Emulator, settings: &Settings) -> Arc<Fixture> {
    Arc::new(Fixture::start_under(Limits::default(), clerk, settings, clock).await)
}

impl Fixture {
    async fn may(
        &self,
        subject: Subject,
        permission: &str,
    ) -> Result<CheckOrgPermissionResponse, Status> {
        let mut request = Request::new(CheckOrgPermissionRequest {
            subject: Some(subject),
            organization_id: "org_acme".to_owned(),
            permission: Some(permission.to_owned()),
            ..Default::default()
        });
        request.set_timeout(AT_ONCE);
        let mut client = self.client.clone();
        Ok(client.check_org_permission(request).await?.into_inner())
    }
}

/// Tokens that are verified and decided about, one after the other, each of which must pass at once.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    slowest: Arc<Mutex<Duration>>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    /// Of tokens that are new by Clerk's own clock.
    fn on(fixture: &Arc<Fixture>) -> Self {
        let (stop, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let slowest = Arc::<Mutex<Duration>>::default();
        let task = tokio::spawn({
            let fixture = Arc::clone(fixture);
            let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
            let slowest = Arc::clone(&slowest);
            async move {
                while !stop.load(Relaxed) {
                    let spec = TokenSpec::session("user_alice").in_organization("org_acme");
                    let token = fixture.mint(&spec);
                    let begun = Instant::now();
                    let verified = fixture.client.clone().verify_session(about(&token)).await;
                    assert!(verified.is_ok(), "{verified:?}");
                    let allowed = fixture
                        .may(Subject::Token(token), "org:invoices:create")
                        .await;
                    assert!(allowed.as_ref().is_ok_and(|it| it.allowed), "{allowed:?}");
                    let mut slowest = slowest.lock().expect("not poisoned");
                    *slowest = slowest.max(begun.elapsed());
                    calls.fetch_add(1, Relaxed);
                }
            }
        });
        Self {
            stop,
            calls,
            slowest,
            task,
        }
    }

    /// Until some more calls were answered.
    async fn goes_on(&self, while_what: &str) {
        const MORE: u64 = 10;
        let before = self.calls.load(Relaxed);
        eventually(
            &format!("calls are answered while {while_what}"),
            || async { self.task.is_finished() || self.calls.load(Relaxed) >= before + MORE },
        )
        .await;
        assert!(!self.task.is_finished(), "a call failed while {while_what}");
    }

    /// Each of them passed, and none had to wait.
    async fn end(self) {
        self.stop.store(true, Relaxed);
        self.task.await.expect("each call passed");
        let slowest = *self.slowest.lock().expect("not poisoned");
        assert!(slowest < AT_ONCE, "the slowest took {slowest:?}");
    }
}
