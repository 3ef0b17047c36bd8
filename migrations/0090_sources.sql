-- Sources: who sends documents, how they are verified, and what they may send. Secrets stand apart from what is shown.
create table source (
    namespace text not null,
    name text not null,
    revision uuid not null,
    version integer not null check (version > 0),
    spec text not null,
    changed_at timestamptz not null,
    changed_by text not null,
    primary key (namespace, name)
);
comment on column source.revision is 'Another one with every change: who decides from what he read changes it, or reads again.';
comment on column source.version is 'Grows with every change of the spec.';
comment on column source.spec is 'JSON: scheme of verification, accepted contracts, dedupe key, hints, bounds.';

create table source_secret (
    namespace text not null,
    name text not null,
    slot smallint not null check (slot in (0, 1)),
    secret text not null,
    added_at timestamptz not null,
    added_by text not null,
    until timestamptz,
    primary key (namespace, name, slot)
);
comment on table source_secret is 'Secrets as they were agreed with sources; signatures are computed with them. They are never shown.';
comment on column source_secret.slot is '0 is in use, 1 was before and overlaps.';
