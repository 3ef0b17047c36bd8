-- A week is dropped without a deadlock with those who read: they lock a table before its partitions, which a drop has to do as
-- well. It gives way after a moment, long before PostgreSQL would look for a deadlock and might end a reader.
do $migration$
begin
    execute format($create$
create or replace function backstitch.drop_week(monday date, before timestamptz) returns boolean
language plpgsql volatile security definer set search_path = %I, pg_temp as $function$
declare
    schema text := current_schema();
    suffix text := '_p' || to_char(drop_week.monday, 'YYYYMMDD');
    tables text[] := array['journal', 'snapshots', 'runs', 'incidents'];
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
    -- While somebody is in the way, nothing is deleted in vain: the locks are tried and given back.
    begin
        perform set_config('lock_timeout', '60ms', true);
        foreach parent in array tables loop
            execute format('lock table only %%I.%%I in access exclusive mode', schema, parent);
        end loop;
        raise exception 'nobody is in the way' using errcode = 'BS001';
    exception when sqlstate 'BS001' then
        null;
    end;
    perform set_config('lock_timeout', '3s', true);
    -- Nothing may be written between the look and the drop; it may be read.
    foreach parent in array array['journal', 'runs'] loop
        execute format('lock table %%I.%%I in exclusive mode', schema, parent || suffix);
    end loop;
    execute format('select exists (select from %%I.%%I r left join workflow_retention w
            on (w.namespace, w.workflow) = (r.namespace, r.workflow)
            where r.state <> ''ended'' or r.ended_at >= $1
                or (w.workflow is not null and coalesce(r.ended_at >= clock_timestamp() - w.keep_ms * interval ''1 millisecond'', true)))',
        schema, 'runs' || suffix)
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
    -- Twelve locks at most, together well within the second after which a deadlock would be looked for.
    perform set_config('lock_timeout', '60ms', true);
    foreach parent in array tables loop
        execute format('lock table only %%I.%%I in access exclusive mode', schema, parent);
    end loop;
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
