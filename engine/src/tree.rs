//! Runs that are steps of runs, as one tree.

use std::time::{Duration, Instant};

use backstitch_saga::protocol::{RunLine, RunTree, RunView, TreeRun};
use backstitch_saga::{Run, RunId, StepPath};

use crate::damage::UNREADABLE;
use crate::store::run_lists;
use crate::{Engine, Error, flow, reads};

/// Largest number of runs in a tree.
pub(crate) const MOST: usize = 1_000;
/// Time for which its runs are read; the runs found until then are returned.
pub(crate) const READ_FOR: Duration = Duration::from_secs(5);

/// Data of a run that a tree needs.
struct Found {
    line: TreeRun,
    /// With the steps that they are.
    children: Vec<(StepPath, RunId)>,
}

impl Engine {
    /// Returns the whole tree of a run, from its root; of a large one the first 1,000 runs, or as many as are read
    /// in five seconds. Workers are not considered. A child that has not begun is left out, and so is a parent that
    /// retention dropped. A run with a damaged journal is shown by its index row.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Damaged`] when the journal of the run itself is.
    pub async fn tree(&self, namespace: &str, id: RunId) -> Result<RunTree, Error> {
        let since = Instant::now();
        let mut root = self.look(namespace, id).await?;
        while let Some(parent) = root.line.parent
            && since.elapsed() < READ_FOR
        {
            match self.there(namespace, parent).await? {
                Some(mut found) => {
                    // One that cannot be read does not say which its children are.
                    let step = root.line.step.take().filter(|_| is_damaged(&found));
                    found.children.extend(step.map(|step| (step, root.line.run)));
                    root = found;
                }
                None => break,
            }
        }
        let mut runs = Vec::new();
        let mut open = vec![(0, root)];
        while let Some((depth, Found { line, children })) = open.pop() {
            if runs.len() == MOST || since.elapsed() > READ_FOR {
                return Ok(RunTree { runs, more: true });
            }
            // The last is read first. No more are read than a tree has.
            let wanted = children.len().min(MOST - runs.len());
            for (step, child) in children.into_iter().take(wanted).rev() {
                if since.elapsed() > READ_FOR {
                    break;
                }
                let Some(mut child) = self.there(namespace, child).await? else { continue };
                (child.line.parent, child.line.step) = (Some(line.run), Some(step));
                open.push((depth + 1, child));
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
            let steps = view.steps.iter();
            let children =
                steps.filter_map(|step| Some((step.step.clone(), step.child?))).collect();
            Found { line: line(&view), children }
        };
        reads::read(self.node(), namespace, id, what).await
    }

    /// Returns the run, if it exists.
    async fn there(&self, namespace: &str, id: RunId) -> Result<Option<Found>, Error> {
        match self.look(namespace, id).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(Error::Damaged(_)) => {
                let mut connection = self.node().database.reader(namespace).await?;
                let known = run_lists::one(&mut connection, namespace, id).await?;
                Ok(known.map(|known| Found { line: indexed(known), children: Vec::new() }))
            }
            Err(error) => Err(error),
        }
    }
}

fn is_damaged(found: &Found) -> bool {
    found.line.conditions.iter().any(|one| one == UNREADABLE)
}

/// Returns the entry of a run whose journal cannot be read, from the index.
fn indexed(known: RunLine) -> TreeRun {
    let mut conditions = known.conditions;
    if !conditions.iter().any(|one| one == UNREADABLE) {
        conditions.push(UNREADABLE.to_owned());
    }
    TreeRun {
        conditions,
        depth: 0,
        run: known.id,
        parent: None,
        step: None,
        workflow: known.workflow,
        version: known.version,
        state: known.state,
        outcome: known.outcome,
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
