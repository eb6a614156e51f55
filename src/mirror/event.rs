use std::fmt;

use thiserror::Error;

use super::Fact;
use crate::{identity::Timestamp, webhook::Envelope};

/// Reads what an event says of Clerk's world. The shapes of the data are Clerk's, and known where
/// this is implemented.
pub trait EventReader: fmt::Debug + Send + Sync + 'static {
    /// What an event is about, from its type and its ids alone.
    fn concern(&self, envelope: &Envelope) -> Concern;

    /// What it says, in order. `received_at` stands for the event's time where it has none.
    fn facts(
        &self,
        envelope: &Envelope,
        received_at: Timestamp,
    ) -> Result<Vec<Fact>, UnreadableEvent>;
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concern {
    /// Nothing that is mirrored: its data need not be kept.
    Nothing,
    /// Something that has no order with other events, or whose id cannot be read.
    Anything,
    /// This entity: events about it are applied one after the other.
    Entity(Box<str>),
}

/// An event whose data is not of its type's shape. Trying again does not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the event's data cannot be read: {cause}")]
pub struct UnreadableEvent {
    /// Which member is wrong and how; nothing of what it holds.
    pub cause: Box<str>,
}
