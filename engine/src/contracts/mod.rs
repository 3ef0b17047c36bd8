//! Registry of contracts: subjects, their versions, and the readers that are pinned to them.
//!
//! `decide` checks a new version against the existing ones, on a thread apart from those that serve requests; it uses
//! no database. `change` writes the decision if the subject has not changed in between, and otherwise decides again.
//! `reads` answers queries. `transforms` maps documents of one version to another.

mod change;
mod decide;
mod reads;
mod transforms;

use backstitch_saga::Violation;
use backstitch_saga::protocol::{ContractKind, ContractMode, ContractState};

use crate::Error;
use crate::bounds::{Bound, bound, bytes, number as counted};

pub use transforms::{
    LARGEST_TESTED, MOST_REVISIONS, MOST_SAMPLED, MOST_TRANSFORMS, SAMPLED_BYTES, TransformName,
};

/// Subjects that a namespace may have. Several that are created at the same instant may pass it by as many.
pub const MOST_SUBJECTS: i64 = 1_000;
/// Versions that a subject may have.
pub const MOST_VERSIONS: usize = 200;
/// Bytes that the schemas and transforms of a subject may have together: all of them are read to register one more.
pub const MOST_BYTES: usize = 4 * 1024 * 1024;
/// Readers that may be pinned to a subject.
pub const MOST_READERS: usize = 1_000;
/// Bytes of a transform that comes with a version.
pub const LARGEST_TRANSFORM: usize = 65_536;
/// Characters of a subject or of a reader's name.
const LONGEST_NAME: usize = 100;

/// Returns the bounds of contracts and transforms.
pub(crate) fn bounds() -> Vec<Bound> {
    vec![
        bound("subjects of a namespace", counted(MOST_SUBJECTS), "409 `too_many_contracts`"),
        bound("versions of a subject", counted(MOST_VERSIONS), "409 `contract_full`"),
        bound(
            "schemas and transforms of a subject together",
            bytes(MOST_BYTES),
            "409 `contract_full`",
        ),
        bound("readers of a subject", counted(MOST_READERS), "409 `contract_full`"),
        bound("a transform", bytes(LARGEST_TRANSFORM), "422 `invalid_transform`"),
        bound(
            "documents that a what-if looks at",
            counted(MOST_SAMPLED),
            "the newest are looked at",
        ),
        bound("their bytes", bytes(SAMPLED_BYTES), "the newest are looked at"),
        bound("transforms of a namespace", counted(MOST_TRANSFORMS), "409 `too_many_transforms`"),
        bound("revisions of a transform", counted(MOST_REVISIONS), "409 `transform_full`"),
        bound(
            "a document that a transform is tested with",
            bytes(LARGEST_TESTED),
            "422 `invalid_document`",
        ),
    ]
}

/// Returns the kind of a subject, which its name says.
fn kind_of(subject: &str) -> ContractKind {
    if subject.contains('.') { ContractKind::Vendor } else { ContractKind::Canonical }
}

/// Returns the mode of a subject that is registered without one. Vendors change their shapes without asking.
fn default_mode(subject: &str) -> ContractMode {
    match kind_of(subject) {
        ContractKind::Vendor => ContractMode::None,
        ContractKind::Canonical => ContractMode::FullTransitive,
    }
}

/// Returns whether `name` can name a subject or a reader.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(allowed)
        && !name.contains("..")
        && !name.ends_with('.')
}

fn must_be_name(name: &str, what: &str) -> Result<(), Error> {
    if is_name(name) {
        return Ok(());
    }
    let message = format!(
        "the name of a {what} has 1 to {LONGEST_NAME} lower-case letters, digits, '-', '_' and single dots, and begins \
         with a letter or digit"
    );
    Err(Error::invalid("invalid_name", Violation::new("", "invalid_name", message)))
}

fn unknown_contract(subject: &str) -> Error {
    let shown: String = subject.chars().take(LONGEST_NAME).collect();
    Error::NotFound {
        code: "unknown_contract",
        message: format!("there is no contract with the subject '{shown}' in this namespace"),
    }
}

fn unknown_version(subject: &str, version: u32) -> Error {
    Error::NotFound {
        code: "unknown_contract_version",
        message: format!("the contract '{subject}' has no version {version}"),
    }
}

/// Reads a mode in its stored form.
fn mode_of(text: &str) -> Result<ContractMode, Error> {
    let found = ContractMode::ALL.into_iter().find(|mode| mode.as_str() == text);
    found.ok_or_else(|| Error::Store(format!("the table contracts has the mode '{text}'")))
}

/// Reads a state in its stored form.
fn state_of(text: &str) -> Result<ContractState, Error> {
    match text {
        "active" => Ok(ContractState::Active),
        "deprecated" => Ok(ContractState::Deprecated),
        "retired" => Ok(ContractState::Retired),
        other => Err(Error::Store(format!("the table contract_versions has the state '{other}'"))),
    }
}

/// Returns the number of a version in a response; numbers below 1 are not stored.
fn number(version: i32) -> u32 {
    u32::try_from(version).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_with_a_dot_is_a_vendors_and_keeps_no_compatibility_unless_asked() {
        assert_eq!(kind_of("crm.contact"), ContractKind::Vendor);
        assert_eq!(default_mode("crm.contact"), ContractMode::None);
        assert_eq!(default_mode("customer"), ContractMode::FullTransitive);
    }

    #[test]
    fn names_that_could_be_mistaken_are_refused() {
        for name in ["customer", "crm.contact", "a-b_c.9"] {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(LONGEST_NAME + 1);
        for name in ["", "Customer", ".a", "a.", "a..b", "a b", "ä", "a\0", "-a", &long] {
            assert!(!is_name(name), "{name}");
        }
    }
}
