//! What a record changes in the tables that one searches by. Pure: the journal's fold says what they must be.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Bound;
use std::time::Duration;

use backstitch_saga::protocol::{Outcome, State};
use backstitch_saga::{
    Action, Begun, Event, OpenEffects, Record, Run, Span, StepPath, TaskKey, Time, fingerprint,
};

use super::cache::CachedRun;
use super::decide::Decided;
use crate::dispatch::Dispatcher;
use crate::flow::{Before, Governed, PermitChanges};
use crate::store::batch::{Also, Batch, NewIncident, NewRun, ReadyRow, RunState};
use crate::store::partitions::began_before_the_week_of;
use crate::store::runs::{asked_of, unknown_in};

/// A run that did not move here for so long may have ended and be gone by what another node did.
const STALE: Span = Span::secs(600);

/// What changes with one run's record.
pub(crate) struct Changes {
    /// Its line in `runs`, if it changes.
    pub(crate) state: Option<RunState>,
    /// Its lines in `open_effects`, if they change.
    pub(crate) open: Option<Vec<OpenEffects>>,
    pub(crate) added: Vec<ReadyRow>,
    pub(crate) removed: Vec<TaskKey>,
    /// Tasks of governed queues that workers hold from now on, and those whose permit is over.
    pub(crate) permits: PermitChanges,
}

/// Where a record is decided.
pub(crate) struct Place<'a> {
    pub(crate) node: i32,
    pub(crate) dispatcher: &'a Dispatcher,
    pub(crate) reserve_for: Duration,
    /// Now, by the clock. The time of a run may be ahead of it.
    pub(crate) at: Time,
    pub(crate) governed: Option<&'a Governed>,
}

/// What the index of a run must say, apart from who is in charge.
pub(crate) fn state_of(run: &Run, node: Option<i32>) -> RunState {
    let conditions = run.conditions().into_iter().map(Cow::Borrowed);
    let marks = run.unknown_in().into_iter().map(|queue| Cow::Owned(unknown_in(queue)));
    let asked = run.assignees().into_iter().map(|who| Cow::Owned(asked_of(who)));
    let conditions = conditions.chain(marks).chain(asked).collect();
    RunState {
        state: run.state(),
        outcome: run.outcome(),
        conditions,
        ended_at: run.ended_at(),
        node,
        wake_at: None,
    }
}

/// Computes the changes of a record that was decided, and adds everything to the batch.
pub(crate) fn add(
    batch: &mut Batch,
    decided: &Decided,
    place: &Place<'_>,
) -> Result<Changes, String> {
    let Decided { cached, record, starts, key, .. } = decided;
    let run = cached.run.id();
    let seq = i32::try_from(cached.run.seq() + 1).map_err(|_| "the journal is full".to_owned())?;
    let events = crate::store::codec::encode_events(&record.events)?;
    let payloads = crate::store::codec::encode_payloads(&record.payloads);
    batch.record(run, seq, record.at, events, payloads, key.is_some());
    let touched = touched(cached, record, &cached.spilled);
    let (added, removed) = ready_changes(cached, record, place, touched);
    let permits = match place.governed {
        Some(governed) => permits(batch, decided, governed),
        None => PermitChanges::default(),
    };
    let state = run_state(cached, *starts, place.node, &added);
    for row in &added {
        batch.offer(row);
    }
    for task in &removed {
        batch.taken(run, task);
    }
    if *starts {
        start(batch, &cached.run, record, state.as_ref().unwrap_or(&cached.indexed));
    } else {
        let has = |wanted: fn(&Event) -> bool| record.events.iter().any(wanted);
        let moved = has(|event| matches!(event, Event::Migrated { .. }));
        let labelled = has(|event| matches!(event, Event::Labelled { .. }));
        let also = Also {
            on: moved.then(|| (cached.run.version(), cached.run.definition())),
            labels: labelled.then(|| cached.run.labels()),
        };
        if state.is_some() || moved || labelled {
            batch.update(run, state.as_ref().unwrap_or(&cached.indexed), &also);
        }
    }
    if !*starts && may_be_deleted(cached, place.at) {
        batch.only_if_kept(run);
    }
    let moves = |event: &Event| !matches!(event, Event::Labelled { .. } | Event::Erased(_));
    if !*starts
        && record.events.iter().any(moves)
        && cached.indexed.state == State::Ended
        && cached.run.may_establish()
    {
        batch.reopened(run, &cached.namespace, record.at);
    }
    acts(batch, cached, seq, record);
    let open = open_effects(batch, cached, record);
    super::outgoing::add(batch, cached, seq, record);
    if record.events.iter().any(is_edge) {
        incidents(batch, cached, record);
        milestones(batch, cached, record);
    }
    Ok(Changes { state, open, added, removed, permits })
}

/// The lines of a run in `open_effects` from now on; `None` when they stay as they are, as those of a run without trouble do.
fn open_effects(
    batch: &mut Batch,
    cached: &CachedRun,
    record: &Record,
) -> Option<Vec<OpenEffects>> {
    let now = cached.run.open_effects();
    if now == cached.open {
        return None;
    }
    let owner = (&*cached.namespace, cached.run.graph().definition.name.as_str());
    batch.open_effects(cached.run.id(), owner, record.at, (&cached.open, &now));
    Some(now)
}

/// Returns whether retention may have deleted a run, whatever this node remembers of it: single runs of weeks that are over, and
/// of this week those that ended an hour ago or more.
fn may_be_deleted(cached: &CachedRun, now: Time) -> bool {
    began_before_the_week_of(cached.run.id().0, now)
        || cached.indexed.state == State::Ended
        || cached.moved_at.after(STALE) < now
}

/// The run's new line in `runs`; `None` when it stays as it is. Whoever writes a record is in charge from then on.
fn run_state(cached: &CachedRun, starts: bool, node: i32, added: &[ReadyRow]) -> Option<RunState> {
    let run = &cached.run;
    let mut state = state_of(run, Some(node));
    if state.state == State::Ended && run.next_due().is_none() {
        state.node = None;
    } else if starts
        && state.state != State::Ended
        && !run.in_flight()
        && added.iter().all(|row| row.reserved.is_none())
    {
        // Nobody here will do its first task soon: it is parked from the beginning.
        state.node = None;
        state.wake_at = cached.next_due();
    }
    (starts || state != cached.indexed).then_some(state)
}

fn start(batch: &mut Batch, run: &Run, record: &Record, state: &RunState) {
    let Some(Event::Started(begun)) = record.events.first() else { return };
    let Begun { namespace, workflow, key, correlation_id, labels, .. } = &**begun;
    let labels = (!labels.is_empty()).then(|| serde_json::to_string(labels).unwrap_or_default());
    let new = NewRun {
        namespace,
        workflow,
        version: run.version(),
        definition: run.definition(),
        key: key.as_deref(),
        correlation_id: correlation_id.as_deref(),
        labels,
        started_at: record.at,
    };
    batch.start(run.id(), new, state);
}

/// The tasks whose state a record's events can have changed: those that they name, and of `spilled` those of the works
/// that they name.
fn touched(cached: &CachedRun, record: &Record, spilled: &BTreeSet<TaskKey>) -> Vec<TaskKey> {
    let mut touched: Vec<TaskKey> = Vec::with_capacity(record.events.len());
    for event in &record.events {
        match event {
            Event::Offered { step, action, attempt, .. }
            | Event::Released { step, action, attempt }
            | Event::Leased { step, action, attempt, .. }
            | Event::Failed { step, action, attempt, .. }
            | Event::Lost { step, action, attempt, .. } => {
                touched.push(TaskKey { step: step.clone(), action: *action, attempt: *attempt });
            }
            Event::Unheld { .. } => touched.extend(cached.run.offered()),
            _ if spilled.is_empty() => {}
            Event::GaveUp { step, .. }
            | Event::UndoMarked { step, .. }
            | Event::UndoBlocked { step }
            | Event::Undone { step, .. }
            | Event::Parked { step }
            | Event::SkippedByHand { step, .. }
            | Event::Succeeded { step, .. }
            | Event::Happened { step, .. }
            | Event::NotHappened { step, .. } => touched.extend(of_work(spilled, step).cloned()),
            Event::Joined { step, .. } | Event::Skipped { step, .. } => {
                touched.extend(of_work(spilled, &StepPath::step(step.clone())).cloned());
            }
            Event::CompensationStarted { .. }
            | Event::Killed { .. }
            | Event::Held { .. }
            | Event::Migrated { .. }
            | Event::Ended { .. } => {
                touched.extend(spilled.iter().cloned());
            }
            Event::Started(_)
            | Event::Opened { .. }
            | Event::Deferred { .. }
            | Event::Labelled { .. }
            | Event::Erased(_)
            | Event::Beat { .. }
            | Event::RetryScheduled { .. }
            | Event::RetryRequested { .. }
            | Event::Resumed { .. }
            | Event::RunFailed { .. }
            | Event::UndoRequested { .. }
            | Event::CancelRequested { .. }
            | Event::TimedOut
            | Event::InputEdited { .. }
            | Event::ResolvedByHand { .. }
            | Event::SignalAwaited { .. }
            | Event::Signalled { .. }
            | Event::SignalRefused { .. }
            | Event::OutputUnchecked { .. }
            | Event::SleepBegan { .. }
            | Event::ChildAsked { .. }
            | Event::FactWithdrawn { .. }
            | Event::FactRestored { .. }
            | Event::Emitted(_)
            | Event::ChildTold { .. }
            | Event::ChildHeard { .. }
            | Event::ParentHeard { .. }
            | Event::RerunRequested { .. }
            | Event::WentForward { .. }
            | Event::IncidentOpened { .. }
            | Event::IncidentResolved { .. }
            | Event::LateResult { .. } => {}
        }
    }
    touched.sort_unstable();
    touched.dedup();
    touched
}

/// Which tasks come to the table `ready` and which go from it: those on offer when the record is done, against those
/// that were on offer before. Looks only at what the record's events can have changed.
fn ready_changes(
    cached: &CachedRun,
    record: &Record,
    place: &Place<'_>,
    touched: Vec<TaskKey>,
) -> (Vec<ReadyRow>, Vec<TaskKey>) {
    let spilled = &cached.spilled;
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for task in touched {
        match (spilled.contains(&task), cached.run.is_offered(&task)) {
            (true, false) => removed.push(task),
            (false, true) => {
                let Some((queue, name)) = cached.run.route(&task) else { continue };
                let governed =
                    place.governed.and_then(|governed| governed.get(&cached.namespace, queue));
                let rank = governed.map(|governed| governed.rank(cached.run.labels()));
                let ours = rank.is_none()
                    && place.dispatcher.would_remember(&cached.namespace, queue, name);
                let now = record.at.min(place.at);
                let until = now.after(place.reserve_for.into());
                let offered_at = offered_at(cached, record, &task, now);
                added.push(ReadyRow {
                    run: cached.run.id(),
                    namespace: cached.namespace.clone(),
                    queue: queue.to_owned(),
                    name: name.to_owned(),
                    task,
                    reserved: ours.then_some((place.node, until)),
                    rank,
                    offered_at,
                });
            }
            _ => {}
        }
    }
    (added, removed)
}

/// Since when a task is on offer. One that was handed out and came back stands where it stood before.
fn offered_at(cached: &CachedRun, record: &Record, task: &TaskKey, now: Time) -> Time {
    let back = record.events.iter().any(|event| {
        matches!(event, Event::Released { step, action, attempt }
            if (step, *action, *attempt) == (&task.step, task.action, task.attempt))
    });
    let first = back.then(|| cached.run.first_offered(task)).flatten();
    first.map_or(now, |first| first.min(now))
}

/// Which tasks of governed queues workers hold from now on, and which permits are over.
fn permits(batch: &mut Batch, decided: &Decided, governed: &Governed) -> PermitChanges {
    let Decided { cached, record, granted, .. } = decided;
    let mut before = BTreeMap::new();
    for task in touched(cached, record, &cached.spilled) {
        let waited = cached.spilled.contains(&task);
        before.insert(task, if waited { Before::Waiting } else { Before::New });
    }
    for task in touched(cached, record, &cached.held) {
        if cached.held.contains(&task) {
            before.insert(task, Before::Held);
        }
    }
    let run = cached.run.id();
    for one in granted {
        let Some(permit) = one.grant.permit else { continue };
        if cached.run.holder(&one.task).is_some() {
            batch.flow.permit(run, permit);
        }
    }
    let changes = crate::flow::permit_changes(governed, &cached.run, before.into_iter());
    for task in &changes.over {
        batch.flow.freed(run, task);
    }
    changes
}

/// The tasks of one item, or of one step with all its items.
fn of_work<'a>(
    spilled: &'a BTreeSet<TaskKey>,
    step: &StepPath,
) -> impl Iterator<Item = &'a TaskKey> {
    let last = StepPath { step: step.step.clone(), item: step.item.or(Some(u32::MAX)) };
    let key = |step, action, attempt| TaskKey { step, action, attempt };
    spilled.range((
        Bound::Included(key(step.clone(), Action::Forward, 0)),
        Bound::Included(key(last, Action::Compensate, u32::MAX)),
    ))
}

/// Whether an event is written to `incidents` or `events`.
fn is_edge(event: &Event) -> bool {
    matches!(
        event,
        Event::Started(_)
            | Event::Ended { .. }
            | Event::CompensationStarted { .. }
            | Event::WentForward { .. }
            | Event::IncidentOpened { .. }
            | Event::IncidentResolved { .. }
    )
}

/// What people did.
fn acts(batch: &mut Batch, cached: &CachedRun, seq: i32, record: &Record) {
    for (place, event) in record.events.iter().enumerate() {
        if let Some(act) = event.act() {
            let workflow = &cached.run.graph().definition.name;
            let owner = (&*cached.namespace, workflow.as_str());
            batch.act((cached.run.id(), seq, place), owner, record.at, &act);
        }
    }
}

/// Incidents that opened, and those that are over. One that did both in this record is written once.
fn incidents(batch: &mut Batch, cached: &CachedRun, record: &Record) {
    let run = cached.run.id();
    let over = |wanted: u32| {
        record.events.iter().any(
            |event| matches!(event, Event::IncidentResolved { incident } if *incident == wanted),
        )
    };
    let workflow = &cached.run.graph().definition.name;
    let mut opened = BTreeSet::new();
    for event in &record.events {
        match event {
            Event::IncidentOpened { incident, kind, step, code, message } => {
                opened.insert(*incident);
                let (step, code) = (step.as_ref(), code.as_deref());
                let new = NewIncident {
                    incident: *incident,
                    namespace: &cached.namespace,
                    workflow,
                    kind: kind.as_str(),
                    step,
                    code,
                    message,
                    fingerprint: fingerprint(workflow, step, *kind, code, message),
                    opened_at: record.at,
                    resolved_at: over(*incident).then_some(record.at),
                };
                batch.incident(run, &new);
            }
            Event::IncidentResolved { incident } if !opened.contains(incident) => {
                batch.resolved(run, *incident, record.at);
            }
            _ => {}
        }
    }
}

fn milestones(batch: &mut Batch, cached: &CachedRun, record: &Record) {
    let run = cached.run.id();
    let definition = &cached.run.graph().definition;
    let (workflow, version) = (&definition.name, definition.version);
    let mut text = String::from("[");
    for event in &record.events {
        let (kind, incident) = match event {
            Event::Started(_) => ("run.started", None),
            Event::CompensationStarted { .. } => ("run.compensation_started", None),
            Event::WentForward { .. } => ("run.went_forward", None),
            Event::Ended { outcome, .. } => (milestone_of(*outcome), None),
            Event::IncidentOpened { incident, .. } => ("incident.opened", Some(*incident)),
            Event::IncidentResolved { incident } => ("incident.resolved", Some(*incident)),
            _ => continue,
        };
        let comma = if text.len() > 1 { "," } else { "" };
        let incident =
            incident.map(|number| format!(r#","incident":{number}"#)).unwrap_or_default();
        // Names have no characters that JSON would escape. Writing to a string cannot fail.
        let _ = write!(
            text,
            r#"{comma}{{"type":"{kind}","run":"{run}","workflow":"{workflow}","version":{version}{incident}}}"#
        );
    }
    text.push(']');
    batch.milestones(&cached.namespace, run, record.at, text);
}

pub(super) fn milestone_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "run.succeeded",
        Outcome::PartiallyCompleted => "run.partially_completed",
        Outcome::FailedClean => "run.failed_clean",
        Outcome::FailedDirty => "run.failed_dirty",
        Outcome::Compensated => "run.compensated",
        Outcome::CompensatedWithManualSteps => "run.compensated_with_manual_steps",
        Outcome::Cancelled => "run.cancelled",
    }
}

/// When a run is to be looked at next: when its next timer is due, or to be parked.
pub(crate) fn look_at(cached: &CachedRun, park_after: Duration) -> Option<Time> {
    let park = (!cached.run.in_flight()).then(|| cached.moved_at.after(park_after.into()));
    cached.next_due().into_iter().chain(park).min()
}
