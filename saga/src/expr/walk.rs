//! Takes expressions apart without evaluating them: which paths they look at, and what of the run these name.

use std::borrow::Cow;

use super::Expr;
use crate::json::{Kind, push_token};

/// A step whose output an expression uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// The step's id.
    pub step: &'a str,
    /// `true` if the expression has no value without that output: it is neither in `exists` nor in the first
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

    /// Returns the reference tokens behind the root, empty or beginning with a slash.
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
    /// Number of expressions that enclose it.
    pub(crate) depth: usize,
    /// `true` if the whole has no value when this part has none.
    pub(crate) required: bool,
    /// The kinds of values that mean something there; any when empty.
    pub(crate) wanted: &'static [Kind],
}

/// Kinds of values that can be a condition.
pub(crate) const TRUTH: &[Kind] = &[Kind::Bool];
/// Kinds of values that can be ordered.
const ORDERED: &[Kind] = &[Kind::Number, Kind::String];
/// Kinds of values that have a length.
const LONG: &[Kind] = &[Kind::Array, Kind::Object, Kind::String];

impl Expr {
    /// Returns the paths of the expression that lead into steps, in order, with repetitions.
    #[must_use]
    pub fn references(&self) -> Vec<Reference<'_>> {
        let mut found = Vec::new();
        self.walk("", &[], &mut |expr, place| {
            if let Some(Root::Step(step, _)) = expr.looks_at().and_then(Root::of) {
                let required = place.required && !matches!(expr, Expr::Exists(_));
                found.push(Reference { step, required });
            }
        });
        found
    }

    /// Returns the path, when the expression is nothing but one that names the run's input, a step's output or the
    /// map's item as a whole: `/input`, `/steps/a`, `/item`.
    #[must_use]
    pub fn whole(&self) -> Option<&str> {
        self.whole_root().map(|(path, _)| path)
    }

    /// Returns the same path, taken apart.
    pub(crate) fn whole_root(&self) -> Option<(&str, Root<'_>)> {
        let Expr::Path(path) = self else { return None };
        match Root::of(path)? {
            Root::Index => None,
            root => root.rest().is_empty().then_some((path.as_str(), root)),
        }
    }

    /// Returns the path that this operator itself reads.
    pub(crate) fn looks_at(&self) -> Option<&str> {
        match self {
            Expr::Path(path) | Expr::Exists(path) => Some(path),
            _ => None,
        }
    }

    /// Returns the kind of value that the expression has, if it is known without evaluating it.
    pub(crate) fn kind(&self) -> Option<Kind> {
        match self {
            Expr::Path(_) | Expr::Default(_) => None,
            Expr::Const(value) => Some(Kind::of(value.text())),
            Expr::Object(_) => Some(Kind::Object),
            Expr::Array(_) => Some(Kind::Array),
            Expr::Length(_) => Some(Kind::Number),
            _ => Some(Kind::Bool),
        }
    }

    /// Returns the expressions that this operator works on, each with the reference token that leads there, if it has
    /// more than one.
    fn parts(&self) -> Vec<(Cow<'_, str>, &Expr)> {
        match self {
            Expr::Path(_) | Expr::Const(_) | Expr::Exists(_) => Vec::new(),
            Expr::Object(members) => {
                members.iter().map(|(key, expr)| (Cow::Borrowed(key.as_str()), expr)).collect()
            }
            Expr::Array(list) | Expr::And(list) | Expr::Or(list) => {
                let indexed = list.iter().enumerate();
                indexed.map(|(index, expr)| (Cow::Owned(index.to_string()), expr)).collect()
            }
            Expr::Not(expr) | Expr::Length(expr) => vec![(Cow::Borrowed(""), expr)],
            Expr::Eq(pair)
            | Expr::Ne(pair)
            | Expr::Lt(pair)
            | Expr::Le(pair)
            | Expr::Gt(pair)
            | Expr::Ge(pair)
            | Expr::Default(pair) => {
                vec![(Cow::Borrowed("0"), &pair.0), (Cow::Borrowed("1"), &pair.1)]
            }
        }
    }

    /// Calls `visit` for this expression, which is at `pointer` and should have one of the kinds `wanted`, and for
    /// all within it, outer before inner.
    pub(crate) fn walk<'a>(
        &'a self,
        pointer: &str,
        wanted: &'static [Kind],
        visit: &mut dyn FnMut(&'a Expr, &Place<'_>),
    ) {
        self.walk_from(&Place { pointer, depth: 0, required: true, wanted }, visit);
    }

    fn walk_from<'a>(&'a self, place: &Place<'_>, visit: &mut dyn FnMut(&'a Expr, &Place<'_>)) {
        visit(self, place);
        for (index, (token, part)) in self.parts().into_iter().enumerate() {
            let mut pointer = format!("{}/{}", place.pointer, self.word());
            if !matches!(self, Expr::Not(_) | Expr::Length(_)) {
                push_token(&mut pointer, &token);
            }
            let wanted = match self {
                Expr::And(_) | Expr::Or(_) | Expr::Not(_) => TRUTH,
                Expr::Lt(_) | Expr::Le(_) | Expr::Gt(_) | Expr::Ge(_) => ORDERED,
                Expr::Length(_) => LONG,
                Expr::Default(_) if index == 1 => place.wanted,
                _ => &[],
            };
            let required = place.required && !(matches!(self, Expr::Default(_)) && index == 0);
            let inner = Place { pointer: &pointer, depth: place.depth + 1, required, wanted };
            part.walk_from(&inner, visit);
        }
    }

    /// Returns the operator, as it is written.
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
