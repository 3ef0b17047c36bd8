-- Starts asked for in transactions are counted before they are tried, so that one over which nodes die is set aside.
alter table start_requests add column tries integer not null default 0;
comment on column start_requests.tries is 'How often a node has begun to start it; 0 again when it was put back in good order.';
