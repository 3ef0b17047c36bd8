//! Lists of the results of a job's items.

use backstitch_saga::protocol::{ItemState, JobItem};
use sqlx::postgres::{PgConnection, Postgres};
use sqlx::query_builder::QueryBuilder;
use uuid::Uuid;

use super::item;

/// Returns the results of a job's items, in order, after `after`. `stopped`: nothing more is done.
pub(crate) async fn items(
    connection: &mut PgConnection,
    (id, stopped): (Uuid, bool),
    state: Option<ItemState>,
    after: i32,
    limit: i64,
) -> Result<Vec<JobItem>, sqlx::Error> {
    let (waits, nobody) = match stopped {
        true => (ItemState::Left, ItemState::Waiting),
        false => (ItemState::Waiting, ItemState::Left),
    };
    if state == Some(nobody) {
        return Ok(Vec::new());
    }
    let mut query = QueryBuilder::<Postgres>::new(
        "-- job_items\n\
         select position, run_id, incident, state, code, message, acted_at from job_items where job_id = ",
    );
    query.push_bind(id).push(" and position > ").push_bind(after);
    if let Some(state) = state {
        let kept = if state == waits { ItemState::Waiting } else { state };
        query.push(" and state = ").push_bind(kept.as_str());
    }
    query.push(" order by position limit ").push_bind(limit);
    let rows = query.build().fetch_all(connection).await?;
    let mut items = rows.iter().map(item).collect::<Result<Vec<_>, _>>()?;
    for one in items.iter_mut().filter(|one| one.state == ItemState::Waiting) {
        one.state = waits;
    }
    Ok(items)
}
