-- What each run under way requires, also when it stood at once: whom the withdrawal of a fact touches.
create table required (
    namespace text not null,
    subject text not null,
    fact text not null,
    run_id uuid not null,
    on_withdrawn text not null check (on_withdrawn in ('ignore', 'incident', 'cancel')),
    withdrawn boolean not null,
    primary key (namespace, subject, fact, run_id)
);
comment on column required.withdrawn is 'What the run knows: the fact is withdrawn.';
create index required_by_run on required (run_id);
