-- What was asked under an Idempotency-Key, and what was answered. A row is written before the act and completed after it.
create table idempotency_keys (
    namespace text not null,
    scope bytea not null,
    body_sha256 bytea not null,
    reserved_at timestamptz not null,
    leased_until timestamptz not null,
    node integer,
    status smallint,
    content_type text,
    location text,
    body bytea,
    primary key (namespace, scope)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
create index idempotency_keys_by_age on idempotency_keys (reserved_at);
comment on table idempotency_keys is 'Answers to requests with an Idempotency-Key, to be given again.';
comment on column idempotency_keys.scope is 'SHA-256 of who asks, the method, the path and the key.';
comment on column idempotency_keys.reserved_at is 'When it was first asked; the ids of runs that it starts are made from it.';
comment on column idempotency_keys.leased_until is 'Until when `node` is taken to work on it; then a repeat may.';
comment on column idempotency_keys.status is 'The HTTP status answered; null while it is not known.';
comment on column idempotency_keys.body is 'The body answered; null when it was too large to be kept.';

-- What applications that share this database may use. Their roles get the right to it by name, see docs/transactions.md.
create schema if not exists backstitch;

-- Starts that applications asked for in their own transactions. A row is here until its run is.
create table start_requests (
    id uuid primary key,
    namespace text not null,
    run_id uuid not null,
    workflow text not null,
    version integer,
    key text,
    input text not null,
    correlation_id text,
    labels text,
    requested_at timestamptz not null default clock_timestamp(),
    state text not null default 'waiting' check (state in ('waiting', 'refused', 'dismissed')),
    reserved_by integer,
    reserved_until timestamptz,
    refusal text,
    refused_at timestamptz,
    decided_by text,
    decision_reason text,
    decided_at timestamptz
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
create index start_requests_waiting on start_requests (id) where state = 'waiting';
create index start_requests_by_key on start_requests (namespace, key, workflow) where state = 'waiting' and key is not null;
create index start_requests_stuck on start_requests (namespace, state, id) where state <> 'waiting';
comment on table start_requests is 'Starts asked for by backstitch.start_run, until their runs have begun.';
comment on column start_requests.run_id is 'The id that the run gets. Of several requests with one key all have the same.';
comment on column start_requests.reserved_by is 'The node that is about to start it, until reserved_until. A hint.';
comment on column start_requests.refusal is 'Why the engine refused it: JSON with code, message and violations.';

-- Asks for the start of a run, in the transaction of the caller. The engine takes it after the commit. It decides nothing:
-- what does not make sense to the engine stays in start_requests with its refusal.
do $migration$
begin
    execute format($create$
create function backstitch.start_run(
    workflow text,
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
    if start_run.workflow is null or start_run.input is null or start_run.namespace is null then
        raise exception 'backstitch.start_run needs a workflow, an input and a namespace'
            using errcode = 'null_value_not_allowed';
    end if;
    if start_run.key is not null then
        -- One transaction at a time for each key, so that all who ask with it get the same id.
        perform pg_advisory_xact_lock(hashtextextended(
            jsonb_build_array(start_run.namespace, start_run.workflow, start_run.key)::text, 7210230504));
        select r.run_id into run from start_requests r
            where r.namespace = start_run.namespace and r.key = start_run.key
                and r.workflow = start_run.workflow and r.state = 'waiting' limit 1;
        -- Looked for second: a request that is gone by now has left its key here before.
        if run is null then
            select k.run_id into run from run_keys k
                where k.namespace = start_run.namespace and k.key = start_run.key
                    and k.workflow = start_run.workflow;
        end if;
    end if;
    run := coalesce(run, request);
    insert into start_requests (id, namespace, run_id, workflow, version, key, input, correlation_id, labels)
        values (request, start_run.namespace, run, start_run.workflow, start_run.version, start_run.key,
            start_run.input::text, start_run.correlation_id, start_run.labels::text);
    -- Commits that ring go one after the other, through the whole database: of those under way, one rings.
    if pg_try_advisory_xact_lock(7210230505) then
        perform pg_notify('backstitch', '');
    end if;
    return run;
end
$function$
    $create$, current_schema());
end $migration$;
revoke all on function backstitch.start_run(text, jsonb, text, text, integer, text, jsonb) from public;
comment on function backstitch.start_run(text, jsonb, text, text, integer, text, jsonb) is
    'Starts a run when the transaction of the caller commits; answers its id.';

-- Attempts in workers' hands that may be completed in the worker's own transaction: of tasks that say `transactional`.
-- The row is the fence: while it is neither completed nor revoked, the attempt may be completed. It is made before the
-- worker gets the task, and revoked before the engine ends the attempt in any other way.
create table fences (
    run_id uuid not null,
    step text not null,
    action text not null check (action in ('forward', 'compensate')),
    attempt integer not null,
    namespace text not null,
    opened_at timestamptz,
    revoked_at timestamptz,
    completed_at timestamptz,
    output text,
    external_id text,
    primary key (run_id, step, action, attempt)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
create index fences_revoked on fences (revoked_at) where revoked_at is not null;
create index fences_completed on fences (completed_at) where completed_at is not null;
comment on table fences is 'Attempts that may be completed in a transaction of the worker''s.';
comment on column fences.opened_at is 'Null when it was revoked before it was made: a node was slow, and must not make it any more.';
comment on column fences.completed_at is 'When its worker completed it; the engine makes it part of the journal soon after.';

-- Completes an attempt in the transaction of the caller. Raises BS001 when the attempt is not the worker's any more, BS002
-- when it was completed already, BS003 when the output is not one.
do $migration$
begin
    execute format($create$
create function backstitch.complete_task(
    run uuid,
    step text,
    action text,
    attempt integer,
    output jsonb default 'null',
    external_id text default null
) returns void language plpgsql volatile security definer set search_path = %I, pg_temp as $function$
#variable_conflict use_column
begin
    if complete_task.output is null or octet_length(complete_task.output::text) > 262144
        or jsonb_path_exists(complete_task.output, 
            'strict $.**{64 to last} ? (@.type() == "array" || @.type() == "object")')
        or octet_length(complete_task.external_id) > 255 then
        raise exception 'an output is JSON of at most 256 KiB and 64 levels, an external id has at most 255 bytes'
            using errcode = 'BS003';
    end if;
    update fences f set completed_at = clock_timestamp(), output = complete_task.output::text,
            external_id = complete_task.external_id
        where f.run_id = complete_task.run and f.step = complete_task.step and f.action = complete_task.action
            and f.attempt = complete_task.attempt and f.completed_at is null and f.revoked_at is null;
    if found then
        return;
    end if;
    perform 1 from fences f
        where f.run_id = complete_task.run and f.step = complete_task.step and f.action = complete_task.action
            and f.attempt = complete_task.attempt and f.completed_at is not null;
    if found then
        raise exception '%% %% #%% was completed already', complete_task.action, complete_task.step, complete_task.attempt
            using errcode = 'BS002';
    end if;
    raise exception '%% %% #%% is no longer this worker''s, or its task is not transactional',
        complete_task.action, complete_task.step, complete_task.attempt using errcode = 'BS001';
end
$function$
    $create$, current_schema());
end $migration$;
revoke all on function backstitch.complete_task(uuid, text, text, integer, jsonb, text) from public;
comment on function backstitch.complete_task(uuid, text, text, integer, jsonb, text) is
    'Completes an attempt when the transaction of its worker commits.';
