//! The inboxes of the settings' instances, each with its running worker; replaced by reload.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    settings::{InstanceSettings, Problem},
    sync::{Inbox, Inboxes},
    webhook::SigningSecret,
};

/// Makes inboxes from settings. One that did not change stays the very same.
pub(super) struct InboxSet {
    inboxes: Arc<Inboxes>,
    stop: CancellationToken,
    tasks: TaskTracker,
    members: Vec<Member>,
}

#[derive(Clone)]
pub(super) struct Member {
    settings: InstanceSettings,
    inbox: Arc<Inbox>,
    /// Ends its worker.
    stop: CancellationToken,
}

impl InboxSet {
    pub(super) fn new(inboxes: Arc<Inboxes>, stop: CancellationToken, tasks: TaskTracker) -> Self {
        Self {
            inboxes,
            stop,
            tasks,
            members: Vec::new(),
        }
    }

    /// What `wanted` says; changes nothing yet.
    pub(super) fn prepare(&self, wanted: &[InstanceSettings]) -> Result<Vec<Member>, Problem> {
        let member = |settings: &InstanceSettings| {
            let mut members = self.members.iter();
            match members.find(|member| member.settings.same_webhooks(settings)) {
                Some(same) => Ok(same.clone()),
                None => self.member(settings),
            }
        };
        wanted.iter().map(member).collect()
    }

    fn member(&self, settings: &InstanceSettings) -> Result<Member, Problem> {
        let name = &settings.name;
        let secrets = settings.webhook_secrets.iter().map(SigningSecret::parse);
        let secrets = secrets.collect::<Result<Vec<_>, _>>().map_err(|error| {
            Problem::new(
                "CLERK_WEBHOOK_SIGNING_SECRET",
                format!("of instance \"{name}\" cannot be used: {error}"),
            )
        })?;
        Ok(Member {
            settings: settings.clone(),
            inbox: Arc::new(Inbox::new(name.clone(), secrets)),
            stop: self.stop.child_token(),
        })
    }

    /// Makes the set what was prepared. A worker that is replaced finishes what it has.
    pub(super) fn put(&mut self, members: Vec<Member>) {
        let has = |members: &[Member], inbox: &Arc<Inbox>| {
            let mut members = members.iter();
            members.any(|member| Arc::ptr_eq(&member.inbox, inbox))
        };
        for old in &self.members {
            if !has(&members, &old.inbox) {
                old.stop.cancel();
            }
        }
        for new in &members {
            if !has(&self.members, &new.inbox) {
                let inboxes = Arc::clone(&self.inboxes);
                let working = inboxes.work(Arc::clone(&new.inbox), new.stop.clone());
                self.tasks.spawn(working);
            }
        }
        self.inboxes
            .set(members.iter().map(|member| Arc::clone(&member.inbox)));
        self.members = members;
    }
}
