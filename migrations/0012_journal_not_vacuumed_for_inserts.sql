-- Nothing reads the journal by an index alone, so a vacuum that only marks its new pages as visible to all is of no use,
-- and a busy journal kept the workers of autovacuum from the tables that need them. It is vacuumed as others are once
-- rows of it are dead, and before their transaction ids are too old.
do $$
declare
    part regclass;
begin
    for part in select inhrelid from pg_inherits where inhparent = 'journal'::regclass loop
        execute format('alter table %s set (autovacuum_vacuum_insert_threshold = -1)', part);
    end loop;
end $$;
