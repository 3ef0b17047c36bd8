//! Applies a record to a run. Total and without judgement: everything was decided when the record was written.

use super::hold::Held;
use super::said::What;
use super::state::{Activity, BodyState, MapStage, Stage, TaskState, Undo, WorkIndex};
use super::{Compensation, Incident, Mode, Origin, Run};
use crate::event::{Event, IncidentKind, Record, Slot};
use crate::protocol::{RunError, Scope};
use crate::{Action, HoldKind, Payload, StepPath, Time};

impl Run {
    /// Folds one record into the run. Total: a record that was written is applied without judgement.
    pub fn apply(&mut self, record: &Record) {
        for event in &record.events {
            self.apply_event(event, record.at, &record.payloads);
        }
        self.appended_at(record.at);
    }

    /// Notes that a whole record has been folded.
    pub(super) fn appended_at(&mut self, at: Time) {
        self.header.at = at;
        self.seq += 1;
    }

    /// Folds one event. Returns the step that it settled, forward, if it did.
    pub(super) fn apply_event(
        &mut self,
        event: &Event,
        at: Time,
        payloads: &[Payload],
    ) -> Option<usize> {
        self.folded += 1;
        self.header.at = at;
        self.note_deferred(event);
        let payload =
            |slot: &Slot| payloads.get(slot.0 as usize).cloned().unwrap_or_else(Payload::null);
        match event {
            Event::Started(begun) => {
                self.header.origin = Some(Origin {
                    namespace: begun.namespace.clone(),
                    workflow: begun.workflow.clone(),
                    version: begun.version,
                    definition: begun.definition.clone(),
                    key: begun.key.clone(),
                    correlation_id: begun.correlation_id.clone(),
                    causation_id: begun.causation_id.clone(),
                    labels: begun.labels.clone(),
                    input: payload(&begun.input),
                    at,
                    parent: begun.parent.clone(),
                    descent: begun.descent,
                    start_at: begun.start_at,
                    requires: begun.requires.clone(),
                    end_by: begun.end_by.clone(),
                });
                None
            }
            Event::Labelled { set, removed, .. } => {
                self.relabel(set, removed);
                None
            }
            Event::Skipped { step, .. } => {
                let step = self.graph.position(step)?;
                match &mut self.steps[step].body {
                    BodyState::Task(_) => {
                        self.change(WorkIndex::step(step), |work| work.stage = Stage::Skipped);
                    }
                    BodyState::Map(items) => items.stage = MapStage::Skipped,
                }
                self.settle(step)
            }
            Event::Opened { step, items, total, keys } => {
                let step = self.graph.position(step)?;
                let keys = keys.as_ref().map(payload);
                self.open_map(step, items, keys.as_ref(), (*total, payloads));
                None
            }
            Event::Offered { step, action, attempt, input } => {
                let place = self.place(step)?;
                self.offered_now(place, *action, *attempt, input.as_ref(), (at, payloads));
                None
            }
            Event::Leased { step, action, worker, until, .. } => {
                self.header.handed_out = true;
                let hand = TaskState::Leased { worker: worker.clone(), since: at, until: *until };
                self.change_at(step, |work| {
                    work.tries_mut(*action).deliveries += 1;
                    set_hand(work, hand);
                })
            }
            Event::Released { step, action, .. } => {
                let offered = self.offered_hand(at);
                self.change_at(step, |work| {
                    let tries = work.tries_mut(*action);
                    tries.deliveries = tries.deliveries.saturating_sub(1);
                    set_hand(work, offered);
                })
            }
            Event::Beat { step, until, details, .. } => {
                let details = details.as_ref().map(payload);
                self.change_at(step, |work| {
                    if let Some(TaskState::Leased { until: current, .. }) = work.hand_mut() {
                        *current = *until;
                    }
                    if details.is_some() {
                        work.aside_mut().details = details;
                    }
                })
            }
            Event::Succeeded { step, output, external_id, attempt } => {
                let by_attempt = *attempt > 0;
                let place = self.place(step)?;
                let output = payload(output);
                self.header.outputs += output.text().len() as u64;
                let joined =
                    self.items_of(place.step).is_some_and(|items| items.stage != MapStage::Open);
                self.change(place, |work| {
                    if !by_attempt {
                        work.revoke_unclaimed();
                    }
                    work.stage = Stage::Succeeded(output);
                    work.late = joined;
                    if external_id.is_some() || work.aside.is_some() {
                        let aside = work.aside_mut();
                        aside.external_id.clone_from(external_id);
                        (aside.doubt, aside.done) = (false, false);
                        (aside.error, aside.details) = (None, None);
                    }
                });
                self.settle_task(place)
            }
            Event::Failed { step, action, attempt, error, done } => {
                let next = self.attempt_over(step, *action, *attempt, error, false);
                if *done {
                    self.change_at(step, |work| work.aside_mut().done = true);
                }
                next
            }
            Event::Lost { step, action, attempt, error } => {
                self.attempt_over(step, *action, *attempt, error, true)
            }
            Event::RetryScheduled { step, action, at: until, .. } => self.change_at(step, |work| {
                work.tries_mut(*action).delay = until.since(at);
                set_current(work, *action, TaskState::Backoff { until: *until });
            }),
            Event::NotHappened { step, attempt } => self.change_at(step, |work| {
                set_hand(work, TaskState::Nobody);
                work.aside_mut().doubt = false;
                work.note_report(Action::Verify, *attempt, What::NotHappened);
            }),
            Event::Deferred { .. } => None,
            Event::Happened { step, attempt } => self.change_at(step, |work| {
                work.note_report(Action::Verify, *attempt, What::Happened);
            }),
            Event::CancelRequested { .. }
            | Event::RetryRequested { .. }
            | Event::RerunRequested { .. }
            | Event::Signalled { .. }
            | Event::SignalRefused { .. } => {
                self.note_request(event, at, payloads);
                None
            }
            Event::ResolvedByHand { step, .. } => self.change_at(step, |work| work.by_hand = true),
            Event::SignalAwaited { step, until, assignee, .. } => {
                let (until, assignee) = (*until, assignee.clone());
                self.change_at(step, |work| {
                    work.begun(Action::Forward, at);
                    set_current(work, Action::Forward, TaskState::Signal { until, assignee });
                })
            }
            Event::SleepBegan { step, until } => self.change_at(step, |work| {
                work.begun(Action::Forward, at);
                set_current(work, Action::Forward, TaskState::Timer { until: *until });
            }),
            Event::ChildAsked { step, action, attempt, run, again, input } => {
                let place = self.place(step)?;
                // One that was asked before is asked on while the run is held: it is at work.
                let held = self.is_held() && !self.is_at_work(place, *action, *run);
                self.offered_now(place, *action, *attempt, input.as_ref(), (at, payloads));
                let hand = match held {
                    true => TaskState::Held,
                    false => TaskState::Child { run: *run, again: *again },
                };
                self.change(place, |work| {
                    set_hand(work, hand);
                    if *action == Action::Compensate {
                        work.forget_kill();
                    }
                });
                None
            }
            Event::FactWithdrawn { .. } | Event::FactRestored { .. } => {
                self.requirement_changed(event, at);
                None
            }
            Event::ChildTold { .. } | Event::ChildHeard { .. } | Event::ParentHeard { .. } => {
                self.family_changed(event, at);
                None
            }
            Event::InputEdited { step, input, new_key } => {
                let input = payload(input);
                self.change_at(step, |work| {
                    let action = work.resumes();
                    work.tries_mut(action).edition += u32::from(*new_key);
                    (work.input, work.shared) = (Some(input), None);
                })
            }
            Event::SkippedByHand { step, output, .. } => {
                let place = self.place(step)?;
                let output = output.as_ref().map(payload);
                let joined =
                    self.items_of(place.step).is_some_and(|items| items.stage != MapStage::Open);
                self.change(place, |work| {
                    work.revoke();
                    work.stage = Stage::SkippedByHand { output };
                    work.late = joined;
                });
                self.settle_task(place)
            }
            Event::WentForward { steps } => {
                self.go_forward(steps, at);
                None
            }
            Event::GaveUp { step, fate, error } => self.gave_up(step, *fate, error.as_ref()),
            Event::Parked { step } => self.change_at(step, |work| {
                work.revoke_unclaimed();
                work.stage = Stage::Parked;
            }),
            Event::Resumed { step } => self.change_at(step, |work| {
                let action = work.resumes();
                let tries = work.tries_mut(action);
                tries.forgive();
                tries.since = at;
                if let Some(aside) = &mut work.aside {
                    aside.absolve();
                    aside.slow = false;
                }
                set_current(work, action, TaskState::Nobody);
            }),
            Event::Joined { step, succeeded } => {
                let step = self.graph.position(step)?;
                let stage = if *succeeded { MapStage::Succeeded } else { MapStage::Failed };
                let items = self.items_mut(step)?;
                items.stage = stage;
                if *succeeded {
                    items.gather();
                }
                self.settle(step)
            }
            Event::RunFailed { step, error } => {
                self.header
                    .error
                    .get_or_insert(RunError { step: step.clone(), failure: error.clone() });
                None
            }
            Event::CompensationStarted { cause, by, scope, steps } => {
                self.header.unchecked = None;
                // A rerun undoes from a step on; a request to undo everything ends the rerun.
                if by.is_some() && *scope == Some(Scope::All) {
                    self.header.rerun = None;
                }
                self.header.compensation =
                    Some(Compensation { cause: *cause, by: by.clone(), scope: scope.clone() });
                self.drop_holds(at, |hold| hold.kind.is_forward_only());
                self.turn_backward(steps);
                None
            }
            Event::UndoRequested { step } => self.change_at(step, |work| work.undo = Undo::Waiting),
            Event::Undone { step, by_hand, .. } => {
                self.undo_over(step, if *by_hand { Undo::Marked } else { Undo::Done })
            }
            Event::UndoMarked { step, by } => {
                if self.place(step).is_none() && self.vouch_for_dropped(step, by) {
                    return None;
                }
                let by = by.clone();
                self.change_at(step, |work| work.aside_mut().vouched = Some(by));
                self.undo_over(step, Undo::Marked)
            }
            Event::UndoBlocked { step } => self.change_at(step, |work| work.undo = Undo::Blocked),
            Event::Held { hold, by, message } => {
                let (hold, by, message) = (hold.clone(), by.clone(), message.clone());
                self.hold(Held { hold, by, message, since: at });
                None
            }
            Event::Unheld { hold, by } => {
                if let (HoldKind::Paused, Some(by)) = (hold.kind, by) {
                    self.header.resumed_by = Some((hold.name.clone(), by.clone()));
                }
                self.drop_holds(at, |other| other == hold);
                None
            }
            Event::Migrated { version, definition, mapping, skipped, .. } => {
                self.header.unchecked = None;
                self.move_to(*version, definition, mapping, skipped);
                None
            }
            Event::Killed { by } => {
                self.header.killed_by = Some(by.clone());
                self.drop_open_undos();
                None
            }
            Event::Emitted(emission) => {
                self.emitted(emission);
                None
            }
            Event::Erased(_) => {
                self.header.erased = Some(at);
                None
            }
            Event::TimedOut => {
                self.header.timed_out = true;
                None
            }
            Event::IncidentOpened { incident, kind, step, message, .. } => {
                if let (IncidentKind::CompensationSlow, Some(step)) = (kind, step) {
                    self.change_at(step, |work| work.aside_mut().slow = true);
                }
                self.header.incidents_opened = *incident;
                self.header.incidents.push(Incident {
                    number: *incident,
                    kind: *kind,
                    step: step.clone(),
                    message: message.clone(),
                    since: at,
                });
                if *kind == IncidentKind::DeadlineMissed {
                    self.told_deadline(at);
                }
                None
            }
            Event::IncidentResolved { incident } => {
                self.header.incidents.retain(|open| open.number != *incident);
                None
            }
            Event::LateResult { step, action, attempt, contradicts: true, .. } => {
                self.header.contradicted = Some(at);
                self.change_at(step, |work| work.note_contradiction(*action, *attempt))
            }
            Event::LateResult { step, action, attempt, .. } => {
                self.header.late_result = Some(at);
                self.change_at(step, |work| {
                    work.aside_mut().acquit(*action, *attempt);
                    let lost = &mut work.aside_mut().lost;
                    lost.retain(|(a, n, _)| (a, n) != (action, attempt));
                    lost.push((*action, *attempt, true));
                })
            }
            Event::OutputUnchecked { output, again } => {
                let before = self.header.unchecked.take().and_then(|unchecked| unchecked.output);
                let output = output.as_ref().map(payload).or(before);
                self.header.unchecked = Some(super::Unchecked { output, again: *again });
                None
            }
            Event::Ended { outcome, output } => {
                self.header.unchecked = None;
                self.header.holds.clear();
                self.header.rerun = None;
                self.header.mode = Mode::Ended;
                self.header.outcome = Some(*outcome);
                self.header.ended_at = Some(at);
                self.end_by_is_over();
                if let Some(output) = output {
                    self.header.output = Some(payload(output));
                }
                None
            }
        }
    }

    /// Changes the work at `place` and keeps every count and timer in step with it. Nothing else writes a work.
    pub(super) fn change(&mut self, place: WorkIndex, change: impl FnOnce(&mut Activity)) {
        let spec = self.graph.nodes[place.step].task();
        match (&mut self.steps[place.step].body, place.item) {
            (BodyState::Task(work), None) => {
                self.tally.count(work, false);
                change(work);
                self.tally.count(work, true);
                retime(&mut self.due, place, work, work.next_due(spec));
            }
            (BodyState::Map(items), Some(item)) => {
                let Some(work) = items.works.get_mut(item as usize) else { return };
                self.tally.count(work, false);
                items.tally.count(work, false);
                change(work);
                self.tally.count(work, true);
                items.tally.count(work, true);
                retime(&mut self.due, place, work, work.next_due(spec));
                if work.undo == Undo::Waiting {
                    items.undo_next = items.undo_next.min(item);
                }
            }
            _ => {}
        }
    }

    /// Returns the same, by path; answers `None` always, for the events that settle nothing.
    pub(super) fn change_at(
        &mut self,
        path: &StepPath,
        change: impl FnOnce(&mut Activity),
    ) -> Option<usize> {
        let place = self.place(path)?;
        self.change(place, change);
        None
    }

    /// Settles the step of a work, unless the work is one item among others.
    pub(super) fn settle_task(&mut self, place: WorkIndex) -> Option<usize> {
        if place.item.is_some() { None } else { self.settle(place.step) }
    }

    /// Notes that a step is over, forward: those that wait for it miss one need less.
    pub(super) fn settle(&mut self, step: usize) -> Option<usize> {
        let mut miscounted = !one_less(&mut self.unsettled);
        let graph = self.graph.clone();
        for &fed in &graph.nodes[step].feeds {
            miscounted |= !one_less(&mut self.steps[fed].missing);
        }
        self.tally.miscounted |= miscounted;
        Some(step)
    }
}

/// Takes one from a count; `false` when nothing was left of it.
fn one_less(count: &mut usize) -> bool {
    let less = count.checked_sub(1);
    *count = less.unwrap_or_default();
    less.is_some()
}

/// Changes the state of the current task of a work.
fn set_hand(work: &mut Activity, to: TaskState) {
    if let Some(hand) = work.hand_mut() {
        *hand = to;
    }
}

/// Makes `action` the current task of a work.
pub(super) fn set_current(work: &mut Activity, action: Action, hand: TaskState) {
    match action {
        Action::Forward | Action::Verify => work.stage = Stage::Active(action, hand),
        Action::Compensate => work.undo = Undo::Active(hand),
    }
}

fn retime(
    due: &mut std::collections::BTreeSet<(Time, WorkIndex)>,
    place: WorkIndex,
    work: &mut Activity,
    next: Option<Time>,
) {
    if work.due == next {
        return;
    }
    if let Some(old) = work.due {
        due.remove(&(old, place));
    }
    if let Some(new) = next {
        due.insert((new, place));
    }
    work.due = next;
}
