//! What the engine is asked and answers, as far as it is not part of the protocol.

use backstitch_saga::RunId;
use backstitch_saga::protocol::{Outcome, State};

/// Which runs to list, newest first.
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
    /// Only where this condition holds.
    pub condition: Option<String>,
    /// The cursor of the page before.
    pub after: Option<String>,
    /// 1 to 1,000.
    pub limit: u32,
}

/// What registering a definition did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// It is new.
    Created,
    /// The same was there.
    Unchanged,
}

/// What a start request did.
#[derive(Clone, Debug)]
pub struct StartedRun {
    /// The run.
    pub id: RunId,
    /// Whether this request made it; otherwise its key had.
    pub created: bool,
}

/// What a credential may do, from most to least.
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

    /// The word used in JSON and in the table.
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

/// A credential, as found by its secret.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Its name, as it stands in histories.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where.
    pub namespace: String,
}

/// What `doctor` found.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// Journals read.
    pub runs_checked: u64,
    /// What the indexes say against what the journals say, a line each.
    pub differences: Vec<String>,
    /// How many of them were mended.
    pub mended: u64,
}
