//! Changes of a record to the tables for searching. Pure: computed from the run that the journal gives.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Bound;
use std::time::Duration;

use backstitch_saga::protocol::State;
use backstitch_saga::{
    Action, Begun, Effect, OpenEffects, OpenedIncident, Record, Run, Span, StepPath, TaskKey, Time,
    Transition, fingerprint,
};

use super::cache::CachedRun;
use super::decide::Decided;
use crate::dispatch::Dispatcher;
use crate::flow::{Before, Governed, PermitChanges};
use crate::store::batch::{Also, Batch, NewIncident, NewRun, ReadyRow, RunState};
use crate::store::partitions::began_before_the_week_of;
use crate::store::runs::{asked_of, unknown_in};

/// A run without a change here for so long may have ended and been deleted by another node.
const STALE: Span = Span::secs(600);

/// Changes of one run's record.
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

/// The context of a decision.
pub(crate) struct Place<'a> {
    pub(crate) node: i32,
    pub(crate) dispatcher: &'a Dispatcher,
    pub(crate) reserve_for: Duration,
    /// Now, by the clock. The time of a run may be ahead of it.
    pub(crate) at: Time,
    pub(crate) governed: Option<&'a Governed>,
}

/// Returns the index row of a run of which `node` is in charge.
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
    let Decided { cached, transition, starts, key, .. } = decided;
    let Transition { record, effects } = transition;
    let run = cached.run.id();
    let seq = i32::try_from(cached.run.seq() + 1).map_err(|_| "the journal is full".to_owned())?;
    let events = crate::store::codec::encode_events(record)?;
    let payloads = crate::store::codec::encode_payloads(&record.payloads);
    batch.record(run, seq, record.at, events, payloads, key.is_some());
    let touched = touched(&cached.run, effects, &cached.spilled);
    let (added, removed) = ready_changes(cached, transition, place, touched);
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
        let moved = effects.contains(&Effect::VersionChanged);
        let labelled = effects.contains(&Effect::LabelsChanged);
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
    if !*starts
        && cached.indexed.state == State::Ended
        && cached.run.may_establish()
        && record.moves()
    {
        batch.reopened(run, &cached.namespace, record.at);
    }
    acts(batch, cached, seq, record);
    let open = open_effects(batch, cached, record);
    super::outgoing::add(batch, cached, seq, transition);
    incidents(batch, cached, record.at, effects);
    milestones(batch, cached, record.at, effects);
    Ok(Changes { state, open, added, removed, permits })
}

/// Returns the lines of a run in `open_effects` from now on; `None` when they stay as they are, as those of a run
/// without trouble do.
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

/// Returns whether retention may have deleted a run, whatever this node remembers of it: single runs of weeks that are
/// over, and of this week those that ended an hour ago or more.
fn may_be_deleted(cached: &CachedRun, now: Time) -> bool {
    began_before_the_week_of(cached.run.id().0, now)
        || cached.indexed.state == State::Ended
        || cached.moved_at.after(STALE) < now
}

/// Returns the run's new row in `runs`; `None` if it is unchanged. The node that writes a record is in charge from
/// then on.
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
        // No worker here will do its first task soon: it is parked from the beginning.
        state.node = None;
        state.wake_at = cached.next_due();
    }
    (starts || state != cached.indexed).then_some(state)
}

fn start(batch: &mut Batch, run: &Run, record: &Record, state: &RunState) {
    let Some(begun) = record.begun() else { return };
    let Begun { namespace, workflow, key, correlation_id, labels, .. } = begun;
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

/// Returns the tasks whose state effects can have changed: those that they name, and of `known` those of the works that
/// they name.
fn touched(run: &Run, effects: &[Effect], known: &BTreeSet<TaskKey>) -> Vec<TaskKey> {
    let mut touched: Vec<TaskKey> = Vec::with_capacity(effects.len());
    for effect in effects {
        match effect {
            Effect::TaskOffered(task) | Effect::TaskReleased(task) | Effect::TaskLeased(task) => {
                touched.push(task.clone());
            }
            Effect::HoldEnded(_) => touched.extend(run.offered()),
            _ if known.is_empty() => {}
            Effect::AttemptEnded(TaskKey { step, .. }, _) | Effect::WorkSettled(step) => {
                touched.extend(of_work(known, step).cloned());
            }
            Effect::OffersWithdrawn => touched.extend(known.iter().cloned()),
            _ => {}
        }
    }
    touched.sort_unstable();
    touched.dedup();
    touched
}

/// Returns the tasks that enter and leave the table `ready`: the difference between the offered tasks before and
/// after the record. Looks only at what the record's effects can have changed.
fn ready_changes(
    cached: &CachedRun,
    Transition { record, effects }: &Transition,
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
                let back = is_released(effects, &task);
                let kind = (&*cached.namespace, queue, name);
                let ours = rank.is_none() && place.dispatcher.would_remember(kind, back);
                let now = record.at.min(place.at);
                let until = now.after(place.reserve_for.into());
                let offered_at = offered_at(cached, &task, back, now);
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

/// Returns whether a record gives a task back that was handed out.
fn is_released(effects: &[Effect], task: &TaskKey) -> bool {
    let is_release =
        |effect: &Effect| matches!(effect, Effect::TaskReleased(released) if released == task);
    effects.iter().any(is_release)
}

/// Returns the time since when a task is offered. One that was handed out and given `back` keeps its
/// former position.
fn offered_at(cached: &CachedRun, task: &TaskKey, back: bool, now: Time) -> Time {
    let first = back.then(|| cached.run.first_offered(task)).flatten();
    first.map_or(now, |first| first.min(now))
}

/// Returns the tasks of governed queues that workers hold from now on, and the permits that end.
fn permits(batch: &mut Batch, decided: &Decided, governed: &Governed) -> PermitChanges {
    let Decided { cached, transition, granted, .. } = decided;
    let (run, effects) = (&cached.run, &transition.effects);
    let mut before = BTreeMap::new();
    for task in touched(run, effects, &cached.spilled) {
        let waited = cached.spilled.contains(&task);
        before.insert(task, if waited { Before::Waiting } else { Before::New });
    }
    for task in touched(run, effects, &cached.held) {
        if cached.held.contains(&task) {
            before.insert(task, Before::Held);
        }
    }
    for one in granted {
        let Some(permit) = one.grant.permit else { continue };
        if run.holder(&one.task).is_some() {
            batch.flow.permit(run.id(), permit);
        }
    }
    let changes = crate::flow::permit_changes(governed, run, before.into_iter());
    for task in &changes.over {
        batch.flow.freed(run.id(), task);
    }
    changes
}

/// Returns the tasks of one item, or of one step with all its items.
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

/// Adds the acts of people.
fn acts(batch: &mut Batch, cached: &CachedRun, seq: i32, record: &Record) {
    for (place, act) in record.acts() {
        let workflow = &cached.run.graph().definition.name;
        let owner = (&*cached.namespace, workflow.as_str());
        batch.act((cached.run.id(), seq, place), owner, record.at, &act);
    }
}

/// Writes incidents that opened, and those that are over. One that did both in this record is
/// written once.
fn incidents(batch: &mut Batch, cached: &CachedRun, at: Time, effects: &[Effect]) {
    let run = cached.run.id();
    let workflow = &cached.run.graph().definition.name;
    let mut opened = BTreeSet::new();
    for effect in effects {
        match effect {
            Effect::IncidentOpened(one) => {
                let OpenedIncident { incident, kind, step, code, message } = &**one;
                opened.insert(*incident);
                let (step, code) = (step.as_ref(), code.as_deref());
                let is_over = effects.contains(&Effect::IncidentResolved(*incident));
                let new = NewIncident {
                    incident: *incident,
                    namespace: &cached.namespace,
                    workflow,
                    kind: kind.as_str(),
                    step,
                    code,
                    message,
                    fingerprint: fingerprint(workflow, step, *kind, code, message),
                    opened_at: at,
                    resolved_at: is_over.then_some(at),
                };
                batch.incident(run, &new);
            }
            Effect::IncidentResolved(incident) if !opened.contains(incident) => {
                batch.resolved(run, *incident, at);
            }
            _ => {}
        }
    }
}

/// Adds the milestones of a record to the batch. Most records have none.
fn milestones(batch: &mut Batch, cached: &CachedRun, at: Time, effects: &[Effect]) {
    let run = cached.run.id();
    let definition = &cached.run.graph().definition;
    let (workflow, version) = (&definition.name, definition.version);
    let mut text = String::new();
    for effect in effects {
        let Some((_, kind)) = effect.milestone() else { continue };
        let incident = match effect {
            Effect::IncidentOpened(one) => Some(one.incident),
            Effect::IncidentResolved(incident) => Some(*incident),
            _ => None,
        };
        let before = if text.is_empty() { '[' } else { ',' };
        let incident =
            incident.map(|number| format!(r#","incident":{number}"#)).unwrap_or_default();
        // Names have no characters that JSON would escape. Writing to a string cannot fail.
        let _ = write!(
            text,
            r#"{before}{{"type":"{kind}","run":"{run}","workflow":"{workflow}","version":{version}{incident}}}"#
        );
    }
    if !text.is_empty() {
        text.push(']');
        batch.milestones(&cached.namespace, run, at, text);
    }
}

/// Returns the time of the next look at a run: when its next timer is due, or it is to be parked.
pub(crate) fn look_at(cached: &CachedRun, park_after: Duration) -> Option<Time> {
    let park = (!cached.run.in_flight()).then(|| cached.moved_at.after(park_after.into()));
    cached.next_due().into_iter().chain(park).min()
}
