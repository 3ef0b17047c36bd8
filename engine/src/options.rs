//! Options of a node.

use std::time::Duration;

use backstitch_saga::Limits;

/// Options of a node.
#[derive(Clone, Debug)]
pub struct Options {
    /// `postgres://…`
    pub database_url: String,
    /// Time for which a start waits for a PostgreSQL that is starting, full or unreachable; none by default.
    pub database_wait: Duration,
    /// A name for people; the host's name and process id by default.
    pub node_name: String,
    /// Number of commands that may wait before new ones are answered [`crate::Error::Busy`].
    pub queue_limit: usize,
    /// The largest input, output or error detail, in bytes; also the largest document that an expression may put
    /// together for a step ([`Limits::built`]).
    pub payload_limit: usize,
    /// Number of runs that may descend from one: its children, theirs, and so on.
    pub descendant_limit: u32,
    /// Highest quotas of namespaces.
    pub ceilings: crate::Ceilings,
    /// Other bounds of the documents inside a run.
    pub limits: Limits,
    /// Time for which ended runs are kept; for ever without it.
    pub retention: Option<Duration>,
    /// Time for which responses to requests with an `Idempotency-Key` are kept at least.
    pub idempotency_retention: Duration,
    /// Clients may encrypt values of documents: those are held to no schema.
    pub encrypted_payloads: bool,
    /// Settings that rarely need a change.
    pub tuning: Tuning,
}

impl Options {
    /// Returns the defaults against `database_url`.
    #[must_use]
    pub fn new(database_url: impl Into<String>) -> Options {
        Options {
            database_url: database_url.into(),
            database_wait: Duration::ZERO,
            node_name: format!("{}-{}", host_name(), std::process::id()),
            queue_limit: 20_000,
            payload_limit: 256 * 1024,
            descendant_limit: backstitch_saga::MOST_DESCENDANTS,
            ceilings: crate::Ceilings::default(),
            limits: Limits::default(),
            retention: None,
            idempotency_retention: Duration::from_secs(7 * 86_400),
            encrypted_payloads: false,
            tuning: Tuning::default(),
        }
    }

    /// Returns the bounds of the documents inside a run.
    pub(crate) fn run_limits(&self) -> Limits {
        Limits { built: self.payload_limit, ..self.limits }
    }
}

fn host_name() -> String {
    let file = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let variable = || std::env::var("HOSTNAME").ok();
    let name = file.or_else(variable).map(|name| name.trim().to_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "node".to_owned())
}

/// The inner workings of a node, with defaults that suit nearly all installations. Tests change
/// them.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Number of committers that share the runs; each has a connection, and one for each of the two batches that it may
    /// write concurrently.
    pub shards: usize,
    /// The most runs of one batch.
    pub batch_runs: usize,
    /// Number of commands from which a batch is written beside another one, rather than growing until that is done.
    pub batch_beside: usize,
    /// The most commands of one batch.
    pub batch_commands: usize,
    /// The most bytes of documents that come in with one batch, roughly.
    pub batch_bytes: usize,
    /// Number of connections that readers share.
    pub readers: u32,
    /// Weight of the runs that a node keeps in memory: about one unit per event folded, 64 per run, and one for each
    /// 128 bytes of documents, so that these have 1 GiB at most.
    pub cache_weight: u64,
    /// Time after a poll for which tasks are still reserved for a worker.
    pub credit_grace: Duration,
    /// Number of offered tasks that a node remembers for workers that are busy at the moment.
    pub hint_limit: usize,
    /// Time for which a node has the first right to an offered task.
    pub reserve_for: Duration,
    /// Interval at which waiting workers make a node look for tasks that other nodes offer.
    pub ready_every: Duration,
    /// Time without a command after which a run with nothing in flight is parked.
    pub park_after: Duration,
    /// Interval at which parked runs are checked for timers that are due.
    pub wake_every: Duration,
    /// Interval of checks for starts that applications requested in their own transactions; a NOTIFY is faster.
    pub inbox_every: Duration,
    /// Interval of checks for events that have no positions yet, or that runs of other nodes emitted; those of this
    /// node are handled immediately.
    pub log_every: Duration,
    /// Interval at which schedules are checked for starts that are due.
    pub schedules_every: Duration,
    /// Interval at which a node sends its heartbeat, and checks those of others.
    pub beat_every: Duration,
    /// Time without a heartbeat after which a node counts as dead.
    pub dead_after: Duration,
    /// Time that a task must be offered before its run is shown as one without a worker.
    pub no_worker_after: Duration,
    /// Time that a statement may take before the connection is given up.
    pub statement_limit: Duration,
    /// Time for which the outcome of a batch is searched if the answer to its commit was lost.
    pub resolve_for: Duration,
    /// A journal gets its first snapshot after so many events; the default is folded in a twentieth of a second.
    pub first_snapshot: u64,
    /// Shortest duration of the check of all indexes. With `Duration::MAX` there is none.
    pub check_every: Duration,
    /// Time for which responses of the database that contradict a node's clock must agree with each other before the
    /// node follows.
    pub clock_doubt: Duration,
    /// Changes what the database's clock is taken to show. For tests, which have no other clock.
    pub database_clock: Option<fn(backstitch_saga::Time) -> backstitch_saga::Time>,
    /// Called before each decision. For tests, which need a defect now and then.
    pub before_decide: Option<fn(&backstitch_saga::Command)>,
}

impl Default for Tuning {
    fn default() -> Tuning {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Tuning {
            shards: (cores / 2).clamp(1, 2),
            batch_runs: 256,
            batch_beside: 64,
            batch_commands: 1_024,
            batch_bytes: 8 * 1024 * 1024,
            readers: 8,
            cache_weight: 8_000_000,
            credit_grace: Duration::from_secs(1),
            hint_limit: 10_000,
            reserve_for: Duration::from_secs(5),
            ready_every: Duration::from_millis(250),
            park_after: Duration::from_secs(10),
            wake_every: Duration::from_millis(250),
            inbox_every: Duration::from_millis(250),
            log_every: Duration::from_secs(1),
            schedules_every: Duration::from_millis(250),
            beat_every: Duration::from_secs(1),
            dead_after: Duration::from_secs(8),
            no_worker_after: Duration::from_secs(5),
            statement_limit: Duration::from_secs(30),
            resolve_for: Duration::from_secs(10),
            first_snapshot: 10_000,
            check_every: Duration::from_secs(20),
            clock_doubt: Duration::from_secs(60),
            database_clock: None,
            before_decide: None,
        }
    }
}

impl Tuning {
    /// Sets one of the values that matter for trials by `NAME=VALUE`: spans such as `500ms`, numbers as they are.
    /// `check_every=never` is for trials in which nothing is to heal an index.
    ///
    /// # Errors
    /// The mistake in the assignment.
    pub fn set(&mut self, assignment: &str) -> Result<(), String> {
        let (name, value) = assignment
            .split_once('=')
            .ok_or_else(|| format!("'{assignment}' is not NAME=VALUE"))?;
        let wrong = |error: &dyn std::fmt::Display| format!("{name}={value}: {error}");
        let span = || {
            let span = value.parse::<backstitch_saga::Span>();
            span.map(backstitch_saga::Span::duration).map_err(|error| wrong(&error))
        };
        let number = || value.parse::<u64>().map_err(|error| wrong(&error));
        let count = || value.parse::<usize>().map_err(|error| wrong(&error));
        match name {
            "beat_every" => self.beat_every = span()?,
            "check_every" if value == "never" => self.check_every = Duration::MAX,
            "check_every" => self.check_every = span()?,
            "clock_doubt" => self.clock_doubt = span()?,
            "credit_grace" => self.credit_grace = span()?,
            "dead_after" => self.dead_after = span()?,
            "inbox_every" => self.inbox_every = span()?,
            "log_every" => self.log_every = span()?,
            "park_after" => self.park_after = span()?,
            "reserve_for" => self.reserve_for = span()?,
            "resolve_for" => self.resolve_for = span()?,
            "statement_limit" => self.statement_limit = span()?,
            "wake_every" => self.wake_every = span()?,
            "cache_weight" => self.cache_weight = number()?,
            "first_snapshot" => self.first_snapshot = number()?,
            "hint_limit" => self.hint_limit = count()?,
            "batch_beside" => self.batch_beside = count()?,
            "shards" => self.shards = count()?,
            _ => return Err(format!("there is nothing called {name} to be tuned")),
        }
        Ok(())
    }
}
