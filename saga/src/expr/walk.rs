//! Takes expressions apart without evaluating them: which paths they look at, and what of the run these name.

use super::Expr;
use crate::json::push_token;

/// A step whose output an expression looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// The step's id.
    pub step: &'a str,
    /// Whether the expression has no value without that output: it stands neither in `exists` nor in the first
    /// part of `default`.
    pub required: bool,
}

/// The part of a run's document that a path begins at, and the reference tokens that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root<'a> {
    Input(&'a str),
    Step(&'a str, &'a str),
    Item(&'a str),
    Index,
}

impl<'a> Root<'a> {
    /// Takes a path apart; `None` when it can never find anything.
    pub(crate) fn of(path: &'a str) -> Option<Root<'a>> {
        let path = path.strip_prefix('/')?;
        let (head, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
        match head {
            "input" => Some(Root::Input(rest)),
            "item" => Some(Root::Item(rest)),
            "index" if rest.is_empty() => Some(Root::Index),
            "steps" => {
                let rest = rest.strip_prefix('/')?;
                let (step, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                Some(Root::Step(step, rest))
            }
            _ => None,
        }
    }

    /// The reference tokens behind the root, empty or beginning with a slash.
    pub(crate) fn rest(self) -> &'a str {
        match self {
            Root::Input(rest) | Root::Step(_, rest) | Root::Item(rest) => rest,
            Root::Index => "",
        }
    }
}

/// A place in an expression.
pub(crate) struct Place<'p> {
    /// JSON Pointer to it.
    pub(crate) pointer: &'p str,
    /// How many expressions enclose it.
    pub(crate) depth: usize,
    /// Whether the whole has no value when this part has none.
    pub(crate) required: bool,
}

impl Expr {
    /// The paths that the expression looks at which lead into steps, in order, with repetitions.
    #[must_use]
    pub fn references(&self) -> Vec<Reference<'_>> {
        let mut found = Vec::new();
        self.walk("", &mut |expr, place| {
            if let Some(Root::Step(step, _)) = expr.looks_at().and_then(Root::of) {
                let required = place.required && !matches!(expr, Expr::Exists(_));
                found.push(Reference { step, required });
            }
        });
        found
    }

    /// The path, when the expression is nothing but one that names the run's input, a step's output or the map's
    /// item as a whole: `/input`, `/steps/a`, `/item`.
    #[must_use]
    pub fn whole(&self) -> Option<&str> {
        let Expr::Path(path) = self else { return None };
        match Root::of(path)? {
            Root::Index => None,
            root => root.rest().is_empty().then_some(path.as_str()),
        }
    }

    /// The path that this operator looks at itself.
    pub(crate) fn looks_at(&self) -> Option<&str> {
        match self {
            Expr::Path(path) | Expr::Exists(path) => Some(path),
            _ => None,
        }
    }

    /// Shows `visit` this expression, which stands at `pointer`, and all within it, outer before inner.
    pub(crate) fn walk<'a>(&'a self, pointer: &str, visit: &mut dyn FnMut(&'a Expr, &Place<'_>)) {
        let mut pointer = pointer.to_owned();
        self.walk_within(&mut pointer, 0, true, visit);
    }

    fn walk_within<'a>(
        &'a self,
        pointer: &mut String,
        depth: usize,
        required: bool,
        visit: &mut dyn FnMut(&'a Expr, &Place<'_>),
    ) {
        visit(self, &Place { pointer, depth, required });
        let kept = pointer.len();
        let mut inner = |tokens: [&str; 2], expr: &'a Expr, required: bool| {
            tokens
                .iter()
                .filter(|token| !token.is_empty())
                .for_each(|token| push_token(pointer, token));
            expr.walk_within(pointer, depth + 1, required, visit);
            pointer.truncate(kept);
        };
        let word = self.word();
        match self {
            Expr::Path(_) | Expr::Const(_) | Expr::Exists(_) => {}
            Expr::Object(members) => {
                members.iter().for_each(|(key, expr)| inner([word, key], expr, required));
            }
            Expr::Array(list) | Expr::And(list) | Expr::Or(list) => {
                for (index, expr) in list.iter().enumerate() {
                    inner([word, &index.to_string()], expr, required);
                }
            }
            Expr::Not(expr) | Expr::Length(expr) => inner([word, ""], expr, required),
            Expr::Default(pair) => {
                inner([word, "0"], &pair.0, false);
                inner([word, "1"], &pair.1, required);
            }
            Expr::Eq(pair)
            | Expr::Ne(pair)
            | Expr::Lt(pair)
            | Expr::Le(pair)
            | Expr::Gt(pair)
            | Expr::Ge(pair) => {
                inner([word, "0"], &pair.0, required);
                inner([word, "1"], &pair.1, required);
            }
        }
    }

    /// The operator, as it is written.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Expr::Path(_) => "path",
            Expr::Const(_) => "const",
            Expr::Object(_) => "object",
            Expr::Array(_) => "array",
            Expr::Eq(_) => "eq",
            Expr::Ne(_) => "ne",
            Expr::Lt(_) => "lt",
            Expr::Le(_) => "le",
            Expr::Gt(_) => "gt",
            Expr::Ge(_) => "ge",
            Expr::And(_) => "and",
            Expr::Or(_) => "or",
            Expr::Not(_) => "not",
            Expr::Exists(_) => "exists",
            Expr::Length(_) => "length",
            Expr::Default(_) => "default",
        }
    }
}
