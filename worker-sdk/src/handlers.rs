//! Handlers: plain async functions behind typed handles, and the line between JSON and their types. A worker calls
//! them for a server, the test kit in memory; neither sees a type.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use backstitch_saga::protocol::{self, Failure, FailureKind, TaskOutcome};
use backstitch_saga::{Action, Payload};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::context::InFlight;
use crate::handle::{Probe, Task, Undo};
use crate::{CompensationContext, Forward, TaskContext, TaskError, Verdict, Workflow};

/// The methods by which handlers are registered, for whatever has a set of [`Handlers`] as its field `handlers`.
macro_rules! registers_handlers {
    () => {
        /// Adds the handler of `task`; see [`Handlers::task`](crate::Handlers::task).
        #[must_use = "it returns what has the handler"]
        pub fn task<A, B, F, Work, E>(mut self, task: crate::Task<A, B>, handler: F) -> Self
        where
            A: serde::de::DeserializeOwned + Send + 'static,
            B: serde::Serialize + Send + 'static,
            F: Fn(crate::TaskContext, A) -> Work + Send + Sync + 'static,
            Work: Future<Output = Result<B, E>> + Send + 'static,
            E: Into<crate::TaskError>,
        {
            self.handlers = self.handlers.task(task, handler);
            self
        }

        /// Undoes what the tasks of the steps that name `undo` did; see [`Handlers::undo`](crate::Handlers::undo).
        #[must_use = "it returns what has the handler"]
        pub fn undo<A, B, F, Work, E>(mut self, undo: crate::Undo<A, B>, handler: F) -> Self
        where
            A: serde::de::DeserializeOwned + Send + 'static,
            B: serde::de::DeserializeOwned + Send + 'static,
            F: Fn(crate::TaskContext, crate::CompensationContext<A, B>) -> Work
                + Send
                + Sync
                + 'static,
            Work: Future<Output = Result<(), E>> + Send + 'static,
            E: Into<crate::TaskError>,
        {
            self.handlers = self.handlers.undo(undo, handler);
            self
        }

        /// Finds out whether an attempt in doubt happened; see [`Handlers::probe`](crate::Handlers::probe).
        #[must_use = "it returns what has the handler"]
        pub fn probe<A, B, F, Work, E>(mut self, probe: crate::Probe<A, B>, handler: F) -> Self
        where
            A: serde::de::DeserializeOwned + Send + 'static,
            B: serde::Serialize + Send + Sync + 'static,
            F: Fn(crate::TaskContext, A) -> Work + Send + Sync + 'static,
            Work: Future<Output = Result<crate::Verdict<B>, E>> + Send + 'static,
            E: Into<crate::TaskError>,
        {
            self.handlers = self.handlers.probe(probe, handler);
            self
        }

        /// Adds a whole set of handlers, such as one that worker and tests share.
        #[must_use = "it returns what has the handler"]
        pub fn handlers(mut self, handlers: crate::Handlers) -> Self {
            self.handlers = self.handlers.and(handlers);
            self
        }
    };
}
pub(crate) use registers_handlers;

type Call = dyn Fn(Arc<InFlight>) -> BoxFuture<'static, TaskOutcome> + Send + Sync;

/// A set of handlers. Registering a handle again replaces its function.
#[derive(Clone, Default)]
pub struct Handlers {
    calls: HashMap<(Action, &'static str, &'static str), Arc<Call>>,
}

impl Handlers {
    /// Returns an empty set of handlers.
    #[must_use]
    pub fn new() -> Handlers {
        Handlers::default()
    }

    /// Adds the handler of `task`.
    #[must_use]
    pub fn task<In, Out, F, Work, E>(mut self, task: Task<In, Out>, handler: F) -> Handlers
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + Send + 'static,
        F: Fn(TaskContext, In) -> Work + Send + Sync + 'static,
        Work: Future<Output = Result<Out, E>> + Send + 'static,
        E: Into<TaskError>,
    {
        let handler = Arc::new(handler);
        let call = move |task: Arc<InFlight>| {
            let handler = Arc::clone(&handler);
            async move {
                let input = read(&task, &task.offer.input, "input")?;
                let output = handler(TaskContext::new(Arc::clone(&task)), input).await;
                succeeded(&task, &output.map_err(|error| error.into().into_failure())?)
            }
        };
        self.add(Action::Forward, task.queue_name(), task.name(), call);
        self
    }

    /// Undoes what the tasks of the steps that name `undo` did.
    #[must_use]
    pub fn undo<In, Out, F, Work, E>(mut self, undo: Undo<In, Out>, handler: F) -> Handlers
    where
        In: DeserializeOwned + Send + 'static,
        Out: DeserializeOwned + Send + 'static,
        F: Fn(TaskContext, CompensationContext<In, Out>) -> Work + Send + Sync + 'static,
        Work: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError>,
    {
        let handler = Arc::new(handler);
        let call = move |task: Arc<InFlight>| {
            let handler = Arc::clone(&handler);
            async move {
                let undoing = CompensationContext {
                    input: read(&task, &task.offer.input, "input")?,
                    forward: match &task.offer.forward {
                        Some(protocol::Forward::Succeeded(output)) => {
                            Forward::Succeeded(read(&task, output, "output")?)
                        }
                        Some(protocol::Forward::Unknown) | None => Forward::Unknown,
                    },
                    forward_key: task.offer.forward_key.unwrap_or(task.offer.effect_key),
                };
                let undone = handler(TaskContext::new(Arc::clone(&task)), undoing).await;
                succeeded(&task, &undone.map_err(|error| error.into().into_failure())?)
            }
        };
        self.add(Action::Compensate, undo.queue_name(), undo.name(), call);
        self
    }

    /// Finds out whether an attempt in doubt happened.
    #[must_use]
    pub fn probe<In, Out, F, Work, E>(mut self, probe: Probe<In, Out>, handler: F) -> Handlers
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + Send + Sync + 'static,
        F: Fn(TaskContext, In) -> Work + Send + Sync + 'static,
        Work: Future<Output = Result<Verdict<Out>, E>> + Send + 'static,
        E: Into<TaskError>,
    {
        let handler = Arc::new(handler);
        let call = move |task: Arc<InFlight>| {
            let handler = Arc::clone(&handler);
            async move {
                let input = read(&task, &task.offer.input, "input")?;
                let verdict = handler(TaskContext::new(Arc::clone(&task)), input).await;
                let verdict = match verdict.map_err(|error| error.into().into_failure())? {
                    Verdict::Happened(output) => {
                        protocol::Verdict::Happened(write(&task, &output)?)
                    }
                    Verdict::NotHappened => protocol::Verdict::NotHappened,
                };
                let output = write_as_it_is(&verdict)?;
                Ok(TaskOutcome::Succeeded { output, external_id: task.external_id() })
            }
        };
        self.add(Action::Verify, probe.queue_name(), probe.name(), call);
        self
    }

    /// Adds all of `others`; theirs replace ours.
    #[must_use]
    pub fn and(mut self, others: Handlers) -> Handlers {
        self.calls.extend(others.calls);
        self
    }

    fn add<Work>(
        &mut self,
        action: Action,
        queue: &'static str,
        name: &'static str,
        call: impl Fn(Arc<InFlight>) -> Work + Send + Sync + 'static,
    ) where
        Work: Future<Output = Result<TaskOutcome, Failure>> + Send + 'static,
    {
        let call: Arc<Call> = Arc::new(move |task| {
            let work = call(task);
            Box::pin(async move { work.await.unwrap_or_else(TaskOutcome::Failed) })
        });
        self.calls.insert((action, queue, name), call);
    }

    /// Returns the handler names by queue, in the form of claims.
    #[must_use]
    pub fn queues(&self) -> BTreeMap<String, Vec<String>> {
        let mut queues: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (_, queue, name) in self.calls.keys() {
            queues.entry((*queue).to_owned()).or_default().push((*name).to_owned());
        }
        for names in queues.values_mut() {
            names.sort();
            names.dedup();
        }
        queues
    }

    /// Returns whether there are no handlers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Returns the handlers that a workflow needs and that are not here, such as `compensate shop/refund_card`; sorted.
    #[must_use]
    pub fn missing<In, Out>(&self, workflow: &Workflow<In, Out>) -> Vec<String> {
        let mut missing = BTreeSet::new();
        for step in &workflow.definition().steps {
            let mapped = step.map.as_ref().map(|map| &map.task);
            let Some(task) = step.task.as_ref().or(mapped) else { continue };
            let mut need = |action: Action, queue: Option<&String>, name: &str| {
                let queue = queue.unwrap_or(&task.queue);
                if !self.has(action, queue, name) {
                    let elsewhere = self.elsewhere(action, name);
                    missing.insert(format!("{} {queue}/{name}{elsewhere}", action.as_str()));
                }
            };
            need(Action::Forward, None, &task.name);
            if let Some(undo) = &task.compensate {
                need(Action::Compensate, undo.queue.as_ref(), &undo.name);
            }
            if let Some(verify) = &task.verify {
                need(Action::Verify, verify.queue.as_ref(), &verify.name);
            }
        }
        missing.into_iter().collect()
    }

    /// Says on which other queues there is a handler of that name: a queue is soon forgotten in one of two places.
    fn elsewhere(&self, action: Action, name: &str) -> String {
        let same = |(of, _, known): &&(Action, &str, &str)| *of == action && *known == name;
        let mut queues: Vec<&str> = self.calls.keys().filter(same).map(|key| key.1).collect();
        queues.sort_unstable();
        if queues.is_empty() {
            return String::new();
        }
        format!(
            " (there is one on the queue {}: `.queue(..)` of the handles differs)",
            queues.join(", ")
        )
    }

    /// Returns whether there is a handler for this.
    pub(crate) fn has(&self, action: Action, queue: &str, name: &str) -> bool {
        self.calls.contains_key(&(action, queue, name))
    }

    /// Does one task. A panic is caught and becomes a failure of unknown effect, `panic`: the progress of the
    /// handler is unknown.
    pub(crate) async fn call(&self, task: Arc<InFlight>) -> TaskOutcome {
        let offer = &task.offer;
        let Some(call) = self.calls.get(&(offer.action, offer.queue.as_str(), offer.name.as_str()))
        else {
            return TaskOutcome::Failed(failure(
                FailureKind::Retryable,
                "unknown_handler",
                format!("this worker has no {} handler `{}`", offer.action.as_str(), offer.name),
            ));
        };
        let work = AssertUnwindSafe(async { call(Arc::clone(&task)).await });
        match work.catch_unwind().await {
            Ok(outcome) => encode_details(&task, outcome),
            Err(panic) => TaskOutcome::Failed(failure(
                FailureKind::Unknown,
                "panic",
                format!("the handler panicked: {}", panic_message(&*panic)),
            )),
        }
    }
}

fn failure(kind: FailureKind, code: &str, message: String) -> Failure {
    Failure { kind, code: code.to_owned(), message, details: None, retry_after: None }
}

/// Reads a document for a handler. One that does not fit will not fit the next time either; one that cannot be decoded
/// here another worker may decode.
fn read<T: DeserializeOwned>(
    task: &InFlight,
    document: &Payload,
    what: &str,
) -> Result<T, Failure> {
    let document = task.codec.decode(document);
    let document = document.map_err(|error| codec::failed(FailureKind::Retryable, &error))?;
    document.to().map_err(|_| {
        let mut reader = serde_json::Deserializer::from_str(document.text());
        let why = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
            Err(error) => error.to_string(),
            Ok(_) => "it has trailing characters".to_owned(),
        };
        let type_name = std::any::type_name::<T>();
        failure(
            FailureKind::Permanent,
            &format!("undecodable_{what}"),
            format!("the {what} is not a `{type_name}`: {why}"),
        )
    })
}

/// Encodes the output of a handler. If that fails, its effect remains all the same.
fn write<T: Serialize>(task: &InFlight, output: &T) -> Result<Payload, Failure> {
    let encoded = task.codec.encode(write_as_it_is(output)?, || codec::of_task(&task.offer));
    encoded.map_err(|error| codec::failed(FailureKind::Unknown, &error))
}

fn write_as_it_is<T: Serialize>(output: &T) -> Result<Payload, Failure> {
    Payload::of(output).map_err(|error| {
        failure(
            FailureKind::Unknown,
            UNENCODABLE,
            format!("the handler's output has no JSON: {error}"),
        )
    })
}

fn succeeded<T: Serialize>(task: &InFlight, output: &T) -> Result<TaskOutcome, Failure> {
    match write(task, output) {
        Ok(output) => Ok(TaskOutcome::Succeeded { output, external_id: task.external_id() }),
        // The same would come again, and the work was done.
        Err(Failure { code, message, .. }) if code == UNENCODABLE => {
            Ok(TaskOutcome::DoneWithoutOutput { code, message })
        }
        Err(failure) => Err(failure),
    }
}

/// The code of an output that has no JSON.
const UNENCODABLE: &str = "unencodable_output";

/// Encodes the details of a failure. If that fails they are left out: the failure counts.
fn encode_details(task: &InFlight, outcome: TaskOutcome) -> TaskOutcome {
    match outcome {
        TaskOutcome::Failed(mut failure) => {
            let context = || format!("{}\ndetails", codec::of_task(&task.offer));
            failure.details =
                failure.details.and_then(|details| task.codec.encode(details, context).ok());
            TaskOutcome::Failed(failure)
        }
        outcome => outcome,
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
