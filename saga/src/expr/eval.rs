//! Evaluates expressions over the outputs so far.

use std::cmp::Ordering;
use std::fmt;

use super::find::{Found, Memo};
use super::{Expr, Root};
use crate::envelope::{self, VALUE_ENCRYPTED};
use crate::json::Kind;
use crate::{Limits, Payload, value};

/// The document that expressions are evaluated over, part by part, as needed.
pub trait Bindings {
    /// Returns the run's input.
    fn input(&self) -> Payload;

    /// Returns the output of a step, of a map step the list of its outputs; `None` when it has none (not begun, failed,
    /// skipped).
    fn step(&self, id: &str) -> Option<Payload>;

    /// Returns the measures of the list that [`Bindings::step`] would build for a map step; `None` for anything else.
    fn gathered(&self, id: &str) -> Option<Gathered>;

    /// Returns one element of that list, without building it.
    fn gathered_item(&self, id: &str, index: usize) -> Option<Payload>;

    /// Returns the element that this is about, inside a map.
    fn item(&self) -> Option<Payload>;

    /// Returns its index, inside a map.
    fn index(&self) -> Option<u32>;
}

/// The measures of the gathered outputs of a map step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gathered {
    /// Number of outputs.
    pub count: usize,
    /// Size of the list of them as JSON text, in bytes.
    pub bytes: usize,
}

/// The reason for which an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError {
    /// Stable: `path_not_found`, `type_mismatch`, `result_too_large`, `outputs_too_large` or `expression_too_costly`.
    pub code: &'static str,
    /// The path in the run's document that it is about, such as `/steps/payment/id`; empty when it is about none.
    pub pointer: String,
    /// Explanation, for people.
    pub message: String,
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for EvalError {}

/// Bounds of what an expression may build and read, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// A document that it puts together, or takes out of another.
    pub(crate) built: usize,
    /// A document that it passes on whole.
    pub(crate) whole: usize,
    /// All text that it goes through.
    pub(crate) looked_at: usize,
}

impl Bounds {
    /// Returns the bounds for an input of a step or item, and for a condition.
    pub(crate) fn of(limits: &Limits) -> Bounds {
        Bounds { built: limits.built, whole: limits.whole, looked_at: limits.looked_at }
    }
}

impl Expr {
    /// The most that [`Expr::eval`] builds, in bytes. A lone path may find more than that.
    pub const RESULT_LIMIT: usize = 256 * 1024;

    const LOOSE: Bounds =
        Bounds { built: Expr::RESULT_LIMIT, whole: usize::MAX, looked_at: usize::MAX };

    /// Returns the expression's value. The value at a path is passed on byte for byte; a path to a whole input,
    /// output or item is that same payload.
    ///
    /// # Errors
    /// `path_not_found` when a path finds nothing, outside `exists` and the first part of `default`;
    /// `type_mismatch` when an operator gets what it has no meaning for; `result_too_large` when the value grows over
    /// [`Expr::RESULT_LIMIT`].
    pub fn eval(&self, scope: &dyn Bindings) -> Result<Payload, EvalError> {
        Evaluation::new(scope, Expr::LOOSE, &Memo::default()).value(self)
    }

    /// Returns the expression's value as a truth, for guards. `and` and `or` look at their parts in order and stop as
    /// soon as they know.
    ///
    /// # Errors
    /// As [`Expr::eval`], and `type_mismatch` when the value is neither `true` nor `false`.
    pub fn test(&self, scope: &dyn Bindings) -> Result<bool, EvalError> {
        Evaluation::new(scope, Expr::LOOSE, &Memo::default()).truth(self)
    }
}

/// The evaluation of one expression within bounds.
pub(crate) struct Evaluation<'a> {
    pub(super) scope: &'a dyn Bindings,
    pub(super) bounds: Bounds,
    pub(super) memo: &'a Memo,
    /// Amount of text that it has read.
    looked_at: usize,
}

impl<'a> Evaluation<'a> {
    /// Prepares an evaluation. `memo` may be that of an earlier one over the same steps, for another item.
    pub(crate) fn new(scope: &'a dyn Bindings, bounds: Bounds, memo: &'a Memo) -> Evaluation<'a> {
        Evaluation { scope, bounds, memo, looked_at: 0 }
    }

    /// Returns the value of `expr`.
    pub(crate) fn value(&mut self, expr: &Expr) -> Result<Payload, EvalError> {
        self.find_value(expr).map(Found::into_payload)
    }

    /// Returns the value of `expr` as a truth.
    pub(crate) fn truth(&mut self, expr: &Expr) -> Result<bool, EvalError> {
        self.test(expr)
    }

    /// Checks that there is a document at `path`, a path to a whole one that begins at `root`, and that it is not too
    /// large. The outputs of a fan-out are not put together for that.
    pub(crate) fn locate(&mut self, root: Root<'_>, path: &str) -> Result<(), EvalError> {
        match self.gathered(root) {
            Some(_) => self.fits_whole(root, self.bounds.whole),
            None => {
                let found = self.find_from(root, path, self.bounds.whole)?;
                self.within(found, path).map(drop)
            }
        }
    }

    /// Returns the amount of text that it has read so far.
    pub(crate) fn looked_at(&self) -> usize {
        self.looked_at
    }

    fn find_path(&mut self, path: &str) -> Result<Found, EvalError> {
        let found = self.find(path, self.bounds.whole)?;
        self.within(found, path)
    }

    /// Checks that something was found at `path`, and its size.
    fn within(&self, found: Option<Found>, path: &str) -> Result<Found, EvalError> {
        let found = found.ok_or_else(|| not_found(path))?;
        let limit = if found.is_whole() { self.bounds.whole } else { self.bounds.built };
        fits(found.text().len(), limit, path)?;
        Ok(found)
    }

    fn find_value(&mut self, expr: &Expr) -> Result<Found, EvalError> {
        match expr {
            Expr::Path(path) => self.find_path(path),
            Expr::Const(value) => Ok(Found::whole(value.clone())),
            Expr::Default(pair) => match self.find_value(&pair.0) {
                Ok(value) if value.text() != "null" => Ok(value),
                Err(error) if error.code != NOT_FOUND => Err(error),
                _ => self.find_value(&pair.1),
            },
            Expr::Object(_) | Expr::Array(_) => {
                let mut text = String::new();
                self.write(expr, &mut text)?;
                Ok(built(text))
            }
            Expr::Length(of) => self.length(of).map(|length| built(length.to_string())),
            _ => self.test(expr).map(|truth| built(truth.to_string())),
        }
    }

    fn test(&mut self, expr: &Expr) -> Result<bool, EvalError> {
        match expr {
            Expr::Eq(pair) => self.same(pair),
            Expr::Ne(pair) => self.same(pair).map(|same| !same),
            Expr::Lt(pair) => self.order(expr, pair).map(Ordering::is_lt),
            Expr::Le(pair) => self.order(expr, pair).map(Ordering::is_le),
            Expr::Gt(pair) => self.order(expr, pair).map(Ordering::is_gt),
            Expr::Ge(pair) => self.order(expr, pair).map(Ordering::is_ge),
            Expr::And(list) => self.all(list, true),
            Expr::Or(list) => self.all(list, false).map(|none| !none),
            Expr::Not(expr) => self.test(expr).map(|truth| !truth),
            Expr::Exists(path) => self.exists(path),
            _ => {
                let value = self.find_value(expr)?;
                match value.text() {
                    "true" => Ok(true),
                    "false" => Ok(false),
                    other => Err(readable(expr, &value).err().unwrap_or_else(|| {
                        let found = Kind::of(other).words();
                        mismatch(expr, format!("expected true or false, found {found}"))
                    })),
                }
            }
        }
    }

    /// Appends the expression's value to `out`, unless that would make it too large.
    fn write(&mut self, expr: &Expr, out: &mut String) -> Result<(), EvalError> {
        let limit = self.bounds.built;
        match expr {
            Expr::Object(members) => {
                for (index, (key, expr)) in members.iter().enumerate() {
                    out.push(if index > 0 { ',' } else { '{' });
                    fits(out.len() + key.len(), limit, "")?;
                    value::push_string(out, key);
                    out.push(':');
                    self.write(expr, out)?;
                }
                out.push_str(if members.is_empty() { "{}" } else { "}" });
            }
            Expr::Array(list) => {
                for (index, expr) in list.iter().enumerate() {
                    out.push(if index > 0 { ',' } else { '[' });
                    self.write(expr, out)?;
                }
                out.push_str(if list.is_empty() { "[]" } else { "]" });
            }
            Expr::Path(path) => {
                let room = limit.saturating_sub(out.len());
                let found = self.find(path, room)?.ok_or_else(|| not_found(path))?;
                fits(out.len() + found.text().len(), limit, path)?;
                out.push_str(found.text());
            }
            _ => {
                let value = self.find_value(expr)?;
                fits(out.len() + value.text().len(), limit, "")?;
                out.push_str(value.text());
            }
        }
        fits(out.len(), limit, "")
    }

    fn length(&mut self, of: &Expr) -> Result<usize, EvalError> {
        if let Expr::Path(path) = of
            && let Some(gathered) = Root::of(path).and_then(|root| self.gathered(root))
        {
            return Ok(gathered.count);
        }
        let value = self.find_value(of)?;
        readable(of, &value)?;
        self.look_at(value.text().len())?;
        value::length(value.text()).ok_or_else(|| {
            let found = Kind::of(value.text()).words();
            mismatch(of, format!("a list, an object and a string have a length; {found} has none"))
        })
    }

    /// Returns whether all of `list` are `wanted`.
    fn all(&mut self, list: &[Expr], wanted: bool) -> Result<bool, EvalError> {
        for expr in list {
            if self.test(expr)? != wanted {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the values of two expressions that are about to be compared.
    fn pair(&mut self, pair: &(Expr, Expr)) -> Result<(Found, Found), EvalError> {
        let (a, b) = (self.find_value(&pair.0)?, self.find_value(&pair.1)?);
        self.look_at((a.text().len() + b.text().len()).saturating_mul(COMPARING))?;
        readable(&pair.0, &a)?;
        readable(&pair.1, &b)?;
        Ok((a, b))
    }

    fn same(&mut self, pair: &(Expr, Expr)) -> Result<bool, EvalError> {
        let (a, b) = self.pair(pair)?;
        Ok(value::equal(a.text(), b.text()))
    }

    fn order(&mut self, expr: &Expr, pair: &(Expr, Expr)) -> Result<Ordering, EvalError> {
        let (a, b) = self.pair(pair)?;
        value::order(a.text(), b.text()).ok_or_else(|| {
            let (kind_a, kind_b) = (Kind::of(a.text()), Kind::of(b.text()));
            let comparable = matches!(kind_a, Kind::Number | Kind::String);
            let wrong = if comparable { &pair.1 } else { &pair.0 };
            let message = format!(
                "'{}' compares two numbers or two strings, not {} with {}",
                expr.word(),
                kind_a.words(),
                kind_b.words()
            );
            mismatch(wrong, message)
        })
    }

    /// Counts text that is read.
    pub(super) fn look_at(&mut self, bytes: usize) -> Result<(), EvalError> {
        self.looked_at = self.looked_at.saturating_add(bytes);
        if self.looked_at <= self.bounds.looked_at {
            return Ok(());
        }
        let message = format!(
            "the expression goes through more than {} bytes of documents; compare or take out less",
            self.bounds.looked_at
        );
        Err(EvalError { code: "expression_too_costly", pointer: String::new(), message })
    }
}

/// Cost of comparing text, relative to reading past it.
const COMPARING: usize = 16;

const NOT_FOUND: &str = "path_not_found";

fn not_found(path: &str) -> EvalError {
    EvalError {
        code: NOT_FOUND,
        pointer: path.to_owned(),
        message: format!("there is nothing at '{path}'; if that may be, give it a `default`"),
    }
}

/// Checks the size of a value.
fn fits(bytes: usize, limit: usize, pointer: &str) -> Result<(), EvalError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(EvalError {
        code: "result_too_large",
        pointer: pointer.to_owned(),
        message: format!("the value has {bytes} bytes or more; {limit} are allowed"),
    })
}

/// Returns the error of a value that does not suit its operator.
fn mismatch(expr: &Expr, message: String) -> EvalError {
    let pointer = expr.looks_at().unwrap_or_default().to_owned();
    EvalError { code: "type_mismatch", pointer, message }
}

/// Refuses to look into a value that is encrypted.
fn readable(expr: &Expr, value: &Found) -> Result<(), EvalError> {
    match envelope::is_written(value.text()) {
        true => Err(encrypted(expr.looks_at().unwrap_or_default())),
        false => Ok(()),
    }
}

/// Returns the error of a path into a value that its sender encrypted.
pub(super) fn encrypted(path: &str) -> EvalError {
    let message = envelope::refusal(&format!("what stands at '{path}'"));
    EvalError { code: VALUE_ENCRYPTED, pointer: path.to_owned(), message }
}

/// Returns the value that is text put together here, out of payloads.
fn built(text: String) -> Found {
    Found::whole(Payload::trusted(text).expect("JSON put together from JSON"))
}
