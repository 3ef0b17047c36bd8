//! Events: what happened, as data.

mod operation;

pub use operation::Op;
