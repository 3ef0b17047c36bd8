//! Starts runs and waits for their results.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::{Duration, Instant};

use backstitch_saga::protocol::{
    OnConflict, Outcome, Problem, Requirement, RunStarted, RunView, StartAnswer, StartAnswers,
    StartRun, StartRuns, State,
};
use backstitch_saga::{Payload, RunId, Span, Timestamp};
use reqwest::RequestBuilder;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Client, ClientError, NoResult, read};
use crate::Workflow;
use crate::client::ANSWER_WITHIN;
use crate::codec;

impl Client {
    /// Starts a run. Nothing is sent until it is awaited.
    ///
    /// ```no_run
    /// # use backstitch_sdk::{Client, Workflow};
    /// # async fn shop(client: Client, checkout: Workflow<String, String>) -> Result<(), Box<dyn std::error::Error>> {
    /// let run = client.start(&checkout, &"order 7".to_owned()).key("order-7").label("shop", "north").await?;
    /// let receipt = run.result(std::time::Duration::from_secs(30)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn start<In: Serialize, Out>(
        &self,
        workflow: &Workflow<In, Out>,
        input: &In,
    ) -> StartBuilder<Out> {
        self.start_named(workflow.name(), input).version(workflow.version())
    }

    /// Starts many runs with one request, which costs a fraction of as many requests: at most 1,000. Each has its own
    /// result, in order.
    ///
    /// ```no_run
    /// # use backstitch_sdk::{Client, ClientError, Workflow};
    /// # async fn shop(client: Client, checkout: Workflow<String, String>, orders: Vec<String>) -> Result<(), ClientError> {
    /// let starts = orders.iter().map(|order| client.start(&checkout, order).key(order.as_str()));
    /// for started in client.start_all(starts).await? {
    ///     println!("{}", started?.id());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A [`ClientError`] when the request as a whole was refused or got lost.
    pub async fn start_all<Out>(
        &self,
        starts: impl IntoIterator<Item = StartBuilder<Out>>,
    ) -> Result<Vec<Result<RunHandle<Out>, ClientError>>, ClientError> {
        let mut runs = Vec::new();
        for start in starts {
            if let Some(error) = start.unsendable {
                return Err(error.into());
            }
            if start.wait.is_some() {
                let message = "one of many starts cannot wait for its end; wait on its handle";
                return Err(ClientError::Setup(message.to_owned()));
            }
            runs.push(start.start);
        }
        for run in &mut runs {
            run.input = self.encode_input(run, run.input.clone())?;
        }
        let expected = runs.len();
        let keyed = runs.iter().all(|run| run.key.is_some());
        let request = self.post_start("v1/runs/batch", &StartRuns { runs }, keyed)?;
        let results = |answers: StartAnswers| answers.results;
        let answers = self.answers(request, results, expected, self.tries).await?;
        let started = answers.into_iter().map(|answer| match answer.id {
            Some(id) => Ok(RunHandle { client: self.clone(), id, view: None, output: PhantomData }),
            None => Err(refused(answer)),
        });
        Ok(started.collect())
    }

    /// Starts a run of a workflow known by its name only; the newest version unless one is named.
    pub fn start_named<In: Serialize, Out>(&self, workflow: &str, input: &In) -> StartBuilder<Out> {
        let (input, unsendable) = match Payload::of(input) {
            Ok(input) => (input, None),
            Err(error) => (Payload::null(), Some(error)),
        };
        StartBuilder {
            client: self.clone(),
            unsendable,
            wait: None,
            start: StartRun {
                workflow: workflow.to_owned(),
                version: None,
                key: None,
                input,
                correlation_id: None,
                causation_id: None,
                labels: std::collections::BTreeMap::new(),
                sequence: None,
                start_at: None,
                delay: None,
                end_by: None,
                undo_budget: None,
            },
            output: PhantomData,
        }
    }
}

impl Client {
    /// Makes a start safe to repeat: by the keys of its runs if all have one, otherwise by a key for
    /// the request.
    fn post_start(
        &self,
        path: &str,
        body: &impl Serialize,
        keyed: bool,
    ) -> Result<RequestBuilder, ClientError> {
        if keyed { self.post(path, body) } else { self.post_once(path, body) }
    }
}

impl Client {
    fn encode_input(&self, start: &StartRun, input: Payload) -> Result<Payload, ClientError> {
        let context = || codec::of_start(&start.workflow, start.key.as_deref());
        Ok(self.codec.encode(input, context)?)
    }
}

/// Returns the error of one start of many.
fn refused(answer: StartAnswer) -> ClientError {
    let code = answer.code.unwrap_or_default();
    let title = answer.message.unwrap_or_else(|| code.clone());
    let problem = Problem { status: answer.status, code, title, ..Problem::default() };
    ClientError::Problem { problem: Box::new(problem), retry_after: None }
}

/// A run about to be started. Await it.
#[must_use = "nothing is sent until it is awaited"]
pub struct StartBuilder<Out> {
    client: Client,
    unsendable: Option<serde_json::Error>,
    wait: Option<Duration>,
    start: StartRun,
    output: PhantomData<fn() -> Out>,
}

impl<Out> StartBuilder<Out> {
    /// Sets the caller's own key: one run per workflow and key, however often it is asked for, also by a caller that
    /// died in between. A start whose answer got lost is repeated safely with a key and without.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.start.key = Some(key.into());
        self
    }

    /// Adds a label to search by.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.start.labels.insert(name.into(), value.into());
        self
    }

    /// Sets the instant at which the run begins, at most a year from now. The run exists immediately, and
    /// waits.
    pub fn start_at(mut self, at: Timestamp) -> Self {
        self.start.start_at = Some(at);
        self
    }

    /// Sets the delay after the request at which the run begins; see [`StartBuilder::start_at`].
    pub fn delay(mut self, delay: Span) -> Self {
        self.start.delay = Some(delay);
        self
    }

    /// Sets the instant by which the run is to be over, its undo included: it is undone while there is time for that,
    /// as long as undoing the steps that have begun took lately.
    pub fn end_by(mut self, at: Timestamp) -> Self {
        self.start.end_by = Some(at);
        self
    }

    /// Sets the time reserved for undoing the run before [`StartBuilder::end_by`], whatever has begun.
    pub fn undo_budget(mut self, budget: Span) -> Self {
        self.start.undo_budget = Some(budget);
        self
    }

    /// Sets a serial key: at most one run proceeds with this key, across all workflows that name it; `on_conflict`
    /// sets the action if another run has it.
    pub fn serial_key(mut self, key: impl Into<String>, on_conflict: OnConflict) -> Self {
        let sequence = self.start.sequence.get_or_insert_default();
        sequence.serial_key = Some(key.into());
        sequence.on_conflict = Some(on_conflict);
        self
    }

    /// Lets the run begin only when this fact is established about `on`; it uses no attempt before.
    pub fn requires(mut self, fact: impl Into<String>, on: impl Into<String>) -> Self {
        let requirement = Requirement { fact: fact.into(), on: on.into() };
        self.start.sequence.get_or_insert_default().requires.push(requirement);
        self
    }

    /// Sets the time that it waits for its requirements before an incident opens; 24 hours by
    /// default.
    pub fn requires_within(mut self, within: Span) -> Self {
        self.start.sequence.get_or_insert_default().requires_within = Some(within);
        self
    }

    /// Sets the correlation id, constant along a chain of causes; the run's own id by default.
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.start.correlation_id = Some(id.into());
        self
    }

    /// Sets the version to run.
    pub fn version(mut self, version: u32) -> Self {
        self.start.version = Some(version);
        self
    }

    /// Waits for the end of the run in the same request, this long at most, 30 seconds at most.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(Duration::from_millis(Span::from(wait).0));
        self
    }

    async fn send(mut self) -> Result<RunHandle<Out>, ClientError> {
        if let Some(error) = self.unsendable.take() {
            return Err(error.into());
        }
        let input = self.start.input.clone();
        self.start.input = self.client.encode_input(&self.start, input.clone())?;
        let first = self.send_as_it_is().await;
        let (Some(key), Err(conflict)) = (self.start.key.clone(), &first) else { return first };
        if conflict.code() != Some("key_conflict") {
            return first;
        }
        // It may be the same input, encrypted before keys were changed.
        let context = codec::of_start(&self.start.workflow, Some(&key));
        for before in self.client.codec.encoded_before(&input, &context) {
            self.start.input = before;
            match self.send_as_it_is().await {
                Err(error) if error.code() == Some("key_conflict") => {}
                answer => return answer,
            }
        }
        first
    }

    async fn send_as_it_is(&self) -> Result<RunHandle<Out>, ClientError> {
        let request = self.client.post_start("v1/runs", &self.start, self.start.key.is_some())?;
        let client = self.client.clone();
        let Some(wait) = self.wait else {
            let RunStarted { id, .. } = read(client.send(request).await?)?;
            return Ok(RunHandle { client, id, view: None, output: PhantomData });
        };
        let request =
            request.query(&[("wait", Span::from(wait).to_string())]).timeout(wait + ANSWER_WITHIN);
        let view: RunView = client.codec.show(read(client.send(request).await?)?);
        Ok(RunHandle { client, id: view.id, view: Some(view), output: PhantomData })
    }
}

impl<Out: 'static> IntoFuture for StartBuilder<Out> {
    type Output = Result<RunHandle<Out>, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// A run that was started, with the type of its output.
#[derive(Clone, Debug)]
pub struct RunHandle<Out> {
    client: Client,
    id: RunId,
    /// The view in the response, if the request was to wait.
    view: Option<RunView>,
    output: PhantomData<fn() -> Out>,
}

impl<Out> RunHandle<Out> {
    /// Returns the run's id.
    #[must_use]
    pub fn id(&self) -> RunId {
        self.id
    }

    /// Waits until it has ended, at most this long, and returns its view then.
    ///
    /// # Errors
    /// A [`ClientError`]; that it has not ended in time is none.
    pub async fn ended(self, within: Duration) -> Result<RunView, ClientError> {
        match self.view {
            Some(view) if view.state == State::Ended => Ok(view),
            _ => self.client.wait(self.id, within).await,
        }
    }

    /// Waits for its result, at most this long.
    ///
    /// # Errors
    /// [`NoResult`], with the run's view, when it has not ended in success by then.
    pub async fn result(self, within: Duration) -> Result<Out, NoResult>
    where
        Out: DeserializeOwned,
    {
        let codec = self.client.codec.clone();
        let view = Box::new(self.ended(within).await?);
        match (view.state, view.outcome) {
            (State::Ended, Some(Outcome::Succeeded)) => {
                let output = view.output.clone().unwrap_or_else(Payload::null);
                codec.read(&output).map_err(|error| NoResult::OtherOutput(view, error))
            }
            (State::Ended, _) => Err(NoResult::NotSucceeded(view)),
            _ => Err(NoResult::NotEnded(view)),
        }
    }
}

impl Client {
    /// Waits until a run has ended, at most this long; returns its view then.
    ///
    /// # Errors
    /// A [`ClientError`]; that it has not ended in time is none.
    pub async fn wait(&self, run: RunId, within: Duration) -> Result<RunView, ClientError> {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now()).min(Duration::from_secs(20));
            let wait = Span::from(left).duration();
            let request = self
                .get(&format!("v1/runs/{run}"))?
                .query(&[("wait", Span::from(wait).to_string())])
                .timeout(wait + ANSWER_WITHIN);
            let view: RunView = self.codec.show(read(self.send(request).await?)?);
            if view.state == State::Ended || wait.is_zero() {
                return Ok(view);
            }
        }
    }
}
