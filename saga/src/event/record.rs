//! One record of a journal: events and their documents.

use super::Event;
use crate::{Payload, Time};

/// One record of a run's journal: what one batch of commands decided about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// When it was decided, by the database's clock; never earlier than the record before.
    pub at: Time,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// The documents that the events refer to.
    pub payloads: Vec<Payload>,
}
