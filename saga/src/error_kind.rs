//! Kinds of errors, as far as callers react to them alike.

/// Kind of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// What came cannot be read.
    Malformed,
    /// Nobody knows who asks.
    Unauthenticated,
    /// Whoever asks may not do it.
    Forbidden,
    /// There is no such thing.
    Unknown,
    /// It contradicts what is there.
    Conflict,
    /// What is asked for was there and is gone.
    Gone,
    /// What came is too large.
    TooLarge,
    /// What came is of a form that is not taken.
    Unsupported,
    /// What came can be read, and is wrong.
    Invalid,
    /// Too much was asked for; later it may be done.
    TooMany,
    /// Nothing can be done now; asking again may help.
    Unavailable,
    /// A defect of the server.
    Defect,
}
