//! A run as text, to begin a fold from instead of its whole journal.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::state::{Activity, BodyState, MapStage, StepState, WorkIndex};
use super::tally::Tally;
use super::{Run, RunHeader};
use crate::IncidentKind::CompensationSlow;
use crate::{Graph, RunId};

/// The form of the text. A node that meets a later one leaves the snapshot alone and folds the journal. In the first,
/// every work had its input in full.
const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Snapshot<F, S> {
    format: u32,
    seq: u64,
    folded: u64,
    unsettled: usize,
    facts: F,
    steps: S,
}

impl Run {
    /// Returns the run as text, to begin a fold from instead of its whole journal.
    #[must_use]
    pub fn snapshot(&self) -> String {
        let Run { seq, folded, unsettled, header: facts, steps, .. } = self;
        let snapshot = Snapshot {
            format: FORMAT,
            seq: *seq,
            folded: *folded,
            unsettled: *unsettled,
            facts,
            steps,
        };
        // Every field has a JSON form: string keys only, no foreign `Serialize`.
        serde_json::to_string(&snapshot).unwrap_or_default()
    }

    /// Returns the run that [`Run::snapshot`] wrote.
    ///
    /// # Errors
    /// When the text is not a snapshot of a run on this graph.
    pub fn restore(id: RunId, graph: Arc<Graph>, snapshot: &str) -> Result<Run, String> {
        let Snapshot { format, seq, folded, unsettled, facts, steps } =
            serde_json::from_str::<Snapshot<RunHeader, Vec<StepState>>>(snapshot)
                .map_err(|error| error.to_string())?;
        if !(1..=FORMAT).contains(&format) {
            return Err(format!(
                "a snapshot of format {format}; this version reads formats up to {FORMAT}"
            ));
        }
        if steps.len() != graph.nodes.len() {
            return Err(format!(
                "a snapshot of {} steps for a workflow of {}",
                steps.len(),
                graph.nodes.len()
            ));
        }
        let mut run = Run::new(id, graph);
        (run.seq, run.folded, run.unsettled, run.header, run.steps) =
            (seq, folded, unsettled, facts, steps);
        run.recount();
        run.note_slow();
        Ok(run)
    }

    /// Marks the undos that take long and of which a person was informed. Older snapshots do not record it.
    fn note_slow(&mut self) {
        let slow = self.header.incidents.iter().filter(|open| open.kind == CompensationSlow);
        let places: Vec<WorkIndex> =
            slow.filter_map(|open| self.place(open.step.as_ref()?)).collect();
        for place in places {
            let told = |work: &Activity| work.aside.as_ref().is_some_and(|aside| aside.slow);
            if self.work(place).is_some_and(|work| !told(work)) {
                self.change(place, |work| work.aside_mut().slow = true);
            }
        }
    }

    /// Recomputes the running counts: works by state, timers, and needs.
    ///
    /// # Errors
    /// The first count that differs.
    pub fn counts_agree(&self) -> Result<(), String> {
        let mut again = self.clone();
        again.recount();
        let compare = |name: &str, kept: &dyn std::fmt::Debug, counted: &dyn std::fmt::Debug| {
            let (kept, counted) = (format!("{kept:?}"), format!("{counted:?}"));
            if kept == counted { Ok(()) } else { Err(format!("{name}: {kept}, and not {counted}")) }
        };
        compare("works by state", &self.tally, &again.tally)?;
        // A retry that is due and waits for a place in its fan-out has no timer.
        again.due.retain(|(_, place)| {
            let line = self.items_of(place.step).map(|items| &items.due_without_place);
            let in_line = line.zip(place.item).is_some_and(|(line, item)| line.contains(&item));
            !in_line || self.work(*place).is_some_and(|work| work.due.is_some())
        });
        compare("timers", &self.due, &again.due)?;
        let open: Vec<usize> = (0..self.steps.len()).filter(|one| !self.is_settled(*one)).collect();
        compare("steps that are not over", &self.unsettled, &open.len())?;
        for (step, state) in self.steps.iter().enumerate() {
            let needs = &self.graph.nodes[step].needs;
            let missing = needs.iter().filter(|need| open.contains(need)).count();
            compare("steps that one waits for", &state.missing, &missing)?;
            let [kept, counted] = [self, &again].map(|run| run.items_of(step).map(|of| &of.tally));
            compare("items by state", &kept, &counted)?;
        }
        Ok(())
    }

    /// Recomputes counts and timers from the works.
    pub(super) fn recount(&mut self) {
        self.tally = Tally::default();
        self.due.clear();
        for (step, state) in self.steps.iter_mut().enumerate() {
            let spec = self.graph.nodes[step].task();
            let mut count = |place, work: &mut Activity| {
                self.tally.count(work, true);
                work.due = work.next_due(spec);
                self.due.extend(work.due.map(|due| (due, place)));
            };
            match &mut state.body {
                BodyState::Task(work) => count(WorkIndex::step(step), work),
                BodyState::Map(items) => {
                    if items.stage == MapStage::Succeeded {
                        items.gather();
                    }
                    items.tally = Tally::default();
                    for (item, work) in (0..).zip(&mut items.works) {
                        count(WorkIndex::item(step, item), work);
                        items.tally.count(work, true);
                    }
                }
            }
        }
    }
}
