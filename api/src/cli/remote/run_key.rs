//! Finds the run that is meant by a business key, so that people need not look up ids.

use backstitch_saga::RunId;
use backstitch_saga::protocol::{Page, RunLine};

use super::Failure;
use super::args::Asked;
use super::client::Client;

/// So many runs are named when a key is not enough.
const NAMED: usize = 5;

/// The id of the run that `text` means: an id, a business key, or `WORKFLOW/KEY`. With `workflow` it is a key of that
/// workflow, whatever it looks like.
///
/// # Errors
/// [`Failure::NotFound`] when no run has the key, [`Failure::Usage`] when several have.
pub(super) async fn resolve(
    client: &Client,
    text: &str,
    workflow: Option<&str>,
) -> Result<String, Failure> {
    if workflow.is_none() && is_id(text) {
        return Ok(text.to_owned());
    }
    by_key(client, text, workflow).await
}

/// Returns whether `text` has the form of an id.
pub(super) fn is_id(text: &str) -> bool {
    text.parse::<RunId>().is_ok()
}

/// The same, of a text that is no id.
pub(super) async fn by_key(
    client: &Client,
    text: &str,
    workflow: Option<&str>,
) -> Result<String, Failure> {
    let mut found = Vec::new();
    match (workflow, text.split_once('/')) {
        (Some(_), _) => found = runs(client, text, workflow).await?,
        (None, Some((workflow, key))) => {
            found.extend(runs(client, key, Some(workflow)).await?);
            // A key may have a slash itself.
            found.extend(runs(client, text, None).await?);
        }
        (None, None) => found.extend(runs(client, text, None).await?),
    }
    found.sort_by_key(|run| std::cmp::Reverse(run.id));
    found.dedup_by_key(|run| run.id);
    match &found[..] {
        [] => {
            let of =
                workflow.map_or(String::new(), |workflow| format!(" of workflow '{workflow}'"));
            Err(Failure::NotFound(format!(
                "no run{of} has the key '{text}', and it is no run's id; see `backstitch run list`"
            )))
        }
        [run] => Ok(run.id.to_string()),
        many => {
            let shown = many.iter().take(NAMED).map(|run| {
                let key = run.key.as_deref().unwrap_or_default();
                format!("\n  {}/{key}  {}", run.workflow, run.id)
            });
            let more = if many.len() > NAMED { "\n  …" } else { "" };
            Err(Failure::Usage(format!(
                "several runs have the key '{text}'; say which, as WORKFLOW/KEY, with --workflow or by its id:{}{more}",
                shown.collect::<String>()
            )))
        }
    }
}

async fn runs(client: &Client, key: &str, workflow: Option<&str>) -> Result<Vec<RunLine>, Failure> {
    let mut query =
        vec![("key".to_owned(), key.to_owned()), ("limit".to_owned(), (NAMED + 1).to_string())];
    query.extend(workflow.map(|workflow| ("workflow".to_owned(), workflow.to_owned())));
    let asked =
        Asked { method: "GET".to_owned(), path: "/v1/runs".to_owned(), query, ..Asked::default() };
    let answer = client.ask(&asked).await?;
    let page: Page<RunLine> = serde_json::from_str(&answer.text)
        .map_err(|error| Failure::Unreachable(format!("the answer is no list of runs: {error}")))?;
    Ok(page.items)
}
