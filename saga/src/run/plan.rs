//! What undoing would do: the same order and the same choice as undoing itself, without doing it.

use super::state::Stage;
use super::{Mode, Run, forward_of};
use crate::protocol::{Forward, Plan, PlannedUndo, Scope};
use crate::{Action, Class, Payload, Refusal, RefusalCode, Time};

impl Run {
    /// What undoing `scope` would do now. Past a pivot the plan says so; doing it then needs `force`.
    ///
    /// # Errors
    /// A [`Refusal`] when it could not be undone so.
    pub fn plan(&self, scope: &Scope, at: Time) -> Result<Plan, Refusal> {
        if self.facts.mode == Mode::Backward {
            return Err(Refusal::new(
                RefusalCode::AlreadyCompensating,
                "the run is being undone already",
            ));
        }
        let mut in_scope = vec![false; self.steps.len()];
        for step in self.steps_in(scope)? {
            in_scope[step] = true;
        }
        self.compensable_at(at)?;
        let (mut plan, mut begins) = (
            Plan {
                steps: Vec::new(),
                irreversible: Vec::new(),
                past_pivot: self.past_pivot(),
                dependents: Vec::new(),
            },
            vec![0; in_scope.len()],
        );
        for &step in self.graph.order.iter().rev() {
            let node = &self.graph.nodes[step];
            let undos: Vec<PlannedUndo> = self.planned(step, begins[step]).collect();
            let stands = !undos.is_empty();
            let undoes = stands && in_scope[step] && node.task().compensate.is_some();
            if stands && in_scope[step] && !undoes && node.task().class() != Some(Class::ReadOnly) {
                plan.irreversible.push(node.id.to_string());
            }
            for &need in &node.needs {
                begins[need] = begins[need].max(begins[step] + u32::from(undoes));
            }
            if undoes {
                plan.steps.extend(undos);
            }
        }
        plan.steps.sort_by_key(|undo| undo.wave);
        Ok(plan)
    }

    /// Everything of a step that stands or may stand, or would once its attempt is revoked.
    fn planned(&self, step: usize, wave: u32) -> impl Iterator<Item = PlannedUndo> + '_ {
        let name = self.spec(step).compensate.as_ref().map_or("", |undo| undo.name.as_str());
        self.places_of(step).filter_map(move |place| {
            let work = self.work(place)?;
            let leased = matches!(
                work.stage,
                Stage::Active(
                    Action::Forward,
                    super::Hand::Leased { .. } | super::Hand::Child { .. }
                )
            );
            let open = matches!(work.stage, Stage::Active(..) | Stage::Parked)
                && (leased || work.in_doubt());
            (open || work.may_stand()).then(|| PlannedUndo {
                step: self.path(place),
                name: name.to_owned(),
                wave,
                input: self.input_at(place).unwrap_or_else(Payload::null),
                forward: if open { Forward::Unknown } else { forward_of(work) },
            })
        })
    }

    /// Whether the run may (still) be compensated by hand.
    pub(super) fn compensable_at(&self, at: Time) -> Result<(), Refusal> {
        let window = self.graph.definition.compensable_for;
        match self.facts.ended_at {
            Some(ended) if at > ended.after(window) => Err(Refusal::new(
                RefusalCode::CompensationWindowClosed,
                format!("the run ended more than {window} ago, as long as its workflow allows"),
            )),
            _ => Ok(()),
        }
    }
}
