//! Workflows whose ended runs are kept shorter or longer than the server says.

use backstitch_saga::protocol::{Keep, RetentionView, SetRetention};
use backstitch_saga::{By, Time, Timestamp};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::node::Node;
use crate::store::acts::{self, Act, Thing};
use crate::store::partitions::first_id;
use crate::store::retention::{Cutoff, Range};
use crate::store::workflow_retention::{self as table, Own};
use crate::{Engine, Error, definitions};

/// Number of workflows with a retention of their own that are read together.
const WORKFLOWS: i64 = 1_000;

/// Returns the runs of workflows that are kept shorter than the server says.
pub(super) async fn shorter(
    connection: &mut PgConnection,
    cutoff: Cutoff,
) -> Result<Vec<Range>, sqlx::Error> {
    let mut ranges = Vec::new();
    let mut after = (String::new(), String::new());
    loop {
        let page = table::list(connection, (&after.0, &after.1), WORKFLOWS).await?;
        let full = i64::try_from(page.len()) == Ok(WORKFLOWS);
        for own in page {
            after = (own.namespace, own.workflow);
            let Some(keep) = own.keep else { continue };
            let before = Time(cutoff.now.0.saturating_sub_unsigned(keep.0));
            if cutoff.before.is_none_or(|server| before > server) {
                ranges.push(Range::from_the_first(Some(after.clone()), first_id(before)));
            }
        }
        if !full {
            return Ok(ranges);
        }
    }
}

/// Returns the retention of a workflow's ended runs, even if the workflow does not exist.
pub(crate) async fn of(
    node: &Node,
    namespace: &str,
    workflow: &str,
) -> Result<RetentionView, Error> {
    let mut connection = node.database.reader(namespace).await?;
    let own = table::find(&mut connection, namespace, workflow).await?;
    Ok(view(node, workflow, own))
}

impl Engine {
    /// Returns the retention of a workflow's ended runs.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn workflow_retention(
        &self,
        namespace: &str,
        workflow: &str,
    ) -> Result<RetentionView, Error> {
        definitions::view(&self.node().database, namespace, workflow, None).await?;
        of(self.node(), namespace, workflow).await
    }

    /// Sets the retention of a workflow's ended runs, of all versions alike.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] without a reason.
    pub async fn set_workflow_retention(
        &self,
        namespace: &str,
        workflow: &str,
        ask: &SetRetention,
        by: &By,
    ) -> Result<RetentionView, Error> {
        definitions::view(&self.node().database, namespace, workflow, None).await?;
        must_have_reason(by)?;
        let at = self.node().clock.now();
        let mut connection = self.node().database.reader(namespace).await?;
        let mut transaction = connection.begin().await?;
        let keep = match ask.keep {
            Keep::Server => None,
            Keep::Forever => Some(None),
            Keep::For(span) => Some(Some(span.clamp(Keep::LEAST, Keep::MOST))),
        };
        match keep {
            None => table::unset(&mut transaction, namespace, workflow).await?,
            Some(keep) => {
                let own = Own {
                    namespace: namespace.to_owned(),
                    workflow: workflow.to_owned(),
                    keep,
                    changed_at: at,
                    changed_by: by.actor.to_string(),
                    reason: by.reason.clone(),
                };
                table::set(&mut transaction, &own).await?;
            }
        }
        let detail = Some(format!(r#"{{"keep":"{}"}}"#, ask.keep));
        let (thing, verb) = (Thing::Workflow, "retention");
        let act = Act { namespace, thing, name: workflow, at, verb, by, detail };
        acts::add(&mut transaction, &act).await?;
        commit!("retention_set", transaction.commit().await)?;
        let own = table::find(&mut connection, namespace, workflow).await?;
        Ok(view(self.node(), workflow, own))
    }
}

fn view(node: &Node, workflow: &str, own: Option<Own>) -> RetentionView {
    let server = node.options.retention.map_or(Keep::Forever, |keep| Keep::For(keep.into()));
    let keep = own.as_ref().map_or(server, |own| own.keep.map_or(Keep::Forever, Keep::For));
    RetentionView {
        workflow: workflow.to_owned(),
        keep,
        own: own.is_some(),
        changed_at: own.as_ref().map(|own| Timestamp(own.changed_at)),
        changed_by: own.as_ref().map(|own| own.changed_by.clone()),
        reason: own.map(|own| own.reason),
    }
}
