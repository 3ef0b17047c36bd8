//! Decides the commands of a batch for one run, and assigns its new tasks to sessions. It never waits and uses
//! no database.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use backstitch_saga::{
    Command, Effect, Limits, OpenTask, Record, Refusal, RefusalCode, Reply, TaskKey, Time,
    Transition, decide,
};

use uuid::Uuid;

use super::cache::CachedRun;
use super::outputs;
use super::request::{Request, ShardCommand, StartKey};
use crate::clock::Step;
use crate::dispatch::{Dispatcher, Grant, SessionFilter};
use crate::flow::Governed;
use crate::node::Node;
use crate::numbers::{QueueTimes, Times};
use crate::schemas::Schemas;
use crate::{Error, counters::Counters};

/// Approximate size of an event, in bytes.
const EVENT_BYTES: usize = 128;

/// The decision of a batch about one run.
pub(crate) struct Decided {
    pub(crate) cached: Box<CachedRun>,
    /// The transition. Its record is empty if nothing happened.
    pub(crate) transition: Transition,
    pub(crate) commands: Vec<(Request, Result<Reply, Refusal>)>,
    /// Tasks that the record hands out.
    pub(crate) granted: Vec<Granted>,
    /// `true` if the run begins with this record.
    pub(crate) starts: bool,
    pub(crate) key: Option<StartKey>,
}

impl Decided {
    /// Returns the approximate number of bytes of its record: documents and events.
    pub(crate) fn bytes(&self) -> usize {
        let record = &self.transition.record;
        let documents = record.payloads.iter().map(|payload| payload.text().len());
        documents.sum::<usize>() + record.events.len() * EVENT_BYTES
    }
}

/// A task that a record hands to a session.
pub(crate) struct Granted {
    pub(crate) task: TaskKey,
    pub(crate) grant: Grant,
    /// The times of its queue if it was born claimed. Otherwise a command asked for it, and keeps the grant if the
    /// record is lost.
    pub(crate) born: Option<Arc<QueueTimes>>,
}

/// A command that a defect stopped. Its run is dropped from memory; the other commands are decided again.
pub(crate) struct Broken {
    pub(crate) again: Vec<Request>,
    /// Text of the defect, if the command was to do what is due.
    pub(crate) due: Option<String>,
}

/// State of the node that decisions need.
pub(crate) struct DecisionContext<'a> {
    pub(crate) dispatcher: &'a Dispatcher,
    pub(crate) counters: &'a Counters,
    times: &'a Times,
    pub(crate) node: i32,
    pub(crate) at: Time,
    now: Instant,
    /// The last step of the clock ahead.
    stepped: Option<Step>,
    /// Time since when the node receives heartbeats.
    pub(crate) hears_since: Time,
    pub(crate) hearing: &'a crate::hearing::Hearing,
    pub(crate) governed: Option<Arc<Governed>>,
    limits: Limits,
    before_decide: Option<fn(&Command)>,
    schemas: &'a Schemas,
}

impl DecisionContext<'_> {
    /// Returns the present state of a node.
    pub(crate) fn of(node: &Node) -> DecisionContext<'_> {
        let at = node.clock.now();
        DecisionContext {
            dispatcher: &node.dispatcher,
            counters: &node.counters,
            times: &node.times,
            node: node.id,
            at,
            now: Instant::now(),
            stepped: node.clock.stepped(),
            hears_since: node.hearing.since(at),
            hearing: &node.hearing,
            governed: node.flow.governed(),
            limits: node.options.run_limits(),
            before_decide: node.options.tuning.before_decide,
            schemas: &node.schemas,
        }
    }

    /// Decides the commands of one run in order. `effects` is an empty list to collect effects in.
    pub(crate) fn decide(
        &self,
        cached: Box<CachedRun>,
        envelopes: Vec<Request>,
        effects: Vec<Effect>,
    ) -> Result<Decided, Broken> {
        let starts = cached.run.seq() == 0;
        let at = self.time_of(&cached, &envelopes);
        let mut cached = cached;
        cached.run.set_limits(self.limits);
        let mut decided = Decided {
            cached,
            transition: Transition { record: Record::default(), effects },
            commands: Vec::with_capacity(envelopes.len()),
            granted: Vec::new(),
            starts,
            key: None,
        };
        let mut envelopes = envelopes.into_iter();
        while let Some(mut envelope) = envelopes.next() {
            if !self.may_see(&envelope, &decided.cached) {
                envelope.answer(Err(Error::unknown_run(envelope.run)));
                continue;
            }
            let named = task_of(&envelope.order);
            let task = named.and_then(|task| decided.cached.run.open_task(task));
            let refusal = held_by_another(&envelope, task).or_else(|| {
                outputs::look_at(self.schemas, &decided.cached.namespace, task, &mut envelope)
            });
            if let Some(refusal) = refusal {
                decided.commands.push((envelope, Err(refusal)));
                continue;
            }
            let before = task.map(|task| Before::of(task, &envelope, self.times));
            self.counters.commands.one();
            let whole = AssertUnwindSafe(|| self.one(&mut decided, &envelope, (before, at)));
            match catch_unwind(whole) {
                Ok(result) => decided.commands.push((envelope, result)),
                Err(panic) => {
                    let is_due = matches!(envelope.order, ShardCommand::Tick { .. });
                    let due = is_due.then(|| text_of(panic.as_ref()).to_owned());
                    self.stop(envelope, panic.as_ref());
                    self.give_back(&decided.granted);
                    let before = decided.commands.into_iter().map(|(envelope, _)| envelope);
                    return Err(Broken { again: before.chain(envelopes).collect(), due });
                }
            }
        }
        decided.cached.grow_by(&decided.transition);
        Ok(decided)
    }

    fn may_see(&self, envelope: &Request, cached: &CachedRun) -> bool {
        envelope.namespace.as_ref().is_none_or(|namespace| *namespace == cached.namespace)
    }

    /// Returns the present time for the run. A run whose journal is ahead of the clock goes on from there. If the index
    /// wakes it, all that it was parked for is due.
    fn time_of(&self, cached: &CachedRun, envelopes: &[Request]) -> Time {
        let at = Time(self.at.0.saturating_add(cached.ahead));
        let woken = |one: &Request| matches!(one.order, ShardCommand::Tick { woken: true, .. });
        if cached.ahead == 0 || !envelopes.iter().any(woken) {
            return at;
        }
        cached.run.next_due().map_or(at, |due| at.max(due))
    }

    /// Prolongs the leases that would have ended in the time that the clock skipped.
    fn forgive(&self, cached: &mut CachedRun, at: Time, transition: &mut Transition) {
        let Some(Step { from, to }) = self.stepped else { return };
        if at < from || cached.run.moved_at() > to {
            return;
        }
        for task in cached.run.leases_ending(from, to) {
            // A refusal means that the lease does not exist any more.
            let beat = Command::Beat { task, details: None };
            let _ = decide(&mut cached.run, beat, at, transition);
        }
    }

    /// Decides one command, then finds workers for the tasks that it offers.
    fn one(
        &self,
        decided: &mut Decided,
        envelope: &Request,
        (before, at): (Option<Before>, Time),
    ) -> Result<Reply, Refusal> {
        let Decided { cached, transition, granted, key, .. } = decided;
        let cached = cached.as_mut();
        let command = match &envelope.order {
            ShardCommand::Start(order) => {
                key.clone_from(&order.key);
                Command::Start(order.start.clone())
            }
            ShardCommand::Command(command) => {
                let worker = before.as_ref().and_then(|before| before.worker.as_ref());
                if let (Command::Beat { .. }, Some(worker)) = (command, worker) {
                    self.dispatcher.heard_of(worker);
                }
                command.clone()
            }
            ShardCommand::HandOut { task, grant } => {
                self.may_hand_out(cached, task, grant, envelope)?;
                Command::HandOut { task: task.clone(), worker: grant.worker.clone() }
            }
            ShardCommand::Tick { adopted, unheard, .. } => {
                if *adopted {
                    cached.indexed.node = Some(self.node);
                }
                self.forgive(cached, at, transition);
                if cached.run.in_flight() {
                    // Its workers may not have known that this node receives their heartbeats.
                    let refused = self.hearing.refused_last(&cached.namespace);
                    let since = match unheard {
                        true => Time(i64::MAX),
                        false => refused.map_or(self.hears_since, |at| at.max(self.hears_since)),
                    };
                    decide(&mut cached.run, Command::Listen { since }, at, transition)?;
                }
                Command::Tick
            }
        };
        if let Some(sabotage) = self.before_decide {
            sabotage(&command);
        }
        let (first, seen) = (transition.record.events.len(), transition.effects.len());
        let result = decide(&mut cached.run, command, at, transition);
        let happened = first < transition.record.events.len();
        if let (Some(before), Ok(_)) = (&before, &result) {
            if happened {
                before.measure(&envelope.order, at);
            }
            if let (Some(worker), true) = (&before.worker, envelope.is_first_report()) {
                self.dispatcher.reported(worker, self.now);
            }
        }
        if let Some(checked) = outputs::of_run(self.schemas, &cached.run) {
            let _ = decide(&mut cached.run, checked, at, transition);
        }
        if let (ShardCommand::HandOut { task, grant }, Ok(_)) = (&envelope.order, &result) {
            if happened {
                granted.push(Granted { task: task.clone(), grant: grant.clone(), born: None });
            } else {
                // The session has it already.
                self.dispatcher.give_back(grant);
            }
        }
        self.find_workers(cached, transition, granted, (seen, at));
        result
    }

    /// Hands the tasks that were offered by the effects from `seen` on to workers with room for them, in the same
    /// record.
    fn find_workers(
        &self,
        cached: &mut CachedRun,
        transition: &mut Transition,
        granted: &mut Vec<Granted>,
        (mut seen, at): (usize, Time),
    ) {
        while let Some(effect) = transition.effects.get(seen) {
            seen += 1;
            match effect {
                Effect::TaskOffered(task) => {
                    let task = task.clone();
                    self.hand_out(cached, transition, granted, (task, at), SessionFilter::Anyone);
                }
                // A session was reserved for it in vain: no session is reserved again, because the next
                // may not come either.
                Effect::TaskReleased(task) => {
                    let task = task.clone();
                    self.hand_out(cached, transition, granted, (task, at), SessionFilter::Polling);
                }
                Effect::HoldEnded(_) => {
                    for task in cached.run.offered() {
                        let whom = SessionFilter::Anyone;
                        self.hand_out(cached, transition, granted, (task, at), whom);
                    }
                }
                _ => {}
            }
        }
    }

    /// Checks that a task goes to a worker of its run's namespace, that one that needs a permit has one, and that one
    /// that needs a worker of its own goes to such a worker. A permit that failed twice counts as lapsed.
    fn may_hand_out(
        &self,
        cached: &CachedRun,
        task: &TaskKey,
        grant: &Grant,
        envelope: &Request,
    ) -> Result<(), Refusal> {
        let refused = |why| Refusal::new(RefusalCode::NotOffered, format!("{task} {why}"));
        // The index row by which it was found may be wrong.
        if envelope.payer().is_some_and(|namespace| *namespace != cached.namespace) {
            return Err(refused("is not of the namespace of that worker"));
        }
        if !grant.alone && cached.run.is_offered(task) && cached.run.is_suspect(task) {
            if let Some((queue, name)) = cached.run.route(task) {
                let kind = (&cached.namespace, queue, name);
                self.dispatcher.suspect(cached.run.id(), task.clone(), kind);
            }
            return Err(refused("waits for a worker with nothing else in its hands"));
        }
        let may = match grant.permit {
            Some(_) => envelope.tries < 3,
            None => !self.is_governed(cached, task),
        };
        may.then_some(()).ok_or_else(|| refused("is of a governed queue and has no permit"))
    }

    fn is_governed(&self, cached: &CachedRun, task: &TaskKey) -> bool {
        let governed = self.governed.as_ref();
        governed.is_some_and(|governed| governed.of_task(&cached.run, task).is_some())
    }

    /// Hands a newly offered task to a session with room for it, in the same record.
    fn hand_out(
        &self,
        cached: &mut CachedRun,
        transition: &mut Transition,
        granted: &mut Vec<Granted>,
        (task, at): (TaskKey, Time),
        whom: SessionFilter,
    ) {
        let Some(open) = cached.run.open_task(&task) else { return };
        if open.suspect || open.worker.is_some() || self.is_governed(cached, &task) {
            return;
        }
        let grant = self.dispatcher.grant(&cached.namespace, open.queue, open.name, whom);
        let Some(grant) = grant else { return };
        let (times, worker) = (self.times.of(open.queue), Arc::clone(&grant.worker));
        let command = Command::HandOut { task: task.clone(), worker };
        match decide(&mut cached.run, command, at, transition) {
            Ok(_) => {
                granted.push(Granted { task, grant, born: Some(times) });
            }
            Err(refusal) => {
                tracing::error!(run = %cached.run.id(), %task, %refusal, "a task on offer could not be handed out");
                self.dispatcher.give_back(&grant);
            }
        }
    }

    /// Gives back the reservations of a lost record: its sessions may get other tasks.
    pub(crate) fn give_back(&self, granted: &[Granted]) {
        for one in granted.iter().filter(|one| one.born.is_some()) {
            self.dispatcher.give_back(&one.grant);
        }
    }

    fn stop(&self, mut envelope: Request, panic: &(dyn std::any::Any + Send)) {
        let text = text_of(panic);
        self.counters.bugs.one();
        tracing::error!(
            run = %envelope.run, panic = text,
            "a defect stopped a command; its run is unchanged, please report this with the run's history"
        );
        envelope.answer(Err(Error::Bug(text.to_owned())));
        if let ShardCommand::HandOut { grant, .. } = &envelope.order {
            self.dispatcher.give_back(grant);
        }
    }
}

/// Returns the refusal of a command about a task that went to another session than the one whose token came
/// with it.
fn held_by_another(envelope: &Request, open: Option<OpenTask<'_>>) -> Option<Refusal> {
    let (session, holder) = (envelope.session?, open?.worker?);
    let task = task_of(&envelope.order)?;
    let mut text = Uuid::encode_buffer();
    let its = holder.ends_with(&*session.hyphenated().encode_lower(&mut text));
    let message = || format!("{task} is in the hands of another worker now");
    (!its).then(|| Refusal::new(RefusalCode::LeaseLost, message()))
}

/// Returns the task that an order hands out, or that a worker reports.
fn task_of(order: &ShardCommand) -> Option<&TaskKey> {
    match order {
        ShardCommand::HandOut { task, .. }
        | ShardCommand::Command(
            Command::Report { task, .. }
            | Command::Beat { task, .. }
            | Command::GiveBack { task, .. },
        ) => Some(task),
        _ => None,
    }
}

/// The task of an order as it was before the order was decided.
struct Before {
    since: Time,
    worker: Option<Arc<str>>,
    /// The times of its queue, if the order is measured.
    times: Option<Arc<QueueTimes>>,
}

impl Before {
    fn of(task: OpenTask<'_>, envelope: &Request, times: &Times) -> Before {
        let is_measured = matches!(
            envelope.order,
            ShardCommand::HandOut { .. } | ShardCommand::Command(Command::Report { .. })
        );
        let times = is_measured.then(|| times.of(task.queue));
        Before { since: task.since, worker: task.worker.cloned(), times }
    }

    /// Counts the time that the task was offered, or with its worker.
    fn measure(&self, order: &ShardCommand, at: Time) {
        let Some(times) = &self.times else { return };
        let millis = at.since(self.since).0;
        match order {
            ShardCommand::HandOut { .. } => times.started_after(millis),
            _ => times.took(millis),
        }
    }
}

/// Returns the message of a panic.
pub(crate) fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}
