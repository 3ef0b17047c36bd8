//! One rehearsed run with the workers, signals, children and clock around it. Everything succeeds unless a fault
//! strikes; the same choices always give the same turns.

mod workers;

pub(super) use workers::REHEARSED;

use std::sync::Arc;

use uuid::Uuid;

use super::fault::{Fault, Move};
use super::ledger::Ledger;
use super::scene::{Order, Scene};
use crate::Payload;
use crate::protocol::State;
use crate::{
    Action, Body, By, ChildAsk, Command, Effect, Event, IncidentKind, Record, Refusal, Reply, Run,
    RunId, Start, StepPath, TaskKey, Time, Transition, decide,
};

/// 2026-01-01T00:00:00Z: when every rehearsed run starts.
const BEGIN: Time = Time(1_767_225_600_000);
/// Number of strikes of a lasting fault before it counts as lasting: forward, and in an undo.
const STRIKES: (u32, u32) = (20, 100);

/// A run and what is around it.
#[derive(Clone)]
pub(super) struct World<'s> {
    pub(super) scene: &'s Scene,
    pub(super) run: Run,
    /// The same, folded from the journal.
    pub(super) folded: Run,
    pub(super) now: Time,
    pub(super) journal: Vec<Arc<Record>>,
    pub(super) ledger: Ledger,
    pub(super) moves: Vec<Move>,
    /// The faults that struck, with the position of the step.
    pub(super) struck: Vec<(usize, Fault)>,
    /// Tasks without further reports, at least until the given time.
    silent: Vec<(TaskKey, Time)>,
    /// Steps whose signal does not come.
    unheard: Vec<StepPath>,
    lasting: Vec<Lasting>,
    /// Reports that are made when they no longer count.
    late: Vec<TaskKey>,
    /// Those of them that were not refused.
    pub(super) accepted_late: Vec<TaskKey>,
    open_incidents: u32,
    turns: usize,
}

/// A fault that strikes every attempt.
#[derive(Clone)]
struct Lasting {
    step: Arc<str>,
    /// One item; all without it.
    item: Option<u32>,
    fault: Fault,
    strikes: u32,
    /// `true` if it struck again after a person had been informed.
    told: bool,
}

/// The next move if nothing goes wrong.
pub(super) enum Turn {
    /// A worker claims a task.
    Claim(TaskKey),
    /// A worker does a task and reports.
    Work(TaskKey),
    /// A signal comes. Its names are those of which one may come.
    Signal(StepPath, Vec<Arc<str>>),
    /// A child ends.
    Child(ChildAsk),
    /// Time passes.
    Time(Time, StepPath),
}

impl<'s> World<'s> {
    pub(super) fn begin(scene: &'s Scene) -> World<'s> {
        let run = Run::new(RunId(Uuid::from_u128(7)), scene.graph.clone());
        let mut world = World {
            scene,
            folded: run.clone(),
            run,
            now: BEGIN,
            journal: Vec::new(),
            ledger: Ledger::default(),
            moves: Vec::new(),
            struck: Vec::new(),
            silent: Vec::new(),
            unheard: Vec::new(),
            lasting: Vec::new(),
            late: Vec::new(),
            accepted_late: Vec::new(),
            open_incidents: 0,
            turns: 0,
        };
        let start = Start {
            namespace: "rehearsal".into(),
            definition: "rehearsal".into(),
            key: None,
            correlation_id: None,
            causation_id: None,
            labels: std::collections::BTreeMap::new(),
            input: scene.input.clone(),
            holds: Vec::new(),
            parent: None,
            descent: None,
            start_at: None,
            requires: Vec::new(),
            end_by: None,
        };
        let _ = world.ask(Command::Start(start));
        world
    }

    /// Asks the run, and keeps the record.
    fn ask(&mut self, command: Command) -> Result<Reply, Refusal> {
        let mut transition = Transition::default();
        let reply = decide(&mut self.run, command, self.now, &mut transition);
        let Transition { record, effects } = transition;
        if !record.events.is_empty() {
            self.run.mark_appended();
            self.folded.apply(&record);
            for effect in effects {
                match effect {
                    Effect::IncidentOpened(_) => self.open_incidents += 1,
                    Effect::IncidentResolved(_) => self.open_incidents -= 1,
                    _ => {}
                }
            }
            self.journal.push(Arc::new(record));
        }
        // A rehearsed output is taken as what its schema says.
        if self.run.unchecked_output().is_some() {
            let _ = self.ask(Command::OutputChecked { violation: None });
        }
        reply
    }

    fn is_forward(&self) -> bool {
        !matches!(self.run.state(), State::Ended | State::Compensating | State::CompensationBlocked)
    }

    /// Returns the next move; `None` if the run is at rest.
    pub(super) fn turn(&self) -> Option<Turn> {
        if self.run.state() == State::Ended || self.turns > self.turns_max() {
            return None;
        }
        let heard = |task: &TaskKey| self.silent.iter().all(|(silent, _)| silent != task);
        let claim = self.run.offered().into_iter().find(heard).map(Turn::Claim);
        let mut leased = self.run.leased().into_iter().filter(heard);
        let work = match self.scene.order {
            Order::LastFirst => leased.next_back(),
            Order::Together | Order::OneByOne => leased.next(),
        }
        .map(Turn::Work);
        let by_worker = match self.scene.order {
            Order::OneByOne => work.or(claim),
            Order::Together | Order::LastFirst => claim.or(work),
        };
        by_worker.or_else(|| self.outside()).or_else(|| self.time())
    }

    /// Returns more turns than any run that comes to rest takes.
    fn turns_max(&self) -> usize {
        1_000 + 50 * self.scene.graph.nodes.len()
    }

    fn outside(&self) -> Option<Turn> {
        let mut awaited = self.run.signals_awaited().into_iter();
        let signal = awaited.find(|(step, ..)| !self.unheard.contains(step));
        let signal = signal.map(|(step, names, _)| Turn::Signal(step, names));
        signal.or_else(|| self.children().next().map(Turn::Child))
    }

    /// Returns the requests to children.
    fn children(&self) -> impl Iterator<Item = ChildAsk> + '_ {
        let nodes = self.scene.graph.nodes.iter();
        nodes
            .filter(|node| matches!(node.body, Body::Child(_)))
            .filter_map(|node| self.run.child_ask(&StepPath::step(node.id.clone())))
    }

    fn time(&self) -> Option<Turn> {
        let due = self.run.next_due();
        let deadline = self.is_forward().then(|| self.run.deadline());
        let person = self.open_incidents > 0;
        let known = self.lasting.iter().any(Lasting::is_known);
        let told = self.lasting.iter().any(|lasting| lasting.told);
        if person && (due == deadline || told || known) {
            return None;
        }
        let begun = self.current_step();
        if known {
            return deadline.map(|deadline| Turn::Time(deadline, begun));
        }
        let silence = self.silent.iter().map(|(_, until)| *until).min();
        Some(Turn::Time(due?.max(silence.unwrap_or(self.now)), begun))
    }

    /// Returns the step that is under way, to name a moment at which none has a turn of its own.
    fn current_step(&self) -> StepPath {
        let last = self.journal.iter().rev().flat_map(|record| record.events.iter().rev());
        let mut steps = last.filter_map(|event| match event {
            Event::RetryScheduled { step, .. }
            | Event::SleepBegan { step, .. }
            | Event::SignalAwaited { step, .. }
            | Event::Leased { step, .. }
            | Event::Offered { step, .. } => Some(step.clone()),
            _ => None,
        });
        steps.next().unwrap_or_else(|| StepPath::step(self.scene.graph.nodes[0].id.clone()))
    }

    /// Returns the faults that can strike at this turn.
    pub(super) fn faults(&self, turn: &Turn) -> Vec<Fault> {
        let Some(step) = self.scene.graph.position(&turn.step().step) else { return Vec::new() };
        let node = &self.scene.graph.nodes[step];
        let mut faults: Vec<Fault> = Fault::ALL
            .into_iter()
            .filter(|fault| fault.applies(node) && self.fits(turn, *fault))
            .collect();
        let (forward, in_time) = (self.is_forward(), self.now < self.run.deadline());
        faults.retain(|fault| match fault {
            Fault::Cancelled => forward,
            Fault::Deadline => forward && in_time,
            _ => true,
        });
        faults
    }

    fn fits(&self, turn: &Turn, fault: Fault) -> bool {
        let task = match turn {
            _ if matches!(fault, Fault::Cancelled | Fault::Deadline) => return true,
            Turn::Signal(..) => return fault == Fault::NoSignal,
            Turn::Child(ask) if ask.action == Action::Compensate => return fault.is_of_undo(),
            Turn::Child(_) => return !fault.is_of_undo(),
            Turn::Time(..) => return false,
            Turn::Claim(task) => {
                return fault == Fault::NotClaimed && task.action == Action::Forward;
            }
            Turn::Work(task) => task,
        };
        if self.lasting.iter().any(|lasting| lasting.strikes_at(task)) {
            return false;
        }
        let of_verify = matches!(fault, Fault::VerifyFails | Fault::VerifyLost);
        match task.action {
            Action::Forward if fault == Fault::EveryItemFails => task.step.item == Some(0),
            Action::Forward => {
                !fault.is_of_undo()
                    && !of_verify
                    && !matches!(fault, Fault::NotClaimed | Fault::NoSignal)
            }
            Action::Verify => of_verify,
            Action::Compensate => fault.is_of_undo(),
        }
    }

    /// Does this turn, with what goes wrong. Returns `false` if that could not happen.
    pub(super) fn go(&mut self, turn: Turn, fault: Option<Fault>) -> bool {
        self.turns += 1;
        if let Some(fault) = fault {
            let step = turn.step().clone();
            if let Some(position) = self.scene.graph.position(&step.step) {
                self.struck.push((position, fault));
            }
            let named =
                if fault == Fault::EveryItemFails { StepPath::step(step.step) } else { step };
            self.moves.push(Move::Struck(named, fault));
        }
        match (turn, fault) {
            (_, Some(Fault::Cancelled)) => {
                return self.cut_short(|world| {
                    let by = By { actor: "ann".into(), reason: "rehearsed".to_owned() };
                    world.ask(Command::Cancel { by }).is_ok()
                });
            }
            (_, Some(Fault::Deadline)) => {
                return self.cut_short(|world| {
                    world.pass_to(world.run.deadline());
                    true
                });
            }
            (Turn::Claim(task), Some(_)) => self.silent.push((task, self.now)),
            (Turn::Claim(task), None) => {
                // Each attempt is that of another worker, as when one after the other is lost.
                let worker = format!("w{}", task.attempt).into();
                let _ = self.ask(Command::HandOut { task, worker });
            }
            (Turn::Work(task), fault) => self.work(task, fault),
            (Turn::Signal(step, _), Some(_)) => self.unheard.push(step),
            (Turn::Signal(step, names), None) => {
                let by = By { actor: "ann".into(), reason: String::new() };
                let (name, data) = one_of(&names, self.output(&step));
                self.moves.push(Move::Done(step));
                let _ = self.ask(Command::Signal { name, data, by, checked: None });
            }
            (Turn::Child(ask), fault) => self.child_ends(ask, fault),
            (Turn::Time(due, _), _) => self.pass_to(due),
        }
        true
    }

    /// Does everything that follows without a choice.
    pub(super) fn finish(&mut self) {
        while let Some(turn) = self.turn() {
            self.go(turn, None);
        }
    }

    /// Tries again, as a person would, what waits for one, and nothing goes wrong any more. Returns `false`
    /// if nothing waits.
    pub(super) fn retry(&mut self) -> bool {
        self.lasting.clear();
        self.unheard.clear();
        self.moves.push(Move::Retried);
        let by = By { actor: "ann".into(), reason: "rehearsed".to_owned() };
        let retried = self.ask(Command::Retry { step: None, input: None, by }).is_ok();
        self.finish();
        retried
    }

    fn pass_to(&mut self, time: Time) {
        self.now = self.now.max(time);
        let _ = self.ask(Command::Tick);
        self.report_late();
    }

    /// Returns whether something waits for a person, except where only a defect of the rules leaves it.
    pub(super) fn is_parked(&self) -> bool {
        let opened = self.journal.iter().flat_map(|record| &record.events);
        let stuck = opened.filter(|event| {
            matches!(event, Event::IncidentOpened { kind: IncidentKind::RunStuck, .. })
        });
        self.open_incidents > 0 && stuck.count() == 0
    }
}

impl Turn {
    /// Returns the step whose turn it is.
    fn step(&self) -> &StepPath {
        match self {
            Turn::Claim(task) | Turn::Work(task) => &task.step,
            Turn::Signal(step, _) | Turn::Time(_, step) => step,
            Turn::Child(ask) => &ask.step,
        }
    }
}

/// Returns the signal that comes, with its data, so that a wait gets `output`: of several, the one that the output
/// names.
fn one_of(names: &[Arc<str>], output: Payload) -> (Arc<str>, Payload) {
    #[derive(serde::Deserialize)]
    struct Named {
        signal: String,
        #[serde(default = "Payload::null")]
        data: Payload,
    }
    let first = names.first().cloned().unwrap_or_else(|| Arc::from(""));
    if names.len() < 2 {
        return (first, output);
    }
    let Ok(Named { signal, data }) = output.to::<Named>() else { return (first, Payload::null()) };
    let named = names.iter().find(|name| ***name == *signal).cloned();
    (named.unwrap_or(first), data)
}
