//! Bounds of this crate, for the page of limits.

use crate::canonical::{LONGEST_SCALAR, decimal, email, format, phone};
use crate::contracts::{self, compare, parse, pattern};
use crate::document::{LONGEST_NUMBER, pointer};
use crate::events::{self, cloudevents, envelope, filter};
use crate::ingress::{self, file, headers, hints, secret, source, verify};
use crate::transforms::{MOST_RULES, read};

/// A limit: a number of bytes, of seconds, or of anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So many bytes.
    Bytes(usize),
    /// So many seconds.
    Seconds(u32),
    /// So many.
    Count(usize),
}

use Limit::{Bytes, Count, Seconds};

/// A bound: what is bounded, the limit, what happens beyond it.
pub type Bound = (&'static str, Limit, &'static str);

/// Returns those of contracts.
#[must_use]
pub fn of_contracts() -> Vec<Bound> {
    const REFUSED: &str = "`not_a_schema`";
    vec![
        ("one schema", Bytes(contracts::LARGEST_SCHEMA), "`schema_too_large`"),
        ("subschemas of one", Count(contracts::MOST_NODES), "`schema_too_large`"),
        ("levels of subschemas, references followed", Count(parse::DEEPEST), "`schema_too_deep`"),
        (
            "values of the smallest document that a schema accepts",
            Count(whole(parse::LARGEST_LEAST)),
            "`schema_too_large`",
        ),
        (
            "characters or elements that a schema speaks of",
            Count(whole(parse::LONGEST_LENGTH)),
            REFUSED,
        ),
        ("patterns of a schema", Count(parse::MOST_PATTERNS), "`schema_too_large`"),
        ("one pattern", Bytes(pattern::LONGEST), "`pattern_not_supported`"),
        ("memory of a compiled pattern", Bytes(pattern::LARGEST), "`pattern_not_supported`"),
        ("values of an enum", Count(contracts::LONGEST_ENUM), REFUSED),
        ("breaks that are listed for two versions", Count(compare::MOST_BREAKS), "left out"),
        ("violations of a document that are listed", Count(contracts::MOST_VIOLATIONS), "left out"),
    ]
}

/// Returns those of transforms.
#[must_use]
pub fn of_transforms() -> Vec<Bound> {
    vec![
        ("rules, those within `each` too", Count(MOST_RULES), "`too_many_rules`"),
        ("`each` within one another", Count(read::DEEPEST), "`transform_too_deep`"),
        ("entries of a map, places of a coalesce", Count(read::MOST_ENTRIES), "`rule_not_valid`"),
        ("one JSON Pointer", Bytes(pointer::LONGEST), "`rule_not_valid`"),
        ("parts of one", Count(pointer::MOST_TOKENS), "`rule_not_valid`"),
    ]
}

/// Returns those of values that are read or brought into their canonical form.
#[must_use]
pub fn of_values() -> Vec<Bound> {
    vec![
        ("characters of a number", Count(LONGEST_NUMBER), "`number_out_of_range`"),
        ("characters of a text that becomes a scalar", Count(LONGEST_SCALAR), "`…_not_valid`"),
        ("digits of a decimal", Count(decimal::MOST_DIGITS), "`decimal_too_long`"),
        ("a format of dates", Bytes(format::LONGEST), "`rule_not_valid`"),
        ("characters of a phone number", Count(phone::LONGEST), "`phone_not_valid`"),
        ("an e-mail address", Bytes(email::LONGEST), "`email_not_valid`"),
    ]
}

/// Returns those of events and filters.
#[must_use]
pub fn of_events() -> Vec<Bound> {
    const ATTRIBUTE: &str = "`attribute_not_valid`";
    const FILTER: &str = "`filter_not_valid`";
    vec![
        ("one attribute", Bytes(cloudevents::LONGEST), ATTRIBUTE),
        ("extension attributes", Count(cloudevents::MOST_EXTENSIONS), ATTRIBUTE),
        ("attributes that become labels", Count(envelope::MOST_LABELS), ATTRIBUTE),
        ("a correlation id, the id of a cause", Bytes(events::LONGEST_ID), ATTRIBUTE),
        ("the name of a stream", Bytes(envelope::LONGEST_STREAM), ATTRIBUTE),
        ("causes of an event", Count(events::MOST_CAUSES), "the first are kept"),
        ("how long a chain of causes is", Count(events::MAX_HOPS as usize), "`propagation_loop`"),
        ("places that a change names", Count(events::MOST_CHANGED), "those above them are named"),
        (
            "events of a stream held behind a gap",
            Count(events::MOST_HELD),
            "refused until what is missing comes",
        ),
        ("entries of a member of a filter", Count(filter::MOST_ENTRIES), FILTER),
        ("one entry of a filter", Bytes(filter::LONGEST), FILTER),
        ("the key of an event", Bytes(events::LONGEST_KEY), "its digest is the key"),
    ]
}

/// Returns those of sources and their requests.
#[must_use]
pub fn of_sources() -> Vec<Bound> {
    const SOURCE: &str = "`source_not_valid`";
    vec![
        (
            "a request, if the source says nothing else",
            Bytes(source::MAX_BYTES),
            "`payload_too_large`",
        ),
        ("`max_bytes` of a source", Bytes(source::LARGEST), SOURCE),
        ("a batch", Bytes(ingress::LARGEST_BATCH), "`payload_too_large`"),
        ("records of a batch", Count(ingress::MOST_RECORDS), "`batch_too_large`"),
        ("the first row of a CSV file", Bytes(file::LONGEST_HEADER), "`csv_not_valid`"),
        ("columns of a CSV file", Count(file::MOST_COLUMNS), "`csv_not_valid`"),
        (
            "contracts that a source accepts, places of its dedupe key, rules of hints",
            Count(source::MOST_ENTRIES),
            SOURCE,
        ),
        ("secrets of a source", Count(ingress::MOST_SECRETS), SOURCE),
        ("one secret", Bytes(secret::LONGEST), SOURCE),
        ("tolerance of a timestamp", Seconds(verify::LONGEST_TOLERANCE), SOURCE),
        ("signatures of a request that are looked at", Count(verify::MOST_SIGNATURES), "left out"),
        ("one header that is read", Bytes(headers::LONGEST), "as if it were missing"),
        ("hints of a document", Count(ingress::MOST_HINTS), "left out, and counted"),
        ("one hint", Bytes(hints::LONGEST), "left out, and counted"),
    ]
}

fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
