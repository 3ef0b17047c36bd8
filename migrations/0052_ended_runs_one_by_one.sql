-- Ended runs of a week that cannot be dropped are deleted one by one. As with weeks, a function of the owner does it and
-- checks what it is asked for: a server's role deletes no journals.

do $migration$
begin
    execute format($create$
create function backstitch.delete_runs(
    wanted uuid[], before timestamptz, records integer, out deleted integer, out last uuid)
language plpgsql volatile security definer set search_path = %I, pg_temp as $function$
declare
    ended_before timestamptz;
    first_kept uuid;
    one record;
    taken bigint := 0;
    size bigint;
    doomed uuid[] := '{}';
begin
    if delete_runs.wanted is null or delete_runs.before is null or delete_runs.records is null
        or cardinality(delete_runs.wanted) > 1000 then
        raise exception 'backstitch.delete_runs needs at most 1,000 runs, an instant and a number of records'
            using errcode = 'insufficient_privilege';
    end if;
    deleted := 0;
    perform set_config('lock_timeout', '3s', true);
    -- In the order in which weeks are dropped, and tables before rows.
    select least(delete_runs.before, clock_timestamp() - u.keep_at_least) into strict ended_before
        from upkeep u for update;
    lock table journal in row exclusive mode;
    first_kept := backstitch.first_id(date_trunc('week', ended_before at time zone 'UTC')::date);
    -- A run whose row is locked moves on just now. One that is a step of another goes after that one, which may undo it.
    for one in
        select r.id, r.namespace, r.workflow, r.key from runs r
        where r.id = any (delete_runs.wanted) and r.id < first_kept
            and r.state = 'ended' and r.ended_at < ended_before and r.node is null and r.wake_at is null
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

revoke all on function backstitch.delete_runs(uuid[], timestamptz, integer) from public;
comment on function backstitch.delete_runs(uuid[], timestamptz, integer) is
    'Deletes those of some runs that ended before an instant, in weeks before it, until they have so many records together; answers how many, and the last if it did not look at all. For the server''s role.';
