//! Acts on an incident: each verb is a command to its run about its step. Notes and assignments are written beside
//! the run.

use std::sync::Arc;

use backstitch_saga::protocol::{
    IncidentId, IncidentLine, IncidentState, IncidentView, Labels, Scope,
};
use backstitch_saga::{
    By, Command, Hold, HoldKind, IncidentKind, Payload, Refusal, RefusalCode, Run, RunId, StepPath,
};

use super::{line, view};
use crate::crash::commit;
use crate::node::Node;
use crate::store::{acts, incidents as table};
use crate::tasks::check_payload;
use crate::{Engine, Error, edits, reads};

/// Incidents about what a run requires of others.
const OF_OTHERS: [&str; 2] =
    [IncidentKind::DependencyUnmet.as_str(), IncidentKind::DependencyWithdrawn.as_str()];

/// Incidents about what a run left behind when it ended.
const LEFT: &str = IncidentKind::EffectsLeft.as_str();

/// A verb with what it needs.
#[derive(Clone, Debug)]
pub enum IncidentAct {
    /// Let the step try again with fresh attempts.
    Retry {
        /// Its new input; the one it had without it.
        input: Option<Payload>,
    },
    /// Go on without the step.
    Skip {
        /// The output that replaces its own.
        output: Option<Payload>,
    },
    /// Say that the step was done.
    Resolve {
        /// With what output.
        output: Payload,
        /// Name of the effect in the target system.
        external_id: Option<String>,
    },
    /// Vouch that the step's compensation is done, or needs not be.
    MarkCompensated,
    /// Undo the run, or a part of it.
    Compensate {
        /// The part to undo.
        scope: Scope,
        /// Even past a pivot.
        force: bool,
    },
    /// Stop the run and undo what was done.
    Cancel,
    /// Ends the run without undoing anything.
    Abandon,
    /// Go back to a step of the run and forward again from there.
    Rerun {
        /// From which step.
        from: String,
        /// Its new input; the one it had without it.
        input: Option<Payload>,
        /// Only the items of a fan-out that did not succeed.
        only_failed: bool,
        /// Even if something that nothing undoes is done twice.
        force: bool,
    },
    /// Hand nothing of the run out until it is resumed.
    Pause {
        /// The name of the pause; the actor's without it.
        name: Option<String>,
    },
    /// Let the run go on.
    Resume {
        /// The pause that is over; all of them without it.
        name: Option<String>,
    },
    /// Give labels to the run, and take others from it.
    Label {
        /// Those that it gets.
        set: Labels,
        /// The names of those that it loses.
        remove: Vec<String>,
    },
}

impl IncidentAct {
    /// Returns the word of the verb in the audit.
    fn audited_as(&self, about: &str) -> &'static str {
        match self {
            IncidentAct::Retry { .. } => "retry",
            IncidentAct::Skip { .. } if OF_OTHERS.contains(&about) => "skip-requirements",
            IncidentAct::Skip { .. } => "skip",
            IncidentAct::Resolve { .. } => "resolve",
            IncidentAct::MarkCompensated => "mark-compensated",
            IncidentAct::Compensate { .. } => "compensate",
            IncidentAct::Cancel => "cancel",
            IncidentAct::Abandon => "kill",
            IncidentAct::Rerun { .. } => "rerun",
            IncidentAct::Pause { .. } => "pause",
            IncidentAct::Resume { .. } => "resume",
            IncidentAct::Label { .. } => "label",
        }
    }

    /// Refuses a document that could not be stored, in any state of the incident.
    fn check(&self, limit: usize) -> Result<(), Error> {
        match self {
            IncidentAct::Retry { input } => check_payload("/input", input.as_ref(), limit),
            IncidentAct::Skip { output } => check_payload("/output", output.as_ref(), limit),
            IncidentAct::Resolve { output, .. } => check_payload("/output", Some(output), limit),
            _ => Ok(()),
        }
    }

    /// Returns the command to a run about `step`. `about` is the kind of the incident.
    pub(crate) fn command(
        self,
        about: &str,
        step: Option<&StepPath>,
        by: By,
    ) -> Result<Command, Error> {
        let needed = || {
            step.cloned().ok_or_else(|| Error::Conflict {
                code: "no_step",
                message: "this is about the run as a whole; say what is to become of the run"
                    .to_owned(),
            })
        };
        Ok(match self {
            IncidentAct::Retry { input } => Command::Retry { step: step.cloned(), input, by },
            // Not a step is skipped: the run begins although its requirements are not established.
            IncidentAct::Skip { output: None } if OF_OTHERS.contains(&about) => {
                Command::SkipRequirements { by }
            }
            IncidentAct::Skip { output } => Command::Skip { step: needed()?, output, by },
            IncidentAct::Resolve { output, external_id } => {
                Command::Resolve { step: needed()?, output, external_id, by }
            }
            // A run that ended left it, perhaps at several steps.
            IncidentAct::MarkCompensated if about == LEFT && step.is_none() => {
                Command::MarkLeft { by }
            }
            IncidentAct::MarkCompensated => Command::MarkUndone { step: needed()?, by },
            IncidentAct::Compensate { scope, force } => Command::Compensate { scope, force, by },
            IncidentAct::Cancel => Command::Cancel { by },
            IncidentAct::Rerun { from, input, only_failed, force } => {
                Command::Rerun { from: from.into(), input, only_failed, force, by }
            }
            IncidentAct::Pause { name } => {
                let message = format!("paused by {}", by.actor);
                let name = name.map_or_else(|| by.actor.clone(), Into::into);
                let hold = Hold { kind: HoldKind::Paused, name };
                Command::Hold { hold, by: Some(by), message }
            }
            IncidentAct::Resume { name } => {
                let hold = name.map(|name| Hold::new(HoldKind::Paused, name));
                Command::Unhold { hold, by: Some(by) }
            }
            IncidentAct::Label { set, remove } => {
                let remove = remove.into_iter().map(Into::into).collect();
                Command::Label { set, remove, by }
            }
            IncidentAct::Abandon => Command::Kill { by },
        })
    }
}

impl Engine {
    /// Does something about an incident; the answer comes after the commit. The same again, by the same person and
    /// for the same reason, is done once.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it is resolved; [`Error::Refused`] by its run.
    pub async fn act_on_incident(
        &self,
        namespace: &str,
        id: IncidentId,
        what: IncidentAct,
        by: By,
    ) -> Result<IncidentView, Error> {
        act(self.node(), namespace, id, what, by).await?;
        view(self.node(), namespace, id).await
    }

    /// Assigns an incident to a person, or to nobody.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn assign_incident(
        &self,
        namespace: &str,
        id: IncidentId,
        actor: &str,
        assignee: Option<&str>,
        note: Option<&str>,
    ) -> Result<IncidentView, Error> {
        line(self.node(), namespace, id).await?;
        not_erased(self.node(), namespace, id.run).await?;
        let now = self.node().clock.now();
        let mut connection = self.node().database.reader(namespace).await?;
        let done = commit!(
            "incidents_assign",
            table::assign(&mut connection, namespace, id, now, actor, assignee, note).await
        )?;
        drop(connection);
        must_be_written(done)?;
        view(self.node(), namespace, id).await
    }

    /// Writes a note to an incident.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn note_incident(
        &self,
        namespace: &str,
        id: IncidentId,
        actor: &str,
        note: &str,
    ) -> Result<IncidentView, Error> {
        line(self.node(), namespace, id).await?;
        not_erased(self.node(), namespace, id.run).await?;
        let now = self.node().clock.now();
        let mut connection = self.node().database.reader(namespace).await?;
        let done = commit!(
            "incidents_note",
            table::note(&mut connection, namespace, id, now, actor, note).await
        )?;
        drop(connection);
        must_be_written(done)?;
        view(self.node(), namespace, id).await
    }
}

/// Refuses a text beside an erased run: it would be lost, or deleted with the rest.
async fn not_erased(node: &Arc<Node>, namespace: &str, run: RunId) -> Result<(), Error> {
    match reads::read(node, namespace, run, Run::check_not_erased).await {
        Ok(checked) => Ok(checked?),
        // Notes about a damaged run are kept.
        Err(Error::Damaged(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Refuses a text that was not written because the run was erased in between.
fn must_be_written(done: bool) -> Result<(), Error> {
    if done {
        return Ok(());
    }
    Err(Error::Refused(Refusal::new(RefusalCode::RunErased, "the run was erased meanwhile")))
}

/// Does something about an incident. One that is resolved is left alone, unless it was this very act that resolved it.
pub(crate) async fn act(
    node: &Arc<Node>,
    namespace: &str,
    id: IncidentId,
    what: IncidentAct,
    by: By,
) -> Result<(), Error> {
    what.check(node.options.payload_limit)?;
    let line = line(node, namespace, id).await?;
    if line.state == IncidentState::Resolved {
        if was_done(node, &line, &what, &by).await? {
            return Ok(());
        }
        not_erased(node, namespace, id.run).await?;
        return Err(resolved(id));
    }
    let command = what.clone().command(&line.kind, line.step.as_ref(), by.clone())?;
    edits::check(node, namespace, id.run, &command).await?;
    match node.ask(namespace, id.run, command).await {
        Ok(_) => Ok(()),
        // Somebody was faster; it may have been this act, sent twice.
        Err(Error::Refused(refusal)) => {
            if was_done(node, &line, &what, &by).await? {
                return Ok(());
            }
            Err(Error::Refused(refusal))
        }
        Err(error) => Err(error),
    }
}

/// Does the same to a run as a whole.
pub(crate) async fn act_on_run(
    node: &Arc<Node>,
    namespace: &str,
    run: RunId,
    what: IncidentAct,
    by: By,
) -> Result<(), Error> {
    let command = what.command("", None, by)?;
    edits::check(node, namespace, run, &command).await?;
    node.ask(namespace, run, command).await.map(|_| ())
}

async fn was_done(
    node: &Node,
    line: &IncidentLine,
    what: &IncidentAct,
    by: &By,
) -> Result<bool, Error> {
    let mut connection = node.database.readers.acquire().await?;
    let since = line.opened_at.0;
    Ok(acts::was_done(&mut connection, line.run, what.audited_as(&line.kind), by, since).await?)
}

pub(crate) fn resolved(id: IncidentId) -> Error {
    Error::Conflict {
        code: "incident_resolved",
        message: format!("the incident {id} is resolved; if the trouble came back, it is another"),
    }
}
