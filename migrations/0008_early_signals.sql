-- Signals for business keys under which no run has been started yet. The first of its name counts; a signal leaves the
-- table when its run has it. Not an index: nothing else knows of them.
create table early_signals (
    namespace text not null,
    workflow text not null,
    key text not null,
    signal text not null,
    data text not null,
    actor text not null,
    at timestamptz not null default clock_timestamp(),
    primary key (namespace, workflow, key, signal)
);
