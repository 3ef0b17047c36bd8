-- Work on a job or a migration is counted before it begins, so that one over which nodes stop, or which fails again and again,
-- is set aside for a person.
alter table jobs add column tries integer not null default 0;
comment on column jobs.tries is 'How often a node has begun to work on it since it was last given back in good order.';
alter table migrations add column tries integer not null default 0;
comment on column migrations.tries is 'How often a node has begun to work on it since it last went on.';
