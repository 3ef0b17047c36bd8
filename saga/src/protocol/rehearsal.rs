//! Results of the rehearsal of a registered workflow.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::rehearse::{Rehearsal, StepCoverage};

/// `GET /v1/workflows/{name}/versions/{version}/rehearsal`: results of the rehearsal of a workflow, as far as a
/// registration goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RehearsalView {
    /// The workflow.
    pub workflow: String,
    /// Its version.
    pub version: u32,
    /// Number of traces, with up to two faults each.
    pub traces: u64,
    /// `true` if these are all traces.
    pub complete: bool,
    /// Traces that ended in one outcome, nothing left behind.
    pub closed: u64,
    /// Traces that wait for a person who was informed.
    pub parked: u64,
    /// Traces that broke a rule.
    pub open: u64,
    /// Outcomes of the traces that ended.
    pub outcomes: BTreeMap<String, u64>,
    /// Each step with what can go wrong at it.
    pub steps: Vec<RehearsedStep>,
    /// Parts that no trace reached, for people.
    pub not_reached: Vec<String>,
    /// Defects, each with its shortest trace; the shortest first.
    pub defects: Vec<OpenTrace>,
}

/// A step with what went wrong at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RehearsedStep {
    /// The step.
    pub step: String,
    /// Everything that can go wrong at it.
    pub faults: Vec<FailurePoint>,
}

/// A step and what goes wrong there, with the traces in which it struck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailurePoint {
    /// The fault: `fails worker_lost crash_after_effect deadline …`
    pub fault: String,
    /// The same for people.
    pub about: String,
    /// All traces.
    pub traces: u64,
    /// Those that wait for a person.
    pub parked: u64,
    /// Those that broke a rule.
    pub open: u64,
}

/// A defect: a rule that traces broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenTrace {
    /// The broken rule.
    pub rule: String,
    /// Explanation, for people.
    pub message: String,
    /// Number of traces.
    pub traces: u64,
    /// The shortest of them, a line for each thing that happened.
    pub trace: Vec<String>,
}

impl From<Rehearsal> for RehearsalView {
    fn from(found: Rehearsal) -> RehearsalView {
        let step = |StepCoverage { step, faults }: StepCoverage| {
            let faults = faults.into_iter().map(|(fault, cell)| FailurePoint {
                fault: fault.as_str(),
                about: fault.words().1.to_owned(),
                traces: cell.traces,
                parked: cell.parked,
                open: cell.open,
            });
            RehearsedStep { step, faults: faults.collect() }
        };
        let (traces, complete) = (found.traces(), found.is_complete());
        let outcomes = found.outcomes.into_iter().map(|(word, count)| (word.to_owned(), count));
        let defects = found.defects.into_iter().map(|defect| OpenTrace {
            rule: defect.rule.to_owned(),
            message: defect.message,
            traces: defect.traces,
            trace: defect.trace,
        });
        RehearsalView {
            workflow: found.workflow,
            version: found.version,
            traces,
            complete,
            closed: found.closed,
            parked: found.parked,
            open: found.open,
            outcomes: outcomes.collect(),
            steps: found.coverage.into_iter().map(step).collect(),
            not_reached: found.not_reached,
            defects: defects.collect(),
        }
    }
}
