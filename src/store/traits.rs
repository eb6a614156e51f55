//! The traits of `mirror`, each method on a connection of its own.

use std::{future::Future, pin::Pin};

use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{
    Engine, SqlStore, apply, contents, coordination, feed, heads, inbox, lookups::UserById,
    memberships, postgres, sightings, upkeep,
};
use crate::{
    identity::{InstanceName, MessageId, OrganizationId, OrganizationSlug, Timestamp, UserId},
    mirror::{
        Applied, Checkpoint, ClaimId, Claimed, Coordination, Effect, Entity, EntityKind, Failed,
        Feed, FeedPage, Head, Heard, Inbox, InboxEntry, InboxFilter, KnownMembership, Lease,
        Listener, Looked, MembershipKey, Mirror, MirroredMembership, MirroredOrganization,
        Position, Received, Retention, Seen, Sighting, Sightings, StoreStats, Storing, Upkeep,
        User, UserKey, Versioned,
    },
    trace::{self, SpanKind},
};

/// A part of a question's way, where that is followed.
macro_rules! traced {
    ($name:expr, $work:expr) => {
        trace::within($name, SpanKind::Client, $work)
    };
}

/// Runs one statement, or several that ask, on a connection of their own.
macro_rules! asking {
    ($store:expr, $room:ident :: $call:ident ( $($argument:expr),* )) => {
        Box::pin(traced!(concat!("store.", stringify!($call)), async move {
            let mut session = $store.reading().await?;
            $room::$call(&mut session, $($argument),*).await
        }))
    };
}

/// Runs what writes, in a transaction.
macro_rules! writing {
    ($store:expr, $room:ident :: $call:ident ( $($argument:expr),* )) => {
        Box::pin(traced!(concat!("store.", stringify!($call)), async move {
            let mut session = $store.writing().await?;
            let answer = $room::$call(&mut session, $($argument),*).await?;
            session.commit().await?;
            Ok(answer)
        }))
    };
}

impl Mirror for SqlStore {
    fn apply<'a>(
        &'a self,
        instance: &'a InstanceName,
        effect: Effect,
        now: Timestamp,
    ) -> Storing<'a, Applied> {
        Box::pin(async move {
            let applied = self.apply_all(instance, &[effect], now).await?;
            Ok(applied.into_iter().next().expect("one for each effect"))
        })
    }

    fn apply_all<'a>(
        &'a self,
        instance: &'a InstanceName,
        effects: &'a [Effect],
        now: Timestamp,
    ) -> Storing<'a, Vec<Applied>> {
        Box::pin(traced!("store.apply", async move {
            let applied = apply::apply(self.writing().await?, instance, effects, now).await?;
            let last = applied.iter().filter_map(|applied| applied.position).max();
            self.tell(instance, last);
            Ok(applied)
        }))
    }

    fn user<'a>(
        &'a self,
        instance: &'a InstanceName,
        key: UserKey<'a>,
    ) -> Storing<'a, Option<Seen<User>>> {
        match key {
            UserKey::Id(id) => {
                let asked = UserById::new(instance, id);
                Box::pin(traced!(
                    "store.find_user",
                    self.lines.users.ask(self, asked)
                ))
            }
            UserKey::ExternalId(_) | UserKey::Email(_) => {
                asking!(self, contents::find_user(instance, key))
            }
        }
    }

    fn users_after<'a>(
        &'a self,
        instance: &'a InstanceName,
        after: Option<&'a UserId>,
        limit: u32,
    ) -> Storing<'a, Vec<Seen<User>>> {
        asking!(self, contents::find_users_after(instance, after, limit))
    }

    fn users<'a>(
        &'a self,
        instance: &'a InstanceName,
        ids: &'a [UserId],
    ) -> Storing<'a, Vec<Seen<User>>> {
        asking!(self, contents::find_users(instance, ids))
    }

    fn membership<'a>(
        &'a self,
        instance: &'a InstanceName,
        organization: &'a OrganizationId,
        user: &'a UserId,
    ) -> Storing<'a, KnownMembership> {
        asking!(
            self,
            memberships::find_membership(instance, organization, user)
        )
    }

    fn memberships_of<'a>(
        &'a self,
        instance: &'a InstanceName,
        user: &'a UserId,
        after: Option<&'a OrganizationId>,
        limit: u32,
    ) -> Storing<'a, Vec<Seen<MirroredMembership>>> {
        asking!(
            self,
            memberships::find_memberships_of(instance, user, after, limit)
        )
    }

    fn memberships_after<'a>(
        &'a self,
        instance: &'a InstanceName,
        after: Option<&'a MembershipKey>,
        limit: u32,
    ) -> Storing<'a, Vec<Seen<MirroredMembership>>> {
        asking!(
            self,
            memberships::find_memberships_after(instance, after, limit)
        )
    }

    fn memberships<'a>(
        &'a self,
        instance: &'a InstanceName,
        keys: &'a [MembershipKey],
    ) -> Storing<'a, Vec<Seen<MirroredMembership>>> {
        asking!(self, memberships::find_memberships(instance, keys))
    }

    fn organization<'a>(
        &'a self,
        instance: &'a InstanceName,
        id: &'a OrganizationId,
    ) -> Storing<'a, Option<Seen<MirroredOrganization>>> {
        asking!(self, contents::find_organization(instance, id))
    }

    fn organization_by_slug<'a>(
        &'a self,
        instance: &'a InstanceName,
        slug: &'a OrganizationSlug,
    ) -> Storing<'a, Option<Seen<MirroredOrganization>>> {
        asking!(self, contents::find_organization_by_slug(instance, slug))
    }

    fn head<'a>(
        &'a self,
        instance: &'a InstanceName,
        entity: &'a Entity,
    ) -> Storing<'a, Option<Head>> {
        asking!(self, heads::load(instance, entity))
    }

    fn heads<'a>(
        &'a self,
        instance: &'a InstanceName,
        kind: EntityKind,
        after: Option<&'a Entity>,
        limit: u32,
    ) -> Storing<'a, Vec<Versioned>> {
        asking!(self, heads::page(instance, kind, after, limit))
    }

    fn to_look_up<'a>(
        &'a self,
        instance: &'a InstanceName,
        kind: EntityKind,
        limit: u32,
    ) -> Storing<'a, Vec<Entity>> {
        asking!(self, heads::to_look_up(instance, kind, limit))
    }
}

impl Feed for SqlStore {
    fn changes<'a>(
        &'a self,
        instance: &'a InstanceName,
        after: Position,
        limit: u32,
    ) -> Storing<'a, FeedPage> {
        asking!(self, feed::page(instance, after, limit))
    }

    fn newest<'a>(&'a self, instance: &'a InstanceName) -> Storing<'a, Position> {
        asking!(self, upkeep::newest(instance))
    }

    fn positions(&self) -> Storing<'_, Vec<(InstanceName, Position)>> {
        asking!(self, feed::positions())
    }

    fn position_before<'a>(
        &'a self,
        instance: &'a InstanceName,
        time: Timestamp,
    ) -> Storing<'a, Position> {
        asking!(self, feed::position_before(instance, time))
    }

    fn listen(&self) -> Storing<'_, Box<dyn Listener>> {
        Box::pin(async move {
            Ok(match &self.engine {
                Engine::Sqlite(_) => Box::new(OwnListener(self.committed.subscribe())) as _,
                Engine::Postgres(pool) => Box::new(postgres::listen(pool.clone()).await?) as _,
            })
        })
    }
}

/// Hears what this process commits. With SQLite there is no other replica; what the commands of the
/// same machine do, the feed shows.
struct OwnListener(Receiver<(InstanceName, Position)>);

impl Listener for OwnListener {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Heard> + Send + '_>> {
        Box::pin(async move {
            match self.0.recv().await {
                Ok((instance, position)) => Heard::Reached(instance, position),
                Err(RecvError::Lagged(missed)) => Heard::Lost {
                    cause: format!("{missed} changes came faster than they were heard"),
                },
                // The store is gone, and with it all that could be heard.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        })
    }
}

impl Inbox for SqlStore {
    fn receive<'a>(
        &'a self,
        instance: &'a InstanceName,
        message: Received,
        now: Timestamp,
    ) -> Storing<'a, bool> {
        let receive = inbox::Receive::new(instance, message, now);
        Box::pin(traced!(
            "store.receive",
            self.lines.receiving.ask(self, receive)
        ))
    }

    fn claim<'a>(
        &'a self,
        instance: &'a InstanceName,
        limit: u32,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Storing<'a, Vec<Claimed>> {
        writing!(self, inbox::claim(instance, limit, lease_until, now))
    }

    fn fail(&self, claim: ClaimId, failed: Failed) -> Storing<'_, ()> {
        writing!(self, inbox::fail(claim, &failed))
    }

    fn list<'a>(
        &'a self,
        instance: &'a InstanceName,
        filter: InboxFilter,
    ) -> Storing<'a, Vec<InboxEntry>> {
        asking!(self, inbox::list(instance, filter))
    }

    fn retry<'a>(
        &'a self,
        instance: &'a InstanceName,
        id: &'a MessageId,
        now: Timestamp,
    ) -> Storing<'a, bool> {
        writing!(self, inbox::retry(instance, id, now))
    }

    fn give_up<'a>(
        &'a self,
        instance: &'a InstanceName,
        id: &'a MessageId,
        now: Timestamp,
    ) -> Storing<'a, bool> {
        writing!(self, inbox::give_up(instance, id, now))
    }
}

impl Coordination for SqlStore {
    fn lease<'a>(
        &'a self,
        instance: &'a InstanceName,
        name: &'a str,
        holder: &'a str,
        until: Timestamp,
        now: Timestamp,
    ) -> Storing<'a, Option<Lease>> {
        writing!(
            self,
            coordination::lease(instance, name, holder, until, now)
        )
    }

    fn release<'a>(
        &'a self,
        instance: &'a InstanceName,
        name: &'a str,
        holder: &'a str,
    ) -> Storing<'a, ()> {
        writing!(self, coordination::release(instance, name, holder))
    }

    fn set_checkpoint<'a>(
        &'a self,
        instance: &'a InstanceName,
        name: &'a str,
        value: &'a str,
        now: Timestamp,
    ) -> Storing<'a, ()> {
        writing!(
            self,
            coordination::set_checkpoint(instance, name, value, now)
        )
    }

    fn checkpoint<'a>(
        &'a self,
        instance: &'a InstanceName,
        name: &'a str,
    ) -> Storing<'a, Option<Checkpoint>> {
        asking!(self, coordination::checkpoint(instance, name))
    }

    fn use_once<'a>(
        &'a self,
        instance: &'a InstanceName,
        id: &'a str,
        expires_at: Timestamp,
    ) -> Storing<'a, bool> {
        writing!(self, coordination::use_once(instance, id, expires_at))
    }
}

impl Sightings for SqlStore {
    fn look<'a>(
        &'a self,
        instance: &'a InstanceName,
        run: Timestamp,
        entities: &'a [Entity],
    ) -> Storing<'a, Vec<Looked>> {
        asking!(self, sightings::look(instance, run, entities))
    }

    fn note<'a>(
        &'a self,
        instance: &'a InstanceName,
        run: Timestamp,
        sightings: &'a [(Entity, Sighting)],
        checkpoint: (&'a str, &'a str),
        now: Timestamp,
    ) -> Storing<'a, ()> {
        writing!(
            self,
            sightings::note(instance, run, sightings, checkpoint, now)
        )
    }

    fn unseen<'a>(
        &'a self,
        instance: &'a InstanceName,
        run: Timestamp,
        kind: EntityKind,
        after: Option<&'a Entity>,
        limit: u32,
    ) -> Storing<'a, Vec<Versioned>> {
        asking!(self, sightings::unseen(instance, run, kind, after, limit))
    }

    fn forget_sightings<'a>(
        &'a self,
        instance: &'a InstanceName,
        keep: Option<Timestamp>,
        limit: u32,
    ) -> Storing<'a, u64> {
        writing!(self, sightings::forget_sightings(instance, keep, limit))
    }
}

impl Upkeep for SqlStore {
    fn forget<'a>(
        &'a self,
        instance: &'a InstanceName,
        retention: Retention,
        limit: u32,
        now: Timestamp,
    ) -> Storing<'a, u64> {
        Box::pin(async move {
            upkeep::forget(self.writing().await?, instance, retention, limit, now).await
        })
    }

    fn stats<'a>(&'a self, instance: &'a InstanceName) -> Storing<'a, StoreStats> {
        asking!(self, upkeep::stats(instance))
    }

    fn size_bytes(&self) -> Storing<'_, u64> {
        asking!(self, upkeep::size_bytes())
    }

    fn ping(&self) -> Storing<'_, ()> {
        asking!(self, upkeep::ping())
    }
}
