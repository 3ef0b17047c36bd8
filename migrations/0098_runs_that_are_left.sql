-- Erasures count the runs that stay: they share a correlation id with what is erased and with others.
alter table data_erasure add column runs_left bigint not null default 0;
comment on column data_erasure.runs_left is 'Runs of the same stories of which nothing says that they came of what is erased.';
