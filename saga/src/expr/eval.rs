//! What an expression is worth, given the outputs so far.

use std::cmp::Ordering;
use std::fmt;

use super::{Expr, Root};
use crate::json::{self, Kind};
use crate::{Payload, value};

/// The document that expressions are evaluated over, part by part, as far as it is asked for.
pub trait Scope {
    /// The run's input.
    fn input(&self) -> Payload;

    /// The output of a step; `None` when it has none (not begun, failed, skipped).
    fn step(&self, id: &str) -> Option<Payload>;

    /// The number of elements in the output of a map step, told without building it; `None` for anything else.
    fn step_len(&self, id: &str) -> Option<usize>;

    /// The element that this is about, inside a map.
    fn item(&self) -> Option<Payload>;

    /// Its index, inside a map.
    fn index(&self) -> Option<u32>;
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError {
    /// Stable: `path_not_found`, `type_mismatch` or `result_too_large`.
    pub code: &'static str,
    /// The path in the run's document that it is about, such as `/steps/payment/id`; empty when it is about none.
    pub pointer: String,
    /// What is wrong, for people.
    pub message: String,
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for EvalError {}

impl Expr {
    /// The most that an expression may build, in bytes. A lone path may find more than that.
    pub const RESULT_LIMIT: usize = 16 * 1024 * 1024;

    /// The expression's value. What a path finds is passed on byte for byte; a path to a whole input, output or
    /// item is that same payload.
    ///
    /// # Errors
    /// `path_not_found` when a path finds nothing, outside `exists` and the first part of `default`;
    /// `type_mismatch` when an operator gets what it has no meaning for; `result_too_large` when an object or list
    /// grows over [`Expr::RESULT_LIMIT`].
    pub fn eval(&self, scope: &dyn Scope) -> Result<Payload, EvalError> {
        match self {
            Expr::Path(path) => find(path, scope).ok_or_else(|| not_found(path)),
            Expr::Const(value) => Ok(value.clone()),
            Expr::Default(pair) => match pair.0.eval(scope) {
                Ok(value) if !value.is_null() => Ok(value),
                Err(error) if error.code != NOT_FOUND => Err(error),
                _ => pair.1.eval(scope),
            },
            Expr::Object(_) | Expr::Array(_) => {
                let mut text = String::new();
                self.write(scope, &mut text)?;
                Ok(built(text))
            }
            Expr::Length(of) => length(of, scope).map(|length| built(length.to_string())),
            _ => self.test(scope).map(|truth| built(truth.to_string())),
        }
    }

    /// The expression's value as a truth, for guards. `and` and `or` look at their parts in order and stop as soon
    /// as they know.
    ///
    /// # Errors
    /// As [`Expr::eval`], and `type_mismatch` when the value is neither `true` nor `false`.
    pub fn test(&self, scope: &dyn Scope) -> Result<bool, EvalError> {
        match self {
            Expr::Eq(pair) => same(pair, scope),
            Expr::Ne(pair) => same(pair, scope).map(|same| !same),
            Expr::Lt(pair) => order(self, pair, scope).map(Ordering::is_lt),
            Expr::Le(pair) => order(self, pair, scope).map(Ordering::is_le),
            Expr::Gt(pair) => order(self, pair, scope).map(Ordering::is_gt),
            Expr::Ge(pair) => order(self, pair, scope).map(Ordering::is_ge),
            Expr::And(list) => all(list, true, scope),
            Expr::Or(list) => all(list, false, scope).map(|none| !none),
            Expr::Not(expr) => expr.test(scope).map(|truth| !truth),
            Expr::Exists(path) => Ok(exists(path, scope)),
            _ => match self.eval(scope)?.text() {
                "true" => Ok(true),
                "false" => Ok(false),
                other => Err(mismatch(
                    self,
                    format!("expected true or false, found {}", Kind::of(other).words()),
                )),
            },
        }
    }

    /// Appends the expression's value to `out`.
    fn write(&self, scope: &dyn Scope, out: &mut String) -> Result<(), EvalError> {
        match self {
            Expr::Object(members) => {
                out.push('{');
                for (index, (key, expr)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    value::push_string(out, key);
                    out.push(':');
                    expr.write(scope, out)?;
                }
                out.push('}');
            }
            Expr::Array(list) => {
                out.push('[');
                for (index, expr) in list.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    expr.write(scope, out)?;
                }
                out.push(']');
            }
            Expr::Path(path) => {
                let (root, rest) = root(path, scope).ok_or_else(|| not_found(path))?;
                out.push_str(json::find(root.text(), rest).ok_or_else(|| not_found(path))?);
            }
            _ => out.push_str(self.eval(scope)?.text()),
        }
        if out.len() <= Expr::RESULT_LIMIT {
            return Ok(());
        }
        Err(EvalError {
            code: "result_too_large",
            pointer: self.looks_at().unwrap_or_default().to_owned(),
            message: format!("the value has more than {} bytes", Expr::RESULT_LIMIT),
        })
    }
}

const NOT_FOUND: &str = "path_not_found";

fn not_found(path: &str) -> EvalError {
    EvalError {
        code: NOT_FOUND,
        pointer: path.to_owned(),
        message: format!("there is nothing at '{path}'; if that may be, give it a `default`"),
    }
}

/// What `expr` is worth is not what its operator needs.
fn mismatch(expr: &Expr, message: String) -> EvalError {
    let pointer = expr.looks_at().unwrap_or_default().to_owned();
    EvalError { code: "type_mismatch", pointer, message }
}

/// The payload of text that was put together here, out of payloads.
fn built(text: String) -> Payload {
    Payload::trusted(text).expect("JSON put together from JSON")
}

/// The payload that a path begins at, with the reference tokens that lead on from there.
fn root<'a>(path: &'a str, scope: &dyn Scope) -> Option<(Payload, &'a str)> {
    let root = Root::of(path)?;
    let payload = match root {
        Root::Input(_) => scope.input(),
        Root::Step(id, _) => scope.step(id)?,
        Root::Item(_) => scope.item()?,
        Root::Index => built(scope.index()?.to_string()),
    };
    Some((payload, root.rest()))
}

fn find(path: &str, scope: &dyn Scope) -> Option<Payload> {
    let (root, rest) = root(path, scope)?;
    root.find(rest)
}

fn exists(path: &str, scope: &dyn Scope) -> bool {
    match Root::of(path) {
        Some(Root::Step(id, "")) if scope.step_len(id).is_some() => true,
        _ => root(path, scope).is_some_and(|(root, rest)| json::find(root.text(), rest).is_some()),
    }
}

fn length(of: &Expr, scope: &dyn Scope) -> Result<usize, EvalError> {
    if let Expr::Path(path) = of
        && let Some(Root::Step(id, "")) = Root::of(path)
        && let Some(length) = scope.step_len(id)
    {
        return Ok(length);
    }
    let value = of.eval(scope)?;
    value::length(value.text()).ok_or_else(|| {
        let found = Kind::of(value.text()).words();
        mismatch(of, format!("a list, an object and a string have a length; {found} has none"))
    })
}

/// Whether all of `list` are `wanted`.
fn all(list: &[Expr], wanted: bool, scope: &dyn Scope) -> Result<bool, EvalError> {
    for expr in list {
        if expr.test(scope)? != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same(pair: &(Expr, Expr), scope: &dyn Scope) -> Result<bool, EvalError> {
    Ok(value::equal(pair.0.eval(scope)?.text(), pair.1.eval(scope)?.text()))
}

fn order(expr: &Expr, pair: &(Expr, Expr), scope: &dyn Scope) -> Result<Ordering, EvalError> {
    let (a, b) = (pair.0.eval(scope)?, pair.1.eval(scope)?);
    value::order(a.text(), b.text()).ok_or_else(|| {
        let (kind_a, kind_b) = (Kind::of(a.text()), Kind::of(b.text()));
        let wrong = if matches!(kind_a, Kind::Number | Kind::String) { &pair.1 } else { &pair.0 };
        let message = format!(
            "'{}' compares two numbers or two strings, not {} with {}",
            expr.word(),
            kind_a.words(),
            kind_b.words()
        );
        mismatch(wrong, message)
    })
}
