-- Weeks of events that are past retention go whole, with their positions and keys. What is left of a log is dense: the horizon is
-- the last position of a week that went.
do $migration$
begin
    execute format($create$
create function backstitch.drop_event_week(monday date, before timestamptz) returns boolean
language plpgsql volatile security definer set search_path = %I, pg_temp as $function$
declare
    schema text := current_schema();
    suffix text := '_p' || to_char(drop_event_week.monday, 'YYYYMMDD');
    tables text[] := array['event', 'event_body'];
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
revoke all on function backstitch.drop_event_week(date, timestamptz) from public;
comment on function backstitch.drop_event_week(date, timestamptz) is
    'Drops the events of the week of a Monday if they are past retention; answers whether it did. For the server''s role.';
