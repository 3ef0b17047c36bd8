-- Events that a subscription has taken up and that wait, or whose runs are under way: for those with an order per key or a limit of what is
-- under way. Its cursor moves when they are written. Rows change under the lock of the subscription's row, and go when what became of
-- the run lets them go.
create table subscription_event (
    namespace text not null,
    name text not null,
    generation integer not null,
    position bigint not null,
    key text,
    state text not null check (state in ('waiting', 'ready', 'starting', 'started', 'blocked')),
    run_id uuid,
    incident integer,
    code text,
    message text,
    since timestamptz not null,
    retry_at timestamptz,
    primary key (namespace, name, generation, position)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
create index subscription_event_by_key on subscription_event (namespace, name, key, generation, position) where key is not null;
create index subscription_event_by_state on subscription_event (namespace, name, state, generation, position);
comment on column subscription_event.key is 'Events of one key are dealt with one after the other; without one in no order.';
comment on column subscription_event.state is 'waiting for an earlier one of its key, ready to start, starting under run_id, started, or blocked until a person did something.';

-- Events that a subscription wanted and passed over.
create table subscription_skip (
    namespace text not null,
    name text not null,
    generation integer not null,
    position bigint not null,
    reason text not null,
    key text,
    run_id uuid,
    code text,
    message text,
    at timestamptz not null,
    actor text,
    primary key (namespace, name, generation, position)
);

alter table subscription add column pending bigint not null default 0;
alter table subscription add column look_at timestamptz;
alter table subscription add column skips text not null default '{}';
update subscription set skips = '{"trust_below_minimum":' || skipped || '}' where skipped > 0;
comment on column subscription.skipped is 'Events that were wanted and passed over.';
comment on column subscription.pending is 'Its lines in subscription_event.';
comment on column subscription.look_at is 'When its pending events are looked at, unless something is heard of them before.';
comment on column subscription.skips is 'JSON: how many events were passed over, by reason.';
