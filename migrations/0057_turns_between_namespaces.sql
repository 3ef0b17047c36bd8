-- What is due is taken in turns between namespaces: these indexes begin with the namespace, so that rows of each are found
-- however many rows another has.
drop index start_requests_waiting;
create index start_requests_waiting on start_requests (namespace, id) where state = 'waiting';
drop index schedules_due;
create index schedules_due on schedules (namespace, due_at) where due_at is not null;
drop index jobs_due;
create index jobs_due on jobs (namespace, next_at) where state in ('canary', 'running');
drop index awaited_until;
create index awaited_until on awaited (namespace, until) where not overdue;
drop index fences_completed;
create index fences_completed on fences (namespace, completed_at) where completed_at is not null and closed_at is null;
drop index workflow_pauses_over;
create index workflow_pauses_over on workflow_pauses (namespace, resumed_at)
    where resumed_at is not null and released_at is null;
create index sequenced_by_namespace on sequenced (namespace, run_id);
