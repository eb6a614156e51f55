//! The offline Clerk's webhooks: which changes are told, in Clerk's own schemas, and how they arrive.

mod delivery;
mod knobs;
mod schema;

use std::sync::Arc;

use clerk_authz::emulator::{Directory, Emulator, Instance, WebhookSettings};

use crate::support::{PATIENCE, offline_clerk, receiver::Receiver};

/// An offline Clerk and the endpoint that it tells.
struct Told {
    clerk: Emulator,
    receiver: Receiver,
    /// With the secret that was made up.
    settings: WebhookSettings,
}

impl Told {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut WebhookSettings)) -> Self {
        Self::start_on(offline_clerk().await, change).await
    }

    async fn start_on(clerk: Emulator, change: impl FnOnce(&mut WebhookSettings)) -> Self {
        let receiver = Receiver::start().await;
        let mut settings = WebhookSettings::to(receiver.url());
        settings.retry_milliseconds = vec![1; 3];
        change(&mut settings);
        let settings = clerk.instances()[0].set_webhooks(settings);
        Self {
            settings: settings.expect("good settings"),
            clerk,
            receiver,
        }
    }

    fn instance(&self) -> &Arc<Instance> {
        &self.clerk.instances()[0]
    }

    fn directory(&self) -> &Directory {
        self.instance().directory()
    }

    async fn idle(&self) {
        idle(self.instance()).await;
    }

    /// The types of the events since this was last asked.
    async fn events(&self) -> Vec<String> {
        self.idle().await;
        let types = self.receiver.event_types();
        self.receiver.forget();
        types
    }
}

async fn idle(instance: &Instance) {
    tokio::time::timeout(PATIENCE, instance.webhooks_idle())
        .await
        .expect("all messages are through");
}
