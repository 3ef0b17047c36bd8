//! Notifies runs that facts which they require were withdrawn, or are established again. A sweep finds lost
//! notifications: each row records what its run knows.

use backstitch_saga::protocol::Requirement;
use backstitch_saga::{Command, RunId};
use uuid::Uuid;

use super::tell::{ask, is_told};
use super::unmet_hold;
use super::wanted::WITHIN;
use crate::Error;
use crate::crash::commit;
use crate::node::Node;
use crate::store::required::{self, Changed};

/// Number of runs that are notified together.
const PAGE: i64 = 500;

/// Notifies all runs that require a fact of its state.
pub(super) async fn tell_of(node: &Node, namespace: &str, fact: &Requirement) -> Result<(), Error> {
    let mut after = Uuid::nil();
    loop {
        let mut connection = node.database.keepers.acquire().await?;
        let page = required::changed_by(&mut connection, namespace, fact, after, PAGE).await?;
        drop(connection);
        let Some(last) = page.last() else { return Ok(()) };
        after = last.run.0;
        tell(node, page).await?;
    }
}

/// Notifies runs of the states of facts that they require.
pub(super) async fn tell(node: &Node, changed: Vec<Changed>) -> Result<(), Error> {
    if changed.is_empty() {
        return Ok(());
    }
    let commands: Vec<(RunId, Command)> =
        changed.iter().map(|one| (one.run, command(one))).collect();
    let answers = ask(node, commands).await;
    let told: Vec<Changed> = changed
        .into_iter()
        .zip(answers)
        .filter(|(_, answer)| is_told(answer))
        .map(|(one, _)| one)
        .collect();
    if told.is_empty() {
        return Ok(());
    }
    let now = node.clock.now();
    let mut connection = node.database.keepers.acquire().await?;
    let until = now.after(WITHIN);
    commit!("required_told", required::told(&mut connection, &told, now, until).await)?;
    Ok(())
}

fn command(one: &Changed) -> Command {
    let hold = unmet_hold(&one.one);
    if !one.withdrawn {
        return Command::FactRestored { hold };
    }
    let Requirement { fact, on } = &one.one;
    let by = one.by.as_deref().map_or(String::new(), |by| format!(" by {by}"));
    let message = format!("the fact {fact} on '{on}', which it requires, was withdrawn{by}");
    Command::FactWithdrawn { hold, policy: one.policy, message }
}
