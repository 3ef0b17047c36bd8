-- What people establish and withdraw is an act like any other; it stands under the subject, with the fact as its detail.
alter table acts_beside_runs drop constraint acts_beside_runs_kind_check;
alter table acts_beside_runs add constraint acts_beside_runs_kind_check
    check (kind in ('workflow', 'queue', 'schedule', 'job', 'subject'));
comment on view backstitch.act is
    'What people did to runs, workflows, queues, schedules, jobs, and facts about subjects.';
