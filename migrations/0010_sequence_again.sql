-- Which start a row of `sequenced` belongs to, so that the same start asked for twice at once does not meet itself in a
-- line; and whether its run had ended before and moves again, so that the facts it made are withdrawn if it is undone.
alter table sequenced add column workflow text;
alter table sequenced add column start_key text;
alter table sequenced add column reopened boolean not null default false;
create index sequenced_by_start on sequenced (namespace, start_key, workflow) where start_key is not null;

-- What a line has to tell is asked for by its key; all lines with something to tell are few.
drop index serial_keys_to_tell;
create index serial_keys_to_tell on serial_keys (namespace, key, since)
    where (state = 'holding' and not granted) or (replaced_by is not null and not told);

alter table facts add column withdrawn_by text;
