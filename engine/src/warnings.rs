//! Contradictions in a definition, of which its author is warned.

use std::sync::Arc;

use backstitch_saga::protocol::{RehearsalView, Rehearsed, Warning};
use backstitch_saga::{Graph, Span};

use crate::{Engine, Error, definitions};

/// Number of definitions that are searched for a cycle of children.
const LOOKED_AT: usize = 32;

impl Engine {
    /// Returns the contradictions in a definition, alone and with the workflows of its children as they are registered
    /// now.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn warnings(&self, namespace: &str, graph: &Graph) -> Result<Vec<Warning>, Error> {
        let mut warnings = graph.warnings();
        let kept = self.node().options.retention.map(Span::from);
        warnings.extend(kept.and_then(|kept| graph.warning_of_retention(kept)));
        for (step, written) in graph.definition.steps.iter().enumerate() {
            let Some(child) = &written.child else { continue };
            let node = self.node();
            let found =
                node.definitions.resolve(&node.database, namespace, &child.workflow, child.version);
            match found.await {
                Ok(found) => {
                    let child = &found.graph.definition;
                    warnings.extend(graph.warning_of_child(step, child));
                    warnings.extend(graph.warning_of_lasting_child(step, child));
                }
                // It may be registered later.
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        warnings.extend(self.circles(namespace, graph).await?);
        Ok(warnings)
    }

    /// Warns of children that come back to this workflow, whatever happens, by way of others that are registered.
    async fn circles(&self, namespace: &str, graph: &Graph) -> Result<Vec<Warning>, Error> {
        let own = &graph.definition.name;
        let mut warnings = Vec::new();
        let mut looked = 0;
        for (step, child) in graph.unconditional_children() {
            let first = (child.workflow.clone(), child.version, Vec::new());
            let mut open = vec![first];
            while let Some((name, version, through)) = open.pop() {
                looked += 1;
                if name == *own || looked > LOOKED_AT || through.contains(&name) {
                    continue;
                }
                let node = self.node();
                let found =
                    node.definitions.resolve(&node.database, namespace, &name, version).await;
                let found = match found {
                    Ok(found) => found,
                    Err(Error::NotFound { .. }) => continue,
                    Err(error) => return Err(error),
                };
                let mut through = through;
                through.push(name);
                let next: Vec<_> = found.graph.unconditional_children().collect();
                if next.iter().any(|(_, child)| child.workflow == *own) {
                    let through: Vec<&str> = through.iter().map(String::as_str).collect();
                    warnings.push(graph.warning_of_descent(step, &through));
                    break;
                }
                open.extend(
                    next.into_iter()
                        .map(|(_, child)| (child.workflow.clone(), child.version, through.clone())),
                );
            }
        }
        Ok(warnings)
    }

    /// Returns the same of a workflow version that is registered.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub async fn warnings_of(
        &self,
        namespace: &str,
        name: &str,
        version: u32,
    ) -> Result<Vec<Warning>, Error> {
        let node = self.node();
        let found =
            node.definitions.resolve(&node.database, namespace, name, Some(version)).await?;
        self.warnings(namespace, &found.graph).await
    }

    /// Checks a definition as registering it would, on the threads for schemas, and rehearses it within a bound; writes
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything wrong in it; [`Error::Busy`].
    pub async fn examine(
        &self,
        namespace: &str,
        definition: &str,
    ) -> Result<(Arc<Graph>, Rehearsed), Error> {
        let schemas = &self.node().schemas;
        let workflow = definitions::examine(schemas, namespace, definition).await?;
        let rehearsed = definitions::admission(schemas, namespace, &workflow.graph).await?;
        Ok((workflow.graph, rehearsed))
    }

    /// Goes through everything that can go wrong with a workflow version that is registered, as far as a registration
    /// does.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Busy`] when too much waits to be evaluated.
    pub async fn rehearsal(
        &self,
        namespace: &str,
        name: &str,
        version: u32,
    ) -> Result<RehearsalView, Error> {
        definitions::rehearsal(self.node(), namespace, name, version).await
    }
}
