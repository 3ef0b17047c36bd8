//! Reasons why a run does not go on, as far as its journal shows. The engine adds what is known
//! about workers.

use std::collections::BTreeMap;

use super::state::{Activity, MapStage, Stage, TaskState, Undo, WorkIndex};
use super::{Mode, Run};
use crate::protocol::{State, WaitKind, WaitsFor, Why};
use crate::{Action, Body, HoldKind, IncidentKind, StepPath, Time, Timestamp};

impl Run {
    /// Returns everything that the run waits for.
    #[must_use]
    pub fn why(&self) -> Why {
        let waits_for = if self.state() == State::Ended { Vec::new() } else { self.waits_for() };
        let mut why = Why { run: self.id, state: self.state(), summary: String::new(), waits_for };
        why.summarize();
        why
    }

    fn waits_for(&self) -> Vec<WaitsFor> {
        let mut waits_for = self.held_by();
        if let Some(unchecked) = &self.header.unchecked {
            let message = "its output is held to the schema of the definition; then it ends";
            let wait = self.wait(WaitKind::Timer, None, self.header.at, message.to_owned(), &[]);
            waits_for.push(WaitsFor { until: Some(Timestamp(unchecked.again)), ..wait });
        }
        let mut works: BTreeMap<(WaitKind, usize, Action), WaitsFor> = BTreeMap::new();
        for place in self.places() {
            let Some((action, wait)) = self.waits_at(place) else { continue };
            works
                .entry((wait.kind, place.step, action))
                .and_modify(|known| join(known, &wait))
                .or_insert(wait);
        }
        waits_for.extend(works.into_values());
        waits_for.extend((0..self.steps.len()).filter_map(|step| self.waits_for_place(step)));
        waits_for.extend(self.waits_without());
        if waits_for.is_empty() {
            waits_for.push(self.waits_for_nothing());
        }
        let always = self.verbs_always();
        for wait in &mut waits_for {
            wait.verbs.extend(always.iter().map(|verb| (*verb).to_owned()));
        }
        waits_for
    }

    /// Returns the tasks that have been offered since `before` or longer; of several tasks of a
    /// step, the oldest.
    #[must_use]
    pub fn on_offer_since(&self, before: Time) -> Vec<WaitsFor> {
        if self.tally.offered == 0 {
            return Vec::new();
        }
        let old = |wait: &WaitsFor| wait.kind == WaitKind::OnOffer && wait.since.0 <= before;
        self.why().waits_for.into_iter().filter(old).collect()
    }

    /// Returns the holds of the run as a whole.
    fn held_by(&self) -> Vec<WaitsFor> {
        let unmet = |open: &&super::Incident| open.kind == IncidentKind::DependencyUnmet;
        let unmet = self.header.incidents.iter().find(unmet).map(|open| open.number);
        let of = |held: &super::hold::Held| {
            let (kind, incident, verbs): (_, _, &[&str]) = match (held.hold.kind, unmet) {
                (HoldKind::Paused, _) => (WaitKind::Paused, None, &["resume"]),
                (HoldKind::WorkflowPaused, _) => (WaitKind::WorkflowPaused, None, &[]),
                (HoldKind::ParentPaused, _) => (WaitKind::Paused, None, &[]),
                (HoldKind::KeyBlocked, _) => (WaitKind::KeyBlocked, None, &[]),
                (HoldKind::StartDelayed, _) => (WaitKind::StartDelayed, None, &[]),
                (HoldKind::DependencyUnmet, Some(_)) => {
                    (WaitKind::DependencyUnmet, unmet, &["skip-requirements", "retry"])
                }
                (HoldKind::DependencyUnmet, None) => {
                    (WaitKind::DependencyUnmet, None, &["skip-requirements"])
                }
            };
            let by = held.by.as_ref().map(|by| format!(" ({}: {})", by.actor, by.reason));
            let message = format!("{}{}", held.words(), by.unwrap_or_default());
            let until = self.delayed_until().filter(|_| kind == WaitKind::StartDelayed);
            let of_kind = held.hold.kind.is_forward_only() || held.hold.kind == HoldKind::Paused;
            let named = of_kind && until.is_none();
            let named = named.then(|| held.hold.name.to_string());
            let parent = held.hold.kind == HoldKind::ParentPaused;
            let other = self.parent().filter(|_| parent).map(|parent| parent.run);
            let wait = self.wait(kind, None, held.since, message, verbs);
            WaitsFor { incident, named, other, until: until.map(Timestamp), ..wait }
        };
        self.header.holds.iter().map(of).collect()
    }

    /// Returns a wait with what all have, without the verbs that always apply.
    fn wait(
        &self,
        kind: WaitKind,
        step: Option<StepPath>,
        since: Time,
        message: String,
        verbs: &[&str],
    ) -> WaitsFor {
        WaitsFor {
            kind,
            step,
            count: 1,
            since: Timestamp(since),
            until: None,
            message,
            queue: None,
            handler: None,
            worker: None,
            named: None,
            other: None,
            incident: None,
            verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        }
    }

    /// Returns what one step or item waits for.
    fn waits_at(&self, place: WorkIndex) -> Option<(Action, WaitsFor)> {
        let work = self.work(place)?;
        if work.undo == Undo::Blocked && self.header.mode != Mode::Ended {
            let wait = self.for_person(place, work, WaitKind::CompensationBlocked);
            return Some((Action::Compensate, wait));
        }
        if work.stage == Stage::Parked && self.header.mode == Mode::Forward {
            return Some((Action::Forward, self.for_person(place, work, WaitKind::Parked)));
        }
        let (action, hand) = work.current()?;
        let wait = self.for_other(place, hand);
        Some((action, wait.or_else(|| self.for_task(place, work, action, hand))?))
    }

    fn for_person(&self, place: WorkIndex, work: &Activity, kind: WaitKind) -> WaitsFor {
        let verbs = work.verbs_for_person();
        let step = self.path(place);
        let open = self.header.incidents.iter().find(|open| open.step.as_ref() == Some(&step));
        let (since, why) = open.map_or((self.header.at, ""), |open| (open.since, &open.message));
        let message = match kind {
            WaitKind::CompensationBlocked => format!("undoing {step} is blocked: {why}"),
            _ => format!("{step} is parked: {why}"),
        };
        let incident = open.map(|open| open.number);
        WaitsFor { incident, ..self.wait(kind, Some(step), since, message, verbs) }
    }

    /// Returns what a step waits for that needs no worker.
    fn for_other(&self, place: WorkIndex, hand: &TaskState) -> Option<WaitsFor> {
        let step = self.path(place);
        let since = self.work(place).map_or(self.header.at, |work| work.tries.since);
        let (mut other, mut named) = (None, None);
        let (kind, until, message, verbs): (_, _, _, &[&str]) = match hand {
            TaskState::Signal { until, assignee } => {
                let names: Vec<&str> = match &self.graph.nodes[place.step].body {
                    Body::Wait(wait) => wait.names().collect(),
                    _ => Vec::new(),
                };
                if let [name] = names[..] {
                    named = Some(name.to_owned());
                }
                let signal = names.join("' or '");
                let from = assignee.as_ref().map_or(String::new(), |who| format!(" from {who}"));
                let message = format!("{step}: the signal '{signal}'{from}");
                (WaitKind::Signal, *until, message, &["signals", "skip"])
            }
            TaskState::Timer { until } => (
                WaitKind::Timer,
                Some(*until),
                format!("{step}: it sleeps until {until}"),
                &["skip"],
            ),
            TaskState::Child { run, .. } => {
                other = Some(*run);
                if let Body::Child(child) = &self.graph.nodes[place.step].body {
                    named = Some(child.workflow.clone());
                }
                let message = format!("{step}: the end of run {run}; ask why of that one");
                (WaitKind::Child, None, message, &[])
            }
            _ => return None,
        };
        let until = until.map(Timestamp);
        Some(WaitsFor { until, other, named, ..self.wait(kind, Some(step), since, message, verbs) })
    }

    fn for_task(
        &self,
        place: WorkIndex,
        work: &Activity,
        action: Action,
        hand: &TaskState,
    ) -> Option<WaitsFor> {
        let step = self.path(place);
        let task = crate::TaskKey { step: step.clone(), action, attempt: 0 };
        let (queue, handler) = self.route(&task)?;
        let wait = match hand {
            // The hold of the run is already listed.
            TaskState::Nobody
            | TaskState::Held
            | TaskState::Signal { .. }
            | TaskState::Timer { .. }
            | TaskState::Child { .. } => return None,
            TaskState::Offered { since } => {
                let alone = match work.is_suspect() {
                    true => " and has nothing else in its hands, as a worker was lost over it",
                    false => "",
                };
                let message =
                    format!("{step}: a worker that does '{handler}' on queue '{queue}'{alone}");
                let until = work.next_due(self.spec(place.step)).map(Timestamp);
                let wait = self.wait(WaitKind::OnOffer, Some(step), *since, message, &[]);
                WaitsFor { until, ..wait }
            }
            TaskState::Leased { worker, since, until } => {
                let name = worker.split('/').next().unwrap_or(worker);
                let message = format!(
                    "{step}: worker '{name}' does '{handler}'; it must report, or give a sign of life by {until}"
                );
                let wait = self.wait(WaitKind::WithWorker, Some(step), *since, message, &[]);
                let until = Some(Timestamp(*until));
                WaitsFor { until, worker: Some(worker.to_string()), ..wait }
            }
            TaskState::Backoff { until } => {
                let message = format!("{step}: {}", self.retry_words(place, work, action, *until));
                let delay = work.tries(action).delay.0;
                let since = Time(until.0.saturating_sub_unsigned(delay));
                let wait = self.wait(WaitKind::Retry, Some(step), since, message, &["retry"]);
                WaitsFor { until: Some(Timestamp(*until)), ..wait }
            }
        };
        Some(WaitsFor { queue: Some(queue.to_owned()), handler: Some(handler.to_owned()), ..wait })
    }

    /// Returns items of a fan-out that were never offered, because as many as may be are under way.
    fn waits_for_place(&self, step: usize) -> Option<WaitsFor> {
        let items = self.items_of(step).filter(|items| items.stage == MapStage::Open)?;
        let left = u32::try_from(items.works.len()).unwrap_or(u32::MAX).saturating_sub(items.next);
        let map = self.graph.nodes[step].map()?;
        if left == 0 || self.header.mode != Mode::Forward {
            return None;
        }
        let first = self.path(WorkIndex::item(step, items.next));
        let message = format!(
            "{first}: a place, as at most {} items are under way at once",
            map.max_concurrency
        );
        let wait = self.wait(WaitKind::Place, Some(first), self.header.at, message, &[]);
        Some(WaitsFor { count: left, ..wait })
    }

    /// Returns the withdrawn facts on which it began: it goes on, and people should know.
    fn waits_without(&self) -> Vec<WaitsFor> {
        let incident = self.header.incidents.iter();
        let incident = incident
            .filter(|open| open.kind == IncidentKind::DependencyWithdrawn)
            .map(|open| open.number)
            .next();
        let of = |known: &super::requirements::Withdrawn| {
            let verbs = ["skip-requirements"];
            let kind = WaitKind::DependencyWithdrawn;
            let wait = self.wait(kind, None, known.since, known.message.clone(), &verbs);
            WaitsFor { incident, named: Some(known.fact.to_string()), ..wait }
        };
        self.header.withdrawn.iter().map(of).collect()
    }

    fn waits_for_nothing(&self) -> WaitsFor {
        let open = self.header.incidents.first();
        let message = match open {
            Some(open) => format!("a person: {}", open.message),
            None => "nothing is under way that would move it; an incident is opened if this lasts"
                .to_owned(),
        };
        let since = open.map_or(self.header.at, |open| open.since);
        let wait = self.wait(WaitKind::Stuck, None, since, message, &[]);
        WaitsFor { incident: open.map(|open| open.number), ..wait }
    }
}

/// Adds a wait to an equal one; the first step is shown.
fn join(known: &mut WaitsFor, other: &WaitsFor) {
    let turn = |wait: &WaitsFor| (wait.until.filter(|_| wait.kind == WaitKind::Retry), wait.since);
    let count = known.count + 1;
    if turn(other) < turn(known) {
        known.clone_from(other);
    }
    known.count = count;
}
