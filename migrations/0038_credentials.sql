-- Credentials end, are rotated and have scopes, and tell who made them and when they were used last.
alter table credentials
    add column created_by text,
    add column revoked_by text,
    add column expires_at timestamptz,
    add column rotated_at timestamptz,
    add column previous_sha256 bytea unique,
    add column previous_until timestamptz,
    add column used_at timestamptz,
    add column queues text[],
    add column workflows text[];
comment on column credentials.created_by is 'Who made it; null of those that are older than this column.';
comment on column credentials.expires_at is 'When it is refused from; null: never.';
comment on column credentials.previous_sha256 is 'The secret before the last rotation, good until previous_until.';
comment on column credentials.used_at is 'When it was used last, to about a minute.';
comment on column credentials.queues is 'Patterns of the queues that it may touch; null: all.';
comment on column credentials.workflows is 'Patterns of the workflows that it may act on; null: all.';

-- What people act on beside runs is listed in the program alone.
alter table acts_beside_runs drop constraint acts_beside_runs_kind_check;
alter table acts_beside_runs add constraint acts_beside_runs_kind_check check (kind ~ '^[a-z_]{1,40}$');
comment on view backstitch.act is
    'What people did to runs, workflows, queues, schedules, jobs, credentials, database roles, and facts about subjects.';
