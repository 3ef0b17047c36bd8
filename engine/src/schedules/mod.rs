//! Starts of runs by the calendar. `instants` says when a pattern is due (`pattern` reads it, `days` are rules about its
//! dates), `plan` what a schedule does at a moment; all of them are pure. `check` keeps out what makes no sense, `acts` and `reads` are what is asked of schedules, `fire` makes their starts. A schedule
//! knows nothing of a run but whether it has ended, and starts it like any caller: under a key. `heal` finds those that would
//! not be looked at in time.

mod acts;
mod check;
mod days;
mod fire;
mod heal;
pub(crate) mod instants;
mod pattern;
pub(crate) mod plan;
mod reads;

pub(crate) use acts::{BACKFILLS, MOST_BACKFILLED};
pub(crate) use check::{LABEL_LIMIT, QUEUE_LIMIT};
pub(crate) use fire::fire;
pub(crate) use heal::{check as check_rows, damaged};
