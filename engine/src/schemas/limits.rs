//! Bounds on JSON Schemas and on the work of evaluating one. docs/operations.md, "Limits", lists the same figures.
//!
//! Everything but the backtracks is known before any work begins: a schema beyond a bound is refused before it is
//! compiled, a document before it is evaluated.

/// The largest schema, in bytes (`schema_too_large`).
pub(crate) const SCHEMA_BYTES: usize = 64 * 1024;
/// The most patterns of a schema (`too_many_patterns`).
pub(crate) const PATTERNS: usize = 64;
/// The longest pattern, in bytes (`pattern_too_large`).
pub(crate) const PATTERN_BYTES: usize = 1_000;
/// The largest pattern when its repetitions are written out, in states; a Unicode class counts as 500
/// (`pattern_too_large`).
pub(crate) const PATTERN_STATES: u64 = 100_000;
/// The same for all patterns of a schema (`patterns_too_large`).
pub(crate) const SCHEMA_STATES: u64 = 200_000;
/// The same for all schemas of a definition (`patterns_too_large`).
pub(crate) const DEFINITION_STATES: u64 = 400_000;
/// The most memory of a compiled pattern, in bytes.
pub(crate) const PATTERN_MEMORY: usize = 16 * 1024 * 1024;
/// The most memory of what matching a pattern remembers, in bytes.
pub(crate) const PATTERN_CACHE: usize = 128 * 1024;
/// Number of times that the match of one text may backtrack, for patterns with look-around or back-references
/// (`schema_too_costly`).
pub(crate) const BACKTRACKS: usize = 2_000;
/// The most subschemas when each `$ref` is written out (`schema_too_complex`).
pub(crate) const SUBSCHEMAS: u64 = 10_000;
/// The longest path of subschemas, each within or referred to by the one before (`schema_too_deep`).
pub(crate) const DEPTH: usize = 256;
/// The longest path of subschemas that apply to one and the same part of a document (`schema_too_deep`).
pub(crate) const DEPTH_IN_PLACE: usize = 64;

/// The largest document that is evaluated, in bytes (`schema_too_costly`).
pub(crate) const DOCUMENT_BYTES: usize = 1024 * 1024;
/// The most visits of an evaluation: of one subschema to one part of a document, or what takes as long
/// (`schema_too_costly`).
pub(crate) const VISITS: u64 = 1_000_000;
/// The most visits of an evaluation after which violations are listed one by one.
pub(crate) const VISITS_LISTED: u64 = 50_000;
/// The most violations that are listed.
pub(crate) const VIOLATIONS: usize = 100;
/// The longest message of a violation, in characters.
pub(crate) const MESSAGE: usize = 300;

/// Largest number of visits of an evaluation that the calling thread itself makes.
pub(crate) const VISITS_AT_ONCE: u64 = 2_000;
/// The deepest such evaluation.
pub(crate) const DEPTH_AT_ONCE: usize = 128;
/// The largest document of such an evaluation, in bytes.
pub(crate) const BYTES_AT_ONCE: usize = 16 * 1024;
/// The most memory of the compiled schemas that a node keeps, roughly, in bytes.
pub(crate) const KEPT: u64 = 128 * 1024 * 1024;
/// The most evaluations and compilations of a node that wait for a thread.
pub(crate) const WAITING: usize = 1_000;
