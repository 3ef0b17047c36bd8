-- Transforms: mappings of one version of a contract to another, and their revisions.
create table transforms (
    namespace text not null,
    from_subject text not null,
    from_version integer not null,
    to_subject text not null,
    to_version integer not null,
    newest integer not null,
    active integer not null,
    changed_at timestamptz not null,
    changed_by text not null,
    primary key (namespace, from_subject, from_version, to_subject, to_version)
);
comment on column transforms.newest is 'The number of the last revision.';
comment on column transforms.active is 'The revision that is used.';

create table transform_revisions (
    namespace text not null,
    from_subject text not null,
    from_version integer not null,
    to_subject text not null,
    to_version integer not null,
    revision integer not null check (revision > 0),
    digest text not null,
    document text not null,
    registered_at timestamptz not null,
    registered_by text not null,
    primary key (namespace, from_subject, from_version, to_subject, to_version, revision)
);
comment on column transform_revisions.digest is 'SHA-256 of the canonical form of the document, in hexadecimal digits.';
