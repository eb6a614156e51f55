//! All of Clerk against all of the mirror, with the offline Clerk and on both engines.

mod commands;
mod cost;
mod drift;
mod lists;
mod nightly;
mod resume;
mod settling;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use clerk_authz::{
    clerk::{ApiOptions, BackendApi},
    emulator::{
        Emulator, Instance,
        directory::{Directory, Organization, User},
    },
    identity::Timestamp,
    mirror::{
        Asking, DirectoryError, Entity, EntityKind, ListPage, Listing, PageStart, WholeEntity,
    },
    sync::{ReconcileError, ReconcileJob, Reconciler, Report},
};

use crate::support::{
    database::Database,
    offline_clerk,
    twins::{at_clerk, differences, in_mirror},
};

/// A little behind everything that has happened so far: what changes while a run is going on is
/// left out of the comparison, and so much happens within one millisecond here.
const LATER: Duration = Duration::from_secs(1);

fn clock() -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
    Arc::new(|| Timestamp::from(SystemTime::now()).plus(LATER))
}

/// An offline Clerk and a database.
struct Scene {
    clerk: Emulator,
    database: Database,
    api: BackendApi,
}

impl Scene {
    async fn start(database: Database) -> Self {
        let clerk = offline_clerk().await;
        let instance = &clerk.instances()[0];
        let options = ApiOptions {
            instance: database.instance.clone(),
            url: instance.issuer().as_str().parse().expect("a URL"),
            secret_key: instance.secret_key().into(),
            budget: 100_000,
            timeout: Duration::from_secs(5),
        };
        let api = BackendApi::new(options, clock())
            .expect("an API")
            .in_background();
        Self {
            clerk,
            database,
            api,
        }
    }

    /// With a mirror that is in step.
    async fn in_step(database: Database) -> Self {
        let scene = Self::start(database).await;
        scene.reconcile(true).await;
        scene.assert_equal().await;
        scene
    }

    fn instance(&self) -> &Arc<Instance> {
        &self.clerk.instances()[0]
    }

    fn directory(&self) -> &Directory {
        self.instance().directory()
    }

    async fn reconcile(&self, apply: bool) -> Report {
        self.try_reconcile(&self.api, apply).await.expect("it ends")
    }

    async fn try_reconcile(
        &self,
        clerk: &dyn Listing,
        apply: bool,
    ) -> Result<Report, ReconcileError> {
        let job = ReconcileJob {
            instance: &self.database.instance,
            clerk,
            apply,
            holder: "test",
        };
        self.reconciler().run(&job, &|_| {}).await
    }

    fn reconciler(&self) -> Reconciler {
        Reconciler::new(Arc::new(self.database.store.clone()), clock())
    }

    async fn differences(&self) -> Vec<String> {
        differences(
            &at_clerk(self.instance()).await,
            &in_mirror(&self.database).await,
        )
    }

    async fn assert_equal(&self) {
        let differences = self.differences().await;
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }

    /// So many users, all of them in one organization.
    fn crowd(&self, count: usize) -> Vec<String> {
        let directory = self.directory();
        let crowd = directory
            .create_organization(Organization {
                id: "org_crowd".to_owned(),
                ..Organization::named("Crowd")
            })
            .expect("an organization");
        (0..count)
            .map(|number| {
                let user = User {
                    id: format!("user_crowd{number}"),
                    ..User::with_email(&format!("crowd{number}@example.com"))
                };
                let user = directory.create_user(user).expect("a user");
                directory
                    .add_member(&crowd.id, &user.id, "org:member")
                    .expect("a member");
                user.id
            })
            .collect()
    }

    async fn stop(self) {
        self.clerk.stop().await;
    }
}

type Hook = Box<
    dyn Fn(EntityKind, u64) -> Pin<Box<dyn Future<Output = Result<(), DirectoryError>> + Send>>
        + Send
        + Sync,
>;

/// Clerk's API, and something that happens each time after a page was answered and before the
/// answer is there: told the kind and how many pages of all kinds there were before.
struct Interposed {
    inner: BackendApi,
    pages: AtomicU64,
    hook: Hook,
}

impl Interposed {
    fn new<F>(
        inner: &BackendApi,
        hook: impl Fn(EntityKind, u64) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), DirectoryError>> + Send + 'static,
    {
        Self {
            inner: inner.clone(),
            pages: AtomicU64::new(0),
            hook: Box::new(move |kind, page| Box::pin(hook(kind, page))),
        }
    }

    fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Interposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interposed")
    }
}

impl Listing for Interposed {
    fn page<'a>(
        &'a self,
        kind: EntityKind,
        from: PageStart<'a>,
        patience: Duration,
    ) -> Asking<'a, Option<ListPage>> {
        Box::pin(async move {
            let answer = self.inner.page(kind, from, patience).await?;
            let before = self.pages.fetch_add(1, Ordering::Relaxed);
            (self.hook)(kind, before).await?;
            Ok(answer)
        })
    }

    fn count_users(&self, patience: Duration) -> Asking<'_, u64> {
        self.inner.count_users(patience)
    }

    fn entity<'a>(
        &'a self,
        entity: &'a Entity,
        patience: Duration,
    ) -> Asking<'a, Option<WholeEntity>> {
        self.inner.entity(entity, patience)
    }
}
