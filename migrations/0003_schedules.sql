-- Starts of runs by the calendar. One row is all that a schedule is; who writes it names the revision that they read, so
-- that of several nodes one goes on and the others read again.
create sequence schedule_revisions;
create table schedules (
    namespace text not null,
    name text not null,
    revision bigint not null default nextval('schedule_revisions'),
    spec text not null,
    state text not null,
    due_at timestamptz,
    primary key (namespace, name)
) with (fillfactor = 70);
comment on column schedules.revision is 'Never the same twice, also when a schedule is deleted and made anew.';
comment on column schedules.state is 'JSON: how far its instants were taken up, and what waits.';
comment on column schedules.due_at is 'When a node must look at it again; null when nothing will come.';
create index schedules_due on schedules (due_at) where due_at is not null;

-- What became of each start, written with the revision that decided it.
create table schedule_starts (
    id bigint generated always as identity primary key,
    namespace text not null,
    schedule text not null,
    key text,
    at timestamptz not null,
    start text not null
);
comment on column schedule_starts.key is 'What a start by hand is asked for again by; null for all others.';
comment on column schedule_starts.start is 'JSON: origin, instant, outcome, and the run or why there is none.';
create index schedule_starts_by_schedule on schedule_starts (namespace, schedule, id);
create index schedule_starts_by_key on schedule_starts (namespace, key) where key is not null;
create index schedule_starts_by_time on schedule_starts using brin (at);
