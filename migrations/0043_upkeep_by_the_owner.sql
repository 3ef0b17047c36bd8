-- What needs the rights of the owner is done by functions of the owner, each of which checks what it is asked for. The role
-- that a server connects as makes, drops and truncates nothing.

create table upkeep (
    one boolean primary key default true check (one),
    keep_at_least interval not null default '1 hour'
);
insert into upkeep default values;
comment on table upkeep is
    'One row. Whoever makes or drops partitions locks it; other roles cannot, as they could take an advisory lock.';
comment on column upkeep.keep_at_least is
    'A week is never dropped while a run in it ended less than so long ago, whatever retention a server asks for.';

create table acts_replaced (
    run_id uuid not null,
    replaced_at timestamptz not null default clock_timestamp(),
    act jsonb not null
);
create index acts_replaced_by_run on acts_replaced (run_id);
comment on table acts_replaced is
    'Rows of acts that were not what the journal says, as they stood before they were written anew.';

do $migration$
begin
    execute format($create$
create function backstitch.make_partition(parent text, monday date) returns boolean
language plpgsql volatile security definer set search_path = %I, pg_temp as $function$
declare
    schema text := current_schema();
    part text := make_partition.parent || '_p' || to_char(make_partition.monday, 'YYYYMMDD');
    today date := (clock_timestamp() at time zone 'UTC')::date;
    granted record;
begin
    if make_partition.parent is null or make_partition.parent not in ('journal', 'snapshots', 'runs', 'incidents') then
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

    execute format($create$
create function backstitch.drop_week(monday date, before timestamptz) returns boolean
language plpgsql volatile security definer set search_path = %I, pg_temp as $function$
declare
    schema text := current_schema();
    suffix text := '_p' || to_char(drop_week.monday, 'YYYYMMDD');
    first uuid;
    last uuid;
    ended_before timestamptz;
    in_use boolean;
    parent text;
begin
    if drop_week.monday is null or drop_week.before is null or extract(isodow from drop_week.monday) <> 1 then
        raise exception 'backstitch.drop_week needs a Monday and an instant' using errcode = 'insufficient_privilege';
    end if;
    select least(drop_week.before, clock_timestamp() - u.keep_at_least) into strict ended_before from upkeep u for update;
    if (drop_week.monday + 7)::timestamp at time zone 'UTC' > ended_before then
        return false;
    end if;
    -- Another node was first, or it is none of ours.
    if not exists (select from pg_inherits i where i.inhparent = 'runs'::regclass
            and i.inhrelid = to_regclass(format('%%I.%%I', schema, 'runs' || suffix))) then
        return false;
    end if;
    perform set_config('lock_timeout', '3s', true);
    -- Nothing may come in between the look and the drop.
    foreach parent in array array['journal', 'runs'] loop
        execute format('lock table %%I.%%I in access exclusive mode', schema, parent || suffix);
    end loop;
    execute format('select exists (select from %%I.%%I where state <> ''ended'' or ended_at >= $1)', schema, 'runs' || suffix)
        into in_use using ended_before;
    if in_use then
        return false;
    end if;
    first := backstitch.first_id(drop_week.monday);
    last := backstitch.first_id(drop_week.monday + 7);
    delete from run_keys t where t.run_id >= first and t.run_id < last;
    delete from fences t where t.run_id >= first and t.run_id < last;
    delete from ready t where t.run_id >= first and t.run_id < last;
    delete from acts t where t.run_id >= first and t.run_id < last;
    delete from acts_replaced t where t.run_id >= first and t.run_id < last;
    delete from incident_notes t where t.run_id >= first and t.run_id < last;
    delete from incident_assignees t where t.run_id >= first and t.run_id < last;
    delete from events t where t.at < ended_before;
    foreach parent in array array['journal', 'snapshots', 'runs', 'incidents'] loop
        if exists (select from pg_inherits i where i.inhparent = to_regclass(format('%%I.%%I', schema, parent))
                and i.inhrelid = to_regclass(format('%%I.%%I', schema, parent || suffix))) then
            execute format('drop table %%I.%%I', schema, parent || suffix);
        end if;
    end loop;
    return true;
end
$function$
    $create$, current_schema());

    execute format($create$
create function backstitch.stop_writers() returns void
language plpgsql volatile security definer set search_path = %I, pg_temp as $function$
begin
    lock table journal in share mode;
end
$function$
    $create$, current_schema());

    execute format($create$
create function backstitch.set_acts_aside(run uuid) returns void
language plpgsql volatile security definer set search_path = %I, pg_temp as $function$
begin
    insert into acts_replaced (run_id, act)
        select a.run_id, to_jsonb(a) from acts a where a.run_id = set_acts_aside.run;
    delete from acts a where a.run_id = set_acts_aside.run;
end
$function$
    $create$, current_schema());
end $migration$;

-- The smallest id of runs that start on a day.
create function backstitch.first_id(day date) returns uuid language sql immutable as
    $$ select (lpad(to_hex((extract(epoch from day) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid $$;

revoke all on function backstitch.make_partition(text, date) from public;
revoke all on function backstitch.drop_week(date, timestamptz) from public;
revoke all on function backstitch.stop_writers() from public;
revoke all on function backstitch.set_acts_aside(uuid) from public;
revoke all on function backstitch.first_id(date) from public;
comment on function backstitch.make_partition(text, date) is
    'Makes the partition of a table for the week of a Monday; answers whether it was missing. For the server''s role.';
comment on function backstitch.drop_week(date, timestamptz) is
    'Drops the week of a Monday if every run in it ended before an instant; answers whether it did. For the server''s role.';
comment on function backstitch.stop_writers() is
    'Stops all writers of journals until the transaction ends. For the server''s role.';
comment on function backstitch.set_acts_aside(uuid) is
    'Moves the acts of a run into acts_replaced, so that they can be written anew. For the server''s role.';
