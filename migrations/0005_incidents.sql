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

-- For the guard against a bad deploy: what opened lately, and whether it was seen before.
create index incidents_recent on incidents (opened_at) where resolved_at is null;
create index incidents_by_fingerprint on incidents (namespace, fingerprint, opened_at);

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

-- What people did to workflows, queues, schedules and jobs, also to those that are gone: the truth of it.
create table acts_beside_runs (
    id integer generated always as identity primary key,
    namespace text not null,
    at timestamptz not null,
    kind text not null check (kind in ('workflow', 'queue', 'schedule', 'job')),
    name text not null,
    actor text not null,
    verb text not null,
    reason text not null,
    detail text
);
comment on column acts_beside_runs.detail is 'JSON: what was put, where something was.';
create index acts_beside_runs_by_time on acts_beside_runs (namespace, at, id);
create index acts_beside_runs_by_name on acts_beside_runs (namespace, kind, name, at, id);

-- Runs of which something is to be said, by what it is; see also `unknown_in` in the index.
create index runs_with_conditions on runs (namespace, id) where conditions <> '{}';
create index runs_by_end on runs using brin (ended_at) with (autosummarize = on);
create index runs_by_correlation on runs (namespace, correlation_id) where correlation_id is not null;

-- One verb on many incidents or runs, and what became of each.
create table jobs (
    id uuid primary key,
    namespace text not null,
    asked text not null,
    state text not null check (state in ('canary', 'running', 'paused', 'stopped', 'done')),
    proven boolean not null default false,
    why text,
    actor text not null,
    created_at timestamptz not null,
    ended_at timestamptz,
    total integer not null default 0,
    done integer not null default 0,
    came_back integer not null default 0,
    refused integer not null default 0,
    next_at timestamptz not null,
    canary_until timestamptz,
    node integer,
    leased_until timestamptz
);
comment on column jobs.asked is 'The request, as JSON.';
comment on column jobs.proven is 'The canary is behind it: what it goes on with after a pause.';
comment on column jobs.next_at is 'Until when its rate has been used up.';
comment on column jobs.leased_until is 'Until when the node works on it alone. A hint: an act that is repeated is one act.';
create index jobs_by_namespace on jobs (namespace, id);
create index jobs_due on jobs (next_at) where state in ('canary', 'running');
create index jobs_ended on jobs (ended_at) where ended_at is not null;

create table job_items (
    job_id uuid not null references jobs on delete cascade,
    position integer not null,
    namespace text not null,
    run_id uuid not null,
    incident integer,
    fingerprint text,
    state text not null default 'waiting' check (state in ('waiting', 'done', 'came_back', 'refused')),
    code text,
    message text,
    acted_at timestamptz,
    primary key (job_id, position)
);
create index job_items_waiting on job_items (job_id, position) where state = 'waiting';
create index job_items_by_run on job_items (job_id, run_id);

-- Workflows whose new runs are held, by whom and why; those that are over stay.
create table workflow_pauses (
    namespace text not null,
    workflow text not null,
    id bigint generated always as identity,
    since timestamptz not null,
    actor text not null,
    reason text not null,
    fingerprint text,
    runs integer,
    resumed_at timestamptz,
    resumed_by text,
    resume_reason text,
    released_at timestamptz,
    primary key (namespace, workflow, id)
);
comment on column workflow_pauses.fingerprint is 'The new cause for which the guard paused it; none when a person did.';
comment on column workflow_pauses.released_at is 'When all runs that it held had been let go.';
create unique index workflow_pauses_open on workflow_pauses (namespace, workflow) where resumed_at is null;
create index workflow_pauses_over on workflow_pauses (resumed_at) where resumed_at is not null and released_at is null;
create index workflow_pauses_by_id on workflow_pauses (namespace, id);

-- Read-only views for people; see docs/sql-views.md. Nothing of the engine reads them.
create schema if not exists backstitch;

create view backstitch.run as
select r.id, r.namespace, r.workflow, r.version, r.key, coalesce(r.correlation_id, r.id::text) as correlation_id,
    coalesce(r.labels, '{}') as labels, r.state, r.outcome,
    array(select c from unnest(r.conditions) c where strpos(c, ':') = 0) as conditions,
    array(select split_part(c, ':', 2) from unnest(r.conditions) c where c like 'StepUnknown:%') as unknown_in,
    r.started_at, r.ended_at
from runs r;
comment on view backstitch.run is 'Runs. unknown_in: systems in which something may have happened.';

create view backstitch.incident as
select i.run_id || '-' || i.incident as id, i.namespace, i.run_id, i.incident as number, i.workflow, i.step, i.kind,
    case when i.resolved_at is null then 'open' else 'resolved' end as state, i.code, i.message, i.fingerprint,
    a.assignee, i.opened_at, i.resolved_at
from incidents i left join incident_assignees a on a.run_id = i.run_id and a.incident = i.incident;
comment on view backstitch.incident is 'What needs, or needed, a person.';

create view backstitch.act as
select namespace, 'run' as kind, run_id, seq, at, workflow, null as name, actor, verb, step, reason from acts
union all
select namespace, kind, null, null, at, case kind when 'workflow' then name end, name, actor, verb, null, reason
from acts_beside_runs;
comment on view backstitch.act is 'What people did to runs, workflows, queues, schedules and jobs.';

-- A failure may speak of U+0000, which jsonb has no place for.
create view backstitch.history as
select j.run_id, j.seq, e.place::integer as place, j.at, t.type, t.event
from journal j
cross join lateral jsonb_array_elements(replace(j.events, '\u0000', '\ufffd')::jsonb)
    with ordinality as e(event, place)
cross join lateral jsonb_each(case jsonb_typeof(e.event) when 'object' then e.event
    else jsonb_build_object(e.event #>> '{}', '{}'::jsonb) end) as t(type, event);
comment on view backstitch.history is 'Events of runs in order (seq, place). Ask for one run_id.';

create view backstitch.document as
select j.run_id, j.seq, (d.slot - 1)::integer as slot, d.document
from journal j
cross join lateral jsonb_array_elements(j.payloads::jsonb) with ordinality as d(document, slot)
where j.payloads is not null;
comment on view backstitch.document is 'Inputs, outputs and other documents, by the record and the slot that events name.';

-- The last of each kind of event, by its place in the history, says how a step or item stands.
create view backstitch.step as
with told as (
    select h.run_id, h.event ->> 'step' as path, array[h.seq, h.place] as place, h.at, h.type, h.event,
        h.event ->> 'action' as action
    from backstitch.history h where h.event ? 'step'
)
select t.run_id, split_part(t.path, '/', 1) as step, nullif(split_part(t.path, '/', 2), '')::integer as item,
    count(*) filter (where t.type = 'offered' and t.action = 'forward') as attempts,
    count(*) filter (where t.type = 'leased') as deliveries,
    count(*) filter (where t.type = 'failed') as failures,
    count(*) filter (where t.type = 'lost') as losses,
    min(t.at) filter (where t.type = 'offered') as began_at,
    max(t.at) filter (where t.type = 'succeeded') as succeeded_at,
    max(t.at) filter (where t.type in ('undone', 'undo_marked')) as undone_at,
    (array_agg(t.event ->> 'external_id' order by t.place desc) filter (where t.type = 'succeeded'))[1]
        as external_id,
    (array_agg(t.event -> 'error' ->> 'code' order by t.place desc)
        filter (where jsonb_typeof(t.event -> 'error') = 'object'))[1] as last_error_code,
    (array_agg(t.event -> 'error' ->> 'message' order by t.place desc)
        filter (where jsonb_typeof(t.event -> 'error') = 'object'))[1] as last_error,
    (array_agg(t.type order by t.place desc))[1] as last_event,
    max(t.at) as last_at,
    max(t.place) filter (where t.type = 'succeeded') as place_succeeded,
    max(t.place) filter (where t.type in ('undone', 'undo_marked')) as place_undone,
    max(t.place) filter (where t.action = 'forward' and (t.type = 'lost'
        or (t.type = 'failed' and t.event -> 'error' ->> 'kind' = 'unknown'))
        or (t.type = 'gave_up' and t.event ->> 'fate' = 'unknown')) as place_doubted,
    max(t.place) filter (where t.type = 'not_happened') as place_cleared,
    max(t.place) filter (where t.type = 'leased' and t.action = 'forward') as place_leased,
    max(t.place) filter (where t.action = 'forward' and t.type in ('failed', 'lost', 'released')
        or t.type in ('succeeded', 'gave_up')) as place_ended
from told t
group by t.run_id, t.path;
comment on view backstitch.step is 'Steps and items as the history tells them; place_* is where it does. Ask for one run_id.';

create view backstitch.item as
select * from backstitch.step where item is not null;
comment on view backstitch.item is 'The same, only items of map steps.';

create view backstitch.effect as
select s.run_id, s.step, s.item, s.external_id,
    case
        when s.place_undone > greatest(s.place_succeeded, s.place_doubted) then 'reverted'
        when s.place_succeeded > coalesce(s.place_doubted, '{0,0}') then 'applied'
        when s.place_doubted > coalesce(greatest(s.place_cleared, s.place_succeeded), '{0,0}') then 'unknown'
        when s.place_leased > coalesce(s.place_ended, '{0,0}') then 'in_flight'
        else 'not_applied'
    end as effect,
    s.last_at
from backstitch.step s
where s.began_at is not null;
comment on view backstitch.effect is 'Whether the effect of a step or item stands, as the history tells. Ask for one run_id.';
