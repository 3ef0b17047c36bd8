-- Named cursors of readers of the log, moved by compare and set.
create table log_cursor (
    namespace text not null,
    name text not null,
    position bigint not null,
    changed_at timestamptz not null,
    changed_by text not null,
    primary key (namespace, name)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
comment on column log_cursor.position is 'The last event that the reader has dealt with.';
