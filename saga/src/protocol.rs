//! The JSON that servers, workers and clients exchange: one home, used by `api/` and `worker-sdk/` alike.

mod access;
mod acts;
mod audit;
mod background;
mod contracts;
mod data_erasure;
mod effects;
mod events;
mod hints;
mod imports;
mod incidents;
mod intake;
mod jobs;
mod links;
mod plans;
mod queues;
mod quotas;
mod rehearsal;
mod reprocessing;
mod retention;
mod runs;
mod schedule_builder;
mod schedules;
mod sequence;
mod sources;
mod starts;
mod status;
mod subscriptions;
mod tasks;
mod transforms;
mod tree;
mod versions;
mod view;
mod why;
mod words;
mod workers;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::{Definition, Timestamp, Violation};

pub use access::{
    CredentialScope, CredentialSecret, CredentialState, CredentialView, DatabaseRoleView,
    NewCredential, Role, RotateCredential, WhoAmI,
};
pub use acts::{
    PauseRun, Paused, Reason, RerunItems, RerunPlan, RerunRun, ResolveStep, RetryStep, SendSignal,
    SendSignalByKey, SignalSent, SkipStep,
};
pub use audit::{ActFilter, ActLine};
pub use background::{BackgroundTaskView, BackgroundTasks};
pub use contracts::{
    ContractBreak, ContractCheck, ContractKind, ContractLine, ContractMode, ContractReaderView,
    ContractState, ContractVersionView, ContractView, PinReader, RegisterContract, SetContractMode,
    SetContractState,
};
pub use data_erasure::{EraseData, EraseHint, ErasureState, ErasureView};
pub use effects::{EffectCounts, EffectFilter, EffectLine, EffectStatus, SystemCount};
pub use events::{
    CursorView, EventOp, EventPage, EventReceipt, EventTrust, EventView, EventsPublished,
    MoveCursor, NewEvent, PublishEvents,
};
pub use hints::HintView;
pub use imports::{ImportForm, ImportReceipt, ImportState, ImportView, RefusedRow};
pub use incidents::{
    AssignIncident, AttemptView, CompensateIncident, IncidentCounts, IncidentFilter, IncidentGroup,
    IncidentId, IncidentLine, IncidentNote, IncidentState, IncidentView, KindCount, NoteIncident,
    PauseView, StatusView, Verb,
};
pub use intake::{
    EventLineage, IntakeAnswer, IntakeAnswers, IntakeDoor, IntakeMapping, IntakeReceipt,
    IntakeVerdict, IntakeView, LineageEvent, MappingState,
};
pub use jobs::{
    Canary, ItemState, JobItem, JobPlan, JobProgress, JobState, JobVerb, JobView, NewJob,
    RunsFilter, StopWhen,
};
pub use links::{
    ConflictState, LinkConflictView, LinkKept, LinkView, PutLink, ResolveLinkConflict,
};
pub use plans::{
    ApplyPlan, Approval, ApprovePlan, CompensationPlan, EditPlan, MakePlan, PlanFilter, PlanState,
    PlanView, SetUndoApproval, UndoApprovalView,
};
pub use queues::{
    BreakerPolicy, BreakerState, BreakerView, BudgetView, QueuePolicy, QueueView, Rate, RetryBudget,
};
pub use quotas::{QuotaSource, QuotaView, Quotas, QuotasView};
pub use rehearsal::{FailurePoint, OpenTrace, RehearsalView, RehearsedStep};
pub use reprocessing::{
    MappingProblem, MappingProblems, NewReprocess, ReprocessState, ReprocessView,
};
pub use retention::{EraseRun, ErasedRun, HeldWeek, Keep, RetentionView, SetRetention};
pub use runs::{
    CompensateRun, LabelRun, Plan, PlannedUndo, RunStarted, Scope, StartAnswer, StartAnswers,
    StartRun, StartRuns,
};
pub use schedules::{
    BackfillPlan, BackfillSchedule, Interval, IntervalUnit, NextStart, NextStarts, Overlap,
    RunningBackfill, ScheduleCounts, ScheduleLine, ScheduleSpec, ScheduleStart, ScheduleView,
    StartOrigin, StartOutcome, TriggerSchedule, Triggered, WaitingStart,
};
pub use sequence::{
    FactDependent, FactOn, FactView, FactWaiter, KeyPlace, OnConflict, OnWithdrawn, Requirement,
    Sequence, StartSequence, SubjectFacts, WithdrawFact,
};
pub use sources::{
    PutSource, RotateSource, SourceAccepts, SourceEncoding, SourceHash, SourceHint, SourceMatch,
    SourcePlace, SourceSecret, SourceSpec, SourceVerification, SourceVersion, SourceView,
};
pub use starts::{Decision, Refused, StartRequestState, StartRequestView};
pub use status::{CREATED, DONE, status_of};
pub use subscriptions::{
    EventFilter, KeyState, OnEventFailure, PendingEvents, ResetSubscription, SkipEvent,
    SkippedEvent, SubscriptionInput, SubscriptionKey, SubscriptionKind, SubscriptionSpec,
    SubscriptionState, SubscriptionStop, SubscriptionView,
};
pub use tasks::{
    ClaimTasks, ClaimedTasks, CompleteTasks, Failure, FailureKind, Forward, Heartbeat,
    HeartbeatTasks, HeldTask, MOST_HELD, ReleaseTasks, TaskAnswer, TaskAnswers, TaskOffer,
    TaskOutcome, TaskReport, Verdict,
};
pub use transforms::{
    ActivateTransform, PutTransform, TestTransform, TransformLine, TransformRevision,
    TransformTest, TransformView, TransformWhatIf, WhatIfTransform,
};
pub use tree::{RunTree, TreeRun};
pub use versions::{
    CheckedRun, Mapping, MigratedRun, MigrationCheck, MigrationView, NewMigration, Obstacle,
    ObstacleKind, OnObstacle, VersionLoad,
};
pub use view::{
    Awaits, Condition, EndByView, HistoryEntry, Outcome, Progress, RunError, RunLine, RunView,
    State, StepView,
};
pub use why::{WaitKind, WaitsFor, Why};
pub use words::{CompensationState, StepKind, StepState};
pub use workers::{SignOff, SignedOff, WorkerView};

/// Free-form marks on a run, to search by.
pub type Labels = BTreeMap<String, String>;

/// A page of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The elements.
    pub items: Vec<T>,
    /// Pass it as `after` for the next page; none when this was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A registered workflow version.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkflowView {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// SHA-256 of its text without white space and with sorted members; runs pin this.
    pub hash: String,
    /// Time of the registration.
    pub registered_at: Timestamp,
    /// The definition; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Definition>,
    /// Retention of the ended runs of the workflow, of all versions alike; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionView>,
    /// Extent of its rehearsal when this request registered it; none in any other answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Rehearsed>,
    /// Contradictions in it; sent when it is registered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// Extent of the rehearsal of a definition before it was accepted. A definition that does not close is refused,
/// unless all findings are in `warnings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rehearsed {
    /// Number of simulated runs, each with other failures.
    pub traces: u64,
    /// `true` if these are all runs with up to two failures. Registering stops at a bound; `backstitch rehearse` goes
    /// further.
    pub complete: bool,
    /// Findings that are allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Violation>,
}

/// The response to `POST /v1/workflows/validate`: the definition may be registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ValidWorkflow {
    /// The name it carries.
    pub name: String,
    /// The version it carries.
    pub version: u32,
    /// Extent of its rehearsal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Rehearsed>,
    /// Contradictions in it; it may be registered all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// Something in a definition that makes sense, and that yet is hardly what is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warning {
    /// The place in the definition, a JSON Pointer.
    pub pointer: String,
    /// Stable code: `never_reached`, of a span that is longer than another which ends it first; `starts_itself`, of a
    /// workflow whose every run starts another one; `no_effect`, of what changes nothing; `never_due`, of a schedule
    /// that is over; `clock_corrected`, of a schedule whose instants come again.
    pub code: String,
    /// The contradiction, for people.
    pub message: String,
}

/// An error, as `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A URI for the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status.
    pub status: u16,
    /// Stable code.
    pub code: String,
    /// Meaning of the code.
    pub title: String,
    /// Explanation of this occurrence, with what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// All violations, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
    /// The ways in which a version of a contract breaks, with `incompatible_schema`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breaks: Vec<ContractBreak>,
    /// The version that the stream has, with `stream_version_conflict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual_version: Option<u64>,
    /// The oldest position that can be read, with `position_past_retention`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_position: Option<u64>,
    /// Under which id a document of a source is kept that was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intake_id: Option<Uuid>,
}

/// Reads a map and refuses a duplicate key.
fn each_key_once<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct EachOnce<V>(PhantomData<V>);

    impl<'de, V: Deserialize<'de>> Visitor<'de> for EachOnce<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some(key) = members.next_key::<String>()? {
                if map.contains_key(&key) {
                    return Err(A::Error::custom(format_args!("duplicate key `{key}`")));
                }
                map.insert(key, members.next_value()?);
            }
            Ok(map)
        }
    }

    deserializer.deserialize_map(EachOnce(PhantomData))
}
