-- The line of a serial key is changed under a row lock of our own. Any role of the database could take an advisory lock, and
-- keep it for ever.
create table serial_key_locks (
    bucket integer primary key
);
insert into serial_key_locks select generate_series(0, 1023);
comment on table serial_key_locks is 'Whoever changes the line of a serial key locks the row that the key is hashed to.';
