-- The journal is the truth: one append-only record per run and batch of commands. Its primary key is the lock.
-- Partitions are ranges of time, because the id of a run is a UUIDv7; `engine` makes them ahead of time.
create table journal (
    run_id uuid not null,
    seq integer not null check (seq > 0),
    format smallint not null default 1,
    at timestamptz not null,
    batch uuid not null,
    events text not null,
    payloads text,
    primary key (run_id, seq)
) partition by range (run_id);
comment on table journal is 'What happened to each run, gapless from seq 1. Folding it gives the run.';
comment on column journal.format is 'Version of the form of events and payloads. A node leaves a run with a newer one alone.';
comment on column journal.batch is 'The batch that wrote it, by which a lost answer to a commit is resolved.';
comment on column journal.events is 'JSON array of events in order.';
comment on column journal.payloads is 'JSON array of the documents that the events refer to by position; null when there are none, or erased.';

-- The newest snapshot of runs with long journals; folding begins here. May be deleted at any time.
create table snapshots (
    run_id uuid not null,
    seq integer not null,
    definition text not null,
    state text not null,
    primary key (run_id)
) partition by range (run_id);

-- Everything below is an index of the journal and can be rebuilt from it.
create table runs (
    id uuid not null,
    namespace text not null,
    workflow text not null,
    version integer not null,
    definition text not null,
    key text,
    correlation_id text,
    labels jsonb,
    state text not null check (state in
        ('queued', 'waiting', 'running', 'paused', 'compensating', 'compensation_blocked', 'ended')),
    outcome text check (outcome in
        ('succeeded', 'partially_completed', 'failed_clean', 'failed_dirty', 'compensated',
         'compensated_with_manual_steps', 'cancelled')),
    conditions text[] not null default '{}',
    started_at timestamptz not null,
    ended_at timestamptz,
    node integer,
    wake_at timestamptz,
    primary key (id)
) partition by range (id);
comment on column runs.node is 'The node in charge of its timers; null when it is parked or has ended. A hint, never a permission.';
comment on column runs.wake_at is 'When a parked run must be looked at again.';

create index runs_by_workflow on runs (namespace, workflow, id);
create index runs_active on runs (namespace, state, id) where state <> 'ended';
create index runs_by_node on runs (node) where node is not null;
create index runs_to_wake on runs (wake_at) where wake_at is not null;
create index runs_by_label on runs using gin (labels) where labels is not null;

-- The key of a start request, and what it asked for. Not partitioned, since a key must be unique over all time kept.
create table run_keys (
    namespace text not null,
    key text not null,
    workflow text not null,
    run_id uuid not null,
    input_digest bytea not null,
    primary key (namespace, key, workflow)
);

-- Tasks on offer that no waiting worker took when they came up.
create table ready (
    run_id uuid not null,
    step text not null,
    action text not null check (action in ('forward', 'verify', 'compensate')),
    attempt integer not null,
    namespace text not null,
    queue text not null,
    name text not null,
    offered_at timestamptz not null,
    reserved_by integer,
    reserved_until timestamptz,
    primary key (run_id, step, action, attempt)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
comment on column ready.reserved_by is 'The node that is about to hand it out, until reserved_until. A hint.';
create index ready_by_handler on ready (namespace, queue, name, offered_at);

-- What needs a person.
create table incidents (
    run_id uuid not null,
    incident integer not null,
    namespace text not null,
    workflow text not null,
    kind text not null,
    step text,
    message text not null,
    opened_at timestamptz not null,
    resolved_at timestamptz,
    primary key (run_id, incident)
) partition by range (run_id);
create index incidents_open on incidents (namespace, opened_at) where resolved_at is null;

-- Milestones, written with what caused them. `position` is given later, by one writer in the order of commits.
create table events (
    id bigint generated always as identity primary key,
    position bigint,
    namespace text not null,
    run_id uuid not null,
    type text not null,
    at timestamptz not null,
    data text not null
);

create table definitions (
    namespace text not null,
    name text not null,
    version integer not null,
    hash text not null,
    body text not null,
    registered_at timestamptz not null default clock_timestamp(),
    primary key (namespace, name, version)
);
create index definitions_by_hash on definitions (hash);

create table nodes (
    id integer generated always as identity primary key,
    name text not null,
    started_at timestamptz not null default clock_timestamp(),
    seen_at timestamptz not null default clock_timestamp(),
    stopped_at timestamptz
);

create table credentials (
    namespace text not null,
    name text not null,
    role text not null check (role in ('admin', 'operator', 'starter', 'worker', 'viewer')),
    secret_sha256 bytea not null unique,
    created_at timestamptz not null default clock_timestamp(),
    revoked_at timestamptz,
    primary key (namespace, name)
);

-- Written by health checks, to know that writing works.
create table probes (
    node integer primary key,
    at timestamptz not null
);

create table journal_default partition of journal default;
create table snapshots_default partition of snapshots default;
create table runs_default partition of runs default with (fillfactor = 70);
create table incidents_default partition of incidents default;
