//! Ingress: sources send documents, which are verified, checked against their contracts, and become events of
//! the log.
//!
//! `sources` is their configuration. `doors` keeps the part of it that a door needs, `take` takes in documents by the
//! rules of `backstitch-integration`, `reads` shows stored documents, and `again`, `remap` and `reprocess` process
//! documents once more. `files` receives files, and `import` processes their rows.

mod again;
mod arrival;
mod data_erasure;
mod data_found;
mod doors;
mod files;
mod hints;
mod import;
mod imports;
mod kept;
mod lineage;
mod links;
mod mapping;
mod reads;
mod ready;
mod remap;
mod reprocess;
mod reprocesses;
mod sources;
mod take;

use backstitch_integration::events::Trust;
use backstitch_integration::ingress::SourceDocument;
use backstitch_saga::Violation;
use backstitch_saga::protocol::{EventTrust, SourceSpec};

use crate::Error;
use crate::bounds::{Bound, bound, bytes, number};

pub use backstitch_integration::ingress::{LARGEST_BATCH, Rejected};

pub use arrival::{Arrival, RefusedIntake, Taken};
pub(crate) use data_erasure::erase_data;
pub(crate) use doors::Doors;
pub use doors::{MOST_BYTES, OpenSource};
pub use files::{LARGEST_FILE, MOST_IMPORTS, Upload};
pub use hints::HintQuery;
pub(crate) use import::import;
pub use links::MOST_CONFLICTS;
pub use reads::IntakeQuery;
pub(crate) use reprocess::reprocess;
pub use reprocesses::MOST_REPROCESSES;
pub use take::BatchRead;

/// Sources of a namespace. Several that are created at the same instant may pass it by as many.
pub const MOST_SOURCES: i64 = 10_000;
/// The most bytes of the spec of a source.
pub const LARGEST_SPEC: usize = 65_536;
/// Headers of a request that are kept, and bytes of one of them.
pub const KEPT_HEADERS: (usize, usize) = (64, 1_024);

/// Returns the bounds of sources that are not bounds of the rules.
pub(crate) fn bounds() -> Vec<Bound> {
    let (headers, header) = KEPT_HEADERS;
    vec![
        bound(
            "sources of a namespace",
            number(MOST_SOURCES.unsigned_abs()),
            "409 `too_many_sources`",
        ),
        bound("the spec of a source", bytes(LARGEST_SPEC), "422 `invalid_source`"),
        bound("a file", bytes(LARGEST_FILE), "413 `payload_too_large`"),
        bound(
            "imports of a namespace under way",
            number(MOST_IMPORTS.unsigned_abs()),
            "429 `too_many_imports`",
        ),
        bound(
            "conflicts of links that wait in a namespace",
            number(MOST_CONFLICTS.unsigned_abs()),
            "refused, and not noted",
        ),
        bound(
            "reprocessings of a namespace at work",
            number(MOST_REPROCESSES.unsigned_abs()),
            "429 `too_many_reprocesses`",
        ),
        bound("headers of a request that are kept", number(headers), "left out"),
        bound("one header that is kept, in characters", number(header), "cut"),
        bound(
            "sources and schemas that a server keeps in memory, roughly, each",
            bytes(MOST_BYTES),
            "read anew",
        ),
    ]
}

/// Reads a spec as the rules know it.
fn document_of(spec: &SourceSpec) -> Result<SourceDocument, Error> {
    let document = serde_json::to_value(spec).and_then(serde_json::from_value::<SourceDocument>);
    document.map_err(|error| {
        refused(vec![Violation::new("", "source_not_valid", error.to_string())], "/spec")
    })
}

/// Returns the refusal of a source for the value at `at` in the request.
fn refused(mut violations: Vec<Violation>, at: &str) -> Error {
    violations.iter_mut().for_each(|one| one.pointer.insert_str(0, at));
    Error::Invalid { code: "invalid_source", violations }
}

fn unknown_source(name: &str) -> Error {
    let shown: String = name.chars().take(100).collect();
    Error::NotFound {
        code: "unknown_source",
        message: format!("there is no source '{shown}' in this namespace"),
    }
}

fn damaged(name: &str) -> Error {
    Error::Conflict {
        code: "source_damaged",
        message: format!("the source '{name}' cannot be read; put it anew, or repair its row"),
    }
}

fn trust_view(trust: Trust) -> EventTrust {
    match trust {
        Trust::Untrusted => EventTrust::Untrusted,
        Trust::Unverified => EventTrust::Unverified,
        Trust::Authenticated => EventTrust::Authenticated,
        Trust::Signed => EventTrust::Signed,
        Trust::Authoritative => EventTrust::Authoritative,
    }
}
