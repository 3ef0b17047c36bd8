//! HTTP status of each kind of error: the only table of them.

use crate::ErrorKind;

/// Status of what was done.
pub const DONE: u16 = 200;
/// Status of what was made by a request.
pub const CREATED: u16 = 201;

/// Returns the HTTP status of a kind of error.
#[must_use]
pub const fn status_of(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::Malformed => 400,
        ErrorKind::Unauthenticated => 401,
        ErrorKind::Forbidden => 403,
        ErrorKind::Unknown => 404,
        ErrorKind::Conflict => 409,
        ErrorKind::Gone => 410,
        ErrorKind::TooLarge => 413,
        ErrorKind::Unsupported => 415,
        ErrorKind::Invalid => 422,
        ErrorKind::TooMany => 429,
        ErrorKind::Defect => 500,
        ErrorKind::Unavailable => 503,
    }
}
