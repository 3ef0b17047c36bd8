-- Subscriptions: events of the log that start runs. The cursor moves when the starts are answered; a run is started under a key made
-- of the subscription, its generation and the position of the event, so that twice is once.
create table subscription (
    namespace text not null,
    name text not null,
    revision bigint not null default 1,
    spec text not null,
    state text not null check (state in ('active', 'paused')),
    generation integer not null default 1,
    position bigint not null,
    started bigint not null default 0,
    skipped bigint not null default 0,
    stopped_at bigint,
    stopped_code text,
    stopped_message text,
    stopped_since timestamptz,
    retry_at timestamptz,
    taken_by integer,
    taken_until timestamptz,
    changed_at timestamptz not null,
    changed_by text not null,
    primary key (namespace, name)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
comment on column subscription.revision is 'Grows with every change by a person: starts that were decided on the one before do not move the cursor.';
comment on column subscription.spec is 'JSON: filter, workflow, version, input.';
comment on column subscription.generation is 'Grows when the cursor is set back: events start runs again.';
comment on column subscription.position is 'The last event that was dealt with.';
comment on column subscription.skipped is 'Events that were wanted and not trusted enough.';
comment on column subscription.stopped_at is 'Position of the event whose start is refused; it is tried again until a person skips it.';
