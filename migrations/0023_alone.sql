-- Workers that are kept free for one task over which a worker was lost: no node gives them anything else. A row is
-- written by the node that has the task, and goes when the task is done; there are hardly ever any.
create table alone (
    namespace text not null,
    worker text not null,
    node integer not null,
    run_id uuid not null,
    step text not null,
    action text not null,
    attempt integer not null,
    asked_at timestamptz not null default clock_timestamp(),
    agreed integer[] not null default '{}',
    primary key (namespace, worker)
);
comment on column alone.node is 'The node that keeps the worker free for the task.';
comment on column alone.agreed is 'Other nodes of which the worker has nothing in its hands, and which give it nothing.';
