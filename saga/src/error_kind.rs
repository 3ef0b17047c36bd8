//! Kinds of errors, as far as callers react to them alike.

/// Kind of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request cannot be read.
    Malformed,
    /// The caller is unknown.
    Unauthenticated,
    /// The caller lacks the right.
    Forbidden,
    /// There is no such thing.
    Unknown,
    /// The request contradicts the present state.
    Conflict,
    /// The requested resource existed and was removed.
    Gone,
    /// The request is too large.
    TooLarge,
    /// The form of the request is not supported.
    Unsupported,
    /// The request can be read, and is wrong.
    Invalid,
    /// Too much was asked for; later it may be done.
    TooMany,
    /// Nothing can be done now; asking again may help.
    Unavailable,
    /// A defect of the server.
    Defect,
}
