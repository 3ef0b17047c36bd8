//! What contradicts itself in a definition, as whoever registers it is warned.

use backstitch_saga::Graph;
use backstitch_saga::protocol::Warning;

use crate::{Engine, Error};

impl Engine {
    /// What contradicts itself in a definition, alone and with the workflows of its children as they are registered now.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn warnings(&self, namespace: &str, graph: &Graph) -> Result<Vec<Warning>, Error> {
        let mut warnings = graph.warnings();
        for (step, written) in graph.definition.steps.iter().enumerate() {
            let Some(child) = &written.child else { continue };
            let node = self.node();
            let found =
                node.definitions.resolve(self.pool(), namespace, &child.workflow, child.version);
            match found.await {
                Ok(found) => {
                    warnings.extend(graph.warning_of_child(step, &found.graph.definition));
                }
                // It may be registered later.
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(warnings)
    }

    /// The same of a workflow version that is registered.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub async fn warnings_of(
        &self,
        namespace: &str,
        name: &str,
        version: u32,
    ) -> Result<Vec<Warning>, Error> {
        let definitions = &self.node().definitions;
        let found = definitions.resolve(self.pool(), namespace, name, Some(version)).await?;
        self.warnings(namespace, &found.graph).await
    }
}
