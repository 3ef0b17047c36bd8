-- The event log. Events are written once and never changed. Whoever appends announces his batch with a row; one loop at a time
-- gives announced batches that have become visible their positions, in the order of their identity.
create table event (
    batch uuid not null,
    ord smallint not null,
    namespace text not null,
    type text not null,
    stream text,
    stream_version bigint,
    contract text,
    op text check (op in ('C', 'U', 'D', 'S')),
    op_corrected boolean not null,
    noop boolean not null,
    changed text,
    source text not null,
    claimed_source text,
    source_id text,
    trust smallint not null,
    occurred_at text,
    received_at timestamptz not null,
    correlation_id text not null,
    causation_id text,
    hops integer not null,
    traceparent text,
    labels text,
    bytes integer not null,
    leaf bytea not null,
    primary key (batch, ord)
) partition by range (batch);
create index event_by_stream on event (namespace, stream, stream_version) where stream is not null;
create index event_by_correlation on event (namespace, correlation_id);
comment on table event is 'Envelopes of events, by week of their batch. The id of an event is that of its batch with ord in the last two bytes.';
comment on column event.changed is 'JSON list of the places that differ from the body before, for events with an operation.';
comment on column event.source is 'Who sent it, as the door says that it came through.';
comment on column event.claimed_source is 'Who sent it, as the event says itself.';
comment on column event.occurred_at is 'RFC 3339 in UTC, as exact as it was sent.';
comment on column event.source_id is 'Id that the sender gave.';
comment on column event.trust is '0 untrusted, 1 unverified, 2 authenticated, 3 signed, 4 authoritative.';
comment on column event.bytes is 'Bytes of the body.';
comment on column event.leaf is 'SHA-256 of the envelope and of the HMAC of the body under its salt.';

create table event_body (
    batch uuid not null,
    ord smallint not null,
    body text,
    unmapped text,
    changes text,
    salt bytea not null,
    primary key (batch, ord)
) partition by range (batch);
comment on table event_body is 'Bodies of events, apart from their envelopes, so that they can be erased. An event without a row here was erased.';

create table event_default partition of event default;
create table event_body_default partition of event_body default;

create table announced (
    id bigint generated always as identity (cache 1) primary key,
    namespace text not null,
    batch uuid not null,
    n smallint not null,
    at timestamptz not null
) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
create index announced_by_namespace on announced (namespace, id);
comment on table announced is 'Batches of events that have no positions yet; a row for each append, made after the events that it could see.';

create table position (
    namespace text not null,
    upto bigint not null,
    batch uuid not null,
    n smallint not null,
    primary key (namespace, upto)
);
create unique index position_by_batch on position (batch);
comment on table position is 'Positions of batches: the last event of a batch has the position upto, its first one upto - n + 1.';

create table log_head (
    namespace text primary key,
    position bigint not null default 0,
    horizon bigint not null default 0
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
comment on table log_head is 'The last position of each namespace; who gives positions holds the lock of the row.';
comment on column log_head.horizon is 'Events up to this position are past retention and gone.';

create table stream (
    namespace text not null,
    stream text not null,
    version bigint not null,
    entity text check (entity in ('present', 'deleted')),
    body_batch uuid,
    body_ord smallint,
    body_digest bytea,
    changed_at timestamptz not null,
    primary key (namespace, stream)
) with (fillfactor = 80);
comment on table stream is 'Heads of streams. An append moves the version on from the one that it was decided on, or is decided again.';
comment on column stream.entity is 'What events with an operation say of the entity; null before the first of them.';
comment on column stream.body_digest is 'SHA-256 of the canonical form of the last body, which may be past retention.';

create table event_key (
    namespace text not null,
    source text not null,
    id text not null,
    batch uuid not null,
    ord smallint not null,
    digest bytea not null,
    primary key (namespace, source, id)
);
create index event_key_by_batch on event_key using brin (batch);
comment on table event_key is 'By what repeats of events are recognised.';

do $migration$
begin
    execute format($create$
create or replace function backstitch.make_partition(parent text, monday date) returns boolean
language plpgsql volatile security definer set search_path = %I, pg_temp as $function$
declare
    schema text := current_schema();
    part text := make_partition.parent || '_p' || to_char(make_partition.monday, 'YYYYMMDD');
    today date := (clock_timestamp() at time zone 'UTC')::date;
    granted record;
begin
    if make_partition.parent is null or make_partition.parent not in ('journal', 'snapshots', 'runs', 'incidents',
        'event', 'event_body') then
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
            when 'event' then ' with (autovacuum_vacuum_insert_threshold = -1)'
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
end $migration$;
