//! Predicts the answer to a job for one of its items, without acting: the rules decide on a copy of the run.

use std::sync::Arc;

use backstitch_saga::protocol::{IncidentId, IncidentState, ItemState, JobItem, NewJob};
use backstitch_saga::{By, Refusal, Run};

use super::work::what;
use crate::incidents;
use crate::node::Node;
use crate::{Error, edits, reads, signals};

/// The largest run, in folded events, that is copied for a trial decision; for larger ones only simple checks are made.
const MOST_EVENTS: u64 = 50_000;

/// Marks an item for which the verb of a job would be refused in the present state of its run.
pub(super) async fn foresee(
    node: &Arc<Node>,
    namespace: &str,
    asked: &NewJob,
    item: &mut JobItem,
) -> Result<(), Error> {
    let refused = match foreseen(node, namespace, asked, item).await {
        Ok(()) => return Ok(()),
        Err(error @ (Error::Busy | Error::Store(_))) => return Err(error),
        Err(error) => error,
    };
    let answer = refused.task_answer();
    item.state = ItemState::Refused;
    (item.code, item.message) = (answer.code, answer.message);
    Ok(())
}

async fn foreseen(
    node: &Arc<Node>,
    namespace: &str,
    asked: &NewJob,
    item: &JobItem,
) -> Result<(), Error> {
    let run = item.run;
    let reason = match asked.reason.trim() {
        "" => "a dry run".to_owned(),
        reason => reason.to_owned(),
    };
    let by = By { actor: "a dry run".into(), reason };
    let Some(act) = what(asked) else {
        let name = asked.signal.as_deref().unwrap_or_default();
        let data = asked.data.clone().unwrap_or_else(backstitch_saga::Payload::null);
        return signals::foresee(node, namespace, run, name, data, by).await;
    };
    let command = match item.incident {
        Some(id) => of_incident(node, namespace, id, act, by).await?,
        None => act.command("", None, by)?,
    };
    edits::check(node, namespace, run, &command).await?;
    let (now, verb) = (node.clock.now(), asked.verb);
    let number = item.incident.map(|incident| incident.number);
    let decided = reads::read(node, namespace, run, move |run: &Run| -> Result<(), Refusal> {
        if run.events_folded() <= MOST_EVENTS {
            return run.check_command(command.clone(), now);
        }
        match verb {
            backstitch_saga::protocol::JobVerb::Retry => run.check_retry(number),
            verb if verb.is_for_moving_runs() => run.check_moves(),
            _ => Ok(()),
        }
    });
    Ok(decided.await??)
}

async fn of_incident(
    node: &Arc<Node>,
    namespace: &str,
    id: IncidentId,
    act: incidents::act::IncidentAct,
    by: By,
) -> Result<backstitch_saga::Command, Error> {
    let line = incidents::line(node, namespace, id).await?;
    if line.state == IncidentState::Resolved {
        return Err(incidents::act::resolved(id));
    }
    act.command(&line.kind, line.step.as_ref(), by)
}
