-- Milestones that workflows ask for, a row for all of a batch: they are written with the records that tell of them, and become
-- events when they are read. Only those of runs that emit events, or follow from one, go to the log as events of their own.
create table milestone (
    batch uuid primary key,
    namespace text not null,
    at timestamptz not null,
    n smallint not null,
    written_with uuid not null,
    stories text[],
    told text not null
);
alter table milestone alter column told set storage external;
create index milestone_by_records on milestone (written_with);
create index milestone_by_story on milestone using gin (stories) where stories is not null;
comment on table milestone is 'Events of the log that tell of runs, by batch. Those of one run are found by its journal.';
comment on column milestone.written_with is 'The batch of the records in the journal that were written with it.';
comment on column milestone.stories is 'Correlation ids of its runs, where these are not the ids of the runs.';
comment on column milestone.told is 'JSON list, in the order of the events: type, correlation id or null, data, and when it was.';

-- An event that an application appends may follow from a milestone, and weeks of events go with theirs.
do $migration$
declare
    change record;
    before text;
    after text;
begin
    for change in values
        ('backstitch.append_event(text, jsonb, text, bigint, text, text, text, text, text, text, jsonb)',
            'into cause from event e',
            'into cause from (select o.namespace, o.batch, o.ord, o.correlation_id, o.hops, o.trust from event o
                union all select m.namespace, m.batch, (t.place - 1)::smallint, coalesce(t.told ->> 1, t.told -> 2 ->> ''run''),
                    0, 2::smallint
                from milestone m cross join lateral json_array_elements(m.told::json) with ordinality as t(told, place)) e'),
        ('backstitch.drop_event_week(date, timestamptz)',
            'delete from position p where',
            'delete from milestone m where m.batch >= first and m.batch < last;
    delete from position p where')
    loop
        before := pg_get_functiondef(change.column1::regprocedure);
        after := replace(before, change.column2, change.column3);
        if after = before then
            raise exception '% is not as it was written', change.column1;
        end if;
        execute after;
    end loop;
end $migration$;
