//! Runs that are steps of runs, as one tree.

use std::time::{Duration, Instant};

use backstitch_saga::protocol::{RunTree, RunView, TreeRun};
use backstitch_saga::{Run, RunId};

use crate::{Engine, Error, flow, reads};

/// How many runs a tree tells of.
pub(crate) const MOST: usize = 1_000;
/// For how long its runs are read; what was found until then is told.
pub(crate) const READ_FOR: Duration = Duration::from_secs(5);

/// What a tree needs to know of a run.
struct Found {
    line: TreeRun,
    children: Vec<RunId>,
}

impl Engine {
    /// The whole tree that a run stands in, from its root; of a large one the first 1,000 runs, or as many as are
    /// read in five seconds. Whether workers are there is not looked up. A child that has not
    /// begun yet is left out, and so is a parent that retention dropped.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn tree(&self, namespace: &str, id: RunId) -> Result<RunTree, Error> {
        let since = Instant::now();
        let mut root = self.look(namespace, id).await?;
        while let Some(parent) = root.line.parent
            && since.elapsed() < READ_FOR
        {
            match self.there(namespace, parent).await? {
                Some(found) => root = found,
                None => break,
            }
        }
        let mut runs = Vec::new();
        let mut open = vec![(0, root)];
        while let Some((depth, Found { line, children })) = open.pop() {
            if runs.len() == MOST || since.elapsed() > READ_FOR {
                return Ok(RunTree { runs, more: true });
            }
            // The last is looked at first. No more are read than a tree tells of.
            let wanted = children.len().min(MOST - runs.len());
            for child in children.into_iter().take(wanted).rev() {
                if since.elapsed() > READ_FOR {
                    break;
                }
                let child = self.there(namespace, child).await?;
                open.extend(child.map(|child| (depth + 1, child)));
            }
            runs.push(TreeRun { depth, ..line });
        }
        let more = since.elapsed() > READ_FOR;
        Ok(RunTree { runs, more })
    }

    async fn look(&self, namespace: &str, id: RunId) -> Result<Found, Error> {
        let (now, governed) = (self.node().clock.now(), self.node().flow.governed());
        let what = move |run: &Run| {
            let mut view = run.view(now);
            if let Some(governed) = &governed {
                view.conditions.extend(flow::conditions(governed, run, now));
            }
            let children = view.steps.iter().filter_map(|step| step.child).collect();
            Found { line: line(&view), children }
        };
        reads::read(self.node(), namespace, id, what).await
    }

    /// The run, if it is there.
    async fn there(&self, namespace: &str, id: RunId) -> Result<Option<Found>, Error> {
        match self.look(namespace, id).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn line(view: &RunView) -> TreeRun {
    let mut conditions: Vec<String> = view.conditions.iter().map(|one| one.kind.clone()).collect();
    conditions.sort_unstable();
    conditions.dedup();
    TreeRun {
        conditions,
        depth: 0,
        run: view.id,
        parent: view.parent.as_ref().map(|parent| parent.run),
        step: view.parent.as_ref().map(|parent| parent.step.clone()),
        workflow: view.workflow.clone(),
        version: view.version,
        state: view.state,
        outcome: view.outcome,
    }
}
