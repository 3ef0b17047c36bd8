//! A server in memory for workers to speak to: the real rules, the real wire, no durability; and mishaps on demand.

mod http;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use backstitch_saga::protocol::{
    ClaimTasks, ClaimedTasks, CompleteTasks, HeartbeatTasks, HeldTask, Outcome, Problem,
    ReleaseTasks, RunView, SignedOff, TaskAnswer, TaskAnswers, TaskOffer, status_of,
};
use backstitch_saga::{
    Command, Graph, Payload, Refusal, Reply, Run, RunId, Start, TaskKey, Time, Transition, decide,
};
use backstitch_sdk::Client;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

/// The server, as a test sees it.
pub(crate) struct Server {
    pub(crate) client: Client,
    desk: Arc<Desk>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Desk {
    runs: Mutex<HashMap<RunId, Run>>,
    changed: Notify,
    mishaps: Mutex<VecDeque<(&'static str, Mishap)>>,
    /// Reports of one request, one number for each request.
    batches: Mutex<Vec<usize>>,
    claims: AtomicU64,
    polls: AtomicU64,
    released: AtomicU64,
    signed_off: AtomicU64,
}

/// One claim that waits.
struct Poll<'a>(&'a Desk);

impl<'a> Poll<'a> {
    fn new(desk: &'a Desk) -> Poll<'a> {
        desk.claims.fetch_add(1, Ordering::Relaxed);
        desk.polls.fetch_add(1, Ordering::Relaxed);
        desk.changed.notify_waiters();
        Poll(desk)
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        self.0.polls.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_waiters();
    }
}

/// The mishap of the next request to a path instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// It is refused with this status and does nothing.
    Refused(u16),
    /// It is done, but the connection breaks before the answer.
    AnswerLost,
    /// Each of its reports is refused with this status.
    EachRefused(u16),
}

impl Server {
    pub(crate) async fn start() -> Server {
        let desk = Arc::new(Desk::default());
        let serving = Arc::clone(&desk);
        let (url, tasks) = http::serve(move |path, body, _| {
            let desk = Arc::clone(&serving);
            async move { desk.answer(&path, &body).await }
        })
        .await;
        Server { client: Client::new(&url).unwrap(), desk, _tasks: tasks }
    }

    /// Starts a run.
    pub(crate) fn run(&self, graph: &Arc<Graph>, input: &str) -> RunId {
        let id = RunId(Uuid::now_v7());
        let mut run = Run::new(id, Arc::clone(graph));
        let start = Start {
            namespace: "test".into(),
            definition: "test".into(),
            key: None,
            correlation_id: None,
            causation_id: None,
            labels: std::collections::BTreeMap::new(),
            input: Payload::trusted(input.to_owned()).unwrap(),
            holds: Vec::new(),
            parent: None,
            descent: None,
            start_at: None,
            requires: Vec::new(),
            end_by: None,
        };
        decide(&mut run, Command::Start(start), now(), &mut Transition::default()).unwrap();
        self.desk.runs().insert(id, run);
        self.desk.changed.notify_waiters();
        id
    }

    /// Asks something of a run, as a person would.
    pub(crate) fn command(&self, run: RunId, command: Command) -> Result<Reply, Refusal> {
        self.desk.decide(run, command).unwrap()
    }

    /// Lets the next request to `path` meet this.
    pub(crate) fn mishap(&self, path: &'static str, mishap: Mishap) {
        self.desk.mishaps.lock().unwrap().push_back((path, mishap));
    }

    /// Waits until a run is as `wanted`, and gives its view then.
    pub(crate) async fn until(&self, run: RunId, wanted: impl Fn(&RunView) -> bool) -> RunView {
        let found = async {
            loop {
                let changed = self.desk.changed.notified();
                let view = self.desk.runs()[&run].view(now());
                if wanted(&view) {
                    return view;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), found).await.expect("it becomes so in time")
    }

    /// Waits until so many claims wait.
    pub(crate) async fn polls(&self, wanted: u64) {
        loop {
            let changed = self.desk.changed.notified();
            if self.desk.polls.load(Ordering::Relaxed) == wanted {
                return;
            }
            changed.await;
        }
    }

    /// Does what is due by now.
    pub(crate) fn look(&self, run: RunId) {
        let _ = self.desk.decide(run, Command::Tick);
    }

    /// Lets time do what is due.
    pub(crate) fn tick(&self, run: RunId) {
        let due = self.desk.runs()[&run].next_due().unwrap_or(now());
        let mut runs = self.desk.runs();
        let run = runs.get_mut(&run).unwrap();
        decide(run, Command::Tick, due.max(now()), &mut Transition::default()).unwrap();
        drop(runs);
        self.desk.changed.notify_waiters();
    }

    /// Waits until a run has ended, and lets time do what is due whenever it waits for a retry.
    pub(crate) async fn tick_until_ended(&self, run: RunId) -> RunView {
        loop {
            let view = self
                .until(run, |view| view.outcome.is_some() || view.steps[0].state == "backoff")
                .await;
            if view.outcome.is_some() {
                return view;
            }
            self.tick(run);
        }
    }

    /// Waits until a run has ended.
    pub(crate) async fn ended(&self, run: RunId) -> Outcome {
        self.until(run, |view| view.outcome.is_some()).await.outcome.unwrap()
    }

    /// Returns how many reports each request carried.
    pub(crate) fn batches(&self) -> Vec<usize> {
        self.desk.batches.lock().unwrap().clone()
    }

    /// Returns how many tasks were released, and how many sessions signed off.
    pub(crate) fn given_back(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.desk.released), read(&self.desk.signed_off))
    }

    /// Returns how many claims there were.
    pub(crate) fn claims(&self) -> u64 {
        self.desk.claims.load(Ordering::Relaxed)
    }
}

/// Returns the time of this machine, which the rules get as an argument.
fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Time(i64::try_from(since.as_millis()).unwrap())
}

impl Desk {
    fn runs(&self) -> MutexGuard<'_, HashMap<RunId, Run>> {
        self.runs.lock().unwrap()
    }

    async fn answer(&self, path: &str, body: &str) -> http::Answer {
        let mishap = {
            let mut mishaps = self.mishaps.lock().unwrap();
            let next = mishaps.iter().position(|(at, _)| path.ends_with(at));
            next.and_then(|next| mishaps.remove(next)).map(|(_, mishap)| mishap)
        };
        if let Some(Mishap::Refused(status)) = mishap {
            return Some((status, problem(status)));
        }
        let answer = match path {
            "/v1/tasks/claim" => json(200, &self.claim(&serde_json::from_str(body).unwrap()).await),
            "/v1/tasks/complete" => self.complete(serde_json::from_str(body).unwrap(), mishap),
            "/v1/tasks/heartbeat" => self.heartbeat(serde_json::from_str(body).unwrap()),
            "/v1/tasks/release" => self.release(serde_json::from_str(body).unwrap()),
            "/v1/workers/sign-off" => {
                self.signed_off.fetch_add(1, Ordering::Relaxed);
                json(200, &SignedOff { released: 0 })
            }
            _ => (404, problem(404)),
        };
        (mishap != Some(Mishap::AnswerLost)).then_some(answer)
    }

    async fn claim(&self, claim: &ClaimTasks) -> ClaimedTasks {
        let _poll = Poll::new(self);
        let until = Instant::now() + claim.wait.duration();
        loop {
            let changed = self.changed.notified();
            let tasks = self.hand_out(claim);
            if !tasks.is_empty() {
                self.changed.notify_waiters();
                return ClaimedTasks { tasks, holding_unknown: false };
            }
            if tokio::time::timeout_at(until, changed).await.is_err() {
                return ClaimedTasks::default();
            }
        }
    }

    fn hand_out(&self, claim: &ClaimTasks) -> Vec<TaskOffer> {
        let mut tasks = Vec::new();
        for run in self.runs().values_mut() {
            for task in run.leased() {
                let is_it = |held: &HeldTask| held.run == run.id() && held.step == task.step;
                if claim.holding.as_ref().is_some_and(|holding| !holding.iter().any(is_it)) {
                    let session = claim.session.to_string().into();
                    let give_back = Command::GiveBack { task, session, since: None };
                    decide(run, give_back, now(), &mut Transition::default()).unwrap();
                }
            }
            for task in run.offered() {
                let known = run.route(&task).is_some_and(|(queue, name)| {
                    claim.queues.get(queue).is_some_and(|names| names.iter().any(|n| n == name))
                });
                if !known || tasks.len() == claim.max as usize {
                    continue;
                }
                let worker = format!("{}/{}", claim.worker, claim.session).into();
                let hand_out = Command::HandOut { task: task.clone(), worker };
                decide(run, hand_out, now(), &mut Transition::default()).unwrap();
                tasks.extend(run.offer(&task));
            }
        }
        tasks
    }

    fn complete(&self, ask: CompleteTasks, mishap: Option<Mishap>) -> (u16, String) {
        self.batches.lock().unwrap().push(ask.results.len());
        let results = ask.results.into_iter().map(|report| {
            if let Some(Mishap::EachRefused(status)) = mishap {
                let message = Some("not like this".to_owned());
                return TaskAnswer { status, code: None, message };
            }
            let task =
                TaskKey { step: report.step, action: report.action, attempt: report.attempt };
            self.answer_one(report.run, Command::Report { task, outcome: report.outcome })
        });
        answers(results.collect())
    }

    fn heartbeat(&self, ask: HeartbeatTasks) -> (u16, String) {
        let results = ask.beats.into_iter().map(|beat| {
            let task = TaskKey { step: beat.step, action: beat.action, attempt: beat.attempt };
            self.answer_one(beat.run, Command::Beat { task, details: beat.details })
        });
        answers(results.collect())
    }

    fn release(&self, ask: ReleaseTasks) -> (u16, String) {
        let session: Arc<str> = ask.session.to_string().into();
        let results = ask.tasks.into_iter().map(|held| {
            let task = TaskKey { step: held.step, action: held.action, attempt: held.attempt };
            self.released.fetch_add(1, Ordering::Relaxed);
            self.answer_one(
                held.run,
                Command::GiveBack { task, session: session.clone(), since: None },
            )
        });
        answers(results.collect())
    }

    fn answer_one(&self, run: RunId, command: Command) -> TaskAnswer {
        match self.decide(run, command) {
            Some(Ok(_)) => TaskAnswer { status: 200, code: None, message: None },
            Some(Err(refusal)) => TaskAnswer {
                status: status_of(refusal.code.kind()),
                code: Some(refusal.code.as_str().to_owned()),
                message: Some(refusal.message),
            },
            None => TaskAnswer { status: 404, code: None, message: None },
        }
    }

    fn decide(&self, run: RunId, command: Command) -> Option<Result<Reply, Refusal>> {
        let mut runs = self.runs();
        let run = runs.get_mut(&run)?;
        let reply = decide(run, command, now(), &mut Transition::default());
        drop(runs);
        self.changed.notify_waiters();
        Some(reply)
    }
}

fn answers(results: Vec<TaskAnswer>) -> (u16, String) {
    let first = results.first().map_or(200, |answer| answer.status);
    let agree = results.iter().all(|answer| answer.status == first);
    json(if agree { first } else { 207 }, &TaskAnswers { results })
}

fn problem(status: u16) -> String {
    let problem = Problem {
        kind: "about:blank".to_owned(),
        status,
        code: if status == 503 { "busy" } else { "refused" }.to_owned(),
        title: "refused".to_owned(),
        detail: None,
        errors: Vec::new(),
        ..Problem::default()
    };
    serde_json::to_string(&problem).unwrap()
}

fn json(status: u16, body: &impl serde::Serialize) -> (u16, String) {
    (status, serde_json::to_string(body).unwrap())
}
