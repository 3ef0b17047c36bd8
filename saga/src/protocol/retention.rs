//! Retention of the ended runs of a workflow.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{RunId, Span, Timestamp};

/// Retention of ended runs: a duration like `30d`, counted from the end of a run; `forever`; or `server`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The retention of the server.
    Server,
    /// For ever.
    Forever,
    /// This time after their end.
    For(Span),
}

impl Keep {
    /// The shortest duration: an hour, in which what is under way of a run that ended comes to rest.
    pub const LEAST: Span = Span::secs(3_600);
    /// The longest duration that is not `forever`: a hundred years.
    pub const MOST: Span = Span::secs(100 * 365 * 86_400);
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Keep::Server => f.write_str("server"),
            Keep::Forever => f.write_str("forever"),
            Keep::For(span) => span.fmt(f),
        }
    }
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "server" => Ok(Keep::Server),
            "forever" => Ok(Keep::Forever),
            span => span.parse().map(Keep::For).map_err(|error| {
                serde::de::Error::custom(format!("{error}, nor 'forever' or 'server'"))
            }),
        }
    }
}

/// `PUT /v1/workflows/{name}/retention`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetRetention {
    /// Retention of its ended runs, counted from their end: a duration like `30d`, `forever`, or `server` for the
    /// server's.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "30d"))]
    pub keep: Keep,
    /// The reason; kept with the act.
    pub reason: String,
}

/// `GET /v1/workflows/{name}/retention`: retention of the ended runs of a workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetentionView {
    /// The workflow.
    pub workflow: String,
    /// Retention of its ended runs: a duration or `forever`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "30d"))]
    pub keep: Keep,
    /// `true` if the workflow has a retention of its own; otherwise it follows the server.
    pub own: bool,
    /// Time at which its own was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// The actor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    /// The reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A week that is past retention and cannot be dropped as a whole, since runs that are kept began in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeldWeek {
    /// The Monday on which it begins.
    pub week: Timestamp,
    /// Number of runs of the namespace that keep it: those that have not ended, or ended too recently. No more than
    /// 10,000 runs of a week are counted.
    pub runs: u64,
    /// The oldest of them.
    pub oldest_run: RunId,
    /// Time at which that began.
    pub oldest_started_at: Timestamp,
}

/// `POST /v1/runs/{id}/erase`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EraseRun {
    /// The reason; kept as the proof that it was erased. Do not name the person whom the run is about.
    pub reason: String,
    /// Kill the run first if it has not ended: its effects remain and nothing undoes them. Without it such a run is
    /// refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kill: bool,
}

/// `POST /v1/runs/{id}/erase`: the run was erased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErasedRun {
    /// The run.
    pub id: RunId,
    /// Time of the erasure.
    pub erased_at: Timestamp,
    /// Number of runs that were erased: this one and all its descendants.
    pub runs: u64,
    /// Number of them that are still being erased; that continues in the background.
    pub pending: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_is_spelt_as_a_duration_or_a_word() {
        for (text, keep) in [
            ("server", Keep::Server),
            ("forever", Keep::Forever),
            ("30d", Keep::For(Span::secs(30 * 86_400))),
        ] {
            let json = format!("\"{text}\"");
            assert_eq!(serde_json::from_str::<Keep>(&json).unwrap(), keep);
            assert_eq!(serde_json::to_string(&keep).unwrap(), json);
        }
        let refused = serde_json::from_str::<Keep>("\"never\"").unwrap_err().to_string();
        assert!(refused.contains("nor 'forever' or 'server'"), "{refused}");
    }
}
