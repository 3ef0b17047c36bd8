-- Events on their way to the log are found by their namespace and order alone: one index serves all that is asked.
alter table emitted drop constraint emitted_pkey;
alter table emitted add primary key (namespace, id);
drop index emitted_by_namespace;
