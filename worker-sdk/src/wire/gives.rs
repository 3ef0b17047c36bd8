//! Values that can be wired to a place of a type: references of that type, and plain values of common
//! types.

use backstitch_saga::{Expr, Payload};
use serde::Serialize;

use super::{Item, Ordered, Ref};

/// Something that can be wired to where a `T` is needed.
#[diagnostic::on_unimplemented(
    message = "this wiring does not give a `{T}`",
    label = "a `{T}` is needed here, this is `{Self}`",
    note = "take a field with `field!(..)`, build a struct with `wire!(..)`, or use `constant(..)`",
    note = "an optional value (`.maybe()`, a field behind `?`) fits an `Option`; elsewhere write `.unwrap_or(..)` after it"
)]
pub trait Gives<T> {
    /// Returns the wiring itself.
    fn wire(self) -> Ref<T>;
}

/// Returns a value written into the definition.
pub fn constant<T: Serialize>(value: T) -> Ref<T> {
    let (value, faults) = match Payload::of(&value) {
        Ok(value) => (value, Vec::new()),
        Err(error) => (Payload::null(), vec![format!("a constant has no JSON: {error}")]),
    };
    Ref::computed(Expr::Const(value), faults)
}

/// Returns a list built element by element.
///
/// ```
/// # use backstitch_sdk::{Ref, field, list};
/// # #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// # struct Trip { outward: String, back: String }
/// # fn wiring(trip: Ref<Trip>) {
/// let flights: Ref<Vec<String>> = list([field!(trip.outward), field!(trip.back)]);
/// # }
/// ```
pub fn list<T, G: Gives<T>>(elements: impl IntoIterator<Item = G>) -> Ref<Vec<T>> {
    let mut faults = Vec::new();
    let elements = elements.into_iter().map(|element| {
        let (expr, more) = element.wire().finish();
        faults.extend(more);
        expr
    });
    let elements = elements.collect();
    Ref::computed(Expr::Array(elements), faults)
}

impl<T> Gives<T> for Ref<T> {
    fn wire(self) -> Ref<T> {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<T> Gives<T> for &Ref<T> {
    fn wire(self) -> Ref<T> {
        self.clone()
    }
}

#[diagnostic::do_not_recommend]
impl<T> Gives<Option<T>> for Ref<T> {
    fn wire(self) -> Ref<Option<T>> {
        self.cast()
    }
}

#[diagnostic::do_not_recommend]
impl<T> Gives<Option<T>> for &Ref<T> {
    fn wire(self) -> Ref<Option<T>> {
        self.clone().cast()
    }
}

#[diagnostic::do_not_recommend]
impl<T> Gives<T> for Item<T> {
    fn wire(self) -> Ref<T> {
        self.place
    }
}

#[diagnostic::do_not_recommend]
impl<T> Gives<T> for &Item<T> {
    fn wire(self) -> Ref<T> {
        self.place.clone()
    }
}

#[diagnostic::do_not_recommend]
impl Gives<String> for &str {
    fn wire(self) -> Ref<String> {
        constant(self).cast()
    }
}

#[diagnostic::do_not_recommend]
impl Gives<Option<String>> for &str {
    fn wire(self) -> Ref<Option<String>> {
        constant(self).cast()
    }
}

macro_rules! plain {
    ($($plain:ty),*) => {
        $(
            #[diagnostic::do_not_recommend]
            impl Gives<$plain> for $plain {
                fn wire(self) -> Ref<$plain> {
                    constant(self)
                }
            }

            #[diagnostic::do_not_recommend]
            impl Gives<Option<$plain>> for $plain {
                fn wire(self) -> Ref<Option<$plain>> {
                    constant(Some(self))
                }
            }
        )*
    };
}

macro_rules! number {
    ($($number:ty),*) => {
        plain!($($number),*);
        $(impl Ordered for $number {})*
    };
}

plain!((), bool, String);
number!(i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);
