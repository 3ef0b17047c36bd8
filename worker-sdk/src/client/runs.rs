//! Looking at runs.

use std::collections::VecDeque;
use std::marker::PhantomData;

use backstitch_saga::protocol::{
    HistoryEntry, Outcome, Page, RunLine, RunTree, RunView, State, StepState, StepView, Why,
};
use backstitch_saga::{RunId, Timestamp};
use futures::Stream;
use serde::de::DeserializeOwned;

use super::{Client, ClientError, parameter, read};

/// Filter of runs, newest first.
#[derive(Clone, Debug, Default)]
pub struct RunQuery {
    parameters: Vec<(String, String)>,
}

impl RunQuery {
    /// Returns all runs.
    #[must_use]
    pub fn new() -> RunQuery {
        RunQuery::default()
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> RunQuery {
        self.parameters.push((name.to_owned(), value.into()));
        self
    }

    /// Selects only runs of this workflow.
    #[must_use]
    pub fn workflow(self, name: &str) -> RunQuery {
        self.with("workflow", name)
    }

    /// Selects only runs in this state.
    #[must_use]
    pub fn state(self, state: State) -> RunQuery {
        self.with("state", state.as_str())
    }

    /// Selects only runs with this outcome.
    #[must_use]
    pub fn outcome(self, outcome: Outcome) -> RunQuery {
        self.with("outcome", outcome.as_str())
    }

    /// Selects only runs with this key.
    #[must_use]
    pub fn key(self, key: &str) -> RunQuery {
        self.with("key", key)
    }

    /// Selects only runs with this label; several must all be there.
    #[must_use]
    pub fn label(self, name: &str, value: &str) -> RunQuery {
        self.with("label", format!("{name}:{value}"))
    }

    /// Selects only runs where this condition holds, such as `IncidentOpen`.
    #[must_use]
    pub fn condition(self, condition: &str) -> RunQuery {
        self.with("condition", condition)
    }

    /// Selects only runs with this correlation id.
    #[must_use]
    pub fn correlation_id(self, id: &str) -> RunQuery {
        self.with("correlation_id", id)
    }

    /// Selects only runs with an open incident, or without.
    #[must_use]
    pub fn incident(self, open: bool) -> RunQuery {
        self.with("incident", open.to_string())
    }

    /// Selects only runs with a step that may have happened in this system: the queue on which its tasks are
    /// offered.
    #[must_use]
    pub fn unknown_in(self, queue: &str) -> RunQuery {
        self.with("unknown_in", queue)
    }

    /// Selects only runs started at `from` or later and before `to`.
    #[must_use]
    pub fn started(self, from: Timestamp, to: Timestamp) -> RunQuery {
        self.with("started_from", from.0.to_string()).with("started_to", to.0.to_string())
    }

    /// Selects only runs ended at `from` or later and before `to`.
    #[must_use]
    pub fn ended(self, from: Timestamp, to: Timestamp) -> RunQuery {
        self.with("ended_from", from.0.to_string()).with("ended_to", to.0.to_string())
    }

    /// Sets the number of runs in a page, 1 to 1,000.
    #[must_use]
    pub fn limit(self, limit: u32) -> RunQuery {
        self.with("limit", limit.to_string())
    }
}

impl Client {
    /// Returns one run.
    ///
    /// # Errors
    /// A problem `unknown_run`.
    pub async fn run(&self, run: RunId) -> Result<RunView, ClientError> {
        let view: RunView = read(self.send(self.get(&format!("v1/runs/{run}"))?).await?)?;
        Ok(self.codec.show(view))
    }

    /// Returns one run, as it was after its record `seq`.
    ///
    /// # Errors
    /// A problem `unknown_run`.
    pub async fn run_as_of(&self, run: RunId, seq: u64) -> Result<RunView, ClientError> {
        let request = self.get(&format!("v1/runs/{run}"))?.query(&[("as_of", seq)]);
        let view: RunView = read(self.send(request).await?)?;
        Ok(self.codec.show(view))
    }

    /// Returns the whole tree of a run, from its root.
    ///
    /// # Errors
    /// A problem `unknown_run`.
    pub async fn tree(&self, run: RunId) -> Result<RunTree, ClientError> {
        self.read_from(&format!("v1/runs/{run}/tree")).await
    }

    /// Returns what a run waits for.
    ///
    /// # Errors
    /// A problem `unknown_run`.
    pub async fn why(&self, run: RunId) -> Result<Why, ClientError> {
        read(self.send(self.get(&format!("v1/runs/{run}/why"))?).await?)
    }

    /// Lists runs, newest first.
    #[must_use]
    pub fn runs(&self, query: RunQuery) -> Pages<RunLine> {
        Pages::new(self, "v1/runs".to_owned(), query.parameters)
    }

    /// Returns the history of a run, in order.
    #[must_use]
    pub fn history(&self, run: RunId) -> Pages<HistoryEntry> {
        Pages::new(self, format!("v1/runs/{run}/history"), Vec::new())
    }

    /// Returns the items of a map step, only those in `state` when given.
    #[must_use]
    pub fn items(&self, run: RunId, step: &str, state: Option<&StepState>) -> Pages<StepView> {
        let state = parameter("state", state.map(StepState::as_str));
        Pages::new(self, format!("v1/runs/{run}/steps/{step}/items"), state)
    }
}

/// A list that is read page by page, each when it is asked for.
#[derive(Clone, Debug)]
pub struct Pages<T> {
    client: Client,
    path: String,
    parameters: Vec<(String, String)>,
    next: Next,
    elements: PhantomData<fn() -> T>,
}

#[derive(Clone, Debug)]
enum Next {
    First,
    After(String),
    Done,
}

impl<T: DeserializeOwned> Pages<T> {
    pub(super) fn new(
        client: &Client,
        path: String,
        parameters: Vec<(String, String)>,
    ) -> Pages<T> {
        Pages { client: client.clone(), path, parameters, next: Next::First, elements: PhantomData }
    }

    /// Returns the next page; `None` after the last.
    ///
    /// # Errors
    /// A [`ClientError`]; asking again asks for the same page.
    pub async fn next_page(&mut self) -> Result<Option<Vec<T>>, ClientError> {
        let mut request = self.client.get(&self.path)?.query(&self.parameters);
        match &self.next {
            Next::First => {}
            Next::After(cursor) => request = request.query(&[("after", cursor)]),
            Next::Done => return Ok(None),
        }
        let page: Page<T> = read(self.client.send(request).await?)?;
        self.next = page.next.map_or(Next::Done, Next::After);
        Ok(Some(page.items))
    }

    /// Returns everything in one list.
    ///
    /// # Errors
    /// A [`ClientError`] of any page.
    pub async fn all(mut self) -> Result<Vec<T>, ClientError> {
        let mut all = Vec::new();
        while let Some(page) = self.next_page().await? {
            all.extend(page);
        }
        Ok(all)
    }

    /// Returns everything one by one; ends after the first error.
    pub fn stream(self) -> impl Stream<Item = Result<T, ClientError>> {
        futures::stream::try_unfold((self, VecDeque::new()), |(mut pages, mut page)| async {
            loop {
                if let Some(element) = page.pop_front() {
                    return Ok(Some((element, (pages, page))));
                }
                match pages.next_page().await? {
                    Some(next) => page = VecDeque::from(next),
                    None => return Ok(None),
                }
            }
        })
    }
}
