-- Incidents that people work through: found by what is the same about them, with what people add to them.
--
-- `incidents` stays an index of the journal. Lines written before this have no fingerprint until `doctor --mend`.
alter table incidents add column code text, add column fingerprint text not null default '';
comment on column incidents.code is 'The code of the error that it opened with.';
comment on column incidents.fingerprint is 'What is the same about incidents of one cause; see saga/src/fingerprint.rs.';
drop index incidents_open;
create index incidents_open on incidents (namespace, opened_at, run_id, incident) where resolved_at is null;
create index incidents_open_by_kind on incidents (namespace, kind, opened_at, run_id, incident)
    where resolved_at is null;
create index incidents_open_by_workflow on incidents (namespace, workflow, opened_at, run_id, incident)
    where resolved_at is null;
create index incidents_open_by_fingerprint on incidents (namespace, fingerprint, opened_at, run_id, incident)
    where resolved_at is null;
-- All of them, open or not, and the earlier ones of the same step.
create index incidents_by_time on incidents (namespace, opened_at, run_id, incident);
create index incidents_by_step on incidents (run_id, step, fingerprint);

-- What people add to an incident is in no journal: these two are the truth of it. The notes also keep every change of
-- who has it.
create table incident_notes (
    run_id uuid not null,
    incident integer not null,
    id bigint generated always as identity,
    namespace text not null,
    at timestamptz not null,
    actor text not null,
    assignee text,
    note text,
    primary key (run_id, incident, id)
);
comment on column incident_notes.assignee is 'Who was given it by this; empty when it was taken from everybody.';
create table incident_assignees (
    run_id uuid not null,
    incident integer not null,
    namespace text not null,
    assignee text not null,
    primary key (run_id, incident)
);
create index incident_assignees_by_name on incident_assignees (namespace, assignee);

-- What people did to runs: an index of the events that say who and why.
create table acts (
    run_id uuid not null,
    seq integer not null,
    place integer not null,
    namespace text not null,
    workflow text not null,
    at timestamptz not null,
    actor text not null,
    verb text not null,
    step text,
    reason text not null,
    primary key (run_id, seq, place)
);
comment on column acts.place is 'Which event of the record, from 0.';
create index acts_by_time on acts (namespace, at, run_id, seq, place);
create index acts_by_actor on acts (namespace, actor, at, run_id, seq, place);
