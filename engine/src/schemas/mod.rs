//! JSON Schemas: compiled once, evaluated within bounds, and by threads of their own where it takes time.
//!
//! `limits` are the bounds. `plan` reads a schema before it is compiled and `meter` counts what evaluating it on a
//! document would take, so that neither is begun beyond a bound. `keywords` finds what is misspelt, `pool` has the
//! threads.

mod envelope;
mod keywords;
pub(crate) mod limits;
mod meter;
mod numbers;
mod pattern;
mod plan;
pub(crate) mod pool;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use backstitch_saga::{Payload, Violation, misread};
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use crate::Error;
use limits::{
    BACKTRACKS, BYTES_AT_ONCE, DEFINITION_STATES, DEPTH_AT_ONCE, DOCUMENT_BYTES, KEPT, MESSAGE,
    PATTERN_CACHE, PATTERN_MEMORY, SCHEMA_BYTES, VIOLATIONS, VISITS, VISITS_AT_ONCE, VISITS_LISTED,
};
use meter::measure;
use numbers::{Numbers, Unread};
use plan::Plan;
use pool::Pool;

/// A schema, ready to be evaluated.
pub(crate) struct Schema {
    plan: Plan,
    numbers: Numbers,
    validator: Validator,
    /// The memory that it takes, roughly, in bytes.
    weight: u64,
}

/// Result of checking a document against a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It satisfies the schema.
    Satisfies,
    /// It does not: where, and why.
    Violates(Vec<Violation>),
    /// It cannot be determined within the bounds, or the schema itself is beyond them. With a stable
    /// code.
    Unknown(&'static str, Violation),
}

impl Verdict {
    /// Returns the verdict as the error of a request with the document at `at`; `code` for a document that
    /// violates.
    pub(crate) fn into_result(self, at: &str, code: &'static str) -> Result<(), Error> {
        match self {
            Verdict::Satisfies => Ok(()),
            Verdict::Violates(mut violations) => {
                violations.iter_mut().for_each(|one| one.pointer.insert_str(0, at));
                Err(Error::Invalid { code, violations })
            }
            Verdict::Unknown(code, mut violation) => {
                violation.pointer.insert_str(0, at);
                Err(Error::Invalid { code, violations: vec![violation] })
            }
        }
    }
}

/// The schemas that a node has compiled, and the threads that work on them.
pub(crate) struct Schemas {
    kept: Mutex<Kept>,
    pool: Pool,
    /// Values that a client has encrypted are held to nothing.
    envelopes: bool,
}

/// Compiled schemas by their text; the least recently used go when all weigh too much.
#[derive(Default)]
struct Kept {
    by_text: HashMap<Box<str>, (Arc<Schema>, u64)>,
    weight: u64,
    uses: u64,
}

impl Default for Schemas {
    fn default() -> Schemas {
        Schemas { kept: Mutex::default(), pool: Pool::start(), envelopes: false }
    }
}

impl Schemas {
    /// Returns the schemas of a node whose clients encrypt values of documents, or do not.
    pub(crate) fn with_envelopes(envelopes: bool) -> Schemas {
        Schemas { envelopes, ..Schemas::default() }
    }

    /// Checks `document`, which is at `at` in its request, against `schema`. Short work is done
    /// immediately.
    ///
    /// # Errors
    /// [`Error::Invalid`] with `code` and the violations; `schema_too_costly` when it cannot be told within the bounds,
    /// `invalid_schema` when the schema itself cannot be used; [`Error::Busy`].
    pub(crate) async fn check(
        self: &Arc<Self>,
        namespace: &str,
        schema: &Payload,
        document: &Payload,
        at: &str,
        code: &'static str,
    ) -> Result<(), Error> {
        self.judge(namespace, schema, document).await?.into_result(at, code)
    }

    /// Returns the same as a verdict, however long it takes.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub(crate) async fn judge(
        self: &Arc<Self>,
        namespace: &str,
        schema: &Payload,
        document: &Payload,
    ) -> Result<Verdict, Error> {
        if let Some(verdict) = self.judge_at_once(schema, document) {
            return Ok(verdict);
        }
        let (schemas, schema, document) = (Arc::clone(self), schema.clone(), document.clone());
        let done = self.pool.run(namespace, move || match schemas.compiled(&schema) {
            Ok(compiled) => compiled.judge(&document, schemas.envelopes),
            Err(violation) => Verdict::Unknown("invalid_schema", violation),
        });
        Ok(done.await?.unwrap_or_else(|| {
            let message = "evaluating the schema failed; it cannot be used on this document";
            Verdict::Unknown("schema_failed", Violation::new("", "schema_failed", message))
        }))
    }

    /// Does other long work on documents of `namespace` by the same threads, in turn with what it has evaluated. `None`
    /// when the work panicked.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub(crate) async fn apart<T: Send + 'static>(
        &self,
        namespace: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, Error> {
        self.pool.run(namespace, work).await
    }

    /// Returns the verdict if it takes no time worth mentioning and the schema is compiled.
    pub(crate) fn judge_at_once(&self, schema: &Payload, document: &Payload) -> Option<Verdict> {
        if document.text().len() > BYTES_AT_ONCE {
            return None;
        }
        let schema = self.kept().find(schema.text())?;
        let (value, moved) = schema.numbers.read(document.text()).ok()?;
        measure(&schema.plan, &value, VISITS_AT_ONCE, DEPTH_AT_ONCE).ok()?;
        Some(schema.verdict(&value, moved, true, self.envelopes))
    }

    /// Compiles the schemas of a definition that is to be registered, each with its place. Finds misspelt keywords,
    /// too.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything wrong in them; [`Error::Busy`].
    pub(crate) async fn admit(
        self: &Arc<Self>,
        namespace: &str,
        found: Vec<(String, Payload)>,
    ) -> Result<(), Error> {
        if found.is_empty() {
            return Ok(());
        }
        let schemas = Arc::clone(self);
        let work = move || check_all(&found, |text, schema| schemas.kept().keep(text, schema));
        let violations = self.pool.run(namespace, work).await?.unwrap_or_else(|| {
            vec![Violation::new(
                "",
                "invalid_schema",
                "a schema of this definition cannot be compiled",
            )]
        });
        if violations.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid { code: "invalid_definition", violations })
        }
    }

    fn compiled(&self, schema: &Payload) -> Result<Arc<Schema>, Violation> {
        if let Some(known) = self.kept().find(schema.text()) {
            return Ok(known);
        }
        let compiled = Arc::new(Schema::compile(schema)?);
        self.kept().keep(schema.text(), &compiled);
        Ok(compiled)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compiles a schema and evaluates it on a document, as the threads do: within a time, always with the same verdict,
/// and telling no more than is allowed. For fuzzing.
#[cfg(feature = "fuzz")]
pub(crate) fn hold_to_budget(schema: Payload, document: Payload) {
    // A million visits, of a build for tests, on a machine with other work.
    const LONGEST: std::time::Duration = std::time::Duration::from_secs(20);
    let work = move || {
        let Ok(compiled) = Schema::compile(&schema) else { return };
        let began = std::time::Instant::now();
        let verdict = compiled.judge(&document, false);
        assert!(began.elapsed() < LONGEST, "evaluated for {:?}", began.elapsed());
        assert_eq!(
            compiled.judge(&document, false),
            verdict,
            "a document is judged alike each time"
        );
        if let Verdict::Violates(violations) = verdict {
            assert!(
                (1..=VIOLATIONS).contains(&violations.len()),
                "{} violations",
                violations.len()
            );
            let longest = violations.iter().map(|one| one.message.chars().count()).max();
            assert!(longest <= Some(MESSAGE + 1), "a message of {longest:?} characters");
        }
    };
    let thread = std::thread::Builder::new().stack_size(pool::STACK).spawn(work);
    thread.expect("a thread").join().expect("evaluating a schema does not panic");
}

/// Compiles the schemas of a definition, each with its place, and finds misspelt keywords. Returns all that is wrong.
pub(crate) fn check_all(
    found: &[(String, Payload)],
    mut keep: impl FnMut(&str, &Arc<Schema>),
) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut states = 0_u64;
    for (at, text) in found {
        let before = violations.len();
        if text.text().len() <= SCHEMA_BYTES
            && let Ok(value) = text.to::<Value>()
        {
            keywords::check(&value, at, &mut violations);
        }
        if let Some(violation) = Numbers::check(text.text()) {
            violations.push(Violation { pointer: at.clone(), ..violation });
        }
        match Schema::compile(text) {
            Ok(schema) if violations.len() == before => {
                states = states.saturating_add(schema.plan.states);
                keep(text.text(), &Arc::new(schema));
            }
            Ok(_) => {}
            Err(violation) => {
                violations
                    .push(Violation { pointer: format!("{at}{}", violation.pointer), ..violation });
            }
        }
        if states > DEFINITION_STATES {
            let message = format!(
                "all patterns of a definition may have {DEFINITION_STATES} states when their repetitions are written out"
            );
            violations.push(Violation::new(at, "patterns_too_large", message));
        }
        if states > DEFINITION_STATES || violations.len() > VIOLATIONS {
            break;
        }
    }
    violations
}

impl Kept {
    fn find(&mut self, text: &str) -> Option<Arc<Schema>> {
        self.uses += 1;
        let (schema, used) = self.by_text.get_mut(text)?;
        *used = self.uses;
        Some(Arc::clone(schema))
    }

    fn keep(&mut self, text: &str, schema: &Arc<Schema>) {
        self.uses += 1;
        if let Some((before, _)) = self.by_text.insert(text.into(), (Arc::clone(schema), self.uses))
        {
            self.weight -= before.weight;
        }
        self.weight += schema.weight;
        while self.weight > KEPT && self.by_text.len() > 1 {
            let oldest = self
                .by_text
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(text, _)| text.clone());
            let Some((gone, _)) = oldest.and_then(|oldest| self.by_text.remove(&oldest)) else {
                return;
            };
            self.weight -= gone.weight;
        }
    }
}

impl Schema {
    /// Compiles `schema`, if it is within the bounds.
    fn compile(schema: &Payload) -> Result<Schema, Violation> {
        let text = schema.text();
        if text.len() > SCHEMA_BYTES {
            let message =
                format!("a schema may have {SCHEMA_BYTES} bytes; this has {}", text.len());
            return Err(Violation::new("", "schema_too_large", message));
        }
        let invalid =
            |at: String, message: String| Violation::new(at, "invalid_schema", shortened(message));
        let value = Numbers::read_schema(text)
            .map_err(|error| invalid(String::new(), misread::explain(&error).1))?;
        let plan = Plan::read(&value)?;
        let patterns = PatternOptions::fancy_regex()
            .backtrack_limit(BACKTRACKS)
            .size_limit(PATTERN_MEMORY)
            .dfa_size_limit(PATTERN_CACHE);
        let options =
            jsonschema::options().with_pattern_options(patterns).should_validate_formats(true);
        let validator = options
            .build(&value)
            .map_err(|error| invalid(error.instance_path().to_string(), error.to_string()))?;
        // A subschema takes some hundred bytes, as does a state of a pattern; what its matches remember comes to that.
        let patterned =
            plan.subschemas.iter().map(|one| one.patterns.len() + one.pattern_properties.len());
        let patterns: usize = patterned.sum();
        let weight = 4_096
            + 20 * text.len() as u64
            + 512 * plan.subschemas.len() as u64
            + 200 * plan.states
            + (patterns * PATTERN_CACHE) as u64;
        Ok(Schema { plan, numbers: Numbers::of(text), validator, weight })
    }

    fn judge(&self, document: &Payload, envelopes: bool) -> Verdict {
        let size = document.text().len();
        if size > DOCUMENT_BYTES {
            return too_costly(format!(
                "the document has {size} bytes; {DOCUMENT_BYTES} are evaluated"
            ));
        }
        let (value, moved) = match self.numbers.read(document.text()) {
            Ok(read) => read,
            Err(Unread::TooPrecise(number)) => {
                let message = format!(
                    "the number {number} has a fraction, so far from zero that it cannot be compared; send it as a string"
                );
                let violation = Violation::new("", "number_too_precise", message);
                return Verdict::Violates(vec![violation]);
            }
            Err(Unread::Json(error)) => {
                return Verdict::Violates(vec![Violation::new(
                    "",
                    "invalid_json",
                    misread::explain(&error).1,
                )]);
            }
        };
        match measure(&self.plan, &value, VISITS, usize::MAX) {
            Ok(visits) => self.verdict(&value, moved, visits <= VISITS_LISTED, envelopes),
            Err(_) => too_costly(format!(
                "the document would take more than {VISITS} visits of subschemas to its parts; make the schema simpler or the document smaller"
            )),
        }
    }

    /// Evaluates the schema; violations are listed one by one if `listed`, and values in envelopes held to nothing if
    /// there may be `envelopes`. Numbers are not shown if some are `moved`: not those that were written.
    fn verdict(&self, value: &Value, moved: bool, listed: bool, envelopes: bool) -> Verdict {
        if self.validator.is_valid(value) {
            return Verdict::Satisfies;
        }
        if envelopes && envelope::is_all(&self.validator, value) {
            return Verdict::Satisfies;
        }
        if !listed {
            let message = "the document does not satisfy its schema; it is too large to say where";
            return Verdict::Violates(vec![Violation::new("", "schema", message)]);
        }
        let mut violations = Vec::new();
        let told = |error: &_| !(envelopes && envelope::is_about(error));
        for error in self.validator.iter_errors(value).filter(told).take(VIOLATIONS) {
            if matches!(
                error.kind(),
                jsonschema::error::ValidationErrorKind::BacktrackLimitExceeded { .. }
            ) {
                return too_costly(format!(
                    "matching the text at '{}' with its pattern takes too long",
                    error.instance_path()
                ));
            }
            let number = moved && error.instance().is_number();
            let small = !number && !error.instance().is_array() && !error.instance().is_object();
            let message = match small {
                true => error.to_string(),
                false if backstitch_saga::is_envelope(error.instance()) => {
                    envelope::REFUSED.to_owned()
                }
                false => error.masked().to_string(),
            };
            violations.push(Violation::new(
                error.instance_path().to_string(),
                "schema",
                shortened(message),
            ));
        }
        if violations.is_empty() {
            return too_costly("the document could not be evaluated to its end".to_owned());
        }
        Verdict::Violates(violations)
    }
}

fn too_costly(message: String) -> Verdict {
    Verdict::Unknown("schema_too_costly", Violation::new("", "schema_too_costly", message))
}

fn shortened(mut message: String) -> String {
    if let Some((cut, _)) = message.char_indices().nth(MESSAGE) {
        message.truncate(cut);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests;
