//! Plans of an undo: the same order and the same choice as the undo itself, without doing it.

use std::fmt::Write as _;

use uuid::Uuid;

use super::state::{Activity, Stage, WorkIndex};
use super::{Mode, Run, forward_of};
use crate::id::named;
use crate::protocol::{Forward, Plan, PlannedUndo, Scope};
use crate::{Action, Payload, Refusal, RefusalCode, StepPath, Time};

/// About the bytes of an undo in an answer, beside its documents.
const UNDO_BYTES: usize = 128;

/// The part of a plan's undos that is wanted.
#[derive(Clone, Debug)]
pub struct PlanPage {
    /// The undo after which the page begins; without it, it begins with the first.
    pub after: Option<StepPath>,
    /// The most undos of the page.
    pub most: usize,
    /// About the most bytes of the page. One undo is always there.
    pub bytes: usize,
}

impl PlanPage {
    /// Returns a page with the first undo alone, for callers that only need the total.
    #[must_use]
    pub fn first() -> PlanPage {
        PlanPage { after: None, most: 1, bytes: 0 }
    }

    /// Returns all undos, whatever they weigh.
    #[must_use]
    pub fn whole() -> PlanPage {
        PlanPage { after: None, most: usize::MAX, bytes: usize::MAX }
    }
}

/// The parts of an undo.
struct Undone {
    /// The steps with their waves, in the order in which they are undone.
    steps: Vec<(u32, usize)>,
    /// Steps with effects that nothing undoes.
    irreversible: Vec<String>,
}

impl Run {
    /// Returns what undoing `scope` would do now. Past a pivot the plan says so; doing it then needs
    /// `force`.
    ///
    /// # Errors
    /// A [`Refusal`] when it could not be undone so.
    pub fn plan(&self, scope: &Scope, at: Time) -> Result<Plan, Refusal> {
        self.plan_page(scope, at, &PlanPage::whole())
    }

    /// Returns the plan with a page of its undos; it always has their total number.
    ///
    /// # Errors
    /// A [`Refusal`] when it could not be undone so, or when `page.after` is no undo of this plan.
    pub fn plan_page(&self, scope: &Scope, at: Time, page: &PlanPage) -> Result<Plan, Refusal> {
        let Undone { steps: undone, irreversible } = self.undone(scope, at)?;
        let total = undone.iter().map(|&(_, step)| self.standing(step).count()).sum::<usize>();
        let (steps, next) = self.page_of(&undone, page)?;
        Ok(Plan {
            steps,
            total: total as u64,
            next,
            irreversible,
            past_pivot: self.past_pivot(),
            dependents: Vec::new(),
        })
    }

    /// Returns the steps that an undo of `scope` goes through.
    fn undone(&self, scope: &Scope, at: Time) -> Result<Undone, Refusal> {
        if self.header.mode == Mode::Backward {
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
        let mut irreversible = Vec::new();
        let (mut begins, mut undone) = (vec![0; in_scope.len()], Vec::new());
        for &step in self.graph.order.iter().rev() {
            let node = &self.graph.nodes[step];
            let stands = self.standing(step).next().is_some();
            let undoes = stands && in_scope[step] && node.task().compensate.is_some();
            if stands && in_scope[step] && !undoes && self.has_effects(step) {
                irreversible.push(node.id.to_string());
            }
            for &need in &node.needs {
                begins[need] = begins[need].max(begins[step] + u32::from(undoes));
            }
            if undoes {
                undone.push((begins[step], step));
            }
        }
        if *scope == Scope::All {
            irreversible.extend(self.dropped_left(true).map(|dropped| dropped.path().to_string()));
        }
        undone.sort_by_key(|&(wave, _)| wave);
        Ok(Undone { steps: undone, irreversible })
    }

    /// Returns a mark of an undo of `scope`: it is the same as long as the same effects would be undone, of the same
    /// attempts and in the same order.
    ///
    /// # Errors
    /// A [`Refusal`] when it could not be undone so.
    pub fn plan_mark(&self, scope: &Scope, at: Time) -> Result<Uuid, Refusal> {
        let undone = self.undone(scope, at)?;
        let mut text = format!("{} {:?}", self.past_pivot(), undone.irreversible);
        let places = undone
            .steps
            .iter()
            .flat_map(|&(wave, step)| self.standing(step).map(move |place| (wave, place)));
        for (wave, place) in places {
            let Some(work) = self.work(place) else { continue };
            let (path, known) = (self.path(place), !is_open(work) && work.output().is_some());
            let (attempt, round) = (work.tries(Action::Forward).attempt, work.round);
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{wave} {path} {known} {attempt} {round} {}", work.by_hand);
        }
        Ok(named(&self.id().0, text.as_bytes()))
    }

    /// Returns the undos of a page, and after which the next page begins if there are more.
    fn page_of(
        &self,
        undone: &[(u32, usize)],
        page: &PlanPage,
    ) -> Result<(Vec<PlannedUndo>, Option<String>), Refusal> {
        let nowhere = |path: &StepPath| {
            let message =
                format!("'{path}' is no undo of the plan as it is now; begin with its first page");
            Refusal::new(RefusalCode::NothingToCompensate, message)
        };
        let begins = match &page.after {
            None => None,
            Some(path) => {
                let place = self.place(path).ok_or_else(|| nowhere(path))?;
                let rank = undone.iter().position(|&(_, step)| step == place.step);
                Some((rank.ok_or_else(|| nowhere(path))?, place.item))
            }
        };
        let rest = undone.iter().enumerate().flat_map(|(rank, &(wave, step))| {
            self.standing(step).map(move |place| (rank, wave, place))
        });
        let mut rest = rest.skip_while(|(rank, _, place)| Some((*rank, place.item)) <= begins);
        let (mut steps, mut bytes): (Vec<PlannedUndo>, _) = (Vec::new(), 0_usize);
        for (_, wave, place) in rest.by_ref() {
            let undo = self.planned(place, wave);
            bytes = bytes.saturating_add(weight(&undo));
            if !steps.is_empty() && (steps.len() >= page.most || bytes > page.bytes) {
                let last = steps.last().map(|undo| undo.step.to_string());
                return Ok((steps, last));
            }
            steps.push(undo);
        }
        Ok((steps, None))
    }

    /// Returns the places of a step whose effects remain or may remain, or would once their attempt
    /// is revoked.
    fn standing(&self, step: usize) -> impl Iterator<Item = WorkIndex> + '_ {
        self.places_of(step)
            .filter(|&place| self.work(place).is_some_and(|work| is_open(work) || work.may_stand()))
    }

    fn planned(&self, place: WorkIndex, wave: u32) -> PlannedUndo {
        let undo = self.spec(place.step).compensate.as_ref();
        let forward = match self.work(place) {
            Some(work) if !is_open(work) => forward_of(work),
            _ => Forward::Unknown,
        };
        PlannedUndo {
            step: self.path(place),
            name: undo.map_or_else(String::new, |undo| undo.name.clone()),
            wave,
            input: self.input_at(place).unwrap_or_else(Payload::null),
            forward,
        }
    }

    /// Checks that the run may (still) be compensated by hand.
    pub(super) fn compensable_at(&self, at: Time) -> Result<(), Refusal> {
        let window = self.graph.definition.compensable_for;
        match self.header.ended_at {
            Some(ended) if at > ended.after(window) => Err(Refusal::new(
                RefusalCode::CompensationWindowClosed,
                format!("the run ended more than {window} ago, as long as its workflow allows"),
            )),
            _ => Ok(()),
        }
    }
}

/// Returns whether an attempt is open that may have had its effect.
fn is_open(work: &Activity) -> bool {
    let leased = matches!(
        work.stage,
        Stage::Active(
            Action::Forward,
            super::TaskState::Leased { .. } | super::TaskState::Child { .. }
        )
    );
    matches!(work.stage, Stage::Active(..) | Stage::Parked) && (leased || work.in_doubt())
}

/// Returns the approximate size of an undo in a response, in bytes.
fn weight(undo: &PlannedUndo) -> usize {
    let output = match &undo.forward {
        Forward::Succeeded(output) => output.text().len(),
        Forward::Unknown => 0,
    };
    undo.name.len() + undo.input.text().len() + output + UNDO_BYTES
}
