-- Events that applications append in transactions of their own: they are in the log if, and only if, the transaction commits. The
-- batch is announced in the same transaction, and numbered when it is visible.

-- The leaf of an event: see integration/src/events/leaf.rs.
create function backstitch.event_leaf(fields text[], body text, salt bytea) returns bytea
language plpgsql immutable as $function$
declare
    key bytea := event_leaf.salt || decode(repeat('00', 64 - octet_length(event_leaf.salt)), 'hex');
    inner_pad bytea := key;
    outer_pad bytea := key;
    message bytea := coalesce(convert_to('1' || event_leaf.body, 'UTF8'), '');
    field text;
    written text := '';
begin
    for place in 0..63 loop
        inner_pad := set_byte(inner_pad, place, get_byte(key, place) # 54);
        outer_pad := set_byte(outer_pad, place, get_byte(key, place) # 92);
    end loop;
    foreach field in array event_leaf.fields loop
        written := written || coalesce(octet_length(field) || ':' || field || ',', '-');
    end loop;
    return sha256('\x00'::bytea || convert_to(written, 'UTF8') || sha256(outer_pad || sha256(inner_pad || message)));
end
$function$;

do $migration$
begin
    execute format($create$
create function backstitch.append_event(
    type text,
    data jsonb default 'null',
    stream text default null,
    expected_version bigint default null,
    id text default null,
    source text default null,
    namespace text default 'default',
    contract text default null,
    correlation_id text default null,
    causation_id text default null,
    labels jsonb default null
) returns uuid language plpgsql volatile security definer set search_path = %1$I, pg_temp as $function$
#variable_conflict use_column
declare
    -- A UUIDv7 of now, without the two bytes that name the place in the batch, which is the first.
    batch uuid := encode(overlay(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing
        substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6),
        52, 1), 53, 1) placing '\x0000'::bytea from 15 for 2), 'hex')::uuid;
    controls constant text := '[\u0001-\u001f\u007f-\u009f]';
    at timestamptz := date_trunc('milliseconds', clock_timestamp());
    sender text := 'sql/' || session_user;
    body text := append_event.data::text;
    marks text := nullif(append_event.labels, '{}')::text;
    story text := append_event.correlation_id;
    chain integer := 0;
    sure smallint := 2;
    sent bytea;
    salt bytea := uuid_send(gen_random_uuid());
    next_version bigint;
    wrong text;
    first record;
    cause record;
begin
    if append_event.type is null or append_event.data is null or append_event.namespace is null then
        raise exception 'backstitch.append_event needs a type, data and a namespace' using errcode = 'null_value_not_allowed';
    end if;
    perform backstitch.must_be_granted(append_event.namespace);
    wrong := case
        when append_event.namespace !~ '^[a-z0-9][a-z0-9._-]{0,99}$'
            then 'a namespace is [a-z0-9][a-z0-9._-]*, at most 100 characters'
        when exists (select from unnest(array[append_event.type, append_event.stream, append_event.id, append_event.source,
            append_event.contract]) as t(text) where octet_length(t.text) not between 1 and 256 or t.text ~ controls)
            then 'type, stream, id, source and contract have 1 to 256 bytes and no control characters'
        when exists (select from unnest(array[append_event.correlation_id, append_event.causation_id]) as t(text)
            where octet_length(t.text) not between 1 and 128 or t.text ~ controls)
            then 'ids of stories and causes have 1 to 128 bytes and no control characters'
        when append_event.expected_version is not null and append_event.stream is null
            then 'an event with an expected version has a stream'
        when octet_length(body) > 262144 or jsonb_path_exists(append_event.data,
            'strict $.**{64 to last} ? (@.type() == "array" || @.type() == "object")')
            then 'data is JSON of at most 256 KiB and 64 levels'
        when append_event.labels is not null and jsonb_typeof(append_event.labels) <> 'object'
            then 'labels are an object'
        when (select count(*) > 64 or bool_or(jsonb_typeof(l.value) <> 'string' or l.key ~ controls
                or octet_length(l.key) not between 1 and 256 or octet_length(l.value #>> '{}') > 1024
                or l.value #>> '{}' ~ controls)
            from jsonb_each(case when jsonb_typeof(append_event.labels) = 'object' then append_event.labels end) l)
            then 'labels are at most 64 texts of at most 1,024 bytes without control characters'
    end;
    if wrong is not null then
        raise exception '%%', wrong using errcode = 'BS006';
    end if;
    if append_event.causation_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
        select e.correlation_id, e.hops, e.trust into cause from event e
            where e.namespace = append_event.namespace
                and e.batch = overlay(append_event.causation_id placing '0000' from 33 for 4)::uuid
                and e.ord = ('x' || right(append_event.causation_id, 4))::bit(16)::integer::bigint;
        if found then
            chain := cause.hops + 1;
            sure := least(sure, cause.trust);
            story := coalesce(story, cause.correlation_id);
            if chain > 25 then
                raise exception 'the event would be number %% in a chain of causes, and 25 are allowed', chain
                    using errcode = 'BS009';
            end if;
        end if;
    end if;
    story := coalesce(story, batch::text);
    if append_event.id is not null then
        sent := sha256(convert_to(jsonb_build_array('sql', append_event.type, append_event.data, append_event.stream,
            append_event.contract, append_event.correlation_id, append_event.causation_id, append_event.labels)::text, 'UTF8'));
        insert into event_key (namespace, source, id, batch, ord, digest)
            values (append_event.namespace, coalesce(append_event.source, sender), append_event.id, batch, 0, sent)
            on conflict do nothing;
        if not found then
            select k.batch, k.ord, k.digest into strict first from event_key k
                where k.namespace = append_event.namespace and k.source = coalesce(append_event.source, sender)
                    and k.id = append_event.id;
            if first.digest <> sent then
                raise exception 'another event was appended under the id %%', quote_literal(append_event.id)
                    using errcode = 'BS007';
            end if;
            return overlay(first.batch::text placing lpad(to_hex(first.ord::integer), 4, '0') from 33 for 4)::uuid;
        end if;
    end if;
    if append_event.stream is not null then
        -- The lock of the stream before the row that announces the batch: versions and positions have one order.
        insert into stream (namespace, stream, version, changed_at)
            values (append_event.namespace, append_event.stream, 0, at) on conflict do nothing;
        select s.version + 1 into strict next_version from stream s
            where s.namespace = append_event.namespace and s.stream = append_event.stream for update;
        if append_event.expected_version is not null and append_event.expected_version <> next_version - 1 then
            raise exception 'the stream %% is at version %%, not %%', quote_literal(append_event.stream), next_version - 1,
                append_event.expected_version using errcode = 'BS008';
        end if;
        update stream s set version = next_version, changed_at = at
            where s.namespace = append_event.namespace and s.stream = append_event.stream;
    end if;
    insert into event (batch, ord, namespace, type, stream, stream_version, contract, op_corrected, noop, source,
            claimed_source, source_id, trust, received_at, correlation_id, causation_id, hops, labels, bytes, leaf)
        values (batch, 0, append_event.namespace, append_event.type, append_event.stream, next_version, append_event.contract, false,
            false, sender, append_event.source, append_event.id, sure, at, story, append_event.causation_id, chain, marks,
            octet_length(body), backstitch.event_leaf(array[append_event.namespace, batch::text, append_event.type,
                append_event.stream, next_version::text, append_event.contract, null, '0', '0', null, sender, append_event.source,
                append_event.id, sure::text, null, (extract(epoch from at) * 1000)::bigint::text, story,
                append_event.causation_id, chain::text, null, marks], body, salt));
    insert into event_body (batch, ord, body, salt) values (batch, 0, body, salt);
    insert into announced (namespace, batch, n, at) values (append_event.namespace, batch, 1, at);
    -- As with starts: of those under way, one rings.
    if pg_try_advisory_xact_lock(7210230506) then
        perform pg_notify('backstitch', 'log');
    end if;
    return batch;
end
$function$
    $create$, current_schema());
end $migration$;
revoke all on function backstitch.append_event(text, jsonb, text, bigint, text, text, text, text, text, text, jsonb) from public;
comment on function backstitch.append_event(text, jsonb, text, bigint, text, text, text, text, text, text, jsonb) is
    'Appends an event to the log when the transaction of the caller commits; answers its id.';
