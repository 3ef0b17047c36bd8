-- What was asked under an Idempotency-Key, and what was answered. A row is written before the act and completed after it.
create table idempotency_keys (
    namespace text not null,
    scope bytea not null,
    body_sha256 bytea not null,
    reserved_at timestamptz not null,
    leased_until timestamptz not null,
    node integer,
    status smallint,
    content_type text,
    location text,
    body bytea,
    primary key (namespace, scope)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
create index idempotency_keys_by_age on idempotency_keys (reserved_at);
comment on table idempotency_keys is 'Answers to requests with an Idempotency-Key, to be given again.';
comment on column idempotency_keys.scope is 'SHA-256 of who asks, the method, the path and the key.';
comment on column idempotency_keys.reserved_at is 'When it was first asked; the ids of runs that it starts are made from it.';
comment on column idempotency_keys.leased_until is 'Until when `node` is taken to work on it; then a repeat may.';
comment on column idempotency_keys.status is 'The HTTP status answered; null while it is not known.';
comment on column idempotency_keys.body is 'The body answered; null when it was too large to be kept.';
