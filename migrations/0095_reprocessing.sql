-- Reprocessing of many documents: what was mended is applied to all that it is for, in the order in which they came.
create table reprocess (
    id uuid primary key,
    namespace text not null,
    asked text not null,
    state text not null check (state in ('running', 'done', 'stopped')),
    after uuid not null,
    until uuid not null,
    changed bigint not null default 0,
    same bigint not null default 0,
    failed bigint not null default 0,
    refused bigint not null default 0,
    overtaken bigint not null default 0,
    waits_for text,
    actor text not null,
    created_at timestamptz not null,
    ended_at timestamptz,
    due_at timestamptz not null,
    taken_by integer,
    taken_until timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
create index reprocess_by_namespace on reprocess (namespace, id);
create index reprocess_running on reprocess (due_at) where state = 'running';
comment on column reprocess.after is 'The last document that was looked at.';
comment on column reprocess.until is 'Documents from this id on are not looked at.';

create index intake_by_namespace on intake (namespace, id);
alter table intake drop constraint intake_mapping_check;
alter table intake add constraint intake_mapping_check check (mapping in ('mapped', 'failed', 'overtaken'));
