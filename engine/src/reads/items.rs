//! The items of a map step: page by page, or one by its key.

use std::sync::Arc;

use backstitch_saga::protocol::{Page, StepView};
use backstitch_saga::{Run, RunId, StepPath};

use super::read;
use crate::cursor::Cursor;
use crate::node::Node;
use crate::page::Budget;
use crate::{Error, ItemFilter};

/// Lists items of a map step, as many as an answer may hold.
pub(crate) async fn items(
    node: &Arc<Node>,
    namespace: &str,
    id: RunId,
    step: &str,
    filter: ItemFilter,
) -> Result<Page<StepView>, Error> {
    let ItemFilter { state, key, after, limit } = filter;
    let from = after.as_deref().map(Cursor::item).transpose()?.unwrap_or(0);
    let limit = limit.clamp(1, 1_000) as usize;
    let named = step.to_owned();
    let what = move |run: &Run| {
        let Some(key) = &key else { return run.items(&named, state.as_deref(), from, limit + 1) };
        // Asks for the step, too: one that is no map has no items.
        let none = run.items(&named, None, u32::MAX, 1)?;
        let item = run.item_with_key(&named, key).filter(|item| *item >= from);
        let found = item.and_then(|item| run.items(&named, None, item, 1)).unwrap_or(none);
        let wanted =
            |view: &StepView| state.as_ref().is_none_or(|state| view.state == state.as_str());
        Some(found.into_iter().filter(wanted).collect())
    };
    let found = read(node, namespace, id, what).await?;
    let mut found = found.ok_or_else(|| unknown_step(id, step))?;
    let mut budget = Budget::default();
    let fitting = found.iter().take(limit).take_while(|view| budget.takes(*view)).count();
    let next = found.get(fitting).and_then(|beyond| beyond.step.item).map(Cursor::of_item);
    found.truncate(fitting);
    Ok(Page { items: found, next })
}

/// Returns the path of the item with this key.
pub(crate) async fn item_with_key(
    node: &Arc<Node>,
    namespace: &str,
    id: RunId,
    step: &str,
    key: &str,
) -> Result<StepPath, Error> {
    let (named, wanted) = (step.to_owned(), key.to_owned());
    let found = read(node, namespace, id, move |run| run.item_with_key(&named, &wanted)).await?;
    found.map(|item| StepPath::item(step, item)).ok_or_else(|| Error::NotFound {
        code: "unknown_step",
        message: format!("run {id} has no item with the key '{key}' at '{step}'"),
    })
}

/// Returns one step or item, whole.
pub(crate) async fn step(
    node: &Arc<Node>,
    namespace: &str,
    id: RunId,
    step: &StepPath,
) -> Result<StepView, Error> {
    let named = step.clone();
    let found = read(node, namespace, id, move |run| run.step_view(&named)).await?;
    found.ok_or_else(|| Error::NotFound {
        code: "unknown_step",
        message: format!("run {id} has no step or item '{step}'"),
    })
}

fn unknown_step(id: RunId, step: &str) -> Error {
    Error::NotFound { code: "unknown_step", message: format!("run {id} has no map step '{step}'") }
}
