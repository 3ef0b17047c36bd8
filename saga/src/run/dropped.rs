//! Steps that had begun when a move to another version dropped them. Their effects stay with the run: no step of its
//! version undoes them, and the run reports the rest at its end.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Run;
use super::open::OpenEffects;
use super::state::{Activity, TaskState};
use crate::event::By;
use crate::protocol::{Mapping, Obstacle, ObstacleKind};
use crate::{Action, Graph, StepPath};

/// A step that a move dropped after it had begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dropped {
    step: Arc<str>,
    /// Id under which its effects are known, if it had been renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    formerly: Option<Arc<str>>,
    /// Version that does not have it.
    version: u32,
    /// Queue on which its tasks were offered.
    system: String,
    /// Number of its effects that remain.
    standing: u32,
    /// Number of its effects that may have happened.
    unknown: u32,
    /// The person who vouched for the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vouched: Option<By>,
}

impl Dropped {
    /// Returns the numbers of its effects that remain and that may remain; only the latter unless
    /// `all`.
    fn left(&self, all: bool) -> (u32, u32) {
        match self.vouched {
            Some(_) => (0, 0),
            None => (if all { self.standing } else { 0 }, self.unknown),
        }
    }

    /// Returns whether an effect of it is left; only those in doubt count unless `all`.
    pub(super) fn is_left(&self, all: bool) -> bool {
        self.left(all) != (0, 0)
    }

    /// Says what is left of it, and why.
    pub(super) fn words(&self, all: bool) -> String {
        let (standing, unknown) = self.left(all);
        let what = match standing.saturating_add(unknown) {
            0 | 1 => format!("'{}'", self.step),
            count => format!("{count} items of '{}'", self.step),
        };
        let done = match (unknown, standing) {
            (0, 0 | 1) => "was done",
            (0, _) => "were done",
            _ => "may have happened",
        };
        format!("{what} {done}, and nothing undoes it: version {} has no such step", self.version)
    }

    /// Returns whether `path` names it.
    pub(super) fn is(&self, path: &StepPath) -> bool {
        path.item.is_none() && path.step == self.step
    }

    /// Returns whether `by` vouched for it.
    pub(super) fn is_vouched_by(&self, by: &By) -> bool {
        self.vouched.as_ref() == Some(by)
    }

    /// Returns the id of the step.
    pub(super) fn path(&self) -> StepPath {
        StepPath::step(self.step.clone())
    }
}

impl Run {
    /// Returns the dropped steps with remaining effects; only those in doubt unless `all`.
    pub(super) fn dropped_left(&self, all: bool) -> impl Iterator<Item = &Dropped> + '_ {
        self.header.dropped.iter().filter(move |dropped| dropped.is_left(all))
    }

    /// Returns whether anything of a dropped step is left; only what is in doubt counts unless `all`.
    pub(super) fn has_dropped(&self, all: bool) -> bool {
        self.dropped_left(all).next().is_some()
    }

    /// Returns whether a move dropped the step that `path` names.
    pub(super) fn was_dropped(&self, path: &StepPath) -> bool {
        self.header.dropped.iter().any(|dropped| dropped.is(path))
    }

    /// Returns whether a person vouched for a step that a move dropped.
    pub(super) fn vouched_for_dropped(&self) -> bool {
        self.header.dropped.iter().any(|dropped| dropped.vouched.is_some())
    }

    /// Notes who vouched for a step that a move dropped. Returns whether there is one.
    pub(super) fn vouch_for_dropped(&mut self, path: &StepPath, by: &By) -> bool {
        let mut found = false;
        for dropped in self.header.dropped.iter_mut().filter(|dropped| dropped.is(path)) {
            dropped.vouched = Some(by.clone());
            found = true;
        }
        found
    }

    /// Notes the steps that a move to `new` drops and that have begun.
    pub(super) fn note_dropped(&mut self, new: &Graph, mapping: &Mapping) {
        for step in 0..self.steps.len() {
            let (id, state) = (&self.graph.nodes[step].id, &self.steps[step]);
            if !state.has_begun() || mapping.target(id, new).is_some() {
                continue;
            }
            let (standing, unknown) = self.count_left(step, true);
            self.header.dropped.push(Dropped {
                step: id.clone(),
                formerly: state.formerly.clone(),
                version: new.definition.version,
                system: self.spec(step).queue.clone(),
                standing,
                unknown,
                vouched: None,
            });
        }
    }

    /// Returns whether a step has had an effect, or may have.
    pub(super) fn has_acted(&self, step: usize) -> bool {
        let acted = |work: &Activity| {
            let hand = work.current().filter(|(action, _)| *action == Action::Forward);
            work.may_stand()
                || work.in_doubt()
                || matches!(hand, Some((_, TaskState::Leased { .. } | TaskState::Child { .. })))
        };
        self.has_effects(step)
            && self.places_of(step).any(|place| self.work(place).is_some_and(acted))
    }

    /// Finds the steps of `new` that have the id of one that was dropped: their effects would have its keys.
    pub(super) fn dropped_again(&self, new: &Graph, found: &mut Vec<Obstacle>) {
        for dropped in &self.header.dropped {
            let ids = std::iter::once(&dropped.step).chain(&dropped.formerly);
            for id in ids.filter(|id| new.position(id).is_some()) {
                found.push(Obstacle {
                    kind: ObstacleKind::IdReused,
                    step: Some(id.to_string()),
                    message: format!(
                        "'{id}' had begun when version {} dropped it, and is a step again in the new version",
                        dropped.version
                    ),
                });
            }
        }
    }

    /// Returns effects of dropped steps that are open; only those in doubt unless `all`.
    pub(super) fn dropped_effects(&self, all: bool) -> impl Iterator<Item = OpenEffects> + '_ {
        self.dropped_left(all).map(move |dropped| {
            let (standing, unknown) = dropped.left(all);
            let (step, system) = (dropped.step.to_string(), dropped.system.clone());
            OpenEffects { step, system, standing, unknown }
        })
    }

    /// Returns effects of dropped steps, counted by the words that views show.
    pub(super) fn effects_of_dropped(&self) -> impl Iterator<Item = (&'static str, u32)> + '_ {
        let counts = |dropped: &Dropped| {
            let Dropped { standing, unknown, .. } = *dropped;
            match dropped.vouched {
                Some(_) => [("reverted", standing.saturating_add(unknown)), ("unknown", 0)],
                None => [("applied", standing), ("unknown", unknown)],
            }
        };
        self.header.dropped.iter().flat_map(counts).filter(|(_, count)| *count > 0)
    }

    /// Returns the queues of dropped steps of which something may have happened.
    pub(super) fn dropped_in_doubt(&self) -> impl Iterator<Item = &str> + '_ {
        self.dropped_left(false).map(|dropped| dropped.system.as_str())
    }
}
