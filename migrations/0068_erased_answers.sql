-- An answer whose body went when a run that it names was erased is told from one that was too large to be kept.
alter table idempotency_keys add column erased boolean not null default false;
comment on column idempotency_keys.erased is 'The body is gone because a run that it named was erased.';
