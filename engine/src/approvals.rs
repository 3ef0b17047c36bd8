//! Workflows whose undos one person may not request alone. Each node keeps them in memory, reads them again with every
//! beat, and reads nothing of other workflows: so commands that stop a run wait for no query.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use backstitch_saga::protocol::{Approval, Scope};
use backstitch_saga::{Command, PlanPage, Run, RunId};
use tokio::sync::oneshot;

use crate::node::Node;
use crate::store::plans as table;
use crate::{Error, plans, reads};

/// Workflows of a namespace that a node keeps in memory. Of a namespace with more it asks for each undo.
pub(crate) const MOST_OF_ONE: usize = 1_000;
/// Workflows of all namespaces. With more it asks for each undo of any.
pub(crate) const MOST: usize = 100_000;

/// Number of undos of a run that one person may request alone, by workflow.
type Policies = Arc<HashMap<String, u64>>;

/// The policies of approval, as a node knows them.
#[derive(Debug, Default)]
pub(crate) struct Approvals {
    /// By namespace; `None` when there are too many to keep.
    known: RwLock<Option<HashMap<String, Policies>>>,
}

/// The policies of a namespace, as a node knows them.
#[derive(Debug, PartialEq)]
enum Known {
    /// No workflow of it needs a second person.
    Nothing,
    /// These do.
    These(Policies),
    /// It must be asked.
    Unknown,
}

impl Approvals {
    fn of(&self, namespace: &str) -> Known {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = known.as_ref() else { return Known::Unknown };
        match known.get(namespace) {
            None => Known::Nothing,
            Some(of) if of.len() > MOST_OF_ONE => Known::Unknown,
            Some(of) => Known::These(Arc::clone(of)),
        }
    }

    fn learn(&self, rows: Vec<(String, String, u64)>) {
        let all = rows.len() <= MOST;
        let mut known: HashMap<String, HashMap<String, u64>> = HashMap::new();
        for (namespace, workflow, above) in rows {
            known.entry(namespace).or_default().insert(workflow, above);
        }
        let known = known.into_iter().map(|(namespace, of)| (namespace, Arc::new(of))).collect();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = all.then_some(known);
    }

    /// Notes what this node has just set. Others learn it with their next beat.
    pub(crate) fn set(&self, namespace: &str, workflow: &str, approval: Approval) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = known.as_mut() else { return };
        let of = Arc::make_mut(known.entry(namespace.to_owned()).or_default());
        match approval.alone() {
            None => of.remove(workflow),
            Some(alone) => of.insert(workflow.to_owned(), u64::from(alone)),
        };
        if of.is_empty() {
            known.remove(namespace);
        }
    }
}

/// Learns which workflows need a second person.
pub(crate) async fn learn(node: &Node) -> Result<(), Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let beyond = |most: usize| i64::try_from(most + 1).unwrap_or(i64::MAX);
    let bounds = (beyond(MOST_OF_ONE), beyond(MOST));
    node.approvals.learn(table::all_alone(&mut connection, bounds).await?);
    Ok(())
}

/// Returns the workflow of a run that is in this node's memory.
async fn workflow_in_memory(node: &Node, namespace: &str, run: RunId) -> Option<String> {
    let ours: Arc<str> = namespace.into();
    let (send, receive) = oneshot::channel();
    let look = move |run: Option<&Run>| {
        let run = run.filter(|run| run.namespace() == &*ours);
        // The caller may have given up.
        let _ = send.send(run.map(|run| run.graph().definition.name.clone()));
    };
    node.read(run, 0, Box::new(look));
    receive.await.ok().flatten()
}

/// Refuses an undo that one person may not ask for alone.
pub(crate) async fn check(
    node: &Arc<Node>,
    namespace: &str,
    run: RunId,
    command: &Command,
) -> Result<(), Error> {
    let undoes = matches!(
        command,
        Command::Compensate { .. } | Command::Cancel { .. } | Command::Rerun { .. }
    );
    if !undoes {
        return Ok(());
    }
    let policies = match node.approvals.of(namespace) {
        Known::Nothing => return Ok(()),
        Known::These(policies) => policies,
        Known::Unknown => {
            let mut connection = node.database.reader(namespace).await?;
            Arc::new(table::alone_in(&mut connection, namespace).await?)
        }
    };
    let workflow = workflow_in_memory(node, namespace, run).await;
    if workflow.is_some_and(|workflow| !policies.contains_key(&workflow)) {
        return Ok(());
    }
    let (command, now) = (command.clone(), node.clock.now());
    let beyond = move |run: &Run| {
        let workflow = &run.graph().definition.name;
        let alone = *policies.get(workflow)?;
        let first = PlanPage::first();
        let plan = match &command {
            Command::Compensate { scope, .. } => run.plan_page(scope, now, &first),
            Command::Rerun { from, only_failed, .. } => {
                run.rerun_plan(from, *only_failed, now, &first).map(|plan| plan.undo)
            }
            _ => run.plan_page(&Scope::All, now, &first),
        };
        // The run refuses an undo that is not possible.
        let total = plan.ok()?.total;
        (total > alone).then(|| (workflow.clone(), total))
    };
    match reads::read(node, namespace, run, beyond).await {
        Ok(Some((workflow, undos))) => Err(plans::needs_approval(&workflow, undos)),
        // It may be about to begin, with nothing done yet.
        Ok(None) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_knows_what_it_set_and_asks_when_there_are_too_many() {
        let approvals = Approvals::default();
        assert_eq!(approvals.of("n"), Known::Unknown, "it has not asked yet");
        approvals.learn(Vec::new());
        assert_eq!(approvals.of("n"), Known::Nothing);
        approvals.set("n", "order", Approval::Above(20));
        assert_eq!(approvals.of("n"), Known::These(Arc::new([("order".to_owned(), 20)].into())));
        assert_eq!(approvals.of("m"), Known::Nothing);
        approvals.set("n", "order", Approval::Never);
        assert_eq!(approvals.of("n"), Known::Nothing);
        let row = |number: usize| ("n".to_owned(), format!("w{number}"), 0);
        approvals.learn((0..=MOST_OF_ONE).map(row).collect());
        assert_eq!((approvals.of("n"), approvals.of("m")), (Known::Unknown, Known::Nothing));
    }
}
