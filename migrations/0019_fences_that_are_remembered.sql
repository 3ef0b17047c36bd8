-- An attempt that its worker completed is remembered for a while after its end stands in the journal, so that completing it
-- again is answered as what it is.
alter table fences add column closed_at timestamptz;
comment on column fences.closed_at is 'When its end was found in the journal; the row is kept for a while to answer repeats.';
drop index fences_completed;
create index fences_completed on fences (completed_at) where completed_at is not null and closed_at is null;
create index fences_closed on fences (closed_at) where closed_at is not null;

-- Runs are found by when they started, whatever their ids say: a child has the instant of its parent in its id.
create index runs_by_start on runs using brin (started_at) with (pages_per_range = 16, autosummarize = on);

-- The views read what can be read. A record that cannot is skipped, and listed by itself.
create function backstitch.array_or_null(document text) returns jsonb language plpgsql immutable as $function$
begin
    return case jsonb_typeof(document::jsonb) when 'array' then document::jsonb end;
exception when others then
    return null;
end
$function$;
comment on function backstitch.array_or_null(text) is 'A JSON array; null when the text is none.';

create or replace view backstitch.history as
select j.run_id, j.seq, e.place::integer as place, j.at, t.type, t.event
from journal j
cross join lateral jsonb_array_elements(backstitch.array_or_null(replace(j.events, '\u0000', '\ufffd')))
    with ordinality as e(event, place)
cross join lateral jsonb_each(case jsonb_typeof(e.event) when 'object' then e.event
    when 'string' then jsonb_build_object(e.event #>> '{}', '{}'::jsonb) end) as t(type, event);

create or replace view backstitch.document as
select j.run_id, j.seq, (d.slot - 1)::integer as slot, d.document
from journal j
cross join lateral jsonb_array_elements(backstitch.array_or_null(j.payloads)) with ordinality as d(document, slot)
where j.payloads is not null;

create or replace view backstitch.step as
with told as (
    select h.run_id, h.event ->> 'step' as path, array[h.seq, h.place] as place, h.at, h.type, h.event,
        h.event ->> 'action' as action
    from backstitch.history h where h.event ? 'step'
)
select t.run_id, split_part(t.path, '/', 1) as step,
    case when split_part(t.path, '/', 2) ~ '^[0-9]{1,9}$' then split_part(t.path, '/', 2)::integer end as item,
    count(*) filter (where t.type = 'offered' and t.action = 'forward') as attempts,
    count(*) filter (where t.type = 'leased') as deliveries,
    count(*) filter (where t.type = 'failed') as failures,
    count(*) filter (where t.type = 'lost') as losses,
    min(t.at) filter (where t.type = 'offered') as began_at,
    max(t.at) filter (where t.type = 'succeeded') as succeeded_at,
    max(t.at) filter (where t.type in ('undone', 'undo_marked')) as undone_at,
    (array_agg(t.event ->> 'external_id' order by t.place desc) filter (where t.type = 'succeeded'))[1]
        as external_id,
    (array_agg(t.event -> 'error' ->> 'code' order by t.place desc)
        filter (where jsonb_typeof(t.event -> 'error') = 'object'))[1] as last_error_code,
    (array_agg(t.event -> 'error' ->> 'message' order by t.place desc)
        filter (where jsonb_typeof(t.event -> 'error') = 'object'))[1] as last_error,
    (array_agg(t.type order by t.place desc))[1] as last_event,
    max(t.at) as last_at,
    max(t.place) filter (where t.type = 'succeeded') as place_succeeded,
    max(t.place) filter (where t.type in ('undone', 'undo_marked')) as place_undone,
    max(t.place) filter (where t.action = 'forward' and (t.type = 'lost'
        or (t.type = 'failed' and t.event -> 'error' ->> 'kind' = 'unknown'))
        or (t.type = 'gave_up' and t.event ->> 'fate' = 'unknown')) as place_doubted,
    max(t.place) filter (where t.type = 'not_happened') as place_cleared,
    max(t.place) filter (where t.type = 'leased' and t.action = 'forward') as place_leased,
    max(t.place) filter (where t.action = 'forward' and t.type in ('failed', 'lost', 'released')
        or t.type in ('succeeded', 'gave_up')) as place_ended
from told t
group by t.run_id, t.path;

create view backstitch.damaged_record as
select d.run_id, d.seq, d.at, d.part
from (
    select j.run_id, j.seq, j.at, case
        when backstitch.array_or_null(replace(j.events, '\u0000', '\ufffd')) is null then 'events'
        when j.payloads is not null and backstitch.array_or_null(j.payloads) is null then 'payloads'
    end as part
    from journal j
) d
where d.part is not null;
comment on view backstitch.damaged_record is
    'Records that cannot be read and are missing in the other views. Without a run_id all journals are read.';
