-- What admins of namespaces allow them, below what whoever runs the server does.
create table quotas (
    namespace text primary key,
    limits text not null,
    changed_at timestamptz not null,
    changed_by text not null
);
comment on column quotas.limits is 'JSON: the quotas that are set, by name.';
