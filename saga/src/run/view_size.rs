//! Bounds of the view of a run: a run may hold far more than one response should.

use crate::protocol::{Condition, RunView, StepView};

/// Largest size of the documents in a view, in bytes, beside the run's own input and output.
pub(crate) const VIEW_BYTES: usize = 8 * 1024 * 1024;
/// Largest size of the conditions in a view, in bytes.
const CONDITION_BYTES: usize = 1024 * 1024;

/// Cuts a view to its bounds: leaves out outputs of steps, of which only the size stays, details of errors, and
/// conditions beyond the first mebibyte.
pub(super) fn within(mut view: RunView) -> RunView {
    let mut left = VIEW_BYTES;
    view.steps.iter_mut().for_each(|step| cut(step, &mut left));
    let mut told = 0;
    let fits = |condition: &&Condition| {
        told += condition.message.len();
        told <= CONDITION_BYTES
    };
    let fitting = view.conditions.iter().take_while(fits).count();
    view.conditions.truncate(fitting.max(1));
    view
}

fn cut(step: &mut StepView, left: &mut usize) {
    if let Some(bytes) = step.output.as_ref().map(|output| output.text().len())
        && !takes(left, bytes)
    {
        step.output = None;
        step.output_bytes = Some(bytes as u64);
    }
    if let Some(error) = &mut step.error
        && !takes(left, error.details.as_ref().map_or(0, |details| details.text().len()))
    {
        error.details = None;
    }
}

fn takes(left: &mut usize, bytes: usize) -> bool {
    let takes = bytes <= *left;
    if takes {
        *left -= bytes;
    }
    takes
}
