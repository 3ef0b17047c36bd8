//! The fixed bounds of definitions and documents, by name, for the page that lists them.

/// The deepest nesting of objects and lists in a document from outside.
pub const JSON_DEPTH: usize = crate::payload::MAX_DEPTH;
/// The most bytes of the text of a definition.
pub const DEFINITION_BYTES: usize = crate::Definition::MAX_BYTES;
/// The most steps of a definition.
pub const STEPS: usize = crate::Definition::MAX_STEPS;
/// The most expressions within one another.
pub const EXPRESSION_DEPTH: usize = crate::validate::EXPRESSION_DEPTH;
/// The most expressions in one.
pub const EXPRESSION_NODES: usize = crate::validate::EXPRESSION_NODES;
/// Largest number of signals of which the first ends a wait.
pub const SIGNALS_OF_A_WAIT: usize = crate::validate::SIGNALS;
/// The most events that one step emits.
pub const EVENTS_OF_A_STEP: usize = crate::Emit::MOST_OF_STEP;
/// The most events that all steps of a definition emit.
pub const EVENTS_OF_STEPS: usize = crate::Emit::MOST;
/// The most items of a fan-out.
pub const ITEMS: usize = crate::run::MOST_ITEMS;
/// The most bytes of a key, a correlation id or the value of a label.
pub const TEXT: usize = crate::start::TEXT_LIMIT;
/// The most bytes of the name of a workflow.
pub const NAME: usize = crate::start::NAME_LIMIT;
/// The most bytes of outputs in the view of a run.
pub const VIEW_BYTES: usize = crate::run::VIEW_BYTES;
