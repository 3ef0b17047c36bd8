//! Decides about a new version of a contract. Knows no database.

use backstitch_integration::contracts::{
    Edges, Incompatible, LARGEST_SCHEMA, Mode, Reader, Registration, Schema, Version, register,
};
use backstitch_integration::document::{read, value_of};
use backstitch_integration::transforms::Transform;
use backstitch_saga::protocol::{ContractBreak, ContractMode, RegisterContract};
use backstitch_saga::{Payload, Violation};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::{LARGEST_TRANSFORM, MOST_BYTES, MOST_VERSIONS, number};
use crate::Error;
use crate::store::contracts::{ReaderRow, VersionRow};

/// Everything that is known about a subject when a version is decided about.
pub(super) struct Known {
    pub(super) subject: String,
    pub(super) mode: ContractMode,
    pub(super) versions: Vec<VersionRow>,
    pub(super) readers: Vec<ReaderRow>,
}

/// Verdict on a new version.
#[derive(Debug)]
pub(super) enum Verdict {
    /// This version has the schema already.
    Same(u32),
    /// It may be registered.
    New {
        /// Its number.
        version: i32,
        /// Digest of its schema.
        digest: String,
        /// The ways in which it breaks, which transforms bridge.
        breaks: Vec<ContractBreak>,
    },
}

/// Decides whether a version may be registered.
pub(super) fn decide(known: &Known, ask: &RegisterContract) -> Result<Verdict, Error> {
    let schema = schema_of(&ask.schema)?;
    let stored: Vec<(u32, Schema)> = known
        .versions
        .iter()
        .map(|row| Ok((number(row.version), stored(known, row)?)))
        .collect::<Result<_, Error>>()?;
    let versions: Vec<Version<'_>> =
        stored.iter().map(|(number, schema)| Version { number: *number, schema }).collect();
    let readers: Vec<Reader> = known
        .readers
        .iter()
        .map(|row| Reader { name: row.name.clone(), version: number(row.version) })
        .collect();
    let edges = Edges { up: ask.up.is_some(), down: ask.down.is_some() };
    match register(&schema, &versions, rules_of(known.mode), &readers, edges) {
        Registration::Same { version } => Ok(Verdict::Same(version)),
        Registration::Incompatible { breaks } => Err(Error::Incompatible {
            message: format!(
                "the schema is not compatible with the mode '{}' of '{}'; change it as `breaks` says, or send transforms \
                 `up` and `down` with it",
                known.mode.as_str(),
                known.subject
            ),
            breaks: breaks.iter().map(shown).collect(),
        }),
        Registration::TransformRequired { up, down, readers } => {
            Err(transform_required(up, down, &readers))
        }
        Registration::New { version, breaks } => {
            check_edges(ask, stored.last().map(|(_, last)| last), &schema)?;
            check_room(known, ask)?;
            let version = i32::try_from(version)
                .map_err(|_| Error::Bug("a contract has too large a version".to_owned()))?;
            Ok(Verdict::New {
                version,
                digest: HEXLOWER.encode(&Sha256::digest(schema.canonical())),
                breaks: breaks.iter().map(shown).collect(),
            })
        }
    }
}

/// Reads a schema from outside.
fn schema_of(schema: &Payload) -> Result<Schema, Error> {
    let invalid = |violations: Vec<Violation>| {
        let at = |mut violation: Violation| {
            violation.pointer.insert_str(0, "/schema");
            violation
        };
        let violations = violations.into_iter().map(at).collect();
        Error::Invalid { code: "invalid_schema", violations }
    };
    let (_, value) = read(schema.text().as_bytes(), LARGEST_SCHEMA)
        .map_err(|violation| invalid(vec![violation]))?;
    Schema::parse(&value).map_err(invalid)
}

/// Reads a schema that was registered. Rules may be loosened from release to release, never tightened.
fn stored(known: &Known, row: &VersionRow) -> Result<Schema, Error> {
    let damaged = || Error::Conflict {
        code: "contract_damaged",
        message: format!(
            "the registered version {} of '{}' cannot be read; repair its row",
            row.version, known.subject
        ),
    };
    let payload = Payload::trusted(row.schema.clone()).map_err(|_| damaged())?;
    let value = value_of(&payload).map_err(|_| damaged())?;
    Schema::parse(&value).map_err(|_| damaged())
}

/// Checks the transforms that come with a version against both schemas.
fn check_edges(ask: &RegisterContract, last: Option<&Schema>, new: &Schema) -> Result<(), Error> {
    let mut wrong = Vec::new();
    for (document, name, is_up) in [(&ask.up, "/up", true), (&ask.down, "/down", false)] {
        let Some(document) = document else { continue };
        let Some(last) = last else {
            let message = "the first version has no version before it; leave the transform out";
            wrong.push(Violation::new(name, "nothing_to_transform", message));
            continue;
        };
        let (source, target) = if is_up { (last, new) } else { (new, last) };
        let found = match document.check(LARGEST_TRANSFORM) {
            Err(violation) => vec![violation],
            Ok(()) => Transform::register(document, source, target).err().unwrap_or_default(),
        };
        wrong.extend(found.into_iter().map(|mut violation| {
            violation.pointer.insert_str(0, name);
            violation
        }));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid { code: "invalid_transform", violations: wrong })
}

/// Checks that the subject has room for one more version.
fn check_room(known: &Known, ask: &RegisterContract) -> Result<(), Error> {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let stored =
        known.versions.iter().map(|row| row.schema.len() + text(&row.up) + text(&row.down));
    let asked = [Some(&ask.schema), ask.up.as_ref(), ask.down.as_ref()];
    let asked = asked.into_iter().flatten().map(|payload| payload.text().len());
    let bytes: usize = stored.chain(asked).sum();
    let message = if known.versions.len() >= MOST_VERSIONS {
        format!("a subject has at most {MOST_VERSIONS} versions; begin a new subject")
    } else if bytes > MOST_BYTES {
        format!(
            "the schemas and transforms of a subject have at most {MOST_BYTES} bytes together; begin a new subject"
        )
    } else {
        return Ok(());
    };
    Err(Error::Quota { code: "contract_full", message, retry_after: None })
}

fn transform_required(up: bool, down: bool, readers: &[Reader]) -> Error {
    let mut missing = Vec::new();
    if up {
        missing.push("`up`, from the last version to this one".to_owned());
    }
    if down {
        let few: Vec<String> = readers
            .iter()
            .take(20)
            .map(|reader| format!("'{}' (version {})", reader.name, reader.version))
            .collect();
        let rest = readers.len().saturating_sub(few.len());
        let more = if rest == 0 { String::new() } else { format!(" and {rest} more") };
        missing.push(format!(
            "`down`, from this version to the last one, for the readers {}{more}",
            few.join(", ")
        ));
    }
    Error::Conflict {
        code: "transform_required",
        message: format!(
            "the version breaks; send the transform {}",
            missing.join(", and the transform ")
        ),
    }
}

fn shown(found: &Incompatible) -> ContractBreak {
    ContractBreak {
        rule: found.rule.to_owned(),
        direction: match found.direction {
            backstitch_integration::contracts::Direction::Backward => "backward".to_owned(),
            backstitch_integration::contracts::Direction::Forward => "forward".to_owned(),
        },
        version: found.version,
        pointer: found.pointer.clone(),
        at: found.at.to_string(),
        message: found.message.clone(),
        document: found.document.as_ref().map(backstitch_integration::document::Value::to_payload),
    }
}

fn rules_of(mode: ContractMode) -> Mode {
    match mode {
        ContractMode::None => Mode::None,
        ContractMode::Backward => Mode::Backward,
        ContractMode::Forward => Mode::Forward,
        ContractMode::Full => Mode::Full,
        ContractMode::BackwardTransitive => Mode::BackwardTransitive,
        ContractMode::ForwardTransitive => Mode::ForwardTransitive,
        ContractMode::FullTransitive => Mode::FullTransitive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(versions: usize, bytes: usize) -> Known {
        let row = |version: usize| VersionRow {
            version: i32::try_from(version).unwrap(),
            state: "active".to_owned(),
            digest: String::new(),
            schema: " ".repeat(bytes),
            up: None,
            down: None,
            breaks: None,
            registered_at: backstitch_saga::Time(0),
            registered_by: String::new(),
        };
        Known {
            subject: "customer".to_owned(),
            mode: ContractMode::None,
            versions: (1..=versions).map(row).collect(),
            readers: Vec::new(),
        }
    }

    #[test]
    fn a_subject_is_full_when_its_versions_or_their_bytes_are_too_many() {
        let ask = RegisterContract {
            schema: Payload::trusted("{}".to_owned()).unwrap(),
            mode: None,
            up: None,
            down: None,
            reason: String::new(),
        };
        let is_full = |versions, bytes| {
            matches!(
                check_room(&known(versions, bytes), &ask),
                Err(Error::Quota { code: "contract_full", .. })
            )
        };
        assert!(!is_full(MOST_VERSIONS - 1, 1) && is_full(MOST_VERSIONS, 1));
        assert!(!is_full(1, MOST_BYTES - 2) && is_full(1, MOST_BYTES - 1));
    }

    #[test]
    fn modes_on_the_wire_are_those_of_the_rules() {
        let rules: Vec<_> = ContractMode::ALL.into_iter().map(rules_of).collect();
        assert_eq!(rules, Mode::ALL);
        for mode in ContractMode::ALL {
            let wire = serde_json::to_value(mode).unwrap();
            assert_eq!(wire, serde_json::to_value(rules_of(mode)).unwrap());
            assert_eq!(wire, mode.as_str());
        }
    }
}
