//! Starts of runs by the calendar. `instants` says when a pattern is due, `plan` what a schedule does at a moment; both are
//! pure. `check` keeps out what makes no sense, `front` is what is asked of schedules, `fire` makes their starts. A schedule
//! knows nothing of a run but whether it has ended, and starts it like any caller: under a key.

mod check;
mod fire;
mod front;
mod instants;
pub(crate) mod plan;

pub(crate) use fire::fire;
