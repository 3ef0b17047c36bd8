-- Undos that people plan before they are done: made for a run as it is, perhaps approved by somebody else, applied while the run
-- has not moved.
create table compensation_plans (
    id uuid primary key,
    namespace text not null,
    run_id uuid not null,
    workflow text not null,
    scope text not null,
    force boolean not null,
    reason text not null,
    made_by text not null,
    made_at timestamptz not null,
    seq bigint not null,
    mark uuid not null,
    undos bigint not null,
    past_pivot boolean not null,
    revision integer not null default 1,
    state text not null default 'open' check (state in ('open', 'applied', 'withdrawn', 'expired')),
    needs_approval boolean not null,
    approved_by text,
    approved_at timestamptz,
    approval_reason text,
    applied_by text,
    ended_by text,
    ended_at timestamptz,
    end_reason text
);
comment on column compensation_plans.mark is 'By what the rules tell whether the same would still be undone.';
comment on column compensation_plans.applied_by is 'Who asks, or asked, for the undo: set before the run is asked, so that it can be asked again.';
create index compensation_plans_by_id on compensation_plans (namespace, id);
create index compensation_plans_of_run on compensation_plans (run_id, id);
create index compensation_plans_open on compensation_plans (namespace, id) where state = 'open';

-- From how many undos on a person who wants to undo runs of a workflow needs a second one.
create table undo_approvals (
    namespace text not null,
    workflow text not null,
    above bigint not null check (above >= 0),
    changed_at timestamptz not null,
    changed_by text not null,
    reason text not null,
    primary key (namespace, workflow)
);
comment on column undo_approvals.above is 'Undos of more steps and items than this are approved by a second person.';
