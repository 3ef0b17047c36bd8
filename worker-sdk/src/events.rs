//! Events with types: what an event is called, which contract its data follows, and which type of Rust they are.

use std::fmt;
use std::marker::PhantomData;

use backstitch_saga::protocol::{ContractVersionView, EventOp, EventView, NewEvent};
use backstitch_saga::{Payload, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::{Client, ClientError, contract_of};
use crate::transaction::AppendInTransaction;

/// The typed name of events: publishers and consumers use the same one, and so cannot disagree.
///
/// ```
/// # use backstitch_sdk::EventType;
/// #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// struct Placed { order: String }
///
/// const PLACED: EventType<Placed> = EventType::new("order.placed").contract("order-placed", 1);
/// ```
pub struct EventType<T> {
    name: &'static str,
    contract: Option<(&'static str, u32)>,
    data: PhantomData<fn() -> T>,
}

impl<T> EventType<T> {
    /// Declares events of this type, whose data follow no contract.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        EventType { name, contract: None, data: PhantomData }
    }

    /// Returns the same, whose data follow this version of a contract.
    #[must_use]
    pub const fn contract(self, subject: &'static str, version: u32) -> Self {
        EventType { name: self.name, contract: Some((subject, version)), data: PhantomData }
    }

    /// Returns the type, as in events.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    fn contract_name(&self) -> Option<String> {
        self.contract.map(|(subject, version)| format!("{subject}@{version}"))
    }
}

impl<T: JsonSchema> EventType<T> {
    /// Registers the schema of the Rust type as the version of the contract that is named. Doing it at each start of a
    /// program is right: the same schema is the same version.
    ///
    /// # Errors
    /// A problem `incompatible_schema` whose `breaks` say why; [`ClientError::Setup`] when the type names no contract,
    /// or another version than its schema is.
    pub async fn register(&self, client: &Client) -> Result<ContractVersionView, ClientError> {
        let Some((subject, version)) = self.contract else {
            return Err(ClientError::Setup(format!("'{}' names no contract", self.name)));
        };
        let contract = contract_of::<T>().map_err(ClientError::Unsendable)?;
        let registered = client.register_contract(subject, &contract).await?;
        if registered.version != version {
            let is = registered.version;
            let message = format!(
                "'{}' names {subject}@{version}, and its schema is {subject}@{is}",
                self.name
            );
            return Err(ClientError::Setup(message));
        }
        Ok(registered)
    }
}

impl<T: Serialize> EventType<T> {
    /// Returns an event with these data, to be published.
    ///
    /// # Errors
    /// When the data have no JSON form.
    pub fn event(&self, data: &T) -> Result<EventBuilder, serde_json::Error> {
        Ok(EventBuilder(NewEvent {
            event_type: self.name.to_owned(),
            id: None,
            source: None,
            stream: None,
            expected_version: None,
            contract: self.contract_name(),
            op: None,
            occurred_at: None,
            correlation_id: None,
            causation_id: None,
            traceparent: None,
            labels: Default::default(),
            data: Payload::of(data)?,
        }))
    }

    /// Returns an event with these data, to be appended in a transaction of the application's own.
    ///
    /// # Errors
    /// When the data have no JSON form.
    pub fn in_transaction(&self, data: &T) -> Result<AppendInTransaction, serde_json::Error> {
        let append = AppendInTransaction::of(self.name, data)?;
        Ok(match self.contract_name() {
            Some(contract) => append.contract(contract),
            None => append,
        })
    }
}

impl<T: DeserializeOwned> EventType<T> {
    /// Returns the data of an event; `None` when it is of another type, or was erased.
    ///
    /// # Errors
    /// When the data are no `T`.
    pub fn data_of(&self, event: &EventView) -> Option<Result<T, serde_json::Error>> {
        (event.event_type == self.name && !event.erased).then(|| event.data.to())
    }
}

impl<T> Clone for EventType<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for EventType<T> {}

impl<T> fmt::Debug for EventType<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventType({})", self.name)
    }
}

/// An event to be published, by [`Client::publish`]. Made by [`EventType::event`].
#[derive(Clone, Debug)]
#[must_use = "it is given to `Client::publish`"]
pub struct EventBuilder(NewEvent);

impl EventBuilder {
    /// Sets the publisher's own id, unique for its source: the same event is appended once, however often it is sent.
    pub fn id(mut self, source: impl Into<String>, id: impl Into<String>) -> Self {
        (self.0.source, self.0.id) = (Some(source.into()), Some(id.into()));
        self
    }

    /// Sets the stream, such as `order:10248`.
    pub fn stream(mut self, stream: impl Into<String>) -> Self {
        self.0.stream = Some(stream.into());
        self
    }

    /// Sets the version that the stream must have before; 0 for one without events. With another one nothing of the
    /// request is appended, and the problem `stream_version_conflict` has `actual_version`.
    pub fn expected_version(mut self, version: u64) -> Self {
        self.0.expected_version = Some(version);
        self
    }

    /// Sets the operation on the entity of the stream.
    pub fn op(mut self, op: EventOp) -> Self {
        self.0.op = Some(op);
        self
    }

    /// Sets the time of the occurrence.
    pub fn occurred_at(mut self, at: Timestamp) -> Self {
        self.0.occurred_at = Some(at.0.to_string());
        self
    }

    /// Sets the event that caused it: it belongs to the same story.
    pub fn caused_by(mut self, event: &EventView) -> Self {
        self.0.causation_id = Some(event.id.to_string());
        self
    }

    /// Sets the correlation id, constant along a chain of causes.
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.0.correlation_id = Some(id.into());
        self
    }

    /// Adds a mark to filter by.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.labels.insert(name.into(), value.into());
        self
    }
}

impl From<EventBuilder> for NewEvent {
    fn from(event: EventBuilder) -> NewEvent {
        event.0
    }
}
