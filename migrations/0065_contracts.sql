-- Contracts: the subjects of a namespace, their versions, and the readers that are pinned to them.
create table contracts (
    namespace text not null,
    subject text not null,
    mode text not null check (mode in ('none', 'backward', 'forward', 'full',
        'backward_transitive', 'forward_transitive', 'full_transitive')),
    revision bigint not null default 1,
    changed_at timestamptz not null,
    changed_by text not null,
    primary key (namespace, subject)
);
comment on column contracts.revision is 'Grows with every change of the subject, its versions and its readers: who decides from what he read changes it, or reads again.';

create table contract_versions (
    namespace text not null,
    subject text not null,
    version integer not null check (version > 0),
    state text not null check (state in ('active', 'deprecated', 'retired')),
    digest text not null,
    schema text not null,
    up text,
    down text,
    breaks text,
    registered_at timestamptz not null,
    registered_by text not null,
    primary key (namespace, subject, version)
);
comment on column contract_versions.schema is 'JSON Schema, as it was sent.';
comment on column contract_versions.digest is 'SHA-256 of the canonical form of the schema, in hexadecimal digits.';
comment on column contract_versions.up is 'Transform from the version before, for a version that breaks.';
comment on column contract_versions.down is 'Transform to the version before.';
comment on column contract_versions.breaks is 'JSON list of the ways in which the version breaks, which its transforms bridge.';

create table contract_readers (
    namespace text not null,
    subject text not null,
    name text not null,
    version integer not null,
    pinned_at timestamptz not null,
    pinned_by text not null,
    primary key (namespace, subject, name)
);
