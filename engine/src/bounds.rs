//! All bounds of the engine and of the rules, with their values, for the page that lists them. Each bound is defined
//! where it is enforced; here it gets its name and the consequence of exceeding it.

use std::time::Duration;

use backstitch_integration::bounds as integration;
use backstitch_saga::protocol::MOST_HELD;
use backstitch_saga::{Limits, Span, bounds as saga};

use crate::dispatch::{LOOKED_FOR, MOST_NAMES};
use crate::executor::{loads, poison};
use crate::schemas::{limits as schemas, pool};
use crate::{
    Options, approvals, contracts, credentials, definitions, effects, inbox, ingress, jobs, log,
    page, plans, reports, schedules, sequence, signals, start, subscriptions, tasks, tree, turns,
    undo_times,
};

/// A bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The bounded quantity.
    pub of: &'static str,
    /// The bound.
    pub limit: String,
    /// The consequence of exceeding it.
    pub beyond: &'static str,
}

/// Bounds that belong together, under a title.
pub type Section = (&'static str, Vec<Bound>);

/// Returns a bound of this value.
#[must_use]
pub fn bound(of: &'static str, limit: impl Into<String>, beyond: &'static str) -> Bound {
    Bound { of, limit: limit.into(), beyond }
}

/// Returns a number of bytes as people write it.
///
/// # Panics
/// Never: every number of bytes fits.
#[must_use]
pub fn bytes(count: impl TryInto<u64>) -> String {
    let bytes = count.try_into().unwrap_or(u64::MAX);
    match bytes {
        whole if whole >= 1 << 20 && whole % (1 << 20) == 0 => {
            format!("{} MiB", number(whole >> 20))
        }
        whole if whole >= 1 << 10 && whole % (1 << 10) == 0 => {
            format!("{} KiB", number(whole >> 10))
        }
        other => format!("{} bytes", number(other)),
    }
}

/// Returns a number with commas between the thousands.
#[must_use]
pub fn number(count: impl TryInto<u64>) -> String {
    let digits = count.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a span as people write it.
#[must_use]
pub fn span(span: Duration) -> String {
    Span::from(span).to_string()
}

/// Returns all bounds, with the default values of a node.
#[must_use]
pub fn bounds() -> Vec<Section> {
    let options = Options::new("");
    vec![
        ("Documents of runs", documents(&options)),
        ("Definitions", of_definitions()),
        ("JSON Schemas", of_schemas()),
        ("Starts and children", starts(&options)),
        ("Work", work(&options)),
        ("Schedules, jobs and facts", by_themselves()),
        ("Contracts", contracts::bounds()),
        ("Schemas of contracts", shown(integration::of_contracts())),
        ("Rules of transforms", shown(integration::of_transforms())),
        ("Values of documents", shown(integration::of_values())),
        ("Events and filters", shown(integration::of_events())),
        ("Sources", [ingress::bounds(), shown(integration::of_sources())].concat()),
        ("Credentials", [credentials::change::bounds(), credentials::sessions::bounds()].concat()),
        ("Log", of_log(&options)),
        ("Subscriptions", subscriptions::bounds()),
        ("Memory of a node", memory(&options)),
    ]
}

fn documents(options: &Options) -> Vec<Bound> {
    let Limits { built, whole, record, list, run, outputs, looked_at, record_looked_at } =
        options.run_limits();
    vec![
        bound(
            "one input, signal or output that a person gives",
            bytes(options.payload_limit),
            "422",
        ),
        bound(
            "one output or error detail of a worker",
            bytes(options.payload_limit),
            "the output ends the attempt with `output_too_large`, the detail is left out",
        ),
        bound(
            "nesting of objects and lists in a document",
            number(saga::JSON_DEPTH),
            "422 `nesting_too_deep`",
        ),
        bound(
            "an input, or a side of a comparison, that an expression puts together",
            bytes(built),
            "the step or item fails before it is offered: `input_too_large`, `result_too_large`",
        ),
        bound(
            "the gathered outputs of a fan-out, passed on whole (not to a child); the output of a run",
            bytes(whole),
            "the step fails before it is offered: `outputs_too_large`",
        ),
        bound("the list of a fan-out, in bytes", bytes(list), "the step fails: `items_too_large`"),
        bound(
            "the list of a fan-out, in items",
            number(saga::ITEMS),
            "the step fails: `too_many_items`",
        ),
        bound(
            "inputs of a run's steps and items, and lists of its fan-outs, in all",
            bytes(run),
            "the step or item fails: `inputs_too_large`",
        ),
        bound(
            "outputs of a run's steps, items and children, in all; one of 64 bytes has always room",
            bytes(outputs),
            "the work counts as done without an output: `outputs_too_large`",
        ),
        bound(
            "documents that one expression goes through; compared ones count sixteenfold",
            bytes(looked_at),
            "the step fails: `expression_too_costly`",
        ),
        bound(
            "documents and events that the steps and items of one record begin with",
            bytes(record),
            "the rest begins with the next record",
        ),
        bound(
            "documents that the expressions of one record go through",
            bytes(record_looked_at),
            "the rest begins with the next record",
        ),
        bound("message of a worker's error", bytes(reports::MESSAGE), "cut"),
        bound("code of a worker's error", bytes(reports::CODE), "quoted in the message instead"),
        bound("external id", bytes(reports::EXTERNAL_ID), "cut"),
    ]
}

fn of_definitions() -> Vec<Bound> {
    vec![
        bound("text of a definition", bytes(saga::DEFINITION_BYTES), "422 `definition_too_large`"),
        bound("steps", number(saga::STEPS), "422 `too_many_steps`"),
        bound(
            "expressions within one another",
            number(saga::EXPRESSION_DEPTH),
            "422 `expression_too_deep`",
        ),
        bound("expressions in one", number(saga::EXPRESSION_NODES), "422 `expression_too_large`"),
        bound(
            "signals of which the first ends a wait",
            number(saga::SIGNALS_OF_A_WAIT),
            "422 `invalid_signal`",
        ),
        bound("events that one step emits", number(saga::EVENTS_OF_A_STEP), "422 `too_many_emits`"),
        bound("events that all steps emit", number(saga::EVENTS_OF_STEPS), "422 `too_many_emits`"),
    ]
}

fn of_schemas() -> Vec<Bound> {
    vec![
        bound("one schema", bytes(schemas::SCHEMA_BYTES), "422 `schema_too_large`"),
        bound(
            "subschemas when each `$ref` is written out",
            number(schemas::SUBSCHEMAS),
            "422 `schema_too_complex`",
        ),
        bound(
            "path of subschemas, each within or referred to by the one before",
            number(schemas::DEPTH),
            "422 `schema_too_deep`",
        ),
        bound(
            "the same for one and the same value",
            number(schemas::DEPTH_IN_PLACE),
            "422 `schema_too_deep`",
        ),
        bound("patterns of a schema", number(schemas::PATTERNS), "422 `too_many_patterns`"),
        bound("one pattern", bytes(schemas::PATTERN_BYTES), "422 `pattern_too_large`"),
        bound(
            "one pattern with its repetitions written out, in states; a class like `\\p{L}` counts as 500",
            number(schemas::PATTERN_STATES),
            "422 `pattern_too_large`",
        ),
        bound(
            "all patterns of a schema, in states",
            number(schemas::SCHEMA_STATES),
            "422 `patterns_too_large`",
        ),
        bound(
            "all patterns of a definition, in states",
            number(schemas::DEFINITION_STATES),
            "422 `patterns_too_large`",
        ),
        bound(
            "memory of a compiled pattern",
            bytes(schemas::PATTERN_MEMORY),
            "422 `invalid_schema`",
        ),
        bound(
            "how often the match of a text goes back",
            number(schemas::BACKTRACKS),
            "422 `schema_too_costly`",
        ),
        bound(
            "document that is evaluated",
            bytes(schemas::DOCUMENT_BYTES),
            "422 `schema_too_costly`",
        ),
        bound(
            "visits of subschemas to parts of a document",
            number(schemas::VISITS),
            "422 `schema_too_costly`",
        ),
        bound("violations that are listed", number(schemas::VIOLATIONS), "left out"),
        bound(
            "threads that evaluate schemas and read large definitions, of which a namespace has one at a time",
            number(pool::THREADS),
            "waits in turn",
        ),
        bound("wait for such a thread", span(pool::WAIT), "503 `busy`"),
        bound(
            "evaluations and bodies that wait for a thread; a namespace has its share",
            number(schemas::WAITING),
            "503 `busy`",
        ),
    ]
}

fn starts(options: &Options) -> Vec<Bound> {
    vec![
        bound("name of a workflow", bytes(saga::NAME), "422"),
        bound(
            "key, correlation id, label value, serial key; no control characters",
            bytes(saga::TEXT),
            "422",
        ),
        bound("labels of a run", number(backstitch_saga::LABEL_LIMIT), "422"),
        bound("how far ahead a run may be started", start::START_WITHIN.to_string(), "422"),
        bound(
            "levels of runs that are steps of others",
            number(backstitch_saga::DEEPEST_DESCENDANT),
            "the step fails, `child_too_deep`",
        ),
        bound(
            "runs that descend from one (`--descendant-limit`)",
            number(options.descendant_limit),
            "the step fails, `too_many_descendants`",
        ),
        bound(
            "children that wait to be started, by a node",
            number(turns::MOST_WAITING),
            "asked for again by the parent's timer",
        ),
        bound(
            "starts asked for in transactions that a node takes at once",
            number(inbox::REQUESTS.unsigned_abs()),
            "the rest is taken next",
        ),
        bound(
            "nodes that stop over such a start",
            number(inbox::TRIES.unsigned_abs()),
            "the request is refused with `poison`",
        ),
        bound(
            "how long a signal is kept for a run that is not there",
            format!("{} days", signals::KEEP_DAYS),
            "forgotten, with a line in the log",
        ),
    ]
}

fn work(options: &Options) -> Vec<Bound> {
    vec![
        bound(
            "commands that wait in a node",
            number(options.queue_limit),
            "503 `busy`; never for kill, cancel, pause and resume, which go first",
        ),
        bound("tasks of a claim", number(tasks::MOST_TASKS), "422"),
        bound("tasks that a claim names as held", number(MOST_HELD), "422"),
        bound("handlers that a claim names", number(tasks::MOST_HANDLERS), "422"),
        bound("queues that a claim names", number(tasks::MOST_QUEUES), "422"),
        bound(
            "sessions of a namespace with the queues and handlers that they name, in all, at a server",
            number(MOST_NAMES),
            "429 `too_many_names`",
        ),
        bound(
            "kinds of task of a namespace that a server looks for at once",
            number(LOOKED_FOR),
            "the others have their turn with the next look",
        ),
        bound(
            "answer with a page of a history or list",
            bytes(page::ANSWER_BYTES),
            "`next` where it was cut; one element is always answered",
        ),
        bound(
            "outputs of steps in the view of a run",
            bytes(saga::VIEW_BYTES),
            "left out, with `output_bytes`",
        ),
        bound(
            "steps with open effects that are counted by system",
            number(effects::COUNTED.unsigned_abs()),
            "the oldest are counted; `more` is true",
        ),
        bound("runs in the tree of a run", number(tree::MOST), "`more` is true"),
        bound("time for the tree of a run", span(tree::READ_FOR), "`more` is true"),
        bound(
            "how long answers to an `Idempotency-Key` are kept",
            span(options.idempotency_retention),
            "forgotten",
        ),
    ]
}

fn of_log(options: &Options) -> Vec<Bound> {
    vec![
        bound("events of a request", number(log::MOST_EVENTS), "422 `invalid_request`"),
        bound("the data of an event", bytes(options.payload_limit), "422 `invalid_event`"),
        bound(
            "requests that wait to be appended, in bytes; a namespace has its share",
            bytes(log::WAITING_BYTES),
            "503 `busy`",
        ),
        bound(
            "named cursors of a namespace",
            number(log::MOST_CURSORS.unsigned_abs()),
            "409 `too_many_cursors`",
        ),
        bound("bytes of a page of events", bytes(page::ANSWER_BYTES), "the rest is on the next"),
    ]
}

/// Returns bounds of documents and events, as the page shows them.
fn shown(bounds: Vec<integration::Bound>) -> Vec<Bound> {
    let shown = bounds.into_iter().map(|(of, limit, beyond)| {
        let limit = match limit {
            integration::Limit::Bytes(count) => bytes(count),
            integration::Limit::Seconds(count) => span(Duration::from_secs(count.into())),
            integration::Limit::Count(count) => number(count),
        };
        bound(of, limit, beyond)
    });
    shown.collect()
}

fn by_themselves() -> Vec<Bound> {
    vec![
        bound(
            "further patterns of a schedule (`also`)",
            number(schedules::instants::ALSO_LIMIT),
            "422",
        ),
        bound("labels that a schedule gives", number(schedules::LABEL_LIMIT), "422"),
        bound(
            "starts of a schedule that wait under `queue`",
            number(schedules::QUEUE_LIMIT),
            "422",
        ),
        bound(
            "starts of a schedule under way at once",
            number(schedules::plan::MOST_OPEN),
            "the rest is put off",
        ),
        bound("instants of one backfill", number(schedules::MOST_BACKFILLED), "422"),
        bound(
            "backfills of a schedule under way",
            number(schedules::BACKFILLS),
            "409 `too_many_backfills`",
        ),
        bound(
            "open compensation plans of a run",
            number(plans::MOST_OPEN.unsigned_abs()),
            "409 `too_many_plans`",
        ),
        bound("items of a job", number(jobs::MOST.unsigned_abs()), "409 `too_many`"),
        bound(
            "how often a job or a migration of runs is worked on that fails, or over which nodes stop",
            number(jobs::TRIES.unsigned_abs()),
            "a job is paused, a migration is stopped, with the reason",
        ),
        bound(
            "how often in a row a defect stops what is due of a run, restarts included",
            number(poison::TRIES),
            "the run is put aside with an incident, `run_stuck`",
        ),
        bound(
            "facts that a run requires or promises",
            number(sequence::MAX_FACTS),
            "422 `out_of_range`",
        ),
    ]
}

fn memory(options: &Options) -> Vec<Bound> {
    vec![
        bound("compiled schemas", bytes(schemas::KEPT), "the least recently used go"),
        bound(
            "text of definitions that are kept read",
            bytes(definitions::KEPT),
            "the least recently used go",
        ),
        bound(
            "runs, in units: about one for each event folded and each 128 bytes of documents, 64 for each run",
            number(options.tuning.cache_weight),
            "the least recently used go",
        ),
        bound(
            "what is read at once of runs that are not in memory; one alone may have more",
            bytes(loads::QUESTION),
            "the rest is read next",
        ),
        bound(
            "workflows of a namespace whose undos need a second person, kept in mind",
            number(approvals::MOST_OF_ONE),
            "they are looked up for each undo; so beyond 100,000 of all namespaces",
        ),
        bound(
            "workflows whose undo times are kept in mind",
            number(undo_times::MOST),
            "they are read again for each start with `end_by`",
        ),
        bound(
            "undone runs that such times are read from",
            number(undo_times::RUNS.unsigned_abs()),
            "older ones say nothing",
        ),
        bound(
            "tasks on offer that are kept in mind",
            number(options.tuning.hint_limit),
            "the rest is looked up when it is claimed",
        ),
        bound(
            "documents that come in with one batch",
            bytes(options.tuning.batch_bytes),
            "the rest goes with the next",
        ),
        bound(
            "time of one statement",
            span(options.tuning.statement_limit),
            "the connection is given up",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_write_them() {
        assert_eq!(number(1_234_567_u64), "1,234,567");
        assert_eq!(number(12_u64), "12");
        assert_eq!(bytes(256_usize * 1024), "256 KiB");
        assert_eq!(bytes(16_usize * 1024 * 1024), "16 MiB");
        assert_eq!(bytes(255_usize), "255 bytes");
        assert_eq!(span(Duration::from_secs(30)), "30s");
    }
}
