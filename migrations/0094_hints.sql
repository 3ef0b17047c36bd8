-- Identifiers that were captured from documents, one a row, to be searched by. Weeks of them go with those of intake.
create table hint (
    intake uuid not null,
    ord smallint not null,
    namespace text not null,
    kind text not null,
    value text not null,
    junk boolean not null,
    primary key (intake, ord)
) partition by range (intake);
create index hint_by_value on hint (namespace, kind, value, intake);
comment on table hint is 'Identifiers of documents. What is known of each beside its value stands in intake.hints, at the place ord.';
comment on column hint.value is 'The normalised value by which it is searched; the value as it came if it has no such form.';
create table hint_default partition of hint default;

-- Links: under which id an entity is known in another system. An id of a system belongs to one entity, and an entity has one id in a system;
-- a second claim waits for a person.
create table link (
    namespace text not null,
    system text not null,
    external_id text not null,
    stream text not null,
    linked_at timestamptz not null,
    linked_by text not null,
    primary key (namespace, system, external_id)
);
create unique index link_by_stream on link (namespace, stream, system);
comment on column link.stream is 'The stream of the entity.';

create table link_conflict (
    id uuid primary key,
    namespace text not null,
    system text not null,
    external_id text not null,
    stream text not null,
    holder text not null,
    claimed_at timestamptz not null,
    claimed_by text not null,
    resolved_at timestamptz,
    resolved_by text,
    kept text check (kept in ('holder', 'claimant'))
);
create unique index link_conflict_open on link_conflict (namespace, system, external_id, stream) where resolved_at is null;
create index link_conflict_by_namespace on link_conflict (namespace, id);
comment on column link_conflict.stream is 'The entity for which the id was claimed, while it belonged to the holder.';

do $migration$
begin
    execute format($create$
create or replace function backstitch.make_partition(parent text, monday date) returns boolean
language plpgsql volatile security definer set search_path = %I, pg_temp as $function$
declare
    schema text := current_schema();
    part text := make_partition.parent || '_p' || to_char(make_partition.monday, 'YYYYMMDD');
    today date := (clock_timestamp() at time zone 'UTC')::date;
    granted record;
begin
    if make_partition.parent is null or make_partition.parent not in ('journal', 'snapshots', 'runs', 'incidents',
        'event', 'event_body', 'intake', 'intake_raw', 'hint') then
        raise exception 'backstitch.make_partition: %% has no partitions of ours', coalesce(make_partition.parent, 'null')
            using errcode = 'insufficient_privilege';
    end if;
    if make_partition.monday is null or extract(isodow from make_partition.monday) <> 1
        or make_partition.monday not between today - 13 * 7 and today + 26 * 7 then
        raise exception 'backstitch.make_partition: %% is no Monday of the last 13 or the next 26 weeks',
            coalesce(make_partition.monday::text, 'null') using errcode = 'insufficient_privilege';
    end if;
    perform from upkeep for update;
    if to_regclass(format('%%I.%%I', schema, part)) is not null then
        return false;
    end if;
    execute format('create table %%I.%%I partition of %%I.%%I for values from (%%L) to (%%L)%%s', schema, part, schema,
        make_partition.parent, backstitch.first_id(make_partition.monday), backstitch.first_id(make_partition.monday + 7),
        case make_partition.parent
            when 'journal' then ' with (autovacuum_vacuum_insert_threshold = -1)'
            when 'event' then ' with (autovacuum_vacuum_insert_threshold = -1)'
            when 'runs' then ' with (fillfactor = 50)'
            else ''
        end);
    -- Batches are written straight into partitions: who may do something with the table may do it there.
    for granted in
        select a.grantee::regrole::text as grantee, a.privilege_type as privilege
        from pg_class c cross join aclexplode(c.relacl) a
        where c.oid = to_regclass(format('%%I.%%I', schema, make_partition.parent)) and a.grantee not in (0, c.relowner)
        union all
        select a.grantee::regrole::text, format('%%s (%%I)', a.privilege_type, t.attname)
        from pg_class c join pg_attribute t on t.attrelid = c.oid cross join aclexplode(t.attacl) a
        where c.oid = to_regclass(format('%%I.%%I', schema, make_partition.parent)) and a.grantee not in (0, c.relowner)
    loop
        execute format('grant %%s on %%I.%%I to %%s', granted.privilege, schema, part, granted.grantee);
    end loop;
    return true;
end
$function$
    $create$, current_schema());
end $migration$;

do $migration$
begin
    execute format($create$
create or replace function backstitch.drop_event_week(monday date, before timestamptz) returns boolean
language plpgsql volatile security definer set search_path = %I, pg_temp as $function$
declare
    schema text := current_schema();
    suffix text := '_p' || to_char(drop_event_week.monday, 'YYYYMMDD');
    tables text[] := array['event', 'event_body', 'intake', 'intake_raw', 'hint'];
    first uuid;
    last uuid;
    written_before timestamptz;
    parent text;
begin
    if drop_event_week.monday is null or drop_event_week.before is null or extract(isodow from drop_event_week.monday) <> 1 then
        raise exception 'backstitch.drop_event_week needs a Monday and an instant' using errcode = 'insufficient_privilege';
    end if;
    select least(drop_event_week.before, clock_timestamp() - u.keep_at_least) into strict written_before from upkeep u for update;
    if (drop_event_week.monday + 7)::timestamp at time zone 'UTC' > written_before then
        return false;
    end if;
    -- Another node was first.
    if not exists (select from pg_inherits i where i.inhparent = 'event'::regclass
            and i.inhrelid = to_regclass(format('%%I.%%I', schema, 'event' || suffix))) then
        return false;
    end if;
    first := backstitch.first_id(drop_event_week.monday);
    last := backstitch.first_id(drop_event_week.monday + 7);
    -- Readers lock a table before its partitions, and so does the drop; it gives way after a moment.
    perform set_config('lock_timeout', '60ms', true);
    foreach parent in array tables loop
        execute format('lock table only %%I.%%I in access exclusive mode', schema, parent);
    end loop;
    -- What was announced late has no positions yet.
    if exists (select from announced a where a.batch >= first and a.batch < last) then
        return false;
    end if;
    perform from log_head h where h.namespace in (select p.namespace from position p where p.batch >= first and p.batch < last)
        order by h.namespace for update;
    update log_head h set horizon = greatest(h.horizon, gone.upto)
        from (select p.namespace, max(p.upto) as upto from position p where p.batch >= first and p.batch < last
            group by p.namespace) gone
        where h.namespace = gone.namespace;
    delete from position p where p.batch >= first and p.batch < last;
    delete from event_key k where k.batch >= first and k.batch < last;
    foreach parent in array tables loop
        if exists (select from pg_inherits i where i.inhparent = to_regclass(format('%%I.%%I', schema, parent))
                and i.inhrelid = to_regclass(format('%%I.%%I', schema, parent || suffix))) then
            execute format('drop table %%I.%%I', schema, parent || suffix);
        end if;
    end loop;
    return true;
end
$function$
    $create$, current_schema());
end $migration$;
