//! Configuration of a source: accepted documents, places of versions, dedupe keys, and bounds.

use std::collections::BTreeMap;

use backstitch_saga::Violation;
use serde::{Deserialize, Serialize};

use super::hints::HintRule;
use super::scheme::SchemeDocument;
use super::verify::Verification;
use crate::contracts::{Schema, World};
use crate::document::Pointer;
use crate::events::Trust;

/// The most contracts that a source accepts, and the most places of a dedupe key and rules of hints.
pub(crate) const MOST_ENTRIES: usize = 64;
/// The most bytes of a request, however a source is configured.
pub(crate) const LARGEST: usize = 5 << 20;
/// The most bytes of a request, if the source says nothing.
pub(crate) const MAX_BYTES: usize = 262_144;
const TOLERANCE_S: u32 = 300;

/// A source as it is configured. Secrets are given apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceDocument {
    /// Requests are taken.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Scheme of verification.
    pub verify: SchemeDocument,
    /// Seconds that a signed timestamp may differ from now.
    #[serde(default = "tolerance")]
    pub tolerance_s: u32,
    /// The most trust that the source may have.
    #[serde(default = "signed")]
    pub trust_ceiling: Trust,
    /// Contracts, tried in their order.
    pub accepts: Vec<AcceptDocument>,
    /// Place of the version of the contract.
    pub version_from: VersionFrom,
    /// Places whose values together identify a document. Empty: nothing is a duplicate.
    #[serde(default)]
    pub dedupe: Vec<Location>,
    /// Rules of identity hints.
    #[serde(default)]
    pub hints: Vec<HintRule>,
    /// The most bytes of a document.
    #[serde(default = "max_bytes")]
    pub max_bytes: usize,
    /// The most documents in a second, on each server. Without it only the quotas of the namespace bound them.
    #[serde(default)]
    pub rate: Option<u32>,
}

fn yes() -> bool {
    true
}

fn tolerance() -> u32 {
    TOLERANCE_S
}

fn signed() -> Trust {
    Trust::Signed
}

fn max_bytes() -> usize {
    MAX_BYTES
}

/// A contract that a source accepts, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptDocument {
    /// Condition; without one every document is meant.
    #[serde(default, rename = "match")]
    pub when: Option<MatchDocument>,
    /// Subject of the contract.
    pub contract: String,
    /// The contract that documents are mapped to, such as `customer@1`.
    #[serde(default)]
    pub to: Option<String>,
}

impl AcceptDocument {
    /// Returns subject and version of the contract that documents are mapped to.
    #[must_use]
    pub fn target(&self) -> Option<(&str, u32)> {
        let (subject, version) = self.to.as_ref()?.split_once('@')?;
        let version = version.parse().ok().filter(|version| *version > 0)?;
        Some((subject, version))
    }
}

/// Condition on a header or a value, exactly one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchDocument {
    /// Name of the header.
    #[serde(default)]
    pub header: Option<String>,
    /// Place in the document.
    #[serde(default)]
    pub pointer: Option<Pointer>,
    /// The text that must be there.
    pub is: String,
}

impl MatchDocument {
    /// Returns where to look; `None` when it is not exactly one place.
    pub(super) fn location(&self) -> Option<Location> {
        match (&self.header, &self.pointer) {
            (Some(name), None) => Some(Location::Header(name.clone())),
            (None, Some(at)) => Some(Location::Pointer(at.clone())),
            _ => None,
        }
    }
}

/// A header or a place in the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// A header.
    Header(String),
    /// A place in the document.
    Pointer(Pointer),
}

/// Place of the version of a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionFrom {
    /// A header.
    Header(String),
    /// A place in the document.
    Pointer(Pointer),
    /// Always this one.
    Fixed(u32),
}

/// A source whose configuration was checked.
#[derive(Clone, Debug)]
pub struct Source {
    pub(super) document: SourceDocument,
    pub(super) verification: Verification,
}

impl Source {
    /// Checks the configuration of a source.
    ///
    /// # Errors
    /// `source_not_valid` and `hint_not_valid`, all of them; secrets are never told.
    pub fn new(document: SourceDocument, secrets: &[&str]) -> Result<Source, Vec<Violation>> {
        let mut wrong = Vec::new();
        let mut refuse = |place: &str, message: String| {
            wrong.push(Violation::new(place, "source_not_valid", message));
        };
        let verification = Verification::new(&document.verify, secrets, document.tolerance_s);
        if let Err(message) = &verification {
            refuse("/verify", message.clone());
        }
        for (place, count) in [
            ("/accepts", document.accepts.len()),
            ("/dedupe", document.dedupe.len()),
            ("/hints", document.hints.len()),
        ] {
            if count > MOST_ENTRIES {
                refuse(place, format!("at most {MOST_ENTRIES} entries"));
            }
        }
        if document.accepts.is_empty() {
            refuse("/accepts", "a source accepts at least one contract".to_owned());
        }
        for (index, accept) in document.accepts.iter().enumerate() {
            if accept.when.as_ref().is_some_and(|when| when.location().is_none()) {
                refuse(
                    &format!("/accepts/{index}/match"),
                    "name either a header or a pointer".to_owned(),
                );
            }
        }
        for (index, accept) in document.accepts.iter().enumerate() {
            let same = document.accepts.iter().find(|other| other.contract == accept.contract);
            if same.is_some_and(|same| same.to != accept.to) {
                let message = "a contract is mapped to one other, wherever it stands".to_owned();
                refuse(&format!("/accepts/{index}/to"), message);
            }
            if accept.to.is_some() && accept.target().is_none() {
                let message = "name a contract and its version, such as customer@1".to_owned();
                refuse(&format!("/accepts/{index}/to"), message);
            }
        }
        let never = document.accepts.iter().position(|accept| accept.when.is_none());
        if let Some(index) = never.filter(|index| index + 1 < document.accepts.len()) {
            let message =
                "everything is meant, so that what stands behind is never reached".to_owned();
            refuse(&format!("/accepts/{index}"), message);
        }
        if document.rate == Some(0) {
            refuse("/rate", "at least 1 in a second; disable the source to take none".to_owned());
        }
        if !(1..=LARGEST).contains(&document.max_bytes) {
            refuse("/max_bytes", format!("1 to {LARGEST} bytes"));
        }
        let hints = document.hints.iter().enumerate();
        wrong
            .extend(hints.filter_map(|(index, rule)| rule.check(&format!("/hints/{index}")).err()));
        match verification {
            Ok(verification) if wrong.is_empty() => Ok(Source { document, verification }),
            _ => Err(wrong),
        }
    }
}

impl Source {
    /// Returns the configuration.
    #[must_use]
    pub fn document(&self) -> &SourceDocument {
        &self.document
    }
}

/// Versions of a contract, as a source meets them.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// Schemas by their version.
    pub versions: BTreeMap<u32, (VersionState, &'a Schema)>,
    /// Treatment of members that the contract does not name: closed for canonical subjects, open for those of vendors.
    pub world: World,
}

/// State of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionState {
    /// In use.
    Active,
    /// Accepted, with a warning.
    Deprecated,
    /// No longer accepted.
    Retired,
}
