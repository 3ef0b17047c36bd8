-- Milestones become one row for each batch and namespace: most batches end many runs at once, and a row for each run
-- cost as much as a record of the journal.
alter table events rename column data to milestones;
update events set milestones = jsonb_build_array(
    jsonb_build_object('type', type, 'run', run_id) || milestones::jsonb)::text;
alter table events drop column run_id, drop column type;
create index events_by_time on events using brin (at);
comment on table events is 'Milestones, written with what caused them: one row for each batch and namespace.';
comment on column events.milestones is 'JSON array of objects: type, run, workflow, version, and incident where there is one.';

-- A run's line changes once or twice while its neighbours still fit on the page. With room for a second version of each,
-- in the table and in its indexes, a change costs a third less, and neither grows.
alter table runs drop constraint runs_pkey;
alter table runs add primary key (id) with (fillfactor = 50);
drop index runs_by_workflow;
create index runs_by_workflow on runs (namespace, workflow, id) with (fillfactor = 50);
do $$
declare
    part regclass;
begin
    for part in select inhrelid from pg_inherits where inhparent = 'runs'::regclass loop
        execute format('alter table %s set (fillfactor = 50)', part);
    end loop;
end $$;
