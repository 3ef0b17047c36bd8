//! Everything that reads text from outside, each as a function of bytes that panics when a law is broken: a fuzzer with
//! coverage can call it as it is. `tests/fuzz.rs` feeds it with mutations of the corpora, in the normal test run.
//!
//! The laws: nothing that is read makes a reader panic; what was read, printed and read again is the same; reading
//! takes time that grows with the text and no faster.

pub mod mutate;
mod rules;

/// Something that reads text from outside.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Reads, and holds what it read to the laws.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 13] = [
    Target { name: "definition", run: rules::definition },
    Target { name: "rehearsal", run: rules::rehearsal },
    Target { name: "expression", run: rules::expression },
    Target { name: "payload", run: rules::payload },
    Target { name: "names", run: rules::names },
    Target { name: "cursor", run: backstitch_engine::fuzz::cursor },
    Target { name: "cron", run: backstitch_engine::fuzz::cron },
    Target { name: "sequence", run: backstitch_engine::fuzz::sequence },
    Target { name: "schema", run: backstitch_engine::fuzz::schema },
    Target { name: "idempotency_key", run: backstitch_api::fuzz::idempotency_key },
    Target { name: "query", run: backstitch_api::fuzz::query },
    Target { name: "body", run: backstitch_api::fuzz::body },
    Target { name: "profile", run: backstitch_api::fuzz::profile },
];

/// Returns the target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
