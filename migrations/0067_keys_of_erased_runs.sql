-- Keys of runs that were erased. The key itself is gone; its digest keeps it used for as long as what is left of the run is kept.
create table erased_keys (
    namespace text not null,
    digest bytea not null,
    run_id uuid not null,
    primary key (namespace, digest)
);
comment on table erased_keys is 'Digests of the keys of start requests whose runs were erased.';

-- Neither names nor keys have control characters.
create function backstitch.key_digest(namespace text, workflow text, key text) returns bytea
language sql stable as $function$
    select pg_catalog.sha256(pg_catalog.convert_to($1 || E'\n' || $2 || E'\n' || $3, 'UTF8'))
$function$;
revoke all on function backstitch.key_digest(text, text, text) from public;
comment on function backstitch.key_digest(text, text, text) is
    'The digest by which the key of a start request is known once its run was erased. For the server''s role.';

-- It looks with a snapshot of its own, so that of a start and an erasure at once either sees the other.
do $migration$
begin
    execute format($create$
create function backstitch.count_new_keys(namespaces text[], workflows text[], keys text[], refused text) returns bigint
language plpgsql volatile set search_path = %I, pg_temp as $function$
begin
    -- Most namespaces have none.
    if exists (select from erased_keys e where e.namespace = any (count_new_keys.namespaces))
        and exists (select from unnest(count_new_keys.namespaces, count_new_keys.workflows, count_new_keys.keys)
            as k(namespace, workflow, key) join erased_keys e
            on (e.namespace, e.digest) = (k.namespace, backstitch.key_digest(k.namespace, k.workflow, k.key))) then
        raise exception 'a key belongs to a run that was erased' using errcode = count_new_keys.refused;
    end if;
    return coalesce(cardinality(count_new_keys.keys), 0);
end
$function$
    $create$, current_schema());
end $migration$;
revoke all on function backstitch.count_new_keys(text[], text[], text[], text) from public;
comment on function backstitch.count_new_keys(text[], text[], text[], text) is
    'Counts keys that a statement has just inserted; fails with the given code if one of them belongs to a run that was erased. For the server''s role.';
