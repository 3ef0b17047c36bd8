//! One run in memory: offers are handed out, handlers called, reports decided, and time moved to what is due next.

use std::marker::PhantomData;
use std::sync::Arc;

use backstitch_saga::protocol::{Failure, FailureKind, State, TaskOffer, TaskOutcome};
use backstitch_saga::{
    Class, Command, Payload, Record, Refusal, Reply, Run, RunId, Span, Start, TaskKey, Time,
    Transition, decide,
};
use tokio::sync::Notify;

use super::children::{Cast, ChildRun, Place};
use super::fault::Kind;
use super::world::World;
use crate::context::InFlight;

/// 2026-01-01T00:00:00Z: when every test run starts.
pub(super) const BEGIN: Time = Time(1_767_225_600_000);
/// More rounds than any run that comes to rest needs.
const ROUNDS_MAX: u32 = 100_000;

/// A run in a test.
pub struct TestRun<Out> {
    pub(super) run: Run,
    pub(super) now: Time,
    pub(super) cast: Cast,
    pub(super) children: Vec<ChildRun>,
    pub(super) journal: Vec<Record>,
    pub(super) world: World,
    /// Reports held back until their lease is over.
    late: Vec<(TaskKey, TaskOutcome)>,
    output: PhantomData<fn() -> Out>,
}

/// A task that a worker holds, with its future report.
struct Reported {
    task: TaskKey,
    progress: Option<Payload>,
    outcomes: Vec<TaskOutcome>,
}

impl<Out> TestRun<Out> {
    pub(super) fn start(
        id: RunId,
        cast: Cast,
        input: Payload,
        now: Time,
        place: Option<Place>,
    ) -> TestRun<Out> {
        let mut run = TestRun {
            run: Run::new(id, Arc::clone(&cast.graph)),
            now,
            cast,
            children: Vec::new(),
            journal: Vec::new(),
            world: World::default(),
            late: Vec::new(),
            output: PhantomData,
        };
        let (parent, descent) =
            place.map_or((None, None), |place| (Some(place.parent), Some(place.descent)));
        let start = Start {
            namespace: "test".into(),
            definition: "test".into(),
            key: None,
            correlation_id: None,
            causation_id: None,
            labels: std::collections::BTreeMap::new(),
            input,
            holds: Vec::new(),
            parent,
            descent,
            start_at: None,
            requires: Vec::new(),
            end_by: None,
        };
        let started = run.decide(Command::Start(start));
        debug_assert_eq!(started, Ok(Reply::Done), "a new run starts");
        run
    }

    /// Does everything that needs no action of the test: calls handlers, and moves time to the next retry or timeout,
    /// within the kit's patience. Stops when the run has ended or waits for a person; its own deadline is not waited
    /// for.
    ///
    /// # Panics
    /// When the run does not come to rest.
    pub async fn until_idle(&mut self) {
        let horizon = self.now.after(self.cast.patience);
        for _ in 0..ROUNDS_MAX {
            if self.round().await {
                continue;
            }
            match self.next_due() {
                Some(due) if due <= horizon => self.tick_at(due),
                _ => return,
            }
        }
        panic!("the run does not come to rest: {}", self.describe());
    }

    /// Moves time by `span` and does everything that happens in that time, the run's own deadline
    /// included.
    ///
    /// # Panics
    /// When the run does not come to rest.
    pub async fn advance(&mut self, span: Span) {
        let until = self.now.after(span);
        for _ in 0..ROUNDS_MAX {
            if self.round().await {
                continue;
            }
            match self.next_due_at_all() {
                Some(due) if due <= until => self.tick_at(due),
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("the run does not come to rest: {}", self.describe());
    }

    /// Hands out everything on offer that there is a handler for, calls the handlers one after the other, and then
    /// reports in the same order; so that what is in flight together is in flight together. False when there was
    /// nothing to do.
    pub async fn round(&mut self) -> bool {
        let mut offers = Vec::new();
        for task in self.run.offered() {
            if !self.has_handler(&task) {
                continue;
            }
            let handed_out =
                self.decide(Command::HandOut { task: task.clone(), worker: "test".into() });
            if let (Ok(_), Some(offer)) = (handed_out, self.run.offer(&task)) {
                offers.push((task, offer));
            }
        }
        let mut reports = Vec::with_capacity(offers.len());
        for (task, offer) in offers {
            reports.push(self.work(task, offer).await);
        }
        let did_something = !reports.is_empty();
        for Reported { task, progress, outcomes } in reports {
            if progress.is_some() {
                let _ = self.decide(Command::Beat { task: task.clone(), details: progress });
            }
            for outcome in outcomes {
                let _ = self.decide(Command::Report { task: task.clone(), outcome });
            }
        }
        did_something | self.round_of_children().await
    }

    /// Does one task, as far as the faults let it.
    async fn work(&mut self, task: TaskKey, offer: TaskOffer) -> Reported {
        let fault = self
            .cast
            .faults
            .iter_mut()
            .find_map(|fault| fault.strikes(&task).then(|| fault.kind.clone()));
        let (progress, outcomes) = match fault {
            None => {
                let (progress, outcome) = self.call(offer).await;
                (progress, vec![outcome])
            }
            Some(Kind::Fails(failure)) => (None, vec![TaskOutcome::Failed(failure)]),
            Some(Kind::InDoubt) => {
                (self.call(offer).await.0, vec![TaskOutcome::Failed(in_doubt())])
            }
            Some(Kind::LostBefore) => (None, Vec::new()),
            Some(Kind::Lost) => (self.call(offer).await.0, Vec::new()),
            Some(Kind::Repeated) => {
                let (_, first) = self.call(offer.clone()).await;
                let (progress, second) = self.call(offer).await;
                (progress, vec![first, second])
            }
            Some(Kind::Late) => {
                let (progress, outcome) = self.call(offer).await;
                self.late.push((task.clone(), outcome));
                (progress, Vec::new())
            }
        };
        Reported { task, progress, outcomes }
    }

    /// Calls the handler; what it said of its progress, and its outcome.
    async fn call(&mut self, offer: TaskOffer) -> (Option<Payload>, TaskOutcome) {
        let in_flight = InFlight::new(offer, self.cast.codec.clone(), Arc::new(Notify::new()));
        let outcome = self.cast.handlers.call(Arc::clone(&in_flight)).await;
        let progress = in_flight.has_news().then(|| in_flight.beat().details).flatten();
        let has_effect = self
            .run
            .graph()
            .position(&in_flight.offer.step.step)
            .and_then(|position| self.run.graph().nodes.get(position))
            .is_none_or(|node| node.task().class() != Some(Class::ReadOnly));
        self.world.called(&in_flight.offer, &outcome, has_effect);
        (progress, outcome)
    }

    fn has_handler(&self, task: &TaskKey) -> bool {
        let handlers = &self.cast.handlers;
        self.run.route(task).is_some_and(|(queue, name)| handlers.has(task.action, queue, name))
    }

    /// Returns the time at which something is due, except the deadlines of the run and of its
    /// children.
    fn next_due(&self) -> Option<Time> {
        let deadline = self.view().deadline.0;
        let forward = !matches!(self.state(), State::Compensating | State::CompensationBlocked);
        let own = self.run.next_due().filter(|due| !(forward && *due >= deadline));
        let of_children = self.next_due_of_children(TestRun::next_due);
        own.into_iter().chain(of_children).min()
    }

    /// Returns the time at which something is due, deadlines included.
    fn next_due_at_all(&self) -> Option<Time> {
        let of_children = self.next_due_of_children(TestRun::next_due_at_all);
        self.run.next_due().into_iter().chain(of_children).min()
    }

    fn tick_at(&mut self, due: Time) {
        self.now = self.now.max(due);
        let _ = self.decide(Command::Tick);
        let leased = self.run.leased();
        let (held, over): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.late).into_iter().partition(|(task, _)| leased.contains(task));
        self.late = held;
        for (task, outcome) in over {
            let _ = self.decide(Command::Report { task, outcome });
        }
        for child in &mut self.children {
            child.run.tick_at(due);
        }
    }

    pub(super) fn decide(&mut self, command: Command) -> Result<Reply, Refusal> {
        let mut transition = Transition::default();
        let reply = decide(&mut self.run, command, self.now, &mut transition);
        if !transition.record.events.is_empty() {
            self.run.mark_appended();
            self.journal.push(transition.record);
        }
        reply
    }
}

fn in_doubt() -> Failure {
    Failure {
        kind: FailureKind::Unknown,
        code: "timeout".to_owned(),
        message: "the answer did not come".to_owned(),
        details: None,
        retry_after: None,
    }
}
