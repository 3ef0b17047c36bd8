//! Structs made of wiring: what [`wire!`](crate::wire!) expands to.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use backstitch_saga::Expr;
use schemars::JsonSchema;
use schemars::generate::Contract;

use super::{Gives, Ref};
use crate::schema;

/// One member of a struct that [`wire!`](crate::wire) builds.
#[doc(hidden)]
pub struct Member<T> {
    name: &'static str,
    value: Ref<T>,
}

impl<T> Member<T> {
    /// Begins a member; which type it must have follows from the struct.
    pub fn new(name: &'static str, value: impl Gives<T>) -> Member<T> {
        Member { name, value: value.wire() }
    }

    /// Returns a placeholder for the struct expression that is compiled and never run.
    #[must_use]
    pub fn never(&self) -> T {
        unreachable!("wiring is data; the proof of its types is never run")
    }

    /// Returns the member without its type.
    #[must_use]
    pub fn untyped(self) -> (&'static str, Expr, Vec<String>) {
        let (expr, faults) = self.value.finish();
        (self.name, expr, faults)
    }
}

/// Returns the type of the struct that a proof would build.
#[doc(hidden)]
pub fn proven<T>(_proof: impl FnOnce() -> T) -> PhantomData<T> {
    PhantomData
}

/// Expansion of [`wire!`](crate::wire).
#[doc(hidden)]
#[must_use]
pub fn object<T: JsonSchema>(
    _type: PhantomData<T>,
    members: Vec<(&'static str, Expr, Vec<String>)>,
) -> Ref<T> {
    let mut object = BTreeMap::new();
    let mut faults = Vec::new();
    for (field, expr, more) in members {
        faults.extend(more);
        match schema::properties::<T>(&Contract::Deserialize, &[field]) {
            Ok(mut properties) => {
                object.extend(properties.pop().map(|property| (property.name, expr)));
            }
            Err(fault) => faults.push(fault),
        }
    }
    Ref::computed(Expr::Object(object), faults)
}
