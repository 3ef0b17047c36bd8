-- What a transform made of a document of a source: the event of our own contract, or why there is none.
alter table intake
    add column mapping text check (mapping in ('mapped', 'failed')),
    add column mapped_to text,
    add column mapped_revision integer,
    add column mapped_event uuid,
    add column mapped_digest bytea,
    add column mappings integer not null default 0,
    add column changes text,
    add column unmapped text,
    add column failures text;
create index intake_not_mapped on intake (namespace, id) where mapping = 'failed';
create index intake_by_contract on intake (namespace, contract, id) where contract is not null;
create index intake_by_mapped_event on intake (mapped_event) where mapped_event is not null;
comment on column intake.mapped_to is 'The contract that it was to be mapped to, such as customer@1.';
comment on column intake.mapped_revision is 'The revision of the transform that did it.';
comment on column intake.mapped_digest is 'SHA-256 of stream, operation and canonical form of what it was mapped to.';
comment on column intake.mappings is 'How many events were made of it; each has a key of its own.';
comment on column intake.changes is 'JSON list of the values that a rule changed, with the reason.';
comment on column intake.unmapped is 'JSON object of the values that no rule read.';
comment on column intake.failures is 'JSON list of what could not be mapped.';
