//! Writes of a batch to existing rows of runs: their present state, and their other changes.

use backstitch_saga::RunId;
use backstitch_saga::protocol::{Labels, Outcome};
use uuid::Uuid;

use super::{Batch, Moment, RunState, int, moment};

part!(
    /// Changed lines of `runs`.
    Updates {
        id: Uuid,
        state: &'static str,
        outcome: Option<&'static str>,
        conditions: String,
        ended_at: Option<Moment>,
        node: Option<i32>,
        wake_at: Option<Moment>,
        version: Option<i32>,
        definition: Option<String>,
        labels: Option<String>,
    }
);

/// Changes of a line of `runs` beside its state.
#[derive(Debug, Default)]
pub(crate) struct Also<'a> {
    /// The version with the hash of its definition.
    pub(crate) on: Option<(u32, &'a str)>,
    /// All labels that the run has from now on.
    pub(crate) labels: Option<&'a Labels>,
}

impl Batch {
    /// Changes the line of a run.
    pub(crate) fn update(&mut self, run: RunId, state: &RunState, also: &Also<'_>) {
        self.updates.add((
            run.0,
            state.state.as_str(),
            state.outcome.map(Outcome::as_str),
            state.conditions.join(","),
            moment(state.ended_at),
            state.node,
            moment(state.wake_at),
            also.on.map(|(version, _)| int(version)),
            also.on.map(|(_, definition)| definition.to_owned()),
            also.labels.map(|labels| serde_json::to_string(labels).unwrap_or_default()),
        ));
    }
}
