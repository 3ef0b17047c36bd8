-- How long ended runs of a workflow are kept, where it is not as long as the server says. Weeks are dropped, and runs deleted,
-- by that; a server's role cannot go below an hour, whatever it writes here.
create table workflow_retention (
    namespace text not null,
    workflow text not null,
    keep_ms bigint check (keep_ms between 3600000 and 3153600000000),
    changed_at timestamptz not null,
    changed_by text not null,
    reason text not null,
    primary key (namespace, workflow)
);
comment on column workflow_retention.keep_ms is 'Milliseconds after its end for which a run is kept; null means for ever.';

do $migration$
begin
    execute format($create$
create or replace function backstitch.drop_week(monday date, before timestamptz) returns boolean
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
end $migration$;

do $migration$
begin
    execute format($create$
create or replace function backstitch.delete_runs(
    wanted uuid[], before timestamptz, records integer, out deleted integer, out last uuid)
language plpgsql volatile security definer set search_path = %I, pg_temp as $function$
declare
    ended_before timestamptz;
    own_before timestamptz;
    first_kept uuid := '00000000-0000-0000-0000-000000000000';
    one record;
    taken bigint := 0;
    size bigint;
    doomed uuid[] := '{}';
begin
    if delete_runs.wanted is null or delete_runs.records is null
        or cardinality(delete_runs.wanted) > 1000 then
        raise exception 'backstitch.delete_runs needs at most 1,000 runs and a number of records'
            using errcode = 'insufficient_privilege';
    end if;
    deleted := 0;
    perform set_config('lock_timeout', '3s', true);
    -- In the order in which weeks are dropped, and tables before rows.
    select least(delete_runs.before, clock_timestamp() - u.keep_at_least),
            clock_timestamp() - greatest(u.keep_at_least, interval '1 hour')
        into strict ended_before, own_before from upkeep u for update;
    lock table journal in row exclusive mode;
    -- Without an instant the server keeps runs for ever, but for those of workflows with a retention of their own.
    if delete_runs.before is not null then
        first_kept := backstitch.first_id(date_trunc('week', ended_before at time zone 'UTC')::date);
    end if;
    -- A run whose row is locked moves on just now. One that is a step of another goes after that one, which may undo it.
    for one in
        select r.id, r.namespace, r.workflow, r.key from runs r
            left join workflow_retention w on (w.namespace, w.workflow) = (r.namespace, r.workflow)
        where r.id = any (delete_runs.wanted) and r.state = 'ended' and r.node is null and r.wake_at is null
            and case when w.workflow is null then r.id < first_kept and r.ended_at < ended_before
                else r.ended_at < least(clock_timestamp() - w.keep_ms * interval '1 millisecond', own_before)
                    and w.keep_ms is not null end
            and not exists (select from runs p where p.id = (
                select substring(j.events from '"parent":\{"run":"([0-9a-f-]{36})"')::uuid
                from journal j where j.run_id = r.id and j.seq = 1))
        order by r.id
        for update of r skip locked
    loop
        select count(*) into size from journal j where j.run_id = one.id;
        if deleted > 0 and taken + size > delete_runs.records then
            last := doomed[deleted];
            exit;
        end if;
        taken := taken + size;
        deleted := deleted + 1;
        doomed := doomed || one.id;
        if one.key is not null then
            delete from run_keys k where k.namespace = one.namespace and k.key = one.key
                and k.workflow = one.workflow and k.run_id = one.id;
        end if;
    end loop;
    delete from fences t where t.run_id = any (doomed);
    delete from ready t where t.run_id = any (doomed);
    delete from acts t where t.run_id = any (doomed);
    delete from acts_replaced t where t.run_id = any (doomed);
    delete from incident_notes t where t.run_id = any (doomed);
    delete from incident_assignees t where t.run_id = any (doomed);
    delete from incidents t where t.run_id = any (doomed);
    delete from snapshots t where t.run_id = any (doomed);
    delete from journal t where t.run_id = any (doomed);
    delete from runs t where t.id = any (doomed);
end
$function$
    $create$, current_schema());
end $migration$;

comment on function backstitch.delete_runs(uuid[], timestamptz, integer) is
    'Deletes those of some runs that ended before an instant, in weeks before it, or before what their workflow says, until they have so many records together; answers how many, and the last if it did not look at all. For the server''s role.';
