-- What a node takes for now, so that one that starts while the database's clock is wrong for a moment does not believe it.
alter table nodes add column believed_at timestamptz;
comment on column nodes.believed_at is 'What the node took for now at its last sign of life.';
