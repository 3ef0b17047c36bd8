//! Takes events to append, and answers when they are durable.

use std::sync::Arc;

use backstitch_saga::protocol::EventReceipt;
use tokio::sync::oneshot;

use super::draft::EventDraft;
use super::executor::{Ask, Message};
use super::{Log, UNIT};
use crate::admission::Place;
use crate::{Engine, Error};

/// Events of one request.
pub const MOST_EVENTS: usize = 1_000;

impl Log {
    /// Gives a request to the executor.
    ///
    /// # Errors
    /// [`Error::Busy`] when the namespace has its share of what waits.
    pub(super) fn submit(
        &self,
        namespace: &Arc<str>,
        events: Vec<EventDraft>,
    ) -> Result<oneshot::Receiver<Result<Vec<EventReceipt>, Error>>, Error> {
        let bytes: usize = events.iter().map(EventDraft::bytes).sum();
        let units = bytes / UNIT + 1;
        let account = self.admission.account(namespace);
        if !self.admission.admit(&account, units) {
            return Err(Error::Busy);
        }
        let places = (0..units).map(|_| Place::admitted(&self.depth, &account)).collect();
        let (answer, answered) = oneshot::channel();
        let ask = Ask { namespace: Arc::clone(namespace), events, bytes, answer, places };
        self.requests.send(Message::Append(ask)).map_err(|_| Error::Busy)?;
        Ok(answered)
    }
}

impl Engine {
    /// Appends events to the log of a namespace: all of them or none.
    ///
    /// # Errors
    /// [`Error::StreamVersion`]; [`Error::Conflict`] `event_id_reused`; [`Error::Invalid`] `propagation_loop`;
    /// [`Error::Busy`]; [`Error::Store`].
    pub async fn append_events(
        &self,
        namespace: &Arc<str>,
        events: Vec<EventDraft>,
    ) -> Result<Vec<EventReceipt>, Error> {
        let node = self.node();
        if node.is_closing() {
            return Err(Error::Busy);
        }
        let answered = node.log.submit(namespace, events).inspect_err(|_| {
            node.counters.turned_away.one();
        })?;
        let lost = |_| Error::Store("the log's executor is gone".to_owned());
        answered.await.map_err(lost)?
    }

    /// Returns the most bytes of the data of an event.
    #[must_use]
    pub fn event_limit(&self) -> usize {
        self.node().options.payload_limit
    }
}
