-- What an operator allows a queue, and how its limiter stands. A queue without a row here is not governed, and nothing
-- below is ever written for it.
create table queues (
    namespace text not null,
    queue text not null,
    policy text not null,
    limiter text not null default '{}',
    paused_at timestamptz,
    paused_by text,
    paused_why text,
    changed_at timestamptz not null default clock_timestamp(),
    changed_by text not null,
    -- When its tasks in `ready` were last looked through for those without a fair key.
    swept_at timestamptz,
    primary key (namespace, queue)
) with (fillfactor = 50);
comment on table queues is 'Governed queues. The row is locked while permits are given, so that limits hold over all nodes.';
comment on column queues.policy is 'JSON: what the operator allows.';
comment on column queues.limiter is 'JSON: tokens, breaker, counts of the retry budget, whose turn it is.';

-- A task of a governed queue that may be handed out, or is in a worker's hands. Written when the permit is given, flagged
-- by the record that leases the task (which is not written without it), deleted by the record that ends the lease.
create table permits (
    run_id uuid not null,
    step text not null,
    action text not null,
    attempt integer not null,
    id uuid not null,
    namespace text not null,
    queue text not null,
    fair_key text collate "C" not null,
    node integer not null,
    given_at timestamptz not null,
    leased boolean not null default false,
    look_at timestamptz not null,
    primary key (run_id, step, action, attempt)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
create unique index permits_by_id on permits (id);
create index permits_of_queue on permits (namespace, queue);
create index permits_to_look_at on permits (look_at);

-- Keys of a governed queue that have used their own rate lately.
create table fair_keys (
    namespace text not null,
    queue text not null,
    fair_key text collate "C" not null,
    tokens double precision not null,
    at timestamptz not null,
    -- When it has a token again, and when it has all of them and the row says nothing any more.
    free_at timestamptz not null,
    full_at timestamptz not null,
    primary key (namespace, queue, fair_key)
) with (fillfactor = 70);
create index fair_keys_full on fair_keys (full_at);

-- Tasks of governed queues have these beside; the index has no others.
alter table ready add column priority smallint, add column fair_key text collate "C", add column retry boolean;
create index ready_governed on ready (namespace, queue, name, priority, fair_key, retry, offered_at)
    where fair_key is not null;
