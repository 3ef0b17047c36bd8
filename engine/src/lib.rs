//! Makes the rules durable: the journal, the executor, the hand-over of tasks, the timers. The only crate that
//! knows SQL. It decides nothing about a run (that is `backstitch-saga`) and speaks no HTTP (that is `backstitch-api`).

pub mod local_postgres;

use std::time::Duration;

use backstitch_saga::protocol::{
    ClaimTasks, ClaimedTasks, Heartbeat, HistoryEntry, Outcome, Page, Plan, RunLine, RunView,
    Scope, StartRun, State, StepView, TaskAnswer, TaskReport, WorkflowView,
};
use backstitch_saga::{Command, Refusal, Reply, RunId, Violation};

/// One node of the engine. Cheap to clone; all clones are the same node.
#[derive(Clone)]
pub struct Engine {}

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// `postgres://…`
    pub database_url: String,
    /// A name for people; the host's name and process id by default.
    pub node_name: String,
    /// How many commands may wait before new ones are answered [`Error::Busy`].
    pub queue_limit: usize,
    /// The largest input, output or error detail, in bytes.
    pub payload_limit: usize,
    /// How long ended runs are kept; for ever without it.
    pub retention: Option<Duration>,
}

impl Options {
    /// The defaults against `database_url`.
    #[must_use]
    pub fn new(database_url: impl Into<String>) -> Options {
        Options {
            database_url: database_url.into(),
            node_name: format!("node-{}", std::process::id()),
            queue_limit: 20_000,
            payload_limit: 256 * 1024,
            retention: None,
        }
    }
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules refuse it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The request makes no sense; all that is wrong with it. The code is stable (`invalid_definition`, `invalid_input`, …).
    #[error("{code}: {}", violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid {
        /// Stable code.
        code: &'static str,
        /// What is wrong.
        violations: Vec<Violation>,
    },
    /// There is no such thing in this namespace. The code says what (`unknown_run`, `unknown_workflow`, …).
    #[error("{message} ({code})")]
    NotFound {
        /// Stable code.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// It contradicts what is there (`key_conflict`, `version_conflict`).
    #[error("{message} ({code})")]
    Conflict {
        /// Stable code.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// Too much waits already, or the node is stopping. Nothing was done; try again in a second.
    #[error("the engine is busy; nothing was done, try again in a second (busy)")]
    Busy,
    /// PostgreSQL failed. Whether it was done is not known, but asking again is safe.
    #[error("the database failed: {0} (store_failed)")]
    Store(String),
    /// A defect: the command was dropped and its run left as it was.
    #[error("a defect stopped this command; the run is unchanged (bug): {0}")]
    Bug(String),
}

/// Which runs to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only this workflow.
    pub workflow: Option<String>,
    /// Only in this state.
    pub state: Option<State>,
    /// Only with this outcome.
    pub outcome: Option<Outcome>,
    /// Only with this key.
    pub key: Option<String>,
    /// Only with all of these labels.
    pub labels: Vec<(String, String)>,
    /// Only where this condition holds.
    pub condition: Option<String>,
    /// The cursor of the page before.
    pub after: Option<String>,
    /// 1 to 1,000.
    pub limit: u32,
}

/// What registering a definition did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// It is new.
    Created,
    /// The same was there.
    Unchanged,
}

/// What a start request did.
#[derive(Clone, Debug)]
pub struct StartedRun {
    /// The run.
    pub id: RunId,
    /// Whether this request made it; otherwise its key had.
    pub created: bool,
}

/// What a credential may do, from most to least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Everything, including credentials.
    Admin,
    /// Acts on runs.
    Operator,
    /// Starts runs and reads.
    Starter,
    /// Claims and completes tasks, registers workflows.
    Worker,
    /// Reads.
    Viewer,
}

/// A credential, as found by its secret.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Its name, as it stands in histories.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where.
    pub namespace: String,
}

/// Numbers for `/metrics`: name, help text, whether it is a counter (else a gauge), value.
pub type Metrics = Vec<(&'static str, &'static str, bool, f64)>;

/// What `doctor` found.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// Journals read.
    pub runs_checked: u64,
    /// What the indexes say against what the journals say, a line each.
    pub differences: Vec<String>,
    /// How many of them were mended.
    pub mended: u64,
}

/// Brings the schema of `database_url` up to date. Safe to run from several places at once.
///
/// # Errors
/// When PostgreSQL cannot be reached or a migration fails.
pub async fn migrate(database_url: &str) -> Result<(), Error> {
    let _ = database_url;
    todo!()
}

impl Engine {
    /// Connects, takes its place among the nodes and begins to work. The schema must be migrated.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or the schema is not ours.
    pub async fn start(options: Options) -> Result<Engine, Error> {
        let _ = options;
        todo!()
    }

    /// Refuses what is new, finishes what is under way, gives back what was not handed out, leaves the nodes.
    pub async fn stop(&self) {
        todo!()
    }

    /// Writes to the database, to know that it can.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn probe(&self) -> Result<(), Error> {
        todo!()
    }

    /// Counters and gauges; reading them costs no query.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        todo!()
    }

    /// Registers a definition under the name and version it carries.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything wrong in it; [`Error::Conflict`] when another stands there.
    pub async fn register(&self, namespace: &str, definition: &str) -> Result<Registered, Error> {
        let _ = (namespace, definition);
        todo!()
    }

    /// One workflow version, the newest without `version`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn workflow(
        &self,
        namespace: &str,
        name: &str,
        version: Option<u32>,
    ) -> Result<WorkflowView, Error> {
        let _ = (namespace, name, version);
        todo!()
    }

    /// Workflow versions without their definitions, by name and version; all versions of `name` when given.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn workflows(
        &self,
        namespace: &str,
        name: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<WorkflowView>, Error> {
        let _ = (namespace, name, after, limit);
        todo!()
    }

    /// Starts a run, or finds the one that its key started.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the workflow, [`Error::Invalid`] for the input, [`Error::Conflict`] for the key.
    pub async fn start_run(&self, namespace: &str, start: StartRun) -> Result<StartedRun, Error> {
        let _ = (namespace, start);
        todo!()
    }

    /// One run, now or as it was after record `as_of`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn run(
        &self,
        namespace: &str,
        id: RunId,
        as_of: Option<u64>,
    ) -> Result<RunView, Error> {
        let _ = (namespace, id, as_of);
        todo!()
    }

    /// One run, once it has ended or `wait` is over.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn wait(&self, namespace: &str, id: RunId, wait: Duration) -> Result<RunView, Error> {
        let _ = (namespace, id, wait);
        todo!()
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn runs(&self, namespace: &str, filter: RunFilter) -> Result<Page<RunLine>, Error> {
        let _ = (namespace, filter);
        todo!()
    }

    /// The history of a run in order; `after` is the cursor of the page before.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn history(
        &self,
        namespace: &str,
        id: RunId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<HistoryEntry>, Error> {
        let _ = (namespace, id, after, limit);
        todo!()
    }

    /// Items of a map step.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn items(
        &self,
        namespace: &str,
        id: RunId,
        step: &str,
        state: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<StepView>, Error> {
        let _ = (namespace, id, step, state, after, limit);
        todo!()
    }

    /// What compensating would do.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`].
    pub async fn plan(
        &self,
        namespace: &str,
        id: RunId,
        scope: &Scope,
        force: bool,
    ) -> Result<Plan, Error> {
        let _ = (namespace, id, scope, force);
        todo!()
    }

    /// Asks something of a run; the answer comes after the commit.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn command(
        &self,
        namespace: &str,
        id: RunId,
        command: Command,
    ) -> Result<Reply, Error> {
        let _ = (namespace, id, command);
        todo!()
    }

    /// Tasks for a worker: what is there, or what comes within `claim.wait`.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Invalid`].
    pub async fn claim(&self, namespace: &str, claim: ClaimTasks) -> Result<ClaimedTasks, Error> {
        let _ = (namespace, claim);
        todo!()
    }

    /// Takes reports; each is answered for itself, in order.
    pub async fn complete(&self, namespace: &str, reports: Vec<TaskReport>) -> Vec<TaskAnswer> {
        let _ = (namespace, reports);
        todo!()
    }

    /// Takes signs of life; each is answered for itself, in order.
    pub async fn heartbeat(&self, namespace: &str, beats: Vec<Heartbeat>) -> Vec<TaskAnswer> {
        let _ = (namespace, beats);
        todo!()
    }

    /// Compares the indexes with the journals, and mends them if asked.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn doctor(&self, mend: bool) -> Result<Diagnosis, Error> {
        let _ = mend;
        todo!()
    }

    /// Makes a credential; the secret is returned once and stored only as its SHA-256.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name is taken.
    pub async fn create_credential(
        &self,
        namespace: &str,
        name: &str,
        role: Role,
    ) -> Result<String, Error> {
        let _ = (namespace, name, role);
        todo!()
    }

    /// Withdraws a credential.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn revoke_credential(&self, namespace: &str, name: &str) -> Result<(), Error> {
        let _ = (namespace, name);
        todo!()
    }

    /// Finds the credential with this secret; `None` when there is none or it was revoked. Cached for a few seconds.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn credential(&self, secret: &str) -> Result<Option<Credential>, Error> {
        let _ = secret;
        todo!()
    }
}
