//! The view of a run: its steps, its progress, its effects, and one sentence for people.

use std::collections::BTreeMap;

use super::hold::Held;
use super::state::{Activity, BodyState, Items, MapStage, Stage, TaskState, WorkIndex};
use super::tally::UndoState;
use super::words::{compensation_word, effect_word, words};
use super::{Mode, RefusedSignal, Run};
use crate::protocol::{Awaits, Condition, Outcome, Progress, RunView, State, StepKind, StepView};
use crate::{Action, Body, Class, Payload, StepPath, Time, Timestamp};

impl Run {
    /// Returns everything there is to know, as seen at `at`.
    #[must_use]
    pub fn view(&self, at: Time) -> RunView {
        let origin = self.header.origin.as_ref();
        let definition = &self.graph.definition;
        super::view_size::within(RunView {
            id: self.id,
            namespace: self.namespace().to_owned(),
            workflow: definition.name.clone(),
            version: definition.version,
            key: origin.and_then(|origin| origin.key.as_deref().map(str::to_owned)),
            correlation_id: self.correlation_id(),
            causation_id: self.causation_id().map(str::to_owned),
            labels: origin.map(|origin| origin.labels.clone()).unwrap_or_default(),
            parent: self.parent().cloned(),
            children_left: self.children_left(),
            state: self.state(),
            outcome: self.header.outcome,
            summary: self.summary(),
            conditions: self.conditions_at(at),
            progress: self.progress(),
            steps: (0..self.steps.len()).map(|step| self.whole_step(step)).collect(),
            input: origin.map_or_else(Payload::null, |origin| origin.input.clone()),
            output: self.header.output.clone(),
            error: self.header.error.clone(),
            started_at: Timestamp(self.started_at()),
            start_at: self.start_at().map(Timestamp),
            ended_at: self.header.ended_at.map(Timestamp),
            erased_at: self.header.erased.map(Timestamp),
            deadline: Timestamp(self.forward_until().unwrap_or_else(|| self.deadline())),
            end_by: self.end_by_view(),
            next_at: self.next_due().map(Timestamp),
            seq: self.seq,
        })
    }

    /// Returns one step or item.
    #[must_use]
    pub fn step_view(&self, step: &StepPath) -> Option<StepView> {
        match step.item {
            None => self.graph.position(&step.step).map(|step| self.whole_step(step)),
            Some(_) => self.place(step).and_then(|place| self.work_view(place)),
        }
    }

    /// Lists items of a map step from index `from` on, at most `limit`, only those in `state` when given.
    #[must_use]
    pub fn items(
        &self,
        step: &str,
        state: Option<&str>,
        from: u32,
        limit: usize,
    ) -> Option<Vec<StepView>> {
        let step = self.graph.position(step)?;
        let items = self.items_of(step)?;
        let all = (0..)
            .take(items.works.len())
            .skip(from as usize)
            .map(|item| WorkIndex::item(step, item));
        let wanted = |place: &WorkIndex| {
            state.is_none_or(|state| {
                self.work(*place).is_some_and(|work| self.word_of(*place, work) == state)
            })
        };
        Some(all.filter(wanted).filter_map(|place| self.work_view(place)).take(limit).collect())
    }

    fn whole_step(&self, step: usize) -> StepView {
        let view = match &self.steps[step].body {
            BodyState::Task(work) => self.view_of(WorkIndex::step(step), work),
            BodyState::Map(items) => self.map_view(step, items),
        };
        let effects = self.effects_of(step).into_iter();
        StepView {
            effects: effects.map(|(word, count)| (word.to_owned(), count)).collect(),
            ..view
        }
    }

    fn work_view(&self, place: WorkIndex) -> Option<StepView> {
        let work = self.work(place)?;
        let mut view = self.view_of(place, work);
        if self.has_effects(place.step) {
            view.effects.insert(effect_word(work).to_owned(), 1);
        }
        Some(view)
    }

    /// Returns the word for the state of a work; work that never began is cancelled once it cannot
    /// begin.
    fn word_of(&self, place: WorkIndex, work: &Activity) -> &'static str {
        let over = self.header.mode != Mode::Forward
            || (place.item.is_some() && self.is_settled(place.step));
        if work.stage == Stage::Waiting && over {
            "cancelled"
        } else {
            work.forward_state().as_str()
        }
    }

    /// Returns the kind of the step or item at `place`.
    fn kind_of(&self, place: WorkIndex) -> &'static str {
        match &self.graph.nodes[place.step].body {
            _ if place.item.is_some() => "item",
            Body::Task(_) => "task",
            Body::Map(_) => "map",
            Body::Wait(_) => "wait",
            Body::Sleep(_) => "sleep",
            Body::Child(_) => "child",
            Body::Fail(_) => "fail",
        }
    }

    /// Returns what a step that waits for a signal asks its sender for.
    fn awaited_at(&self, place: WorkIndex) -> Option<Awaits> {
        let Body::Wait(wait) = &self.graph.nodes[place.step].body else { return None };
        let assignee = match self.work(place)?.current() {
            Some((_, TaskState::Signal { assignee, .. })) => assignee.clone(),
            _ => None,
        };
        Some(Awaits {
            signal: wait.names().next().unwrap_or_default().to_owned(),
            signals: wait.signals.clone(),
            title: wait.title.clone(),
            schema: wait.schema.clone(),
            assignee,
            sent_by: self.sent_by(wait, place),
        })
    }

    fn view_of(&self, place: WorkIndex, work: &Activity) -> StepView {
        let spec = self.spec(place.step);
        let (action, hand) =
            work.current().map_or((Action::Forward, None), |(action, hand)| (action, Some(hand)));
        let tries = work.tries(action);
        let policy = match (action, &spec.verify, &spec.compensate) {
            (Action::Verify, Some(verify), _) => &verify.retry,
            (Action::Compensate, _, Some(undo)) => &undo.retry,
            _ => &spec.retry,
        };
        let path = self.path(place);
        StepView {
            item_key: self.item_key(place).map(ToString::to_string),
            kind: self.kind_of(place).into(),
            awaits: self.awaited_at(place),
            child: self.child_of(place),
            state: self.word_of(place, work).into(),
            compensation: compensation_word(&work.undo),
            attempts: tries.failures
                + tries.losses
                + u32::from(matches!(work.stage, Stage::Succeeded(_)) && !work.by_hand),
            deliveries: tries.deliveries,
            max_attempts: policy.max_attempts,
            worker: match hand {
                Some(TaskState::Leased { worker, .. }) => Some(worker.to_string()),
                _ => None,
            },
            next_at: work.next_turn(spec).map(Timestamp),
            output: work.output().cloned(),
            output_bytes: None,
            external_id: work.aside.as_ref().and_then(|aside| aside.external_id.clone()),
            error: work.error().cloned(),
            effect_key: self.effect_key(place, Action::Forward),
            effects: BTreeMap::new(),
            items: BTreeMap::new(),
            step: path,
        }
    }

    fn map_view(&self, step: usize, items: &Items) -> StepView {
        let path = StepPath::step(self.graph.nodes[step].id.clone());
        let state = match items.stage {
            MapStage::Waiting if self.header.mode != Mode::Forward => "cancelled",
            MapStage::Waiting => "waiting",
            MapStage::Open => "open",
            MapStage::Succeeded => "succeeded",
            MapStage::Failed => "failed",
            MapStage::Skipped => "skipped",
            MapStage::Cancelled => "cancelled",
        };
        let tally = &items.tally;
        let by_hand = tally.undo(UndoState::CompensatedByHand) > 0;
        let compensation = match (tally.blocked(), tally.undo_open(), tally.undone()) {
            (1.., _, _) => Some("compensation_blocked"),
            (0, 1.., _) => Some("compensating"),
            (0, 0, 1..) => Some(if by_hand { "compensated_by_hand" } else { "compensated" }),
            (0, 0, 0) => None,
        };
        StepView {
            item_key: None,
            kind: StepKind::Map,
            awaits: None,
            child: None,
            state: state.into(),
            compensation: compensation.map(Into::into),
            attempts: items.tally.succeeded() + items.tally.failed(),
            deliveries: 0,
            max_attempts: None,
            worker: None,
            next_at: None,
            output: None,
            output_bytes: None,
            external_id: None,
            error: items.error.clone(),
            effect_key: self.effect_key(WorkIndex::step(step), Action::Forward),
            effects: BTreeMap::new(),
            items: self.item_words(step, items),
            step: path,
        }
    }

    fn item_words(&self, step: usize, items: &Items) -> BTreeMap<String, u32> {
        let over = self.is_settled(step) || self.header.mode != Mode::Forward;
        words(&items.tally, over)
    }

    fn progress(&self) -> Progress {
        let mut progress = Progress {
            steps_total: u32::try_from(self.steps.len()).unwrap_or(u32::MAX),
            ..Progress::default()
        };
        for step in 0..self.steps.len() {
            *progress.steps.entry(self.whole_step_word(step)).or_default() += 1;
            if let Some(items) = self.items_of(step) {
                for (word, count) in self.item_words(step, items) {
                    *progress.items.entry(word).or_default() += count;
                    progress.items_total += count;
                }
            }
            for (word, count) in self.effects_of(step) {
                *progress.effects.entry(word.to_owned()).or_default() += count;
            }
        }
        for (word, count) in self.effects_of_dropped() {
            *progress.effects.entry(word.to_owned()).or_default() += count;
        }
        progress
    }

    fn whole_step_word(&self, step: usize) -> String {
        match &self.steps[step].body {
            BodyState::Task(work) => self.word_of(WorkIndex::step(step), work).to_owned(),
            BodyState::Map(items) => self.map_view(step, items).state.to_string(),
        }
    }

    /// Returns whether a step has effects in other systems, or may have had them on an earlier
    /// version.
    pub(super) fn has_effects(&self, step: usize) -> bool {
        self.spec(step).class() != Some(Class::ReadOnly) || self.steps[step].effectful
    }

    /// Returns the effects of one step, counted. Items that were not begun have none.
    fn effects_of(&self, step: usize) -> BTreeMap<&'static str, u32> {
        let mut effects = BTreeMap::new();
        if !self.has_effects(step) {
            return effects;
        }
        let mut add = |word, count: usize| {
            if count > 0 {
                *effects.entry(word).or_default() += u32::try_from(count).unwrap_or(u32::MAX);
            }
        };
        for place in self.places_of(step) {
            if let Some(work) = self.work(place) {
                add(effect_word(work), 1);
            }
        }
        if let Some(items) = self.items_of(step) {
            add("not_applied", items.works.len() - items.next as usize);
        }
        effects
    }

    /// Returns the conditions that hold at `at`, with their reasons.
    fn conditions_at(&self, at: Time) -> Vec<Condition> {
        let mut conditions = Vec::new();
        let mut add = |kind: &str, step: Option<StepPath>, message: String, since: Time| {
            conditions.push(Condition {
                kind: kind.to_owned(),
                step,
                message,
                since: Timestamp(since),
            });
        };
        for held in &self.header.holds {
            let by = held.by.as_ref().map(|by| format!(" ({}: {})", by.actor, by.reason));
            let message = format!("{}{}", held.words(), by.unwrap_or_default());
            add(held.hold.kind.condition(), None, message, held.since);
        }
        for incident in &self.header.incidents {
            let message = format!("{}: {}", incident.kind.as_str(), incident.message);
            add("IncidentOpen", incident.step.clone(), message, incident.since);
        }
        if let Some(since) = self.header.late_result {
            add(
                "LateResult",
                None,
                "an attempt reported after it had lost its lease; nothing moved".to_owned(),
                since,
            );
        }
        for known in &self.header.withdrawn {
            add("DependencyWithdrawn", None, known.message.clone(), known.since);
        }
        if let Some(since) = self.header.erased {
            add("Erased", None, "its documents were erased".to_owned(), since);
        }
        if let Some((reason, since)) = &self.header.orphaned {
            add("Orphaned", None, format!("{reason}; it was left to go on by itself"), *since);
        }
        if let Some(since) = self.header.contradicted {
            let message = "an attempt was reported twice, and otherwise the second time; the first report counts";
            add("LateResult", None, message.to_owned(), since);
        }
        for refused in &self.header.refused_signals {
            let RefusedSignal { signal, by, message, at } = refused;
            let message = format!("the signal '{signal}' from {} was refused: {message}", by.actor);
            add("SignalRefused", None, message, *at);
        }
        for (step, names, assignee) in self.signals_awaited() {
            let from = assignee.map_or(String::new(), |assignee| format!(" from {assignee}"));
            let message = format!("it waits for the signal '{}'{from}", names.join("' or '"));
            add("SignalAwaited", Some(step), message, self.header.at);
        }
        let mut told = 0;
        for place in self.places() {
            let Some(work) = self.work(place) else { continue };
            let told_enough = told >= 20;
            if let (Some((action, TaskState::Backoff { until })), false) =
                (work.current(), told_enough)
            {
                told += 1;
                add(
                    "RetryScheduled",
                    Some(self.path(place)),
                    self.retry_words(place, work, action, *until),
                    self.header.at,
                );
            }
            if work.stage == Stage::Unknown && !work.undo.is_over() && !told_enough {
                told += 1;
                add(
                    "StepUnknown",
                    Some(self.path(place)),
                    "it may have happened".to_owned(),
                    self.header.at,
                );
            }
        }
        if let Some(until) = self.deadline_near(at) {
            add("DeadlineNear", None, format!("the run must be done by {until}"), at);
        }
        conditions
    }

    pub(super) fn retry_words(
        &self,
        place: WorkIndex,
        work: &Activity,
        action: Action,
        until: Time,
    ) -> String {
        let tries = work.tries(action);
        let policy = match action {
            Action::Forward => Some(&self.spec(place.step).retry),
            Action::Verify => self.spec(place.step).verify.as_ref().map(|verify| &verify.retry),
            Action::Compensate => self.spec(place.step).compensate.as_ref().map(|undo| &undo.retry),
        };
        let of = policy
            .and_then(|policy| policy.max_attempts)
            .map_or(String::new(), |max| format!(" of {max}"));
        let why = work
            .error()
            .map_or(String::new(), |error| format!(" after {}: {}", error.code, error.message));
        format!("{} attempt {}{of} at {until}{why}", action.as_str(), tries.attempt + 1)
    }

    /// Says why the run is held.
    fn held_words(&self) -> String {
        let why: Vec<String> = self.header.holds.iter().map(Held::words).collect();
        format!("held: {}", why.join(", and "))
    }

    /// Describes how far the undo is, and what comes after it.
    fn undo_words(&self) -> String {
        let then = self.header.rerun.as_ref().map(|rerun| {
            format!("; then it goes forward again from '{}'", self.graph.nodes[rerun.from].id)
        });
        format!("being undone, {} to go{}", self.tally.undo_open(), then.unwrap_or_default())
    }

    /// Returns whether a step succeeded and no part of it was undone.
    fn stands(&self, step: usize) -> bool {
        let undone = match &self.steps[step].body {
            BodyState::Task(work) => work.undo.is_over(),
            BodyState::Map(items) => items.tally.undone() > 0,
        };
        self.has_succeeded(step) && !undone
    }

    fn partly(&self, done: usize, total: usize) -> String {
        // A child that failed and was undone by hand did not succeed first.
        let is_undone = |place: &WorkIndex| {
            self.work(*place).is_some_and(|work| work.undo.is_over() && work.stage != Stage::Failed)
        };
        let undone = self.tally.undone() > 0;
        let reverted = if undone { self.places().filter(is_undone).count() } else { 0 };
        if reverted > 0 {
            let stands = |place: &WorkIndex| {
                self.has_effects(place.step) && self.work(*place).is_some_and(Activity::may_stand)
            };
            let left = self.places().filter(stands).count();
            return format!("undone in part: {reverted} undone, {left} left standing");
        }
        let maps = (0..total).filter_map(|step| self.items_of(step));
        let (items, of) = maps.fold((0, 0), |(done, all), items| {
            (done + items.tally.succeeded() as usize, all + items.works.len())
        });
        let items = if of > 0 { format!(" and {items} of {of} items") } else { String::new() };
        // Steps skipped by their guards were not to be done.
        let wanted = self.steps.iter().filter(|step| !step.is_skipped()).count();
        format!("done in part: {done} of {wanted} steps{items}")
    }

    /// Returns one sentence for people.
    fn summary(&self) -> String {
        let total = self.steps.len();
        let done = (0..total).filter(|&step| self.stands(step)).count();
        let head = match self.state() {
            State::Ended => match self.header.outcome {
                Some(Outcome::Succeeded) => "everything was done".to_owned(),
                Some(Outcome::PartiallyCompleted) => self.partly(done, total),
                Some(Outcome::FailedClean) => "failed; nothing was left behind".to_owned(),
                Some(Outcome::FailedDirty) => "failed; something stands, or may stand".to_owned(),
                Some(Outcome::Compensated) => {
                    "undone; all that had been done was reverted".to_owned()
                }
                Some(Outcome::CompensatedWithManualSteps) => "undone, in part by hand".to_owned(),
                Some(Outcome::Cancelled) if self.header.killed_by.is_some() => {
                    "killed before it had an effect".to_owned()
                }
                Some(Outcome::Cancelled) => "cancelled before it had an effect".to_owned(),
                None => "ended".to_owned(),
            },
            State::Compensating => self.undo_words(),
            State::CompensationBlocked => {
                format!("undoing is blocked at {} and needs a person", self.tally.blocked())
            }
            State::Paused if self.header.mode == Mode::Backward => {
                format!("{}; {}", self.held_words(), self.undo_words())
            }
            State::Paused => self.held_words(),
            State::Queued => "waiting for a first worker".to_owned(),
            State::Waiting if self.is_held() => self.held_words(),
            State::Waiting | State::Running => format!("{done} of {total} steps done"),
        };
        let mut sentence = head;
        if let Some(error) = &self.header.error {
            let at = error.step.as_ref().map_or_else(|| "the run".to_owned(), ToString::to_string);
            sentence += &format!("; {at} failed: {}", error.failure.message);
        }
        for place in self.places() {
            let Some(work) = self.work(place) else { continue };
            if let Some((action, TaskState::Backoff { until })) = work.current() {
                sentence += &format!(
                    "; {}: {}",
                    self.path(place),
                    self.retry_words(place, work, action, *until)
                );
                break;
            }
            if let Some((Action::Verify, _)) = work.current() {
                sentence += &format!("; {} may have happened, verifying", self.path(place));
                break;
            }
            if work.stage == Stage::Parked {
                sentence += &format!("; {} is parked and needs a person", self.path(place));
                break;
            }
        }
        sentence
    }
}
