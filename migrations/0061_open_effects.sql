-- Effects that are open, by run and step: they stand and are to be undone, or were left behind by a run that failed, or may
-- have happened. Only they are here, so that a run without trouble writes nothing.
create table open_effects (
    run_id uuid not null,
    step text not null,
    namespace text not null,
    workflow text not null,
    system text not null,
    standing integer not null,
    unknown integer not null,
    since timestamptz not null,
    primary key (run_id, step)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
comment on table open_effects is 'An index of journals: effects that are open, by run and step.';
comment on column open_effects.system is 'The queue on which tasks of the step are offered.';
comment on column open_effects.standing is 'How many stand and are to be undone, or were left behind.';
comment on column open_effects.unknown is 'How many may have happened and are not undone.';
create index open_effects_by_age on open_effects (namespace, since, run_id, step);
create index open_effects_by_system on open_effects (namespace, system, since, run_id, step);
