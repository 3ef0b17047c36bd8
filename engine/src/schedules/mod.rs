//! Schedules.
mod instants;
