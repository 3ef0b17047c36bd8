-- A document may have numbers that no `numeric` holds, so that it is JSON and no `jsonb`. It stands in the view as a string with
-- its text, and its record is not damaged.
create function backstitch.json_array_or_null(document text) returns json language plpgsql immutable as $function$
begin
    return case json_typeof(document::json) when 'array' then document::json end;
exception when others then
    return null;
end
$function$;
comment on function backstitch.json_array_or_null(text) is
    'A JSON array with whatever numbers; null when the text is none.';

create function backstitch.jsonb_or_text(document json) returns jsonb language plpgsql immutable as $function$
begin
    return document::jsonb;
exception when others then
    return to_jsonb(document::text);
end
$function$;
comment on function backstitch.jsonb_or_text(json) is
    'A document as jsonb; where that cannot hold it, a string with its text.';

create or replace view backstitch.document as
select j.run_id, j.seq, (d.slot - 1)::integer as slot, backstitch.jsonb_or_text(d.document) as document
from journal j
cross join lateral json_array_elements(backstitch.json_array_or_null(j.payloads)) with ordinality as d(document, slot)
where j.payloads is not null;

create or replace view backstitch.damaged_record as
select d.run_id, d.seq, d.at, d.part
from (
    select j.run_id, j.seq, j.at, case
        when backstitch.array_or_null(replace(j.events, '\u0000', '\ufffd')) is null then 'events'
        when j.payloads is not null and backstitch.json_array_or_null(j.payloads) is null then 'payloads'
    end as part
    from journal j
) d
where d.part is not null;
