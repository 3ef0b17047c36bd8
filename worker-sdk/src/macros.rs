//! The two macros of the builder. They only rearrange tokens: what they promise, the compiler checks.

/// A field of the input, of a step's output or of an item, as a [`Ref`](crate::Ref) of the field's type.
///
/// ```
/// # use backstitch_sdk::{Ref, field};
/// # use serde::{Serialize, Deserialize};
/// # use schemars::JsonSchema;
/// #[derive(Serialize, Deserialize, JsonSchema)]
/// struct Order { customer: Customer, gift: Option<Gift> }
/// #[derive(Serialize, Deserialize, JsonSchema)]
/// struct Customer { id: String }
/// #[derive(Serialize, Deserialize, JsonSchema)]
/// struct Gift { message: String }
///
/// # fn wiring(order: Ref<Order>) {
/// let id: Ref<String> = field!(order.customer.id);
/// let message: Ref<Option<String>> = field!(order.gift?.message);
/// # }
/// ```
/// Of what may be missing, such as the output of a step that may be skipped, it takes a field behind `?` as well:
/// ```
/// # use backstitch_sdk::{Ref, field};
/// # #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// # struct Payment { authorization: String }
/// # fn wiring(payment: Ref<Payment>) {
/// let perhaps: Ref<Option<Payment>> = payment.maybe();
/// let number: Ref<Option<String>> = field!(perhaps?.authorization);
/// let number: Ref<String> = field!(perhaps?.authorization).unwrap_or("none");
/// # }
/// ```
/// A field that does not exist does not compile:
/// ```compile_fail
/// # use backstitch_sdk::{Ref, field};
/// # #[derive(schemars::JsonSchema)]
/// # struct Order { customer: String }
/// # fn wiring(order: Ref<Order>) {
/// let _ = field!(order.custmer);
/// # }
/// ```
/// Behind a `?` everything is optional. What serde's `rename_all` does to names is followed; a field that serde
/// renames by itself, flattens or skips is told when the workflow is built.
#[macro_export]
macro_rules! field {
    ($root:ident ? . $($path:tt)+) => {
        $crate::__field!(@some ($root) [] $($path)+)
    };
    ($root:ident . $($path:tt)+) => {
        $crate::__field!(@first ($root) [] $($path)+)
    };
}

/// Splits a path at each `?`.
#[doc(hidden)]
#[macro_export]
macro_rules! __field {
    (@first ($from:expr) [$($seen:ident)*] $field:ident) => {
        $from.project(&[$(stringify!($seen),)* stringify!($field)], |it| &it $(.$seen)* .$field)
    };
    (@first ($from:expr) [$($seen:ident)*] $field:ident . $($rest:tt)+) => {
        $crate::__field!(@first ($from) [$($seen)* $field] $($rest)+)
    };
    (@first ($from:expr) [$($seen:ident)*] $field:ident ? . $($rest:tt)+) => {
        $crate::__field!(
            @some ($from.project(&[$(stringify!($seen),)* stringify!($field)], |it| &it $(.$seen)* .$field))
            [] $($rest)+
        )
    };
    (@some ($from:expr) [$($seen:ident)*] $field:ident) => {
        $from.project_some(&[$(stringify!($seen),)* stringify!($field)], |it| &it $(.$seen)* .$field)
    };
    (@some ($from:expr) [$($seen:ident)*] $field:ident . $($rest:tt)+) => {
        $crate::__field!(@some ($from) [$($seen)* $field] $($rest)+)
    };
    (@some ($from:expr) [$($seen:ident)*] $field:ident ? . $($rest:tt)+) => {
        $crate::__field!(
            @some ($from
                .project_some(&[$(stringify!($seen),)* stringify!($field)], |it| &it $(.$seen)* .$field)
                .flatten())
            [] $($rest)+
        )
    };
}

/// A struct made of wiring, as a [`Ref`](crate::Ref) of that struct. Every field must be given and must fit.
///
/// ```
/// # use backstitch_sdk::{Ref, field, wire};
/// # use serde::{Serialize, Deserialize};
/// # use schemars::JsonSchema;
/// # #[derive(Serialize, Deserialize, JsonSchema)]
/// # struct Order { order_id: String, total: u64 }
/// #[derive(Serialize, Deserialize, JsonSchema)]
/// struct Charge { order: String, cents: u64, currency: String }
///
/// # fn wiring(order: Ref<Order>) {
/// let charge: Ref<Charge> = wire!(Charge {
///     order: field!(order.order_id),
///     cents: field!(order.total),
///     currency: "EUR",
/// });
/// # }
/// ```
/// A missing or wrong field, or one of another type, does not compile:
/// ```compile_fail
/// # use backstitch_sdk::{Ref, field, wire};
/// # #[derive(schemars::JsonSchema)]
/// # struct Order { order_id: String, total: u64 }
/// # #[derive(schemars::JsonSchema)]
/// # struct Charge { order: String, cents: u64 }
/// # fn wiring(order: Ref<Order>) {
/// let _ = wire!(Charge { order: field!(order.total), cents: field!(order.total) });
/// # }
/// ```
#[macro_export]
macro_rules! wire {
    ($($name:ident)::+ { $($field:ident : $value:expr),* $(,)? }) => {{
        let ($($field,)*) = ($($crate::__wiring::Member::new(stringify!($field), $value),)*);
        let proven = $crate::__wiring::proven(|| $($name)::+ { $($field: $field.never()),* });
        $crate::__wiring::object(proven, vec![$($field.untyped()),*])
    }};
}
