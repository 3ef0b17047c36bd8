-- Counting and walking the runs of one version that have not ended: everything that it asks stands in the index.
drop index runs_active;
create index runs_active on runs (namespace, state, id) include (workflow, version) where state <> 'ended';

-- Migrations of runs in flight from one version of a workflow to another.
create table migrations (
    namespace text not null,
    id uuid not null,
    workflow text not null,
    from_version integer not null,
    to_version integer not null,
    mapping text not null,
    on_obstacle text not null check (on_obstacle in ('stop', 'leave')),
    state text not null check (state in ('checking', 'moving', 'done', 'stopped')),
    stopped_because text,
    actor text not null,
    reason text not null,
    created_at timestamptz not null,
    ended_at timestamptz,
    worked_until timestamptz,
    primary key (namespace, id)
);
comment on column migrations.worked_until is 'A node has it to itself until then. A hint: two that work on one do no harm.';
create unique index migrations_under_way on migrations (namespace, workflow) where state in ('checking', 'moving');

-- The runs of each migration: those that had not ended when it began.
create table migrated_runs (
    namespace text not null,
    migration uuid not null,
    run_id uuid not null,
    result text not null check (result in ('waiting', 'clean', 'moved', 'ended', 'left', 'refused')),
    message text,
    primary key (namespace, migration, run_id),
    foreign key (namespace, migration) references migrations (namespace, id)
);
create index migrated_runs_by_result on migrated_runs (namespace, migration, result, run_id);

-- Runs that hold or await something of the tables below; written before the run itself, gone when nothing is left to do.
create table sequenced (
    run_id uuid primary key,
    namespace text not null,
    since timestamptz not null
);

-- The line of each serial key. Changed only under the key's advisory lock.
create table serial_keys (
    namespace text not null,
    key text not null,
    place bigint generated always as identity,
    run_id uuid not null unique,
    state text not null check (state in ('holding', 'waiting')),
    since timestamptz not null,
    granted boolean not null default false,
    replaced_by uuid,
    told boolean not null default false,
    primary key (namespace, key, place)
);
comment on column serial_keys.granted is 'The run was told that it may begin.';
comment on column serial_keys.told is 'The run was told that it is replaced.';
create unique index serial_keys_holder on serial_keys (namespace, key) where state = 'holding';
create index serial_keys_to_tell on serial_keys (since)
    where (state = 'holding' and not granted) or (replaced_by is not null and not told);

-- Facts about things outside of any run.
create table facts (
    namespace text not null,
    subject text not null,
    fact text not null,
    at timestamptz not null,
    by text not null,
    withdrawn_at timestamptz,
    primary key (namespace, subject, fact)
);

-- Runs that wait for facts.
create table awaited (
    namespace text not null,
    subject text not null,
    fact text not null,
    run_id uuid not null,
    since timestamptz not null,
    until timestamptz not null,
    overdue boolean not null default false,
    primary key (namespace, subject, fact, run_id)
);
create index awaited_by_run on awaited (run_id);
create index awaited_until on awaited (until) where not overdue;

-- Facts that runs establish when they have succeeded.
create table promised (
    run_id uuid not null,
    namespace text not null,
    subject text not null,
    fact text not null,
    primary key (run_id, subject, fact)
);
create index promised_by_fact on promised (namespace, subject, fact);
