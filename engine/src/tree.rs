//! Runs that are steps of runs, as one tree.

use backstitch_saga::RunId;
use backstitch_saga::protocol::{RunTree, RunView, TreeRun};

use crate::{Engine, Error, reads};

/// How many runs a tree tells of.
const MOST: usize = 1_000;

impl Engine {
    /// The whole tree that a run stands in, from its root; of a large one the first 1,000 runs. A child that has not
    /// begun yet is left out, and so is a parent that retention dropped.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn tree(&self, namespace: &str, id: RunId) -> Result<RunTree, Error> {
        let mut root = reads::run(self.node(), namespace, id, None).await?;
        while let Some(parent) = &root.parent {
            match self.there(namespace, parent.run).await? {
                Some(view) => root = view,
                None => break,
            }
        }
        let mut runs = Vec::new();
        let mut open = vec![(0, root)];
        while let Some((depth, view)) = open.pop() {
            if runs.len() == MOST {
                return Ok(RunTree { runs, more: true });
            }
            // The last is looked at first.
            for child in view.steps.iter().rev().filter_map(|step| step.child) {
                let child = self.there(namespace, child).await?;
                open.extend(child.map(|child| (depth + 1, child)));
            }
            runs.push(line(depth, &view));
        }
        Ok(RunTree { runs, more: false })
    }

    /// The run, if it is there.
    async fn there(&self, namespace: &str, id: RunId) -> Result<Option<RunView>, Error> {
        match reads::run(self.node(), namespace, id, None).await {
            Ok(view) => Ok(Some(view)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn line(depth: u32, view: &RunView) -> TreeRun {
    let mut conditions: Vec<String> = view.conditions.iter().map(|one| one.kind.clone()).collect();
    conditions.sort_unstable();
    conditions.dedup();
    TreeRun {
        conditions,
        depth,
        run: view.id,
        parent: view.parent.as_ref().map(|parent| parent.run),
        step: view.parent.as_ref().map(|parent| parent.step.clone()),
        workflow: view.workflow.clone(),
        version: view.version,
        state: view.state,
        outcome: view.outcome,
    }
}
