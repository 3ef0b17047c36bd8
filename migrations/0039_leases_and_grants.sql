-- The key by which tokens of leases are made, the same for all nodes. HMAC-SHA-256 is done with the two pads alone.
create table lease_keys (
    id integer primary key default 1 check (id = 1),
    secret bytea not null,
    inner_pad bytea not null,
    outer_pad bytea not null
);
comment on table lease_keys is 'The key of the tokens of leases. Who reads it can report for any worker.';
do $migration$
declare
    -- Two random UUIDs have 244 random bits.
    secret bytea := decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex');
    padded bytea := secret || decode(repeat('00', 32), 'hex');
    inner_pad bytea := padded;
    outer_pad bytea := padded;
begin
    for place in 0..63 loop
        inner_pad := set_byte(inner_pad, place, get_byte(padded, place) # 54);
        outer_pad := set_byte(outer_pad, place, get_byte(padded, place) # 92);
    end loop;
    insert into lease_keys (secret, inner_pad, outer_pad) values (secret, inner_pad, outer_pad);
end $migration$;

-- Which roles of the database may start runs and complete tasks in which namespace.
create table namespace_grants (
    namespace text not null,
    role text not null,
    granted_at timestamptz not null default clock_timestamp(),
    granted_by text not null,
    primary key (namespace, role)
);
comment on table namespace_grants is 'Roles of the database that may act in a namespace by the functions in backstitch.';

do $migration$
declare
    granted oid[];
    grantee oid;
begin
    execute format($create$
create function backstitch.must_be_granted(namespace text) returns void
language plpgsql stable security definer set search_path = %1$I, pg_temp as $function$
begin
    -- Who may act as the owner of the tables needs no grant.
    if pg_has_role(session_user, current_user, 'member') then
        return;
    end if;
    if exists (select 1 from namespace_grants g join pg_roles r on r.rolname = g.role
        where g.namespace = must_be_granted.namespace and pg_has_role(session_user, r.oid, 'member')) then
        return;
    end if;
    raise exception 'the role %% has no grant for the namespace %%', quote_ident(session_user::text),
        quote_literal(must_be_granted.namespace)
        using errcode = 'BS005', hint = 'An admin of the namespace grants it with PUT /v1/database-roles/ROLE, the owner '
            'of the schema with select backstitch.grant_namespace(''ROLE'', ''NAMESPACE'').';
end
$function$
    $create$, current_schema());
    execute format($create$
create function backstitch.grant_namespace(role text, namespace text) returns void
language plpgsql volatile set search_path = %1$I, pg_temp as $function$
#variable_conflict use_column
begin
    if not exists (select 1 from pg_roles where rolname = grant_namespace.role) then
        raise exception 'there is no role %%', quote_ident(grant_namespace.role) using errcode = 'undefined_object';
    end if;
    if grant_namespace.namespace is null or grant_namespace.namespace !~ '^[a-z0-9][a-z0-9._-]{0,99}$' then
        raise exception 'a namespace is [a-z0-9][a-z0-9._-]*, at most 100 characters' using errcode = 'BS006';
    end if;
    insert into namespace_grants (namespace, role, granted_by)
        values (grant_namespace.namespace, grant_namespace.role, session_user) on conflict do nothing;
    if found then
        insert into acts_beside_runs (namespace, at, kind, name, actor, verb, reason)
            values (grant_namespace.namespace, clock_timestamp(), 'database_role', grant_namespace.role, session_user,
                'grant', '');
    end if;
end
$function$
    $create$, current_schema());
    execute format($create$
create function backstitch.revoke_namespace(role text, namespace text) returns void
language plpgsql volatile set search_path = %1$I, pg_temp as $function$
#variable_conflict use_column
begin
    delete from namespace_grants g
        where g.namespace = revoke_namespace.namespace and g.role = revoke_namespace.role;
    if found then
        insert into acts_beside_runs (namespace, at, kind, name, actor, verb, reason)
            values (revoke_namespace.namespace, clock_timestamp(), 'database_role', revoke_namespace.role, session_user,
                'revoke', '');
    end if;
end
$function$
    $create$, current_schema());

    -- Starts: for roles with a grant alone, and nothing larger than the API takes.
    execute format($create$
create or replace function backstitch.start_run_at(
    workflow text,
    start_at timestamptz,
    input jsonb default 'null',
    key text default null,
    namespace text default 'default',
    version integer default null,
    correlation_id text default null,
    labels jsonb default null
) returns uuid language plpgsql volatile security definer set search_path = %1$I, pg_temp as $function$
#variable_conflict use_column
declare
    -- A UUIDv7 of now: a random UUIDv4 with the milliseconds in front and the version changed.
    request uuid := encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing
        substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6),
        52, 1), 53, 1), 'hex')::uuid;
    controls constant text := '[\u0001-\u001f\u007f-\u009f]';
    wrong text;
    run uuid;
begin
    if start_run_at.workflow is null or start_run_at.input is null or start_run_at.namespace is null then
        raise exception 'backstitch.start_run needs a workflow, an input and a namespace'
            using errcode = 'null_value_not_allowed';
    end if;
    perform backstitch.must_be_granted(start_run_at.namespace);
    wrong := case
        when octet_length(start_run_at.workflow) not between 1 and 200 or start_run_at.workflow ~ controls
            then 'a workflow has 1 to 200 bytes and no control characters'
        when octet_length(start_run_at.key) not between 1 and 255 or start_run_at.key ~ controls
            then 'a key has 1 to 255 bytes and no control characters'
        when octet_length(start_run_at.correlation_id) not between 1 and 255 or start_run_at.correlation_id ~ controls
            then 'a correlation id has 1 to 255 bytes and no control characters'
        when start_run_at.namespace !~ '^[a-z0-9][a-z0-9._-]{0,99}$'
            then 'a namespace is [a-z0-9][a-z0-9._-]*, at most 100 characters'
        when octet_length(start_run_at.input::text) > 262144
            then 'an input has at most 256 KiB'
        when octet_length(start_run_at.labels::text) > 32768
            then 'labels are at most 32, with names of at most 100 and values of at most 255 bytes'
        when jsonb_typeof(start_run_at.labels) = 'object' and exists (select 1 from jsonb_each_text(start_run_at.labels) l
            where l.key ~ controls or l.value ~ controls)
            then 'labels have no control characters'
    end;
    if wrong is not null then
        raise exception '%%', wrong using errcode = 'BS006';
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

    -- Completions: by the worker that claimed the task alone, and in the namespaces of its role. Who had a right to the
    -- function of before has one to this.
    select array_agg(a.grantee) into granted from pg_proc p, aclexplode(p.proacl) a
        where p.oid = 'backstitch.complete_task(uuid, text, text, integer, jsonb, text)'::regprocedure
            and a.privilege_type = 'EXECUTE' and a.grantee not in (0, p.proowner);
    drop function backstitch.complete_task(uuid, text, text, integer, jsonb, text);
    execute format($create$
create function backstitch.complete_task(
    run uuid,
    step text,
    action text,
    attempt integer,
    output jsonb default 'null',
    external_id text default null,
    lease text default null
) returns void language plpgsql volatile security definer set search_path = %1$I, pg_temp as $function$
#variable_conflict use_column
declare
    token bytea;
    of_namespace text;
begin
    if complete_task.output is null or octet_length(complete_task.output::text) > 262144
        or jsonb_path_exists(complete_task.output, 
            'strict $.**{64 to last} ? (@.type() == "array" || @.type() == "object")')
        or octet_length(complete_task.external_id) > 255 then
        raise exception 'an output is JSON of at most 256 KiB and 64 levels, an external id has at most 255 bytes'
            using errcode = 'BS003';
    end if;
    -- A token is the session and the first half of the HMAC-SHA-256 over session, run, attempt, action and step.
    if complete_task.lease ~ '^[0-9a-f]{64}$' then
        token := decode(complete_task.lease, 'hex');
        perform 1 from lease_keys k where substring(token from 17) = substring(sha256(k.outer_pad || sha256(k.inner_pad
            || substring(token from 1 for 16) || uuid_send(complete_task.run) || int4send(complete_task.attempt)
            || convert_to(complete_task.action || '/' || complete_task.step, 'UTF8'))) from 1 for 16);
    end if;
    if token is null or not found then
        raise exception '%% %% #%%: this is not the token of its lease', complete_task.action, complete_task.step,
            complete_task.attempt
            using errcode = 'BS004', hint = 'Pass lease => the member lease of the task as it was claimed.';
    end if;
    select f.namespace into of_namespace from fences f
        where f.run_id = complete_task.run and f.step = complete_task.step and f.action = complete_task.action
            and f.attempt = complete_task.attempt;
    if found then
        perform backstitch.must_be_granted(of_namespace);
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
    revoke all on function backstitch.complete_task(uuid, text, text, integer, jsonb, text, text) from public;
    foreach grantee in array coalesce(granted, '{}') loop
        execute format('grant execute on function backstitch.complete_task to %s', grantee::regrole);
    end loop;
end $migration$;
revoke all on function backstitch.must_be_granted(text) from public;
revoke all on function backstitch.grant_namespace(text, text) from public;
revoke all on function backstitch.revoke_namespace(text, text) from public;
comment on function backstitch.grant_namespace(text, text) is
    'Lets a role of the database start runs and complete tasks in a namespace, where it may call the functions.';
comment on function backstitch.revoke_namespace(text, text) is 'Takes a grant of backstitch.grant_namespace back.';
comment on function backstitch.complete_task(uuid, text, text, integer, jsonb, text, text) is
    'Completes an attempt when the transaction of its worker commits.';
