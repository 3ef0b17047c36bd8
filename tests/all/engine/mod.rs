//! The engine against a real PostgreSQL: its laws, its hand-over, its chores.

mod runs;
