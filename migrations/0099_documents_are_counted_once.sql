-- A document says which reprocessing wrote its last event, so that a page of which a node has died is counted as it was.
alter table intake add column reprocess uuid;
comment on column intake.reprocess is 'The reprocessing that wrote its last event.';
