//! The engine as others see it: a node's parts behind one front.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backstitch_saga::protocol::{
    ClaimTasks, ClaimedTasks, Heartbeat, HeldTask, HistoryEntry, Page, Plan, Rehearsed, RunLine,
    RunView, Scope, StartAnswer, StartRun, StepView, TaskAnswer, TaskReport, WorkflowView,
};
use backstitch_saga::{By, Command, Graph, Reply, RunId, StepPath};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::background::{self, BackgroundTask};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::crash::commit;
use crate::definitions::{self, Definitions, Workflow};
use crate::dispatch::Dispatcher;
use crate::executor::{Shard, sessions_of};
use crate::flow::Flow;
use crate::log::Executor;
use crate::node::{Message, Node, ShardDoor};
use crate::reads::{self, waiters::Waiters};
use crate::schemas::{Schemas, check_all};
use crate::store::pool::Pool;
use crate::store::{Database, migrations, nodes, schema, wait_for_server};
use crate::{Diagnosis, Error, ItemFilter, Options, Registered, RunFilter, StartedRun, Worker};
use crate::{credentials, doctor, edits, tasks};

/// Longest time that a stopping node waits for work in progress.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// One node of the engine. Cheap to clone; all clones are the same node. If the last is dropped without
/// [`Engine::stop`], the node ends as if it had crashed.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Running>,
}

/// A node that works. Its tasks hold the node, never this.
struct Running {
    node: Arc<Node>,
    background: Vec<JoinHandle<()>>,
    shards: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.background.iter().chain(&self.shards).for_each(JoinHandle::abort);
    }
}

/// Brings the schema of `database_url` up to date. Safe to run concurrently from several places.
///
/// # Errors
/// When PostgreSQL cannot be reached or a migration fails.
pub async fn migrate(database_url: &str) -> Result<(), Error> {
    migrations::run(database_url).await
}

/// Checks a definition as registering it would; nothing is written, and no node is needed.
///
/// # Errors
/// [`Error::Invalid`] with everything wrong in it.
pub fn validate(definition: &str) -> Result<Arc<Graph>, Error> {
    let invalid = |violations| Error::Invalid { code: "invalid_definition", violations };
    let workflow = Workflow::parse(definition).map_err(invalid)?;
    let beyond = definitions::versions_beyond(&workflow.graph.definition);
    if !beyond.is_empty() {
        return Err(invalid(beyond));
    }
    let violations = check_all(&workflow.graph.definition.schemas(), |_, _| {});
    if violations.is_empty() { Ok(workflow.graph) } else { Err(invalid(violations)) }
}

impl Engine {
    /// Connects, takes its place among the nodes and begins to work. The schema must be migrated.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or the schema is not ours.
    pub async fn start(options: Options) -> Result<Engine, Error> {
        crate::numbers::begins();
        #[cfg(feature = "planted-bugs")]
        crate::planted::choose();
        let tuning = options.tuning.clone();
        let schemas = Schemas::with_envelopes(options.encrypted_payloads);
        wait_for_server(&options.database_url, options.database_wait).await?;
        let database = Database::open(&options.database_url, tuning.readers).await?;
        database.refuse_pooler().await?;
        let mut connection = database.writer().await?;
        database
            .refuse_too_few_sessions(&mut connection, sessions_of(tuning.shards.max(1)))
            .await?;
        schema::check(&mut connection, database.schema()).await?;
        let leases = crate::leases::Leases::load(&mut connection).await?;
        let id = commit!("nodes_join", nodes::join(&mut connection, &options.node_name).await)?;
        let (doors, inboxes): (Vec<_>, Vec<_>) = (0..tuning.shards.max(1))
            .map(|_| {
                let (inbox, outlet) = mpsc::unbounded_channel();
                (ShardDoor { inbox, depth: Arc::default() }, outlet)
            })
            .unzip();
        let (log, log_outlet) = crate::log::Log::new();
        let node = Arc::new(Node {
            id,
            log,
            admission: crate::admission::Admission::new(options.queue_limit),
            hearing: crate::hearing::Hearing::new(tuning.beat_every),
            dispatcher: Dispatcher::new(tuning.credit_grace, tuning.hint_limit),
            options,
            database,
            clock: Clock::new(tuning.clock_doubt),
            health: crate::health::Health::new(),
            peers: crate::peers::Peers::default(),
            counters: Counters::default(),
            definitions: Definitions::default(),
            schemas: Arc::new(schemas),
            flow: Flow::default(),
            waiters: Waiters::default(),
            boards: crate::status::Boards::default(),
            pauses: crate::pauses::Pauses::default(),
            approvals: crate::approvals::Approvals::default(),
            undo_times: crate::undo_times::UndoTimes::default(),
            leases,
            credentials: credentials::Cache::default(),
            doors: crate::ingress::Doors::default(),
            quotas: crate::quotas::Known::default(),
            roster: crate::workers::Roster::default(),
            damaged: crate::damage::Lately::default(),
            checked: crate::index_check::Progress::default(),
            retention: crate::retention::Walk::default(),
            swept: crate::sweep::Place::default(),
            last_turns: crate::rounds::LastTurns::default(),
            shards: doors,
            closing: AtomicBool::new(false),
            hungry: Notify::new(),
            asked: Notify::new(),
            heard: Arc::default(),
            sequence: crate::sequence::Jobs::default(),
            backlog: AtomicBool::new(false),
            turns: Arc::default(),
            statistics: crate::numbers::Statistics::default(),
            ends: crate::numbers::Ends::default(),
            times: crate::numbers::Times::default(),
            background: crate::numbers::Background::default(),
            forgot: AtomicBool::new(false),
        });
        crate::database_clock::begin(&node, &mut connection).await?;
        node.hearing.wrote(node.clock.now());
        crate::flow::upkeep::learn(&node, &mut connection).await?;
        drop(connection);
        crate::alone::keep(&node).await?;
        crate::quotas::learn(&node).await?;
        crate::approvals::learn(&node).await?;
        let mut shards: Vec<_> = inboxes
            .into_iter()
            .map(|inbox| tokio::spawn(Shard::new(Arc::clone(&node), inbox).run()))
            .collect();
        for executor in Executor::pair(&node, log_outlet) {
            shards.push(tokio::spawn(executor.run()));
        }
        let background = background::spawn(&node);
        tracing::info!(node = id, name = node.options.node_name, "the node works");
        Ok(Engine { inner: Arc::new(Running { node, background, shards }) })
    }

    pub(crate) fn for_background(node: &Arc<Node>) -> Engine {
        let (node, background, shards) = (Arc::clone(node), Vec::new(), Vec::new());
        Engine { inner: Arc::new(Running { node, background, shards }) }
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.inner.node
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.node().database.readers
    }

    /// Refuses new work, finishes work in progress, gives back tasks that were not handed out, and leaves the
    /// nodes.
    pub async fn stop(&self) {
        let node = self.node();
        node.closing.store(true, Ordering::Relaxed);
        self.inner.background.iter().for_each(JoinHandle::abort);
        let finish = async {
            // Twice, since what is finished may have been meant for a worker who is not waited for any more.
            for _ in 0..2 {
                background::take_back(node, true);
                self.drain().await;
            }
            let mut connection = node.database.keepers.acquire().await?;
            commit!("nodes_leave", nodes::leave(&mut connection, node.id).await)
        };
        match tokio::time::timeout(STOP_LIMIT, finish).await {
            Ok(Ok(())) => tracing::info!(node = node.id, "the node has stopped"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the node stopped without saying so; others will notice");
            }
            Err(_) => tracing::warn!(
                "the node stopped before everything was finished; others will go on with it"
            ),
        }
        self.inner.shards.iter().for_each(JoinHandle::abort);
        node.database.loaders.close().await;
        node.database.keepers.close().await;
        node.database.readers.close().await;
        node.database.listers.close().await;
        node.database.actors.close().await;
    }

    /// Waits until everything that the shards and the log have been given is done.
    async fn drain(&self) {
        self.node().log.drain().await;
        let drained = self.node().shards.iter().map(|door| {
            let (done, drained) = oneshot::channel();
            // A shard that has ended has nothing left to do.
            let _ = door.inbox.send(Message::Drain(done));
            drained
        });
        for drained in drained.collect::<Vec<_>>() {
            let _ = drained.await;
        }
    }

    /// Writes to the database, to know that it can, and looks whether the node's registration and its batches succeed.
    ///
    /// # Errors
    /// When one of them does not.
    pub async fn probe(&self) -> Result<(), Error> {
        if self.node().is_closing() {
            return Err(Error::Busy);
        }
        if let Some(trouble) = self.trouble() {
            return Err(Error::Store(trouble));
        }
        // Requests of callers are not waited for.
        let mut connection = self.node().database.gate.acquire().await?;
        Ok(commit!("nodes_probe", nodes::probe(&mut connection, self.node().id).await)?)
    }

    /// Does one of the node's own chores now, as its loop will anyway. For tests, which do not wait.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn run_once(&self, chore: BackgroundTask) -> Result<usize, Error> {
        background::once(self.node(), chore).await
    }

    /// Registers a definition under the name and version it carries.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything wrong in it; [`Error::Conflict`] when another stands there.
    pub async fn register(&self, namespace: &str, definition: &str) -> Result<Registered, Error> {
        Ok(self.register_told(namespace, definition, None).await?.0)
    }

    /// Registers a definition as [`Engine::register`] does, and returns the extent of its rehearsal; a definition
    /// that is registered already is not rehearsed again.
    ///
    /// # Errors
    /// As [`Engine::register`].
    pub async fn register_told(
        &self,
        namespace: &str,
        definition: &str,
        by: Option<&By>,
    ) -> Result<(Registered, Option<Rehearsed>), Error> {
        let node = self.node();
        let by = by.map(|by| (by, node.clock.now()));
        node.definitions.register(node, namespace, definition, by).await
    }

    /// Returns one workflow version, the newest without `version`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn workflow(
        &self,
        namespace: &str,
        name: &str,
        version: Option<u32>,
    ) -> Result<WorkflowView, Error> {
        let view = definitions::view(&self.node().database, namespace, name, version).await?;
        let retention = crate::retention::own::of(self.node(), namespace, name).await?;
        Ok(WorkflowView { retention: Some(retention), ..view })
    }

    /// Lists workflow versions without their definitions, by name and version; all versions of `name` when
    /// given.
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
        definitions::list(&self.node().database, namespace, name, after, limit).await
    }

    /// Starts a run, or finds the one that its key started.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the workflow, [`Error::Invalid`] for the input, [`Error::Conflict`] for the key.
    pub async fn start_run(&self, namespace: &str, start: StartRun) -> Result<StartedRun, Error> {
        self.start_run_as(namespace, self.node().clock.new_run(), start).await
    }

    /// Starts many runs as [`Engine::start_run`] does; each has its own result, in order.
    pub async fn start_runs(&self, namespace: &str, starts: Vec<StartRun>) -> Vec<StartAnswer> {
        let new = |start| (self.node().clock.new_run(), start);
        self.start_runs_as(namespace, starts.into_iter().map(new).collect()).await
    }

    /// Returns one run, now or as it was after record `as_of`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn run(
        &self,
        namespace: &str,
        id: RunId,
        as_of: Option<u64>,
    ) -> Result<RunView, Error> {
        reads::run(self.node(), namespace, id, as_of).await
    }

    /// Returns one run, once it has ended or `wait` is over.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn wait(&self, namespace: &str, id: RunId, wait: Duration) -> Result<RunView, Error> {
        reads::wait(self.node(), namespace, id, wait).await
    }

    /// Lists runs, newest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn runs(&self, namespace: &str, filter: RunFilter) -> Result<Page<RunLine>, Error> {
        reads::runs(self.node(), namespace, &filter).await
    }

    /// Returns the history of a run in order; `after` is the cursor of the page before.
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
        reads::history(self.node(), namespace, id, after, limit).await
    }

    /// Lists items of a map step.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn items(
        &self,
        namespace: &str,
        id: RunId,
        step: &str,
        filter: ItemFilter,
    ) -> Result<Page<StepView>, Error> {
        reads::items(self.node(), namespace, id, step, filter).await
    }

    /// Returns one step or item with all that is known of it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn step(
        &self,
        namespace: &str,
        id: RunId,
        step: &StepPath,
    ) -> Result<StepView, Error> {
        reads::step(self.node(), namespace, id, step).await
    }

    /// Returns the path of the item of a map step that has this key.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn item_with_key(
        &self,
        namespace: &str,
        id: RunId,
        step: &str,
        key: &str,
    ) -> Result<StepPath, Error> {
        reads::item_with_key(self.node(), namespace, id, step, key).await
    }

    /// Returns what compensating would do, with one page of its undos.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`].
    pub async fn plan(
        &self,
        namespace: &str,
        id: RunId,
        scope: &Scope,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Plan, Error> {
        reads::plan(self.node(), namespace, id, scope, reads::plan_page(after, limit)?).await
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
        edits::check(self.node(), namespace, id, &command).await?;
        self.node().ask(namespace, id, command).await
    }

    /// Returns tasks for a worker: those available now, or those that come within `claim.wait`.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Invalid`].
    pub async fn claim<'a>(
        &self,
        worker: impl Into<Worker<'a>>,
        claim: ClaimTasks,
    ) -> Result<ClaimedTasks, Error> {
        tasks::claim(self.node(), worker.into(), claim).await
    }

    /// Takes reports; each has its own result, in order.
    pub async fn complete<'a>(
        &self,
        worker: impl Into<Worker<'a>>,
        reports: Vec<TaskReport>,
    ) -> Vec<TaskAnswer> {
        tasks::complete(self.node(), worker.into(), reports).await
    }

    /// Takes heartbeats; each has its own result, in order.
    pub async fn heartbeat<'a>(
        &self,
        worker: impl Into<Worker<'a>>,
        beats: Vec<Heartbeat>,
    ) -> Vec<TaskAnswer> {
        tasks::heartbeat(self.node(), worker.into(), beats).await
    }

    /// Takes back tasks that a session has not begun; each has its own result, in order.
    pub async fn release<'a>(
        &self,
        worker: impl Into<Worker<'a>>,
        session: uuid::Uuid,
        held: Vec<HeldTask>,
    ) -> Vec<TaskAnswer> {
        tasks::release(self.node(), worker.into(), session, held).await
    }

    /// Ends a session of a worker. Returns the number of tasks that were ready for it, which others
    /// get now.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the session is another namespace's or another credential's.
    pub async fn sign_off<'a>(
        &self,
        worker: impl Into<Worker<'a>>,
        session: uuid::Uuid,
    ) -> Result<u32, Error> {
        tasks::sign_off(self.node(), worker.into(), session).await
    }

    /// Compares the indexes with the journals, and mends them if asked.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn doctor(&self, mend: bool) -> Result<Diagnosis, Error> {
        doctor::examine(self.node(), mend).await
    }
}
