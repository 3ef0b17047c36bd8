-- Events that runs emit: written with the record that tells of them, and taken to the log from here, where versions of streams are
-- given. No record waits for a stream.
create table emitted (
    id bigint generated always as identity (cache 1) primary key,
    namespace text not null,
    run_id uuid not null,
    seq integer not null,
    place integer not null,
    at timestamptz not null,
    event text not null,
    data text not null
) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
create index emitted_by_namespace on emitted (namespace, id);
comment on table emitted is 'A queue: rows go when their events are in the log.';
comment on column emitted.place is 'Place of the event among those of the record seq of the run: by it the event is known, however often it is taken.';
comment on column emitted.event is 'JSON object: type, stream, operation, contract, labels, story and cause.';
