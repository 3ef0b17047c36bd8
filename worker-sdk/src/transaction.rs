//! What an application asks for in a database transaction of its own: a statement and its parameters, for any driver.
//!
//! This crate speaks to no database. The functions that the statements call come with the server's schema.

use std::collections::BTreeMap;

use backstitch_saga::Payload;
use serde::Serialize;

use crate::Workflow;

/// The start of a run in a transaction of the application's own: the run begins if, and only if, the transaction
/// commits.
///
/// All parameters are texts or null, so that it suits any driver. With sqlx:
///
/// ```ignore
/// let start = StartInTransaction::of(&place_order(), &order)?.key("order-10248");
/// let mut query = sqlx::query_scalar(StartInTransaction::SQL);
/// for parameter in start.parameters() {
///     query = query.bind(parameter);
/// }
/// let run: Uuid = query.fetch_one(&mut *transaction).await?;
/// transaction.commit().await?;
/// ```
#[derive(Clone, Debug)]
pub struct StartInTransaction {
    workflow: String,
    input: Payload,
    key: Option<String>,
    namespace: String,
    version: Option<u32>,
    correlation_id: Option<String>,
    labels: BTreeMap<String, String>,
}

impl StartInTransaction {
    /// The statement. It answers one row with one column, the run's id as a `uuid`.
    pub const SQL: &'static str = "select backstitch.start_run(workflow => $1::text, input => $2::text::jsonb, \
        key => $3::text, namespace => $4::text, version => $5::text::integer, correlation_id => $6::text, \
        labels => $7::text::jsonb)";

    /// A start of this version of `workflow`, in the namespace `default`.
    ///
    /// # Errors
    /// When the input has no JSON form.
    pub fn of<In: Serialize, Out>(
        workflow: &Workflow<In, Out>,
        input: &In,
    ) -> Result<StartInTransaction, serde_json::Error> {
        let start = StartInTransaction::named(workflow.name(), input)?;
        Ok(StartInTransaction { version: Some(workflow.version()), ..start })
    }

    /// A start of a workflow known by its name only; of the newest version that the server knows.
    ///
    /// # Errors
    /// When the input has no JSON form.
    pub fn named(
        workflow: &str,
        input: &impl Serialize,
    ) -> Result<StartInTransaction, serde_json::Error> {
        Ok(StartInTransaction {
            workflow: workflow.to_owned(),
            input: Payload::of(input)?,
            key: None,
            namespace: "default".to_owned(),
            version: None,
            correlation_id: None,
            labels: BTreeMap::new(),
        })
    }

    /// The caller's own key: one run per workflow and key, however often it is asked for.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Where the run belongs.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Constant along the whole causal story; the run's own id without it.
    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// A mark to search by.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// The parameters of [`StartInTransaction::SQL`], in order.
    #[must_use]
    pub fn parameters(&self) -> [Option<String>; 7] {
        // An object of texts always has a JSON form.
        let labels = Some(&self.labels).filter(|labels| !labels.is_empty());
        let labels = labels.and_then(|labels| serde_json::to_string(labels).ok());
        [
            Some(self.workflow.clone()),
            Some(self.input.text().to_owned()),
            self.key.clone(),
            Some(self.namespace.clone()),
            self.version.map(|version| version.to_string()),
            self.correlation_id.clone(),
            labels,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_its_place() {
        let start = StartInTransaction::named("buy", &[1]).unwrap().key("k").label("shop", "north");
        let texts = ["buy", "[1]", "k", "default", "", "", r#"{"shop":"north"}"#];
        let expected = texts.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
        assert_eq!(start.parameters(), expected);
        for number in 1..=7 {
            assert!(StartInTransaction::SQL.contains(&format!("${number}::text")));
        }
    }
}
