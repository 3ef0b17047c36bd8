-- Imports: files that sources send, kept in pieces until their rows are taken in. The counts of an import change only in the statement
-- that removes a piece, so that each row is counted once, whoever dies.
create table import (
    id uuid primary key,
    namespace text not null,
    source text not null,
    state text not null check (state in ('receiving', 'running', 'done', 'cancelled')),
    form text not null check (form in ('json', 'csv')),
    content_type text not null,
    header bytea,
    trust smallint not null,
    peer text,
    request_id text,
    headers text not null,
    received_at timestamptz not null,
    changed_at timestamptz not null,
    ended_at timestamptz,
    digest bytea,
    bytes bigint not null default 0,
    rows bigint not null default 0,
    pieces integer not null default 0,
    accepted bigint not null default 0,
    duplicates bigint not null default 0,
    refused bigint not null default 0,
    waits_for text,
    due_at timestamptz not null,
    taken_by integer,
    taken_until timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
create index import_by_namespace on import (namespace, id);
create index import_open on import (due_at) where state in ('receiving', 'running');
create unique index import_by_digest on import (namespace, source, digest) where state in ('running', 'done') and digest is not null;
comment on column import.header is 'The first row of a CSV file, with which each of its rows is kept.';
comment on column import.digest is 'SHA-256 of the bytes of the file, by which it is recognised when it comes again.';
comment on column import.waits_for is 'Why its rows cannot be taken in at present.';

create table import_piece (
    import uuid not null,
    number integer not null,
    first_row bigint not null,
    rows integer not null,
    body bytea not null,
    primary key (import, number)
);
alter table import_piece alter column body set storage external;
comment on table import_piece is 'Rows of files that are not taken in yet, each with its length before it.';

create table import_refused (
    import uuid not null,
    number bigint not null,
    intake uuid,
    code text not null,
    message text not null,
    primary key (import, number)
);
comment on table import_refused is 'Rows of files that were refused, by their number, with the document that is kept.';

alter table intake drop constraint intake_door_check;
alter table intake add constraint intake_door_check check (door in ('request', 'batch', 'file'));
alter table intake drop constraint intake_form_check;
alter table intake add constraint intake_form_check check (form in ('json', 'cloudevent', 'csv'));
