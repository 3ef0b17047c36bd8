-- How often a defect stopped what was due of a run, so that the tries are counted over restarts and by all nodes together.
create table timer_tries (
    run_id uuid primary key,
    tries integer not null,
    failed_at timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
create index timer_tries_failed_at on timer_tries (failed_at);
comment on column timer_tries.tries is 'How often in a row, each time within ten minutes of the last.';
