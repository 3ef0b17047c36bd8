-- An output with a number beyond the range of a double is refused when it is given, as by the API: the engine could not keep it, and
-- the run would be undone although the worker has committed.
do $migration$
begin
    execute format($create$
create or replace function backstitch.complete_task(
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
        or jsonb_path_exists(complete_task.output,
            'strict $.** ? (@.type() == "number" && (@ >= 1.7976931348623158e308 || @ <= -1.7976931348623158e308))')
        or octet_length(complete_task.external_id) > 255 then
        raise exception 'an output is JSON of at most 256 KiB and 64 levels with numbers that a double holds, an external id has at most 255 bytes'
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
end $migration$;
