//! Comparing and combining: wiring that gives booleans and lengths.

use std::ops::{BitAnd, BitOr, Not};

use backstitch_saga::Expr;

use super::{Condition, Gives, Ref};

/// Types whose JSON has an order that the expression language knows: numbers, and strings by their characters.
/// A newtype may join them when that order is its own; a decimal in a string may not.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no order that a definition can compare by",
    note = "numbers and strings have; compare anything else in a step"
)]
pub trait Ordered {}

/// Types whose JSON has a length: lists, maps, strings.
#[diagnostic::on_unimplemented(message = "the JSON of `{Self}` has no length")]
pub trait HasLength {}

impl Ordered for String {}
impl HasLength for String {}
impl<T> HasLength for Vec<T> {}
impl<K, V, S> HasLength for std::collections::HashMap<K, V, S> {}
impl<K, V> HasLength for std::collections::BTreeMap<K, V> {}

impl<T: Ordered> Ref<T> {
    /// Returns the condition `less than`.
    #[must_use]
    pub fn lt(&self, other: impl Gives<T>) -> Condition {
        self.clone().binary(other.wire(), Expr::Lt)
    }

    /// Returns the condition `less than or equal`.
    #[must_use]
    pub fn le(&self, other: impl Gives<T>) -> Condition {
        self.clone().binary(other.wire(), Expr::Le)
    }

    /// Returns the condition `greater than`.
    #[must_use]
    pub fn gt(&self, other: impl Gives<T>) -> Condition {
        self.clone().binary(other.wire(), Expr::Gt)
    }

    /// Returns the condition `greater than or equal`.
    #[must_use]
    pub fn ge(&self, other: impl Gives<T>) -> Condition {
        self.clone().binary(other.wire(), Expr::Ge)
    }
}

impl<T: HasLength> Ref<T> {
    /// Returns the number of elements of a list, members of a map, or characters of a string.
    #[must_use]
    pub fn length(&self) -> Ref<u64> {
        let (expr, faults) = self.clone().finish();
        Ref::computed(Expr::Length(Box::new(expr)), faults)
    }
}

impl Ref<bool> {
    /// Returns a condition that both hold.
    #[must_use]
    pub fn and(self, other: impl Gives<bool>) -> Condition {
        join(self, other.wire(), true)
    }

    /// Returns a condition that at least one holds.
    #[must_use]
    pub fn or(self, other: impl Gives<bool>) -> Condition {
        join(self, other.wire(), false)
    }
}

/// Joins two conditions, into the list of the first when that is one already.
fn join(first: Condition, second: Condition, and: bool) -> Condition {
    let (first, mut faults) = first.finish();
    let (second, more) = second.finish();
    faults.extend(more);
    let expr = match (first, and) {
        (Expr::And(mut all), true) => {
            all.push(second);
            Expr::And(all)
        }
        (Expr::Or(mut any), false) => {
            any.push(second);
            Expr::Or(any)
        }
        (first, true) => Expr::And(vec![first, second]),
        (first, false) => Expr::Or(vec![first, second]),
    };
    Ref::computed(expr, faults)
}

impl Not for Ref<bool> {
    type Output = Condition;

    fn not(self) -> Condition {
        let (expr, faults) = self.finish();
        Ref::computed(Expr::Not(Box::new(expr)), faults)
    }
}

impl<C: Gives<bool>> BitAnd<C> for Ref<bool> {
    type Output = Condition;

    fn bitand(self, other: C) -> Condition {
        self.and(other)
    }
}

impl<C: Gives<bool>> BitOr<C> for Ref<bool> {
    type Output = Condition;

    fn bitor(self, other: C) -> Condition {
        self.or(other)
    }
}
