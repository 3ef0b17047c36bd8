-- Starts at a later instant. `start_run` is as it was and does what `start_run_at` does without one.
alter table start_requests add column start_at timestamptz;
comment on column start_requests.start_at is 'The instant at which the run is to begin; at once where it is null or has passed.';

do $migration$
begin
    execute format($create$
create function backstitch.start_run_at(
    workflow text,
    start_at timestamptz,
    input jsonb default 'null',
    key text default null,
    namespace text default 'default',
    version integer default null,
    correlation_id text default null,
    labels jsonb default null
) returns uuid language plpgsql volatile security definer set search_path = %I, pg_temp as $function$
#variable_conflict use_column
declare
    -- A UUIDv7 of now: a random UUIDv4 with the milliseconds in front and the version changed.
    request uuid := encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing
        substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6),
        52, 1), 53, 1), 'hex')::uuid;
    run uuid;
begin
    if start_run_at.workflow is null or start_run_at.input is null or start_run_at.namespace is null then
        raise exception 'backstitch.start_run needs a workflow, an input and a namespace'
            using errcode = 'null_value_not_allowed';
    end if;
    if start_run_at.key is not null then
        -- One transaction at a time for each key, so that all who ask with it get the same id.
        perform pg_advisory_xact_lock(hashtextextended(
            jsonb_build_array(start_run_at.namespace, start_run_at.workflow, start_run_at.key)::text, 7210230504));
        select r.run_id into run from start_requests r
            where r.namespace = start_run_at.namespace and r.key = start_run_at.key
                and r.workflow = start_run_at.workflow and r.state = 'waiting' limit 1;
        -- Looked for second: a request that is gone by now has left its key here before.
        if run is null then
            select k.run_id into run from run_keys k
                where k.namespace = start_run_at.namespace and k.key = start_run_at.key
                    and k.workflow = start_run_at.workflow;
        end if;
    end if;
    run := coalesce(run, request);
    insert into start_requests (id, namespace, run_id, workflow, version, key, input, correlation_id, labels, start_at)
        values (request, start_run_at.namespace, run, start_run_at.workflow, start_run_at.version, start_run_at.key,
            start_run_at.input::text, start_run_at.correlation_id, start_run_at.labels::text, start_run_at.start_at);
    -- Commits that ring go one after the other, through the whole database: of those under way, one rings.
    if pg_try_advisory_xact_lock(7210230505) then
        perform pg_notify('backstitch', '');
    end if;
    return run;
end
$function$
    $create$, current_schema());
    execute format($create$
create or replace function backstitch.start_run(
    workflow text,
    input jsonb default 'null',
    key text default null,
    namespace text default 'default',
    version integer default null,
    correlation_id text default null,
    labels jsonb default null
) returns uuid language plpgsql volatile security definer set search_path = %I, pg_temp as $function$
begin
    return backstitch.start_run_at(start_run.workflow, null, start_run.input, start_run.key, start_run.namespace,
        start_run.version, start_run.correlation_id, start_run.labels);
end
$function$
    $create$, current_schema());
end $migration$;
revoke all on function backstitch.start_run_at(text, timestamptz, jsonb, text, text, integer, text, jsonb) from public;
comment on function backstitch.start_run_at(text, timestamptz, jsonb, text, text, integer, text, jsonb) is
    'Starts a run for a later instant when the transaction of the caller commits; answers its id.';
