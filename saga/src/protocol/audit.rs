//! The audit: acts of people, and their search.

use serde::{Deserialize, Serialize};

use crate::{Payload, RunId, Timestamp};

/// Filter of acts. Nothing is both a queue and a schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ActFilter {
    /// Only by this person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Only on this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Only on this workflow and its runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// Only on this queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Only on this schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Only on this job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Only on facts about this subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Only on this credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// Only on the grants of this role of the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_role: Option<String>,
    /// Only on the contract with this subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contract: Option<String>,
    /// Only on this subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    /// Only on this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Only this verb.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// Only at this instant or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Only before this instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
}

impl ActFilter {
    /// The verbs of all acts, on runs and beside them.
    pub const VERBS: &[&str] = &[
        "activate",
        "approve",
        "backfill",
        "cancel",
        "close",
        "compensate",
        "create",
        "delete",
        "erase",
        "establish",
        "grant",
        "kill",
        "label",
        "mark-compensated",
        "migrate",
        "open",
        "pause",
        "pin",
        "plan",
        "put",
        "register",
        "reprocess",
        "rerun",
        "reset",
        "resolve",
        "resume",
        "retention",
        "retry",
        "revoke",
        "rotate",
        "set-mode",
        "set-quotas",
        "set-state",
        "signal",
        "skip",
        "skip-requirements",
        "stop",
        "trigger",
        "undo-approval",
        "unpin",
        "withdraw",
    ];
}

/// One entry of `GET /v1/acts`: an act of a person on a run, or on the object that one of the first
/// members names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActLine {
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The record of the run's history that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The workflow: that of the run, or the object of the act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Subject of the fact that `detail` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// The role of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_role: Option<String>,
    /// The subject of the contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<String>,
    /// The subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    /// The source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The time.
    pub at: Timestamp,
    /// The actor; `backstitch` when the guard against a bad deploy did it.
    pub actor: String,
    /// The action: `retry`, `compensate`, `mark-compensated`, `cancel`, `kill`, `pause`, `put`, …
    pub verb: String,
    /// The step or item, where it was about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The reason; may be empty where no reason is asked for.
    pub reason: String,
    /// The document of a request that sets something: the policy of a queue, the spec of a schedule, the request
    /// for a job, the name of a fact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Payload>,
}
