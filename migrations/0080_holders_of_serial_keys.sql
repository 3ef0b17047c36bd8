-- Who holds a serial key is written down twice, so that one lost row does not let a second run in: nobody is given the key
-- while the run that is named here has not ended.
create table serial_key_holders (
    namespace text not null,
    key text not null,
    run_id uuid not null,
    since timestamptz not null,
    primary key (namespace, key)
);
comment on table serial_key_holders is 'The run that was given the key last; it holds it until it has ended.';
create index serial_key_holders_by_run on serial_key_holders (run_id);
insert into serial_key_holders (namespace, key, run_id, since)
    select namespace, key, run_id, since from serial_keys where state = 'holding';
