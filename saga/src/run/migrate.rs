//! Moves a run in flight to another version of its workflow: the obstacles, and the state that is taken along.
//!
//! A step that has begun keeps its state: its attempt numbers, so that the fence stays; its effect keys, also under
//! another name; its output and its input, so that it can be undone. Steps that have not begun are those of the new
//! version. It is not checked whether the new version can use an old output.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::decide::{TransitionBuilder, need_reason};
use super::signals::wrong_ones;
use super::state::{Activity, BodyState, MapStage, Stage, StepState, TaskState, Undo, WorkIndex};
use super::{Mode, Run};
use crate::command::Migration;
use crate::event::Event;
use crate::protocol::{Mapping, Obstacle, ObstacleKind};
use crate::{Action, Body, Class, Graph, Refusal, RefusalCode, StepPath, TaskKey, Violation};

impl Mapping {
    /// Returns the mistakes in this mapping from `old` to `new` that hold for any run.
    #[must_use]
    pub fn check(&self, old: &Graph, new: &Graph) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut wrong = |pointer: String, code: &str, message: String| {
            violations.push(Violation::new(pointer, code, message));
        };
        for (from, to) in &self.steps {
            let pointer = format!("/mapping/steps/{}", from.replace('~', "~0").replace('/', "~1"));
            if old.position(from).is_none() {
                wrong(
                    pointer.clone(),
                    "unknown_name",
                    format!("the old version has no step '{from}'"),
                );
            }
            if let Some(to) = to.as_ref().filter(|to| new.position(to).is_none()) {
                wrong(pointer, "unknown_name", format!("the new version has no step '{to}'"));
            }
        }
        for step in self.skip.iter().filter(|step| new.position(step).is_none()) {
            wrong(
                "/mapping/skip".to_owned(),
                "unknown_name",
                format!("the new version has no step '{step}'"),
            );
        }
        for step in self.without_undo.iter().filter(|step| old.position(step).is_none()) {
            let message = format!("the old version has no step '{step}'");
            wrong("/mapping/without_undo".to_owned(), "unknown_name", message);
        }
        let mut taken = BTreeSet::new();
        for node in &old.nodes {
            if let Some(to) = self.target(&node.id, new)
                && !taken.insert(to)
            {
                let message =
                    format!("two steps of the old version would become '{}'", new.nodes[to].id);
                wrong("/mapping/steps".to_owned(), "duplicate_name", message);
            }
        }
        violations
    }

    /// Returns the position in `new` of what the step `old` becomes.
    pub(crate) fn target(&self, old: &str, new: &Graph) -> Option<usize> {
        match self.steps.get(old) {
            Some(named) => new.position(named.as_deref()?),
            None => new.position(old),
        }
    }
}

impl Run {
    /// Returns the obstacles to moving this run to `new`; none if it moves cleanly. All obstacles at once, except
    /// that the order of steps is looked at only when all of them have their place.
    #[must_use]
    pub fn obstacles(&self, new: &Graph, mapping: &Mapping) -> Vec<Obstacle> {
        if self.header.mode == Mode::Backward {
            return vec![Obstacle {
                kind: ObstacleKind::BeingUndone,
                step: None,
                message: "the run is being undone and ends on its version".to_owned(),
            }];
        }
        let mut found = Vec::new();
        for step in 0..self.steps.len() {
            self.obstacles_of(step, new, mapping, &mut found);
        }
        self.dropped_again(new, &mut found);
        if found.is_empty() {
            self.passed_by(new, mapping, &mut found);
        }
        found
    }

    fn obstacles_of(&self, step: usize, new: &Graph, mapping: &Mapping, found: &mut Vec<Obstacle>) {
        let state = &self.steps[step];
        if !state.has_begun() {
            return;
        }
        let id = &self.graph.nodes[step].id;
        let mut add = |kind, message: String| {
            found.push(Obstacle { kind, step: Some(id.to_string()), message });
        };
        let works = || self.places_of(step).filter_map(|place| self.work(place));
        let stands = works().any(|work| work.may_stand() || work.in_doubt());
        let undoable = self.spec(step).compensate.is_some();
        let accepted = mapping.without_undo.contains(&**id);
        let under_way = !self.is_settled(step) || works().any(|work| work.current().is_some());
        let target = mapping.target(id, new);
        let effects = state.formerly.as_ref().unwrap_or(id);
        if new.position(effects).is_some_and(|other| target != Some(other)) {
            add(
                ObstacleKind::IdReused,
                format!("'{effects}' has begun, and is another step in the new version"),
            );
            return;
        }
        let Some(to) = target else {
            if !mapping.steps.contains_key(&**id) && (under_way || stands) {
                add(
                    ObstacleKind::NeedsMapping,
                    format!("'{id}' has begun, and the new version has no such step"),
                );
            } else if under_way {
                add(ObstacleKind::InFlight, format!("'{id}' is under way and cannot be dropped"));
            } else if stands && undoable && !accepted {
                add(
                    ObstacleKind::CompensationGone,
                    format!("'{id}' is done, and nothing would undo it any more"),
                );
            }
            return;
        };
        let node = &new.nodes[to];
        if !same_kind(&self.graph.nodes[step].body, &node.body) {
            add(
                ObstacleKind::KindChanged,
                format!("'{id}' has begun, and '{}' is of another kind", node.id),
            );
            return;
        }
        if stands && undoable && node.task().compensate.is_none() && !accepted {
            let message = format!("'{id}' is done, and the new version has no compensation for it");
            add(ObstacleKind::CompensationGone, message);
        }
        let placeless = works().filter_map(Activity::current).any(|(action, _)| match action {
            Action::Verify => node.task().verify.is_none(),
            Action::Compensate => node.task().compensate.is_none(),
            Action::Forward => false,
        });
        if placeless {
            add(
                ObstacleKind::InFlight,
                format!("a task of '{id}' is under way that the new version does not have"),
            );
        }
    }

    /// Returns the steps of the new version that would begin although steps that need them have begun. Answers
    /// those to be skipped.
    fn passed_by(
        &self,
        new: &Graph,
        mapping: &Mapping,
        found: &mut Vec<Obstacle>,
    ) -> BTreeSet<usize> {
        let origins = self.origins(new, mapping);
        let state = |step: usize| origins[step].map(|old| (old, &self.steps[old]));
        let mut skipped = BTreeSet::new();
        // Each after all that need it.
        for &step in new.order.iter().rev() {
            let begun = state(step).is_some_and(|(_, state)| state.has_begun());
            if !begun && !skipped.contains(&step) {
                continue;
            }
            for &need in &new.nodes[step].needs {
                if state(need).is_some_and(|(old, _)| self.is_settled(old)) {
                    continue;
                }
                let waits = state(need).is_none_or(|(_, state)| !state.has_begun());
                let (id, needed) = (&new.nodes[step].id, &new.nodes[need].id);
                if waits && mapping.skip.contains(&**needed) {
                    skipped.insert(need);
                } else {
                    found.push(Obstacle {
                        kind: ObstacleKind::OrderChanged,
                        step: Some(needed.to_string()),
                        message: format!("'{id}' has begun, and needs '{needed}' in the new version, which is not done"),
                    });
                }
            }
        }
        skipped
    }

    /// Returns, for each step of `new`, the step that becomes it, if that is of the same kind.
    fn origins(&self, new: &Graph, mapping: &Mapping) -> Vec<Option<usize>> {
        let mut origins = vec![None; new.nodes.len()];
        for (old, node) in self.graph.nodes.iter().enumerate() {
            if let Some(to) = mapping.target(&node.id, new)
                && same_kind(&node.body, &new.nodes[to].body)
            {
                origins[to] = Some(old);
            }
        }
        origins
    }

    /// Returns the steps of `new` that are not over once the run has moved to it.
    pub(super) fn open_after_move(&self, new: &Graph, mapping: &Mapping) -> Vec<usize> {
        let origins = self.origins(new, mapping);
        let skipped = self.passed_by(new, mapping, &mut Vec::new());
        let is_over = |step: &usize| origins[*step].is_some_and(|old| self.is_settled(old));
        (0..new.nodes.len()).filter(|step| !is_over(step) && !skipped.contains(step)).collect()
    }

    /// Tells the run of a definition that its next records may move it to.
    pub fn learn(&mut self, graph: Arc<Graph>) {
        self.known.push(graph);
    }

    /// Applies the move of the run to a version.
    pub(super) fn move_to(
        &mut self,
        version: u32,
        definition: &Arc<str>,
        mapping: &Mapping,
        skipped: &[Arc<str>],
    ) {
        let Some(at) = self.known.iter().position(|graph| graph.definition.version == version)
        else {
            return;
        };
        self.own_outputs();
        let graph = self.known.swap_remove(at);
        self.note_dropped(&graph, mapping);
        let acted: Vec<bool> = (0..self.steps.len()).map(|step| self.has_acted(step)).collect();
        let origins = self.origins(&graph, mapping);
        let fresh = Run::new(self.id, graph);
        let old_graph = std::mem::replace(&mut self.graph, fresh.graph);
        let mut old_steps: Vec<Option<StepState>> =
            std::mem::take(&mut self.steps).into_iter().map(Some).collect();
        self.steps = fresh.steps;
        for (to, from) in origins.into_iter().enumerate() {
            let Some((from, state)) = from.and_then(|from| Some((from, old_steps[from].take()?)))
            else {
                continue;
            };
            let (old, new) = (&old_graph.nodes[from].id, &self.graph.nodes[to].id);
            let begun = state.has_begun();
            let formerly =
                state.formerly.or_else(|| Some(old.clone())).filter(|id| begun && id != new);
            let missing = self.steps[to].missing;
            let reads_only = self.graph.nodes[to].task().class() == Some(Class::ReadOnly);
            let effectful = acted[from] && reads_only;
            self.steps[to] = StepState { missing, formerly, effectful, ..state };
            self.rename_in_facts(old, to);
        }
        for step in skipped.iter().filter_map(|id| self.graph.position(id)) {
            match &mut self.steps[step].body {
                BodyState::Task(work) => work.stage = Stage::Skipped,
                BodyState::Map(items) => items.stage = MapStage::Skipped,
            }
        }
        let settled: Vec<bool> = (0..self.steps.len()).map(|step| self.is_settled(step)).collect();
        self.unsettled = settled.iter().filter(|settled| !**settled).count();
        for (node, state) in self.graph.nodes.iter().zip(&mut self.steps) {
            state.missing = node.needs.iter().filter(|need| !settled[**need]).count();
            if let BodyState::Map(items) = &mut state.body {
                // A tick finds them again, as after a restore.
                items.due_without_place.clear();
            }
        }
        self.recount();
        if let Some(origin) = &mut self.header.origin {
            origin.version = version;
            origin.definition = definition.clone();
        }
    }

    fn rename_in_facts(&mut self, old: &Arc<str>, to: usize) {
        let new = &self.graph.nodes[to].id;
        let about = self.header.incidents.iter_mut().filter_map(|incident| incident.step.as_mut());
        let about =
            about.chain(self.header.error.iter_mut().filter_map(|error| error.step.as_mut()));
        for path in about.filter(|path| path.step == *old) {
            path.step = new.clone();
        }
    }

    /// Returns the position of the step that has this id, or had it when its task was handed out.
    pub(crate) fn step_now(&self, id: &str) -> Option<usize> {
        let formerly = || self.steps.iter().position(|step| step.formerly.as_deref() == Some(id));
        self.graph.position(id).or_else(formerly)
    }

    /// Returns the task as the run calls it by now.
    pub(super) fn by_now(&self, mut task: TaskKey) -> TaskKey {
        if let Some(step) = self.step_now(&task.step.step) {
            task.step.step = self.graph.nodes[step].id.clone();
        }
        task
    }

    /// Returns the path by which the effects of a place are known: that under which it began.
    pub(crate) fn effect_path(&self, place: WorkIndex) -> StepPath {
        let path = self.path(place);
        match &self.steps[place.step].formerly {
            Some(step) => StepPath { step: step.clone(), ..path },
            None => path,
        }
    }
}

impl StepState {
    /// Returns whether anything was decided about it.
    pub(crate) fn has_begun(&self) -> bool {
        match &self.body {
            BodyState::Task(work) => work.stage != Stage::Waiting || work.undo != Undo::None,
            BodyState::Map(items) => items.stage != MapStage::Waiting,
        }
    }
}

/// Returns whether two steps do the same kind of thing.
fn same_kind(old: &Body, new: &Body) -> bool {
    std::mem::discriminant(old) == std::mem::discriminant(new)
}

impl TransitionBuilder<'_> {
    /// Moves the run to another version of its workflow.
    pub(super) fn migrate(&mut self, migration: Migration) -> Result<(), Refusal> {
        let Migration { from, graph, definition, mapping, by, checked } = migration;
        let own = &self.run.graph.definition;
        let version = graph.definition.version;
        if own.name != graph.definition.name {
            let message =
                format!("the run is one of '{}', not of '{}'", own.name, graph.definition.name);
            return Err(Refusal::new(RefusalCode::WrongVersion, message));
        }
        if own.version == version {
            return Ok(());
        }
        if own.version != from {
            let message = format!("the run is on version {}, not on {from}", own.version);
            return Err(Refusal::new(RefusalCode::WrongVersion, message));
        }
        if self.run.header.mode == Mode::Ended {
            return Err(Refusal::new(RefusalCode::RunEnded, "the run has ended"));
        }
        need_reason(&by)?;
        let mut obstacles = self.run.obstacles(&graph, &mapping);
        let skipped = self.run.passed_by(&graph, &mapping, &mut Vec::new());
        if !obstacles.is_empty() {
            obstacles.truncate(10);
            let told: Vec<String> = obstacles
                .into_iter()
                .map(|obstacle| format!("{} ({})", obstacle.message, obstacle.kind.as_str()))
                .collect();
            return Err(Refusal::new(RefusalCode::CannotMigrate, told.join("; ")));
        }
        let refused = wrong_ones(self.run.signals_to_check(&graph, &mapping), &checked)?;
        let mut refused = refused;
        refused.extend(self.run.signals_without_wait(&graph));
        let offered = self.on_offer_elsewhere(&graph, &mapping);
        let skipped = skipped.into_iter().map(|step| graph.nodes[step].id.clone()).collect();
        self.run.learn(graph);
        self.emit(Event::Migrated { version, definition, mapping, skipped, by });
        for (signal, message) in refused {
            let Some(by) = self.run.header.signals.get(&signal).map(|signal| signal.by.clone())
            else {
                continue;
            };
            self.refuse_signal(signal, by, message, true);
        }
        self.take_signals();
        for (place, action) in offered {
            self.offer(place, action);
        }
        for step in self.run.all_steps() {
            let failed =
                |place: &WorkIndex| self.work(*place).is_some_and(|work| work.error().is_some());
            let last = self.run.places_of(step).find(failed).unwrap_or(WorkIndex::item(step, 0));
            if self.run.items_of(step).is_some_and(|items| items.stage == MapStage::Open)
                && !self.join_if_decided(last)
            {
                self.fill(step);
            }
        }
        self.ready =
            (0..self.run.steps.len()).filter(|&step| self.run.steps[step].missing == 0).collect();
        Ok(())
    }

    /// Returns the offered tasks that the new version has under another name or on another queue: they are
    /// offered anew.
    fn on_offer_elsewhere(&self, new: &Graph, mapping: &Mapping) -> Vec<(WorkIndex, Action)> {
        let run = &*self.run;
        let mut found = Vec::new();
        for (to, from) in run.origins(new, mapping).into_iter().enumerate() {
            let Some(from) = from else { continue };
            let renamed = run.graph.nodes[from].id != new.nodes[to].id;
            for place in run.places_of(from) {
                let Some((action, TaskState::Offered { .. })) =
                    run.work(place).and_then(Activity::current)
                else {
                    continue;
                };
                let moved = run.spec(from).route(action) != new.nodes[to].task().route(action);
                if renamed || moved {
                    found.push((WorkIndex { step: to, item: place.item }, action));
                }
            }
        }
        found
    }
}
