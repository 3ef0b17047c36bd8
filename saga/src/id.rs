//! Names of things inside and outside a run.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha1::{Digest, Sha1};
use uuid::{Builder, Uuid};

use crate::Time;

/// A run: a UUIDv7 made where the start request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunId(pub Uuid);

impl RunId {
    /// Returns the id of the run that attempt `attempt` of the step `step` starts: always the same, so that it is
    /// started once. It carries the instant of its parent's id, so that both are in the same part of the journal.
    #[must_use]
    pub fn child(self, step: &StepPath, attempt: u32) -> RunId {
        let name = format!("{step} child {attempt}");
        let mut bytes = *named(&self.0, name.as_bytes()).as_bytes();
        bytes[..6].copy_from_slice(&self.0.as_bytes()[..6]);
        bytes[6] = (bytes[6] & 0x0f) | 0x70;
        RunId(Uuid::from_bytes(bytes))
    }

    /// Returns the instant that the id carries: the start of the run, or of the first run of its tree.
    #[must_use]
    pub fn began_at(self) -> Time {
        Time(i64::try_from(self.0.as_u128() >> 80).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(RunId).map_err(|_| format!("'{text}' is not the id of a run (a UUID)"))
    }
}

/// A unit of work within a run: a step, or one item of a map step. Text form `payment` or `stock/3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepPath {
    /// The step's id.
    pub step: Arc<str>,
    /// The item's index, from 0, within a map step.
    pub item: Option<u32>,
}

impl StepPath {
    /// Returns the path of a whole step.
    pub fn step(step: impl Into<Arc<str>>) -> StepPath {
        StepPath { step: step.into(), item: None }
    }

    /// Returns the path of one item of a map step.
    pub fn item(step: impl Into<Arc<str>>, item: u32) -> StepPath {
        StepPath { step: step.into(), item: Some(item) }
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for StepPath {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("A step, or an item of a map step"))
            .examples(["payment", "stock/3"])
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for StepPath {}

impl fmt::Display for StepPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.item {
            None => f.write_str(&self.step),
            Some(item) => write!(f, "{}/{item}", self.step),
        }
    }
}

impl FromStr for StepPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((step, item)) = text.split_once('/') else { return Ok(StepPath::step(text)) };
        let item = item
            .parse()
            .map_err(|_| format!("'{text}' is not a step like 'payment' or 'stock/3'"))?;
        Ok(StepPath::item(step, item))
    }
}

impl Serialize for StepPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.item {
            None => serializer.serialize_str(&self.step),
            Some(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for StepPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The action of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Action {
    /// Do the step.
    Forward,
    /// Find out whether an attempt in doubt happened.
    Verify,
    /// Undo the step.
    Compensate,
}

impl Action {
    /// Returns the word used in JSON and in journal records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Forward => "forward",
            Action::Verify => "verify",
            Action::Compensate => "compensate",
        }
    }
}

/// A task of a run: one attempt of a step. The attempt number only grows and is the fence: a report by an attempt
/// that is no longer the current one changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskKey {
    /// The step or item.
    pub step: StepPath,
    /// The action.
    pub action: Action,
    /// The attempt of that action, from 1.
    pub attempt: u32,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} #{}", self.action.as_str(), self.step, self.attempt)
    }
}

/// Returns the UUIDv5 of `name` in the namespace `space` (RFC 9562, 5.5), which is the same wherever it is made.
pub(crate) fn named(space: &Uuid, name: &[u8]) -> Uuid {
    let digest = Sha1::new().chain_update(space.as_bytes()).chain_update(name).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Builder::from_sha1_bytes(bytes).into_uuid()
}

/// Returns the key by which a target deduplicates the effect of `action` on `step` of `run`: the same over all
/// attempts, leases and restarts (UUIDv5 of run, step and action).
#[must_use]
pub fn effect_key(run: RunId, step: &StepPath, action: Action) -> Uuid {
    let name = match action {
        Action::Forward | Action::Verify => step.to_string(),
        Action::Compensate => format!("{step} compensate"),
    };
    named(&run.0, name.as_bytes())
}

/// Returns the same for the item of the map step `step` with the key `item`, at any position in the
/// list.
pub(crate) fn keyed_effect_key(run: RunId, step: &str, item: &str, action: Action) -> Uuid {
    let undo = if action == Action::Compensate { " compensate" } else { "" };
    // The key comes last: no text in it can be taken for another name.
    named(&run.0, format!("{step}/key{undo}: {item}").as_bytes())
}

/// Returns the same for a step that is done once more after it had been undone, `round` times, or is tried with another
/// input after the one before had been refused, `edition` times: a target must not take the new effect for the old one.
pub(crate) fn in_round(key: Uuid, (round, edition): (u32, u32)) -> Uuid {
    let key = match round {
        0 => key,
        _ => named(&key, format!("round {round}").as_bytes()),
    };
    match edition {
        0 => key,
        _ => named(&key, format!("edition {edition}").as_bytes()),
    }
}
