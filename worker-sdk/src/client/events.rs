//! Events: publishing them, and reading the log.

use std::time::Duration;

use backstitch_saga::Span;
use backstitch_saga::protocol::{
    EventPage, EventReceipt, EventView, EventsPublished, NewEvent, PublishEvents, SubscriptionSpec,
    SubscriptionView,
};
use reqwest::Method;
use uuid::Uuid;

use super::{ANSWER_WITHIN, Client, ClientError, read};

impl Client {
    /// Appends events to the log: all of them or none.
    ///
    /// # Errors
    /// A problem `stream_version_conflict` with `actual_version`, `event_id_reused`, `invalid_event`.
    pub async fn publish(
        &self,
        events: impl IntoIterator<Item: Into<NewEvent>>,
    ) -> Result<Vec<EventReceipt>, ClientError> {
        let path = self.place(&["events"]);
        let events = events.into_iter().map(Into::into).collect();
        let told: EventsPublished = self.send_act(&path, &PublishEvents { events }).await?;
        Ok(told.events)
    }

    /// Reads events after a position, and waits for the first as long as `wait` when there is none.
    ///
    /// # Errors
    /// A problem `position_past_retention` with `oldest_position`.
    pub async fn events_after(
        &self,
        position: u64,
        limit: u32,
        wait: Duration,
    ) -> Result<EventPage, ClientError> {
        let path = self.place(&["events"]);
        let query = [
            ("after", position.to_string()),
            ("limit", limit.to_string()),
            ("wait", Span::from(wait).to_string()),
        ];
        let request = self.get(&path)?.query(&query).timeout(ANSWER_WITHIN + wait);
        read(self.send(request).await?)
    }

    /// Finds an event.
    ///
    /// # Errors
    /// A problem `unknown_event`.
    pub async fn event(&self, id: Uuid) -> Result<EventView, ClientError> {
        self.read_from(&self.place(&["events", &id.to_string()])).await
    }

    /// Creates a subscription, or changes what it does.
    ///
    /// # Errors
    /// A problem `invalid_subscription`.
    pub async fn put_subscription(
        &self,
        name: &str,
        spec: &SubscriptionSpec,
    ) -> Result<SubscriptionView, ClientError> {
        let path = self.place(&["subscriptions", name]);
        read(self.send(self.request(Method::PUT, &path)?.json(spec)).await?)
    }

    /// Finds a subscription.
    ///
    /// # Errors
    /// A problem `unknown_subscription`.
    pub async fn subscription(&self, name: &str) -> Result<SubscriptionView, ClientError> {
        self.read_from(&self.place(&["subscriptions", name])).await
    }
}
