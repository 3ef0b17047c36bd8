//! Registration of a version: the same as an existing one, compatible, or breaking, and the requirements of a
//! breaking one.

use serde::Serialize;

use super::modes::{Incompatible, Mode, Version, check};
use super::schema::Schema;

/// Reader that is pinned to a version of a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reader {
    /// Name of the subscription or the step.
    pub name: String,
    /// Version that it reads.
    pub version: u32,
}

/// Transforms that come with a breaking version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edges {
    /// From the last version to the new one.
    pub up: bool,
    /// From the new version to the last one.
    pub down: bool,
}

/// Verdict on a new version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// The schema is that of an existing version, however it is spelt: nothing is registered.
    Same {
        /// The version.
        version: u32,
    },
    /// The version may be registered.
    New {
        /// Its number.
        version: u32,
        /// The ways in which it breaks; not empty only where transforms bridge them.
        breaks: Vec<Incompatible>,
    },
    /// `409 incompatible_schema`: the version breaks, and no transform comes with it.
    Incompatible {
        /// The ways in which it breaks.
        breaks: Vec<Incompatible>,
    },
    /// `409 transform_required`: a transform is missing.
    TransformRequired {
        /// The transform from the last version to the new one is missing.
        up: bool,
        /// The transform back is missing.
        down: bool,
        /// The readers of earlier versions, who need the way back.
        readers: Vec<Reader>,
    },
}

/// Decides about a new version of a contract. A breaking version needs a transform up and, while an earlier version has
/// readers, one down.
#[must_use]
pub fn register(
    new: &Schema,
    versions: &[Version<'_>],
    mode: Mode,
    readers: &[Reader],
    edges: Edges,
) -> Registration {
    let canonical = new.canonical();
    // The newest, where the same schema came back.
    if let Some(same) =
        versions.iter().rev().find(|version| version.schema.canonical() == canonical)
    {
        return Registration::Same { version: same.number };
    }
    let breaks = check(new, versions, mode);
    let version = versions
        .iter()
        .map(|version| version.number)
        .max()
        .map_or(1, |last| last.saturating_add(1));
    if breaks.is_empty() {
        return Registration::New { version, breaks };
    }
    if edges == Edges::default() {
        return Registration::Incompatible { breaks };
    }
    let (up, down) = (!edges.up, !edges.down && !readers.is_empty());
    if up || down {
        let readers = if down { readers.to_vec() } else { Vec::new() };
        return Registration::TransformRequired { up, down, readers };
    }
    Registration::New { version, breaks }
}

/// Returns the readers that keep a version from being retired.
#[must_use]
pub fn keep_from_retiring(version: u32, readers: &[Reader]) -> Vec<Reader> {
    readers.iter().filter(|reader| reader.version == version).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::read;

    fn schema(text: &str) -> Schema {
        Schema::parse(&read(text.as_bytes(), 10_000).unwrap().1).unwrap()
    }

    #[test]
    fn a_breaking_version_needs_transforms_as_long_as_somebody_reads_the_one_before() {
        let first = schema(r#"{"type":"object","properties":{"a":{"type":"string"}}}"#);
        let versions = [Version { number: 4, schema: &first }];
        let readers = [Reader { name: "billing".to_owned(), version: 4 }];
        let breaking = schema(r#"{"type":"object","properties":{"a":{"type":"integer"}}}"#);
        let ask = |new: &Schema, readers: &[Reader], up, down| {
            register(new, &versions, Mode::FullTransitive, readers, Edges { up, down })
        };
        let spelt = schema(r#"{"properties": {"a": {"type": "string"}}, "type": "object"}"#);
        assert_eq!(ask(&spelt, &readers, false, false), Registration::Same { version: 4 });
        let more = schema(r#"{"type":"object","properties":{"a":{"type":"string"},"b":{}}}"#);
        assert_eq!(
            ask(&more, &readers, false, false),
            Registration::New { version: 5, breaks: vec![] }
        );
        let Registration::Incompatible { breaks } = ask(&breaking, &readers, false, false) else {
            panic!("it breaks")
        };
        assert_eq!(breaks.len(), 2);
        let missing = |up, down, readers: &[Reader]| Registration::TransformRequired {
            up,
            down,
            readers: readers.to_vec(),
        };
        assert_eq!(ask(&breaking, &readers, true, false), missing(false, true, &readers));
        assert_eq!(ask(&breaking, &readers, false, true), missing(true, false, &[]));
        for (readers, down) in [(&readers[..], true), (&[][..], false)] {
            assert!(matches!(
                ask(&breaking, readers, true, down),
                Registration::New { version: 5, .. }
            ));
        }
        assert!(matches!(
            register(&breaking, &versions, Mode::None, &readers, Edges::default()),
            Registration::New { .. }
        ));
        assert_eq!(
            register(&first, &[], Mode::Full, &[], Edges::default()),
            Registration::New { version: 1, breaks: vec![] }
        );
        assert_eq!(keep_from_retiring(4, &readers), readers);
        assert_eq!(keep_from_retiring(3, &readers), []);
    }
}
