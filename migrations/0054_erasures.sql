-- Runs that are being erased. A row goes when nothing of the run's documents is left, also of what was being written meanwhile.
create table erasures (
    run_id uuid primary key,
    namespace text not null,
    asked_at timestamptz not null,
    actor text not null,
    reason text not null,
    due_at timestamptz not null,
    passes smallint not null default 0
);
create index erasures_due on erasures (due_at);
comment on column erasures.due_at is 'When a node looks at it again.';
comment on column erasures.passes is 'How often everything was erased; the second time is for what was being written during the first.';

-- Takes the documents out of the journal of a run that was erased. Only who owns the journal can; so a function of the owner does
-- it, for runs whose last record says that they were erased, by whom and why: that stays as it was written.
do $migration$
begin
    execute format($create$
create function backstitch.erase_run(run uuid, seqs integer[], events text[], payloads text[]) returns void
language plpgsql volatile security definer set search_path = %I, pg_temp as $function$
declare
    last_seq integer;
    proof jsonb;
begin
    if erase_run.run is null or cardinality(erase_run.seqs) > 1000
        or cardinality(erase_run.events) is distinct from cardinality(erase_run.seqs)
        or cardinality(erase_run.payloads) is distinct from cardinality(erase_run.seqs)
        or exists (select from unnest(erase_run.payloads) p where p !~ '^\[null(,null)*\]$') then
        raise exception 'backstitch.erase_run needs a run, and at most 1,000 records of it without documents'
            using errcode = 'insufficient_privilege';
    end if;
    lock table journal in row exclusive mode;
    select j.seq, e into last_seq, proof from journal j
        left join lateral jsonb_array_elements(j.events::jsonb) e on jsonb_typeof(e) = 'object' and e ? 'erased'
        where j.run_id = erase_run.run order by j.seq desc limit 1;
    if proof is null then
        raise exception 'backstitch.erase_run: run %% was not erased', erase_run.run
            using errcode = 'insufficient_privilege';
    end if;
    update journal j set events = x.events, payloads = x.payloads
        from unnest(erase_run.seqs, erase_run.events, erase_run.payloads) as x(seq, events, payloads)
        where j.run_id = erase_run.run and j.seq = x.seq;
    if not exists (select from journal j cross join lateral jsonb_array_elements(j.events::jsonb) e
            where j.run_id = erase_run.run and j.seq = last_seq and e = proof) then
        raise exception 'backstitch.erase_run: who erased run %% and why must stay', erase_run.run
            using errcode = 'insufficient_privilege';
    end if;
    delete from incident_notes t where t.run_id = erase_run.run;
    delete from acts_replaced t where t.run_id = erase_run.run;
    update acts t set reason = '' where t.run_id = erase_run.run and t.verb <> 'erase' and t.reason <> '';
end
$function$
    $create$, current_schema());
end $migration$;

revoke all on function backstitch.erase_run(uuid, integer[], text[], text[]) from public;
comment on function backstitch.erase_run(uuid, integer[], text[], text[]) is
    'Writes records of a run that was erased anew, without documents, and deletes what people said about it. For the server''s role.';
