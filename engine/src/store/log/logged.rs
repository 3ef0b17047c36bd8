//! Events as they are read, whichever table they stand in: with an envelope of their own, or as milestones that share a
//! row.

/// Columns of an event `e` with an envelope of its own.
pub(super) const EVENT: &str = "e.batch, e.ord, e.namespace, e.type, e.stream, e.stream_version, e.contract, e.op, \
    e.op_corrected, e.noop, e.changed, e.source, e.claimed_source, e.source_id, e.trust, e.occurred_at, e.received_at, \
    e.correlation_id, e.causation_id, e.hops, e.traceparent, e.labels, e.bytes, null::text as told";

/// The milestones of a row `m`, one by one.
pub(super) const TOLD: &str =
    "cross join lateral json_array_elements(m.told::json) with ordinality as t(told, place)";

/// The same columns of a milestone `t` of a row `m`. Nothing but the run caused it, and nobody but the server tells of
/// it.
pub(super) const MILESTONE: &str = "m.batch, (t.place - 1)::smallint as ord, m.namespace, t.told ->> 0 as type, \
    'run:' || (t.told -> 2 ->> 'run') as stream, null::bigint as stream_version, null::text as contract, null::text as op, \
    false as op_corrected, false as noop, null::text as changed, 'workflow/' || (t.told -> 2 ->> 'workflow') as source, \
    null::text as claimed_source, null::text as source_id, 2::smallint as trust, t.told ->> 3 as occurred_at, \
    m.at as received_at, coalesce(t.told ->> 1, t.told -> 2 ->> 'run') as correlation_id, null::text as causation_id, \
    0 as hops, null::text as traceparent, '{\"run\":\"' || (t.told -> 2 ->> 'run') || '\"}' as labels, \
    octet_length(t.told ->> 2) as bytes, t.told ->> 2 as told";

/// The events of one batch, by a condition that both tables are asked, as a subquery.
pub(super) fn logged(which: &str) -> String {
    format!(
        "(select {EVENT} from event e where e.{which} \
          union all select {MILESTONE} from milestone m {TOLD} where m.{which})"
    )
}
