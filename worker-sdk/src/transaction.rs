//! Requests of an application in a database transaction of its own: a statement and its parameters, for any driver.
//!
//! This crate speaks to no database. The functions that the statements call come with the server's schema.

use std::collections::BTreeMap;

use backstitch_saga::protocol::TaskOffer;
use backstitch_saga::{Payload, RunId, TaskKey, Timestamp};
use serde::Serialize;

use crate::Workflow;
use crate::codec::{self, Codec, CodecError};

/// An event that is appended in a transaction of the application's own: it is in the log if, and only if, the
/// transaction commits. The role of the application must be allowed to execute `backstitch.append_event`.
///
/// All parameters are texts or null, as those of [`StartInTransaction`].
#[derive(Clone, Debug)]
pub struct AppendInTransaction {
    event_type: String,
    data: Payload,
    namespace: String,
    stream: Option<String>,
    expected_version: Option<u64>,
    id: Option<String>,
    source: Option<String>,
    causation_id: Option<String>,
    labels: BTreeMap<String, String>,
    contract: Option<String>,
}

impl AppendInTransaction {
    /// The statement. It answers one row with one column, the event's id as a `uuid`.
    pub const SQL: &'static str = "select backstitch.append_event(type => $1::text, data => $2::text::jsonb, \
        stream => $3::text, expected_version => $4::text::bigint, id => $5::text, source => $6::text, \
        namespace => $7::text, causation_id => $8::text, labels => $9::text::jsonb, contract => $10::text)";

    /// Returns an event of this type, in the namespace `default`.
    ///
    /// # Errors
    /// When the data has no JSON form.
    pub fn of(
        event_type: impl Into<String>,
        data: &impl Serialize,
    ) -> Result<AppendInTransaction, serde_json::Error> {
        Ok(AppendInTransaction {
            event_type: event_type.into(),
            data: Payload::of(data)?,
            namespace: "default".to_owned(),
            stream: None,
            expected_version: None,
            id: None,
            source: None,
            causation_id: None,
            labels: BTreeMap::new(),
            contract: None,
        })
    }

    /// Sets the contract that the data follow, such as `customer@2`.
    #[must_use]
    pub fn contract(mut self, contract: impl Into<String>) -> Self {
        self.contract = Some(contract.into());
        self
    }

    /// Sets the stream, such as `customer:42`.
    #[must_use]
    pub fn stream(mut self, stream: impl Into<String>) -> Self {
        self.stream = Some(stream.into());
        self
    }

    /// Sets the version that the stream must have before; otherwise the statement fails with BS008.
    #[must_use]
    pub fn expected_version(mut self, version: u64) -> Self {
        self.expected_version = Some(version);
        self
    }

    /// Sets the sender's own id, unique for its source: the same event is appended once.
    #[must_use]
    pub fn id(mut self, source: impl Into<String>, id: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self.id = Some(id.into());
        self
    }

    /// Sets the namespace of the event.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets the event that caused it.
    #[must_use]
    pub fn caused_by(mut self, event: impl Into<String>) -> Self {
        self.causation_id = Some(event.into());
        self
    }

    /// Adds a mark to filter by.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Returns the parameters of [`AppendInTransaction::SQL`], in order.
    #[must_use]
    pub fn parameters(&self) -> [Option<String>; 10] {
        let labels = (!self.labels.is_empty())
            .then(|| serde_json::to_string(&self.labels).unwrap_or_default());
        [
            Some(self.event_type.clone()),
            Some(self.data.text().to_owned()),
            self.stream.clone(),
            self.expected_version.map(|version| version.to_string()),
            self.id.clone(),
            self.source.clone(),
            Some(self.namespace.clone()),
            self.causation_id.clone(),
            labels,
            self.contract.clone(),
        ]
    }
}

/// The start of a run in a transaction of the application's own: the run begins if, and only if, the transaction
/// commits.
///
/// All parameters are texts or null, so that it suits any driver. With sqlx:
///
/// ```ignore
/// let start = StartInTransaction::of(&place_order(), &order)?.key("order-10248");
/// let mut query = sqlx::query_scalar(StartInTransaction::SQL);
/// for parameter in start.parameters() {
///     query = query.bind(parameter);
/// }
/// let run: Uuid = query.fetch_one(&mut *transaction).await?;
/// transaction.commit().await?;
/// ```
#[derive(Clone, Debug)]
pub struct StartInTransaction {
    workflow: String,
    input: Payload,
    key: Option<String>,
    namespace: String,
    version: Option<u32>,
    correlation_id: Option<String>,
    labels: BTreeMap<String, String>,
}

impl StartInTransaction {
    /// The statement. It answers one row with one column, the run's id as a `uuid`.
    pub const SQL: &'static str = "select backstitch.start_run(workflow => $1::text, input => $2::text::jsonb, \
        key => $3::text, namespace => $4::text, version => $5::text::integer, correlation_id => $6::text, \
        labels => $7::text::jsonb)";

    /// Returns a start of this version of `workflow`, in the namespace `default`.
    ///
    /// # Errors
    /// When the input has no JSON form.
    pub fn of<In: Serialize, Out>(
        workflow: &Workflow<In, Out>,
        input: &In,
    ) -> Result<StartInTransaction, serde_json::Error> {
        let start = StartInTransaction::named(workflow.name(), input)?;
        Ok(StartInTransaction { version: Some(workflow.version()), ..start })
    }

    /// Returns a start of a workflow known by its name only; of the newest version that the server knows.
    ///
    /// # Errors
    /// When the input has no JSON form.
    pub fn named(
        workflow: &str,
        input: &impl Serialize,
    ) -> Result<StartInTransaction, serde_json::Error> {
        Ok(StartInTransaction {
            workflow: workflow.to_owned(),
            input: Payload::of(input)?,
            key: None,
            namespace: "default".to_owned(),
            version: None,
            correlation_id: None,
            labels: BTreeMap::new(),
        })
    }

    /// Sends the input as `codec` makes it. To be called after [`StartInTransaction::key`].
    ///
    /// # Errors
    /// A [`CodecError`].
    pub fn codec(mut self, codec: &impl Codec) -> Result<StartInTransaction, CodecError> {
        let context = codec::of_start(&self.workflow, self.key.as_deref());
        self.input = codec.encode(&self.input, &context)?;
        Ok(self)
    }

    /// Sets the caller's own key: one run per workflow and key, however often it is asked for.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the namespace of the run.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets the correlation id, constant along a chain of causes; the run's own id without it.
    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Adds a mark to search by.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Starts the run at a later instant, at most a year ahead: the run exists with the commit, and waits. Uses a
    /// statement of its own, [`StartLaterInTransaction::SQL`].
    #[must_use]
    pub fn start_at(self, at: Timestamp) -> StartLaterInTransaction {
        StartLaterInTransaction { start: self, at }
    }

    /// Returns the parameters of [`StartInTransaction::SQL`], in order.
    #[must_use]
    pub fn parameters(&self) -> [Option<String>; 7] {
        // An object of texts always has a JSON form.
        let labels = Some(&self.labels).filter(|labels| !labels.is_empty());
        let labels = labels.and_then(|labels| serde_json::to_string(labels).ok());
        [
            Some(self.workflow.clone()),
            Some(self.input.text().to_owned()),
            self.key.clone(),
            Some(self.namespace.clone()),
            self.version.map(|version| version.to_string()),
            self.correlation_id.clone(),
            labels,
        ]
    }
}

/// The start of a run at a later instant, in a transaction of the application's own; made by
/// [`StartInTransaction::start_at`]. The role of the application must be allowed to execute `backstitch.start_run_at`.
///
/// ```ignore
/// let later = StartInTransaction::of(&place_order(), &order)?.key("order-10248").start_at(instant);
/// let mut query = sqlx::query_scalar(StartLaterInTransaction::SQL);
/// for parameter in later.parameters() {
///     query = query.bind(parameter);
/// }
/// let run: Uuid = query.fetch_one(&mut *transaction).await?;
/// ```
#[derive(Clone, Debug)]
pub struct StartLaterInTransaction {
    start: StartInTransaction,
    at: Timestamp,
}

impl StartLaterInTransaction {
    /// The statement. It answers one row with one column, the run's id as a `uuid`.
    pub const SQL: &'static str = "select backstitch.start_run_at(workflow => $1::text, input => $2::text::jsonb, \
        key => $3::text, namespace => $4::text, version => $5::text::integer, correlation_id => $6::text, \
        labels => $7::text::jsonb, start_at => $8::text::timestamptz)";

    /// Returns the parameters of [`StartLaterInTransaction::SQL`], in order.
    #[must_use]
    pub fn parameters(&self) -> [Option<String>; 8] {
        let [workflow, input, key, namespace, version, correlation_id, labels] =
            self.start.parameters();
        let at = Some(self.at.0.to_string());
        [workflow, input, key, namespace, version, correlation_id, labels, at]
    }
}

/// The completion of a task in a transaction of the worker: the handler's rows and the step's success are committed
/// together, or not at all. For tasks of steps with [`Step::transactional`](crate::Step::transactional).
///
/// The handler commits and then returns the same output as always. If the worker dies after the commit, the server
/// finds the completion by itself. The statement fails with the code `BS001` when the attempt is not the worker's any
/// more (roll back and return), and with `BS002` when it was completed before (the answer to that commit was lost).
#[derive(Clone, Debug)]
pub struct CompleteInTransaction {
    task: TaskKey,
    run: RunId,
    output: Payload,
    external_id: Option<String>,
    lease: Option<String>,
}

impl CompleteInTransaction {
    /// The statement. It answers one row with nothing of interest.
    pub const SQL: &'static str = "select backstitch.complete_task(run => $1::text::uuid, step => $2::text, \
        action => $3::text, attempt => $4::text::integer, output => $5::text::jsonb, external_id => $6::text, \
        lease => $7::text)";

    /// Returns the completion of the task that was offered. Handlers get theirs from
    /// [`TaskContext::completion`](crate::TaskContext::completion).
    ///
    /// # Errors
    /// When the output has no JSON form.
    pub fn of(
        offer: &TaskOffer,
        output: &impl Serialize,
    ) -> Result<CompleteInTransaction, serde_json::Error> {
        let (step, action, attempt) = (offer.step.clone(), offer.action, offer.attempt);
        let task = TaskKey { step, action, attempt };
        Ok(CompleteInTransaction {
            task,
            run: offer.run,
            output: Payload::of(output)?,
            external_id: None,
            lease: offer.lease.clone(),
        })
    }

    /// Names what the target calls the thing that was made.
    #[must_use]
    pub fn external_id(mut self, id: Option<String>) -> Self {
        self.external_id = id;
        self
    }

    /// Returns the parameters of [`CompleteInTransaction::SQL`], in order.
    #[must_use]
    pub fn parameters(&self) -> [Option<String>; 7] {
        [
            Some(self.run.to_string()),
            Some(self.task.step.to_string()),
            Some(self.task.action.as_str().to_owned()),
            Some(self.task.attempt.to_string()),
            Some(self.output.text().to_owned()),
            self.external_id.clone(),
            self.lease.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_its_place() {
        let start = StartInTransaction::named("buy", &[1]).unwrap().key("k").label("shop", "north");
        let texts = ["buy", "[1]", "k", "default", "", "", r#"{"shop":"north"}"#];
        let expected = texts.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
        assert_eq!(start.parameters(), expected);
        for number in 1..=7 {
            assert!(StartInTransaction::SQL.contains(&format!("${number}::text")));
        }
        let later = start.start_at("2026-03-01T08:00:00Z".parse().unwrap());
        assert_eq!(later.parameters()[7].as_deref(), Some("2026-03-01T08:00:00.000Z"));
        assert!(StartLaterInTransaction::SQL.contains("$8::text"));
        let completion = crate::TaskContext::for_test().completion(&"done").unwrap();
        let told = completion.external_id(Some("p-81".to_owned())).parameters();
        let told: Vec<&str> = told.iter().flatten().map(String::as_str).skip(1).collect();
        assert_eq!(told, ["test", "forward", "1", "\"done\"", "p-81"]);
    }
}
