-- Who works where, so that every node knows what the others' workers do. Written when a session comes, changes what it
-- does, or goes; not while it works. A session whose node is gone is gone with it, whatever stands here.
create table workers (
    namespace text not null,
    worker text not null,
    session uuid not null,
    node integer not null,
    queues jsonb not null,
    since timestamptz not null default clock_timestamp(),
    gone_at timestamptz,
    primary key (namespace, worker, session, node)
);
comment on column workers.queues is 'Handlers by queue: {"default": ["charge-card"]}.';
create index workers_by_node on workers (node, session);

-- Runs that nobody would ever look at again. There should be none; the sweeper finds them here without looking at others.
create index runs_adrift on runs (id)
    where state <> 'ended' and node is null and wake_at is null and conditions = '{}';
