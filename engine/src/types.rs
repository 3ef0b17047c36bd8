//! Requests and responses of the engine that are not part of the protocol.

use std::sync::Arc;

use backstitch_saga::protocol::{self, CredentialScope, Outcome, RunsFilter, State};
use backstitch_saga::{RunId, Time, Timestamp};

/// Filter of runs, newest first.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only this workflow.
    pub workflow: Option<String>,
    /// Only in this state.
    pub state: Option<State>,
    /// Only with this outcome.
    pub outcome: Option<Outcome>,
    /// Only with this key.
    pub key: Option<String>,
    /// Only with all of these labels.
    pub labels: Vec<(String, String)>,
    /// Only with this correlation id.
    pub correlation_id: Option<String>,
    /// Only where this condition holds.
    pub condition: Option<String>,
    /// Only with an open incident, or only without.
    pub incident: Option<bool>,
    /// Only with a step that may have happened in this system: the queue on which its tasks are offered.
    pub unknown_in: Option<String>,
    /// Only where this person is asked for a signal.
    pub assignee: Option<String>,
    /// Only started at this instant or later.
    pub started_from: Option<Timestamp>,
    /// Only started before this instant.
    pub started_to: Option<Timestamp>,
    /// Only ended at this instant or later.
    pub ended_from: Option<Timestamp>,
    /// Only ended before this instant.
    pub ended_to: Option<Timestamp>,
    /// The cursor of the page before.
    pub after: Option<String>,
    /// 1 to 1,000.
    pub limit: u32,
}

/// Filter of the items of a map step, by index.
#[derive(Clone, Debug, Default)]
pub struct ItemFilter {
    /// Only in this state.
    pub state: Option<String>,
    /// Only the item with this key.
    pub key: Option<String>,
    /// The cursor of the page before.
    pub after: Option<String>,
    /// 1 to 1,000.
    pub limit: u32,
}

impl From<&RunsFilter> for RunFilter {
    fn from(filter: &RunsFilter) -> RunFilter {
        let filter = filter.clone();
        RunFilter {
            workflow: filter.workflow,
            state: filter.state,
            outcome: filter.outcome,
            key: filter.key,
            correlation_id: filter.correlation_id,
            labels: filter.labels.into_iter().collect(),
            condition: filter.condition,
            incident: filter.incident,
            unknown_in: filter.unknown_in,
            assignee: filter.assignee,
            started_from: filter.started_from,
            started_to: filter.started_to,
            ended_from: filter.ended_from,
            ended_to: filter.ended_to,
            after: None,
            limit: 0,
        }
    }
}

/// Result of registering a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// It is new.
    Created,
    /// The same was there.
    Unchanged,
}

/// Result of a start request.
#[derive(Clone, Debug)]
pub struct StartedRun {
    /// The run.
    pub id: RunId,
    /// `true` if this request created it; otherwise its key existed.
    pub created: bool,
}

/// Rights of a credential, from most to least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Everything, including credentials.
    Admin,
    /// Acts on runs.
    Operator,
    /// Starts runs and reads.
    Starter,
    /// Claims and completes tasks, registers workflows.
    Worker,
    /// Reads.
    Viewer,
}

impl Role {
    const ALL: [Role; 5] = [Role::Admin, Role::Operator, Role::Starter, Role::Worker, Role::Viewer];

    /// Returns the word used in JSON and in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Operator => "operator",
            Role::Starter => "starter",
            Role::Worker => "worker",
            Role::Viewer => "viewer",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// The worker that claims tasks and reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker<'a> {
    /// Where.
    pub namespace: &'a str,
    /// The name of its credential, to which its sessions belong.
    pub credential: Option<&'a str>,
    /// Nothing that it says of a task counts without the token of the lease.
    pub must_prove: bool,
}

impl<'a> From<&'a str> for Worker<'a> {
    /// Makes a worker of which only the namespace is known; a token counts if it shows one.
    fn from(namespace: &'a str) -> Worker<'a> {
        Worker { namespace, credential: None, must_prove: false }
    }
}

/// A credential, as found by its secret.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Its name, which histories record.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Where.
    pub namespace: String,
    /// SHA-256 of its secret, by which it is found again.
    pub digest: [u8; 32],
    /// Resources that it may use; all without it.
    pub scope: Option<Arc<CredentialScope>>,
    /// Time from which this secret is refused.
    pub until: Option<Time>,
}

impl Credential {
    pub(crate) fn is_good(&self, now: Time) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl From<Role> for protocol::Role {
    fn from(role: Role) -> protocol::Role {
        match role {
            Role::Admin => protocol::Role::Admin,
            Role::Operator => protocol::Role::Operator,
            Role::Starter => protocol::Role::Starter,
            Role::Worker => protocol::Role::Worker,
            Role::Viewer => protocol::Role::Viewer,
        }
    }
}

impl From<protocol::Role> for Role {
    fn from(role: protocol::Role) -> Role {
        match role {
            protocol::Role::Admin => Role::Admin,
            protocol::Role::Operator => Role::Operator,
            protocol::Role::Starter => Role::Starter,
            protocol::Role::Worker => Role::Worker,
            protocol::Role::Viewer => Role::Viewer,
        }
    }
}

/// Result of `doctor`.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// Journals read.
    pub runs_checked: u64,
    /// Runs whose indexes differ from their journals, or whose journal cannot be read.
    pub runs_wrong: u64,
    /// Differences between the indexes and the journals, one per line.
    pub differences: Vec<String>,
    /// Number of runs that were repaired.
    pub mended: u64,
}
