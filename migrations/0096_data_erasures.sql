-- Erasing what is known of somebody: documents, events and runs by a stream or by an identifier. What was asked for is forgotten when it is
-- done, as it names him.
create table data_erasure (
    id uuid primary key,
    namespace text not null,
    asked text,
    state text not null check (state in ('running', 'done')),
    documents bigint not null default 0,
    events bigint not null default 0,
    runs bigint not null default 0,
    passes smallint not null default 0,
    waits_for text,
    actor text not null,
    reason text not null,
    created_at timestamptz not null,
    ended_at timestamptz,
    due_at timestamptz not null
);
create index data_erasure_by_namespace on data_erasure (namespace, id);
create index data_erasure_due on data_erasure (due_at) where state = 'running';
comment on column data_erasure.asked is 'JSON of what is erased; null once it is.';
comment on column data_erasure.passes is 'It is done twice, a minute apart, for what was being written during the first pass.';
