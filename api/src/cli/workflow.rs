//! `backstitch workflow`: definitions, without a server.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstitch_engine::Error;
use backstitch_saga::protocol::Warning;
use backstitch_saga::rehearse::{Admission, admit};
use backstitch_saga::{Graph, Violation};
use clap::Subcommand;

use crate::print;

/// What to do with a definition.
#[derive(Subcommand)]
pub(crate) enum WorkflowVerb {
    /// Check a definition and print everything that is wrong with it
    Validate {
        /// The definition as JSON; - reads standard input
        file: PathBuf,
    },
}

/// `false` when the definition is not valid.
pub(crate) fn run(verb: &WorkflowVerb) -> anyhow::Result<bool> {
    let WorkflowVerb::Validate { file } = verb;
    let Some(graph) = checked(file)? else { return Ok(false) };
    let Admission { refused, rehearsed } = admit(&graph);
    if !refused.is_empty() {
        print_found(&refused);
        return Ok(false);
    }
    for Violation { pointer, code, message } in &rehearsed.warnings {
        let place = if pointer.is_empty() { "the document" } else { pointer };
        print::line(format_args!("warning: {place}: {message} ({code})"));
    }
    let definition = &graph.definition;
    print::line(format_args!(
        "{} version {}: {}, valid",
        definition.name,
        definition.version,
        print::counted(definition.steps.len(), "step")
    ));
    for Warning { pointer, code, message } in graph.warnings() {
        print::line(format_args!("warning: {pointer}: {message} ({code})"));
    }
    Ok(true)
}

/// The definition in a file; `None` when it is not valid, and everything that is wrong with it was printed.
pub(super) fn checked(file: &Path) -> anyhow::Result<Option<Arc<Graph>>> {
    match backstitch_engine::validate(&read(file)?) {
        Ok(graph) => Ok(Some(graph)),
        Err(Error::Invalid { violations, .. }) => {
            print_found(&violations);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn print_found(violations: &[Violation]) {
    for Violation { pointer, code, message } in violations {
        let place = if pointer.is_empty() { "the document" } else { pointer };
        print::line(format_args!("{place}: {message} ({code})"));
    }
    print::line(print::counted(violations.len(), "mistake"));
}

/// The file that was named cannot be read: the program was asked wrongly.
#[derive(Debug)]
pub(super) struct Unreadable {
    name: String,
    error: std::io::Error,
}

impl std::error::Error for Unreadable {}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}: {}", self.name, self.error)
    }
}

fn read(file: &Path) -> Result<String, Unreadable> {
    if file == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        let name = "standard input".to_owned();
        return read.map(|_| text).map_err(|error| Unreadable { name, error });
    }
    let name = file.display().to_string();
    std::fs::read_to_string(file).map_err(|error| Unreadable { name, error })
}
