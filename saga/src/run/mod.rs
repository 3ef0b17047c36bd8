//! A run: the fold of its journal.
//!
//! `state` holds the state of a run, `apply` changes it by a record, `decide` turns a command into events (with
//! `forward`, `attempt` and `undo` for the three kinds of progress), and `view` presents it.

mod apply;
mod attempt;
mod bounds;
mod by_hand;
mod child_end;
pub(crate) mod conditions;
mod decide;
mod doubt;
mod dropped;
mod due;
mod emits;
mod end_by;
mod endings;
mod erased;
mod facts;
mod family;
mod fence;
mod forward;
mod gathered;
mod hold;
mod honest;
mod inputs;
mod keys;
mod label;
mod leases;
mod left;
mod migrate;
mod open;
mod plan;
mod possible;
mod requirements;
mod rerun;
mod rerun_items;
pub(crate) mod retry;
mod said;
mod scope;
mod signals;
mod snapshot;
mod state;
mod stuck;
mod tally;
mod tasks;
mod tries;
mod undo;
mod verbs;
mod view;
mod view_size;
mod waits;
mod why;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::By;
use crate::protocol::{Forward, Labels, Outcome, RunError, State};
use crate::{
    Action, Body, Class, Graph, Limits, Parent, Payload, RunId, Span, StepPath, Task, Time,
};
pub use child_end::ChildEnd;
pub use decide::decide;
use facts::{Compensation, Incident, Origin, RefusedSignal, Signal, Unchecked};
pub use family::ChildWord;
pub(crate) use forward::{MAX_ITEMS as MOST_ITEMS, impossible};
pub use open::OpenEffects;
pub use plan::PlanPage;
use state::{Activity, BodyState, Items, MapStage, Stage, StepState, TaskState, WorkIndex};
use tally::Tally;
pub use tasks::OpenTask;
pub use verbs::Proof;
pub(crate) use view_size::VIEW_BYTES;
pub use waits::ChildAsk;

/// A run: the fold of its journal.
#[derive(Clone)]
pub struct Run {
    id: RunId,
    graph: Arc<Graph>,
    seq: u64,
    folded: u64,
    header: RunHeader,
    steps: Vec<StepState>,
    /// Steps not settled, forward.
    unsettled: usize,
    tally: Tally,
    due: BTreeSet<(Time, WorkIndex)>,
    /// Definitions that the next records may move it to.
    known: Vec<Arc<Graph>>,
    limits: Limits,
    meter: bounds::Meter,
}

/// State of a run beside its steps.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct RunHeader {
    /// The instant of the last record.
    at: Time,
    origin: Option<Origin>,
    mode: Mode,
    /// `true` if a worker ever got a task of it.
    handed_out: bool,
    timed_out: bool,
    error: Option<RunError>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "Payload::present"
    )]
    output: Option<Payload>,
    /// The output of a run whose steps are done, until it is held to its JSON Schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unchecked: Option<Unchecked>,
    outcome: Option<Outcome>,
    ended_at: Option<Time>,
    /// Time at which its documents were erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    erased: Option<Time>,
    compensation: Option<Compensation>,
    cancelled_by: Option<By>,
    killed_by: Option<By>,
    retried_by: Option<By>,
    #[serde(default)]
    retried_at: Time,
    /// The signals that came, each the first of its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    signals: BTreeMap<Arc<str>, Signal>,
    /// Signals that were accepted and could not be taken, the last of each name, until one is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refused_signals: Vec<RefusedSignal>,
    /// The rerun that begins once the undo is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rerun: Option<rerun::Rerun>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reran_by: Option<By>,
    /// The input that the first step of a rerun gets instead of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given_input: Option<(usize, Payload)>,
    /// Time at which it last went forward again; its timeout is counted from then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forward_since: Option<Time>,
    /// The deadline no longer applies: the run has ended, went forward again, or a person was informed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    end_over: bool,
    /// The bytes of the inputs that its steps and items were given for themselves, and of the lists of its fan-outs.
    #[serde(default)]
    built: u64,
    /// The bytes of the outputs of its steps and items.
    #[serde(default)]
    outputs: u64,
    /// Steps that begin, or go on, with the next record.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    deferred: BTreeSet<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    holds: Vec<hold::Held>,
    /// The pause that a person took away last, by its name, and who did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resumed_by: Option<(Arc<str>, By)>,
    /// It began held by a serial key or a requirement.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sequenced: bool,
    incidents: Vec<Incident>,
    incidents_opened: u32,
    /// Time of the last report that was too late.
    late_result: Option<Time>,
    /// Facts upon which it began and that were withdrawn since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    withdrawn: Vec<requirements::Withdrawn>,
    /// Steps that had begun when a move dropped them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dropped: Vec<dropped::Dropped>,
    /// The number of the last word that it heard from its parent.
    #[serde(default, skip_serializing_if = "family::is_zero")]
    parent_heard: u32,
    /// Its parent was killed and left it: why, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    orphaned: Option<(String, Time)>,
    /// Time of the last report that contradicted an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contradicted: Option<Time>,
}

/// Direction of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Forward,
    Backward,
    Ended,
}

impl Run {
    /// Returns a run before its first record. `graph` must be the definition that its `Started` event names.
    #[must_use]
    pub fn new(id: RunId, graph: Arc<Graph>) -> Run {
        let steps: Vec<StepState> = graph
            .nodes
            .iter()
            .map(|node| StepState {
                missing: node.needs.len(),
                body: match &node.body {
                    Body::Map(_) => BodyState::Map(Box::new(Items::new())),
                    _ => BodyState::Task(Box::default()),
                },
                formerly: None,
                effectful: false,
                undo_missing: 0,
                undo_settled: false,
            })
            .collect();
        let mut run = Run {
            id,
            unsettled: steps.len(),
            graph,
            seq: 0,
            folded: 0,
            header: RunHeader::default(),
            steps,
            tally: Tally::default(),
            due: BTreeSet::new(),
            known: Vec::new(),
            limits: Limits::default(),
            meter: bounds::Meter::default(),
        };
        for step in 0..run.steps.len() {
            if let BodyState::Task(work) = &run.steps[step].body {
                run.tally.count(work, true);
            }
        }
        run
    }

    /// Returns the run's id.
    #[must_use]
    pub fn id(&self) -> RunId {
        self.id
    }

    /// Returns the definition it runs on.
    #[must_use]
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Returns its input; `None` before it started.
    #[must_use]
    pub fn input(&self) -> Option<&Payload> {
        self.header.origin.as_ref().map(|origin| &origin.input)
    }

    /// Returns the version of its workflow that it is on.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.graph.definition.version
    }

    /// Returns the hash of that definition; empty before it started.
    #[must_use]
    pub fn definition(&self) -> &str {
        self.header.origin.as_ref().map_or("", |origin| &origin.definition)
    }

    /// Returns the number of records that it has folded: the `seq` of the last, 0 before the first. `decide` does
    /// not count; the one who appends the record calls [`Run::mark_appended`].
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Counts a record that `decide` made and that is now in the journal.
    pub fn mark_appended(&mut self) {
        self.seq += 1;
    }

    /// Returns the number of events that it has folded; a measure of the cost of folding.
    #[must_use]
    pub fn events_folded(&self) -> u64 {
        self.folded
    }

    /// Returns the namespace it belongs to; empty before it started.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.header.origin.as_ref().map_or("", |origin| &origin.namespace)
    }

    /// Returns the marks to search by that it has.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        static NONE: Labels = Labels::new();
        self.header.origin.as_ref().map_or(&NONE, |origin| &origin.labels)
    }

    /// Returns the state, as indexed and shown.
    #[must_use]
    pub fn state(&self) -> State {
        match self.header.mode {
            Mode::Ended => State::Ended,
            _ if self.is_paused() => State::Paused,
            Mode::Backward if self.tally.blocked() > 0 => State::CompensationBlocked,
            Mode::Backward => State::Compensating,
            Mode::Forward if self.tally.offered + self.tally.leased == 0 => State::Waiting,
            Mode::Forward if self.header.handed_out => State::Running,
            Mode::Forward => State::Queued,
        }
    }

    /// Returns the outcome, once it ended.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.header.outcome
    }

    /// Returns the time at which it started.
    #[must_use]
    pub fn started_at(&self) -> Time {
        self.header.origin.as_ref().map_or(Time(0), |origin| origin.at)
    }

    /// Returns the instant for which it was started, if that was a later one.
    #[must_use]
    pub fn start_at(&self) -> Option<Time> {
        self.header.origin.as_ref().and_then(|origin| origin.start_at)
    }

    /// Returns the time at which it ended.
    #[must_use]
    pub fn ended_at(&self) -> Option<Time> {
        self.header.ended_at
    }

    /// Returns the run that started it as one of its steps.
    #[must_use]
    pub fn parent(&self) -> Option<&Parent> {
        self.header.origin.as_ref()?.parent.as_ref()
    }

    /// Returns whether a worker holds one of its tasks.
    #[must_use]
    pub fn in_flight(&self) -> bool {
        self.tally.leased > 0
    }

    /// Returns the time of the next [`crate::Command::Tick`]; `None` if no timer is running.
    #[must_use]
    pub fn next_due(&self) -> Option<Time> {
        let all = [
            self.due.first().map(|(at, _)| *at),
            self.deadline_due(),
            self.end_due(),
            self.stuck_due(),
            self.deferred_due(),
            self.delayed_until(),
            self.header.unchecked.as_ref().map(|unchecked| unchecked.again),
        ];
        all.into_iter().flatten().min()
    }

    /// Returns the time by which the forward part must be done.
    pub(crate) fn deadline(&self) -> Time {
        let begins = || self.started_at().max(self.start_at().unwrap_or_default());
        let since = self.header.forward_since.unwrap_or_else(begins);
        since.after(self.graph.definition.timeout)
    }

    /// Returns the deadline as long as it matters.
    fn deadline_due(&self) -> Option<Time> {
        let matters = self.header.mode == Mode::Forward
            && !self.header.timed_out
            && self.header.origin.is_some();
        matters.then(|| self.deadline())
    }

    /// Returns the correlation id of a chain of causes; its own id when the caller gave none.
    #[must_use]
    pub fn correlation_id(&self) -> String {
        let own = self.header.origin.as_ref().and_then(|origin| origin.correlation_id.as_deref());
        own.map_or_else(|| self.id.to_string(), str::to_owned)
    }

    /// Returns the event that caused it, as its start names it.
    #[must_use]
    pub fn causation_id(&self) -> Option<&str> {
        self.header.origin.as_ref()?.causation_id.as_deref()
    }

    /// Returns whether the point of no return has been passed, or may have been: by a pivot, or by a step after one
    /// that was skipped or had no items. Nothing undoes either.
    pub(crate) fn past_pivot(&self) -> bool {
        self.graph.nodes.iter().enumerate().any(|(step, node)| {
            let class = node.task().class();
            (class == Some(Class::Pivot) || (node.after_pivot && class != Some(Class::ReadOnly)))
                && match &self.steps[step].body {
                    BodyState::Task(work) => may_have_happened(work),
                    BodyState::Map(items) => {
                        items.tally.succeeded() + items.tally.unknown > 0
                            || items.works.iter().any(may_have_happened)
                    }
                }
        })
    }

    pub(crate) fn spec(&self, step: usize) -> &Task {
        self.graph.nodes[step].task()
    }

    pub(crate) fn path(&self, place: WorkIndex) -> StepPath {
        StepPath { step: self.graph.nodes[place.step].id.clone(), item: place.item }
    }

    /// Returns the place that a path names, if there is work at it.
    pub(crate) fn place(&self, path: &StepPath) -> Option<WorkIndex> {
        let place = WorkIndex { step: self.step_now(&path.step)?, item: path.item };
        self.work(place).map(|_| place)
    }

    pub(crate) fn work(&self, place: WorkIndex) -> Option<&Activity> {
        match (&self.steps.get(place.step)?.body, place.item) {
            (BodyState::Task(work), None) => Some(work),
            (BodyState::Map(items), Some(item)) => {
                items.works.get(item as usize).or_else(|| items.before.get(item as usize))
            }
            _ => None,
        }
    }

    pub(crate) fn items_of(&self, step: usize) -> Option<&Items> {
        match &self.steps[step].body {
            BodyState::Task(_) => None,
            BodyState::Map(items) => Some(items),
        }
    }

    pub(crate) fn items_mut(&mut self, step: usize) -> Option<&mut Items> {
        match &mut self.steps[step].body {
            BodyState::Task(_) => None,
            BodyState::Map(items) => Some(items),
        }
    }

    /// Returns all places with work that was ever begun: task steps, and the items of maps as far as they were offered.
    pub(crate) fn places(&self) -> impl Iterator<Item = WorkIndex> + '_ {
        (0..self.steps.len()).flat_map(|step| self.places_of(step))
    }

    /// Returns the places of one step.
    pub(crate) fn places_of(&self, step: usize) -> impl Iterator<Item = WorkIndex> + use<> {
        let (task, items) = match &self.steps[step].body {
            BodyState::Task(_) => (Some(WorkIndex::step(step)), 0),
            BodyState::Map(items) => (None, items.next),
        };
        task.into_iter().chain((0..items).map(move |item| WorkIndex::item(step, item)))
    }

    /// Returns whether the forward part of the step is over.
    pub(crate) fn is_settled(&self, step: usize) -> bool {
        match &self.steps[step].body {
            BodyState::Task(work) => work.is_settled(),
            BodyState::Map(items) => !matches!(items.stage, MapStage::Waiting | MapStage::Open),
        }
    }

    /// Returns whether the step succeeded, so that it has an output.
    pub(crate) fn has_succeeded(&self, step: usize) -> bool {
        match &self.steps[step].body {
            BodyState::Task(work) => work.output().is_some(),
            BodyState::Map(items) => items.stage == MapStage::Succeeded,
        }
    }
}

/// Returns the length of a lease without a heartbeat.
fn lease_span(spec: &Task) -> Span {
    spec.timeouts.heartbeat.min(spec.timeouts.attempt)
}

/// Returns the data of the forward attempt that a compensation gets.
fn forward_of(work: &Activity) -> Forward {
    match &work.stage {
        Stage::Succeeded(output) => Forward::Succeeded(output.clone()),
        _ => Forward::Unknown,
    }
}

/// Returns whether the effect of a forward attempt may remain.
fn may_have_happened(work: &Activity) -> bool {
    match &work.stage {
        Stage::Succeeded(_) | Stage::Unknown => !work.undo.is_over(),
        Stage::Active(Action::Forward, TaskState::Leased { .. } | TaskState::Child { .. }) => true,
        Stage::Active(..) | Stage::Parked | Stage::SkippedByHand { .. } => work.in_doubt(),
        Stage::Waiting | Stage::Failed | Stage::Skipped | Stage::Cancelled => false,
    }
}
