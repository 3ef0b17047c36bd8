//! Ingress: requests of sources are verified, read, and held to their contracts, in one order of checks.
//!
//! Everything is a function of the configuration of a source, the headers, the raw bytes and the time. Signatures are
//! computed over the bytes that came, and compared in constant time.

mod batch;
mod checks;
pub(crate) mod file;
pub(crate) mod headers;
pub(crate) mod hints;
mod read;
mod scheme;
pub(crate) mod secret;
mod sender;
pub(crate) mod source;
pub(crate) mod verify;

pub use batch::{LARGEST_BATCH, MOST_RECORDS};
pub use checks::{Accepted, Claim, Document, Duplicate, ReadRecord, Rejected, Request, duplicate};
pub use file::{FileForm, LONGEST_HEADER, Row, Rows, check_header, with_header};
pub use headers::Headers;
pub use hints::{Hint, HintRule, Hints, MOST_HINTS, is_junk_value, search_value};
pub use read::body_of;
pub use scheme::{Algorithm, Encoding, SchemeDocument};
pub use secret::{MOST_SECRETS, Secret};
pub use sender::{Form, Sender};
pub use source::{
    AcceptDocument, Location, MatchDocument, Source, SourceDocument, Subject, VersionFrom,
    VersionState,
};
pub use verify::{Verification, Verified};
