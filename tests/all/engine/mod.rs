//! The engine against a real PostgreSQL: its laws, its hand-over, its chores, the faults it survives.

mod clock;
mod documents;
mod families;
mod faults;
mod fences;
mod flow;
mod grants;
mod handover;
mod inbox;
mod index_check;
mod indexes;
mod laws;
mod leases;
mod lines;
mod nodes;
mod roles;
mod runs;
mod schedule_edits;
mod schedules;
mod schemas;
mod sequence;
mod sessions;
mod shares;
mod why;
mod withdrawn;
mod workers;
