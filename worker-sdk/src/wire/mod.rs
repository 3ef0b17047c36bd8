//! Typed wiring: where the values that a step needs will come from.
//!
//! A [`Ref<T>`] is an expression of the definition (data, evaluated by the server while the run moves) of which the
//! compiler knows that it gives a `T`. There is no logic here beyond what the expression language has; anything
//! cleverer is a step.

mod condition;
mod gives;
mod object;

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::rc::Rc;

use backstitch_saga::{Expr, Payload};
use schemars::JsonSchema;
use schemars::generate::Contract;

pub use condition::{HasLength, Ordered};
pub use gives::{Gives, constant, list};
pub use object::{Member, object, proven};

use crate::schema;

/// The origin of a value of type `T` in a run: the input, a step's output, a map's item, a constant, or a
/// combination of these. Made by [`Saga`](crate::Saga), [`field!`](crate::field), [`wire!`](crate::wire) and
/// [`constant`].
pub struct Ref<T> {
    expr: Expr,
    /// The value in place of one that its document leaves out.
    fallback: Option<Payload>,
    /// The schema to use: documents that anyone may send, or documents that a handler wrote.
    contract: Contract,
    /// Mistakes in it, reported when the workflow is built.
    faults: Vec<String>,
    gives: PhantomData<fn() -> T>,
}

/// A condition is wiring that gives a boolean.
pub type Condition = Ref<bool>;

impl<T> Ref<T> {
    pub(crate) fn path(pointer: impl Into<String>, contract: Contract) -> Ref<T> {
        Ref::of(Expr::path(pointer), contract, Vec::new())
    }

    fn of(expr: Expr, contract: Contract, faults: Vec<String>) -> Ref<T> {
        Ref { expr, fallback: None, contract, faults, gives: PhantomData }
    }

    fn computed(expr: Expr, faults: Vec<String>) -> Ref<T> {
        Ref::of(expr, Contract::Deserialize, faults)
    }

    fn cast<U>(self) -> Ref<U> {
        Ref {
            expr: self.expr,
            fallback: self.fallback,
            contract: self.contract,
            faults: self.faults,
            gives: PhantomData,
        }
    }

    /// Returns the expression as it goes into the definition, and what is wrong with it.
    pub(crate) fn finish(self) -> (Expr, Vec<String>) {
        let expr = match self.fallback {
            None => self.expr,
            Some(value) => Expr::Default(Box::new((self.expr, Expr::Const(value)))),
        };
        (expr, self.faults)
    }

    fn binary<A, B>(
        self,
        other: Ref<B>,
        operator: impl FnOnce(Box<(Expr, Expr)>) -> Expr,
    ) -> Ref<A> {
        let (left, mut faults) = self.finish();
        let (right, more) = other.finish();
        faults.extend(more);
        Ref::computed(operator(Box::new((left, right))), faults)
    }

    /// Returns the expression, to look at.
    #[must_use]
    pub fn expr(&self) -> Expr {
        self.clone().finish().0
    }

    /// Holds if both sides are the same value.
    #[must_use]
    pub fn eq(&self, other: impl Gives<T>) -> Condition {
        self.clone().binary(other.wire(), Expr::Eq)
    }

    /// Returns a condition that the two sides differ.
    #[must_use]
    pub fn ne(&self, other: impl Gives<T>) -> Condition {
        self.clone().binary(other.wire(), Expr::Ne)
    }

    /// Returns a condition that the value exists: a step was not skipped, an optional field was given.
    #[must_use]
    pub fn exists(&self) -> Condition {
        let mut faults = self.faults.clone();
        let pointer = match &self.expr {
            Expr::Path(pointer) => pointer.clone(),
            other => {
                faults.push(format!("`exists` needs a place in a document, not {}", shown(other)));
                String::new()
            }
        };
        Ref::computed(Expr::Exists(pointer), faults)
    }

    /// Returns the value, or none if its step was skipped or failed, or its field was left out. A step that uses
    /// it is then no longer skipped.
    #[must_use]
    pub fn maybe(&self) -> Ref<Option<T>> {
        let mut maybe = self.clone().cast::<Option<T>>();
        maybe.fallback.get_or_insert_with(Payload::null);
        maybe
    }

    /// Returns a place that [`field!`](crate::field) cannot name, by JSON Pointer from here:
    /// `order.at::<u32>("/lines/0/quantity")`. It is checked when the workflow is built that the place can exist; the
    /// caller vouches that it has a `U`.
    #[must_use]
    pub fn at<U>(&self, pointer: &str) -> Ref<U>
    where
        T: JsonSchema,
    {
        let mut place = self.clone().cast::<U>();
        if !pointer.starts_with('/') || !schema::has_place::<T>(&self.contract, pointer) {
            place.faults.push(format!("`{}` has no place '{pointer}'", std::any::type_name::<T>()));
        }
        let tokens = pointer.split('/').skip(1).map(str::to_owned);
        for token in tokens {
            place = place.member(&token);
        }
        place
    }

    /// Expansion of [`field!`](crate::field). `proof` is never called; it makes the compiler check the path.
    #[doc(hidden)]
    #[must_use]
    pub fn project<U>(&self, path: &[&str], _proof: fn(&T) -> &U) -> Ref<U>
    where
        T: JsonSchema,
    {
        let mut place = self.clone().cast::<U>();
        match schema::properties::<T>(&self.contract, path) {
            Ok(properties) => {
                for property in properties {
                    place = place.member(&property.name.replace('~', "~0").replace('/', "~1"));
                    if let Some(value) = property.fallback {
                        place = place.with_fallback(&value);
                    }
                }
            }
            Err(fault) => place.faults.push(fault),
        }
        place
    }

    fn with_fallback(mut self, value: &serde_json::Value) -> Ref<T> {
        match Payload::of(value) {
            Ok(value) => self.fallback = Some(value),
            Err(error) => self.faults.push(format!("a default has no JSON: {error}")),
        }
        self
    }

    /// Goes one step down, by an escaped pointer token.
    fn member(mut self, token: &str) -> Ref<T> {
        if let Some(value) = self.fallback.take() {
            self.fallback = member_of(&value, token);
        }
        self.expr = match self.expr {
            Expr::Path(pointer) => Expr::Path(format!("{pointer}/{token}")),
            Expr::Object(mut members) => {
                let name = token.replace("~1", "/").replace("~0", "~");
                members.remove(&name).unwrap_or_else(|| Expr::Const(Payload::null()))
            }
            other => {
                self.faults.push(format!(
                    "`{token}` is no place, because what it is taken of is computed ({}); take the field first: \
                     `field!(step.{token}).maybe()`, `field!(step.{token}).maybe().unwrap_or(..)`",
                    shown(&other)
                ));
                other
            }
        };
        self
    }
}

/// Formats an expression as in a definition.
fn shown(expr: &Expr) -> String {
    serde_json::to_string(expr).unwrap_or_default()
}

/// Returns the member of a constant; `None` when there is none.
fn member_of(value: &Payload, token: &str) -> Option<Payload> {
    let value: serde_json::Value = value.to().ok()?;
    if value.is_null() {
        return Some(Payload::null());
    }
    value.pointer(&format!("/{token}")).and_then(|member| Payload::of(member).ok())
}

impl<T> Ref<Option<T>> {
    /// Returns the value if there is one, else `default`.
    #[must_use]
    pub fn unwrap_or(&self, default: impl Gives<T>) -> Ref<T> {
        let mut value = self.clone();
        value.fallback = None;
        value.binary(default.wire(), Expr::Default)
    }

    /// Holds if there is a value.
    #[must_use]
    pub fn is_some(&self) -> Condition {
        self.maybe().binary::<bool, ()>(Ref::constant_null(), Expr::Ne)
    }

    /// Holds if there is no value.
    #[must_use]
    pub fn is_none(&self) -> Condition {
        self.maybe().binary::<bool, ()>(Ref::constant_null(), Expr::Eq)
    }

    /// Expansion of [`field!`](crate::field) behind a `?`.
    #[doc(hidden)]
    #[must_use]
    pub fn project_some<U>(&self, path: &[&str], proof: fn(&T) -> &U) -> Ref<Option<U>>
    where
        T: JsonSchema,
    {
        self.clone().cast::<T>().project(path, proof).maybe()
    }
}

impl<T> Ref<Option<Option<T>>> {
    /// Returns `None` if there is no value at either level; in JSON both are `null`.
    #[must_use]
    pub fn flatten(&self) -> Ref<Option<T>> {
        self.clone().cast()
    }
}

impl Ref<()> {
    fn constant_null() -> Ref<()> {
        Ref::computed(Expr::Const(Payload::null()), Vec::new())
    }
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        Ref {
            expr: self.expr.clone(),
            fallback: self.fallback.clone(),
            contract: self.contract.clone(),
            faults: self.faults.clone(),
            gives: PhantomData,
        }
    }
}

impl<T> std::fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.expr().fmt(f)
    }
}

/// The item that a map is at. It is a [`Ref`] to the item, and knows its index.
pub struct Item<T> {
    place: Ref<T>,
    key: Rc<RefCell<Option<Ref<String>>>>,
}

impl<T> Item<T> {
    pub(crate) fn new(contract: Contract) -> Item<T> {
        Item { place: Ref::path("/item", contract), key: Rc::default() }
    }

    /// Names the text by which each item is known: in views, to its worker
    /// ([`TaskContext::item_key`](crate::TaskContext::item_key)), and to the target, through the effect key. When two
    /// items have the same, the step fails before anything is done for any of them.
    ///
    /// ```
    /// # use backstitch_sdk::{Item, Ref, field};
    /// # #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    /// # struct Line { sku: String }
    /// # let _ =
    /// |line: Item<Line>| {
    ///     line.key(field!(line.sku));
    ///     line
    /// }
    /// # ;
    /// ```
    pub fn key(&self, key: impl Gives<String>) {
        *self.key.borrow_mut() = Some(key.wire());
    }

    /// Returns the place where the key will be named.
    pub(crate) fn named(&self) -> Rc<RefCell<Option<Ref<String>>>> {
        Rc::clone(&self.key)
    }

    /// Returns the item's place in the list, from 0.
    #[must_use]
    pub fn index(&self) -> Ref<u32> {
        Ref::path("/index", Contract::Serialize)
    }
}

impl<T> Deref for Item<T> {
    type Target = Ref<T>;

    fn deref(&self) -> &Ref<T> {
        &self.place
    }
}

impl<T> Ref<Vec<T>> {
    pub(crate) fn item(&self) -> Item<T> {
        Item::new(self.contract.clone())
    }
}
