//! The tables `compensation_plans` and `undo_approvals`: undos that are written down before they are done, and which of
//! them need a second person.

use std::collections::HashMap;

use backstitch_saga::protocol::{
    Approval, CompensationPlan, PlanFilter, PlanState, Scope, UndoApprovalView,
};
use backstitch_saga::{By, RunId, Time, Timestamp};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::query_builder::QueryBuilder;
use uuid::Uuid;

use super::moment::Moment;

const COLUMNS: &str = "id, run_id, workflow, scope, force, reason, made_by, made_at, seq, revision, undos, past_pivot, state, \
     needs_approval, approved_by, approved_at, approval_reason, ended_by, ended_at, end_reason, mark";

/// A plan as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct PlanRow {
    pub(crate) plan: CompensationPlan,
    /// The mark by which the rules tell if the same would still be undone.
    pub(crate) mark: Uuid,
}

/// Keeps a new plan, unless its run has `most` that are open. Returns whether it did.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    namespace: &str,
    PlanRow { plan, mark }: &PlanRow,
    most: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- plans_insert\n\
         insert into compensation_plans (id, namespace, run_id, workflow, scope, force, reason, made_by, made_at, seq, mark, \
         undos, past_pivot, needs_approval) \
         select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14 \
         where (select count(*) from compensation_plans p where p.run_id = $3 and p.state = 'open') < $15",
    )
    .bind(plan.id)
    .bind(namespace)
    .bind(plan.run.0)
    .bind(&plan.workflow)
    .bind(scope_text(&plan.scope))
    .bind(plan.force)
    .bind(&plan.reason)
    .bind(&plan.made_by)
    .bind(Moment(plan.made_at.0))
    .bind(i64::try_from(plan.seq).unwrap_or(i64::MAX))
    .bind(mark)
    .bind(i64::try_from(plan.undos).unwrap_or(i64::MAX))
    .bind(plan.past_pivot)
    .bind(plan.needs_approval)
    .bind(most)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

fn scope_text(scope: &Scope) -> String {
    serde_json::to_string(scope).unwrap_or_default()
}

/// Rewrites an open plan that is not being applied, in place of `plan.revision`: an earlier approval is void. Returns
/// whether it did.
pub(crate) async fn change(
    connection: &mut PgConnection,
    namespace: &str,
    PlanRow { plan, mark }: &PlanRow,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- plans_change\n\
         update compensation_plans set scope = $4, force = $5, reason = $6, made_by = $7, made_at = $8, seq = $9, mark = $10, \
         undos = $11, past_pivot = $12, needs_approval = $13, revision = revision + 1, approved_by = null, \
         approved_at = null, approval_reason = null \
         where namespace = $1 and id = $2 and revision = $3 and state = 'open' and applied_by is null",
    )
    .bind(namespace)
    .bind(plan.id)
    .bind(i32::try_from(plan.revision).unwrap_or(i32::MAX))
    .bind(scope_text(&plan.scope))
    .bind(plan.force)
    .bind(&plan.reason)
    .bind(&plan.made_by)
    .bind(Moment(plan.made_at.0))
    .bind(i64::try_from(plan.seq).unwrap_or(i64::MAX))
    .bind(mark)
    .bind(i64::try_from(plan.undos).unwrap_or(i64::MAX))
    .bind(plan.past_pivot)
    .bind(plan.needs_approval)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Records the approval of a revision of an open plan. Returns whether it existed.
pub(crate) async fn approve(
    connection: &mut PgConnection,
    (namespace, id, revision): (&str, Uuid, u32),
    by: &By,
    at: Time,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- plans_approve\n\
         update compensation_plans set approved_by = $4, approved_at = $5, approval_reason = $6 \
         where namespace = $1 and id = $2 and revision = $3 and state = 'open' and made_by <> $4 and approved_by is null",
    )
    .bind(namespace)
    .bind(id)
    .bind(i32::try_from(revision).unwrap_or(i32::MAX))
    .bind(&*by.actor)
    .bind(Moment(at))
    .bind(&by.reason)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Records that `actor` requests the undo of a revision of an open plan, unless another does already. Returns who does;
/// `None` if the plan is not open in that revision.
pub(crate) async fn begin(
    connection: &mut PgConnection,
    (namespace, id, revision): (&str, Uuid, u32),
    actor: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "-- plans_begin\n\
         update compensation_plans set applied_by = coalesce(applied_by, $4) \
         where namespace = $1 and id = $2 and revision = $3 and state = 'open' \
         and (not needs_approval or approved_by is not null) returning applied_by",
    )
    .bind(namespace)
    .bind(id)
    .bind(i32::try_from(revision).unwrap_or(i32::MAX))
    .bind(actor)
    .fetch_optional(connection)
    .await
}

/// Notes that the undo was refused, and not because the run had moved: the plan is open as before.
pub(crate) async fn put_back(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- plans_put_back\n\
         update compensation_plans set applied_by = null where namespace = $1 and id = $2 and state = 'open'",
    )
    .bind(namespace)
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends an open plan; one that is being applied is not withdrawn. Returns whether it did.
pub(crate) async fn end(
    connection: &mut PgConnection,
    (namespace, id): (&str, Uuid),
    state: PlanState,
    by: &By,
    at: Time,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- plans_end\n\
         update compensation_plans set state = $3, ended_by = $4, ended_at = $5, end_reason = nullif($6, '') \
         where namespace = $1 and id = $2 and state = 'open' and ($3 <> 'withdrawn' or applied_by is null)",
    )
    .bind(namespace)
    .bind(id)
    .bind(state.as_str())
    .bind(&*by.actor)
    .bind(Moment(at))
    .bind(&by.reason)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Returns one plan.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
) -> Result<Option<PlanRow>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("-- plans_find\nselect ");
    query.push(COLUMNS).push(" from compensation_plans where namespace = ").push_bind(namespace);
    query.push(" and id = ").push_bind(id);
    query.build().fetch_optional(connection).await?.as_ref().map(row_of).transpose()
}

/// Lists plans of a namespace, newest first, before the plan `before`.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    filter: &PlanFilter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<CompensationPlan>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("-- plans_list\nselect ");
    query.push(COLUMNS).push(" from compensation_plans where namespace = ").push_bind(namespace);
    match filter.state {
        // Spelt so that the index of open plans can serve.
        Some(PlanState::Open) => query.push(" and state = 'open'"),
        Some(state) => query.push(" and state = ").push_bind(state.as_str()),
        None => &mut query,
    };
    if let Some(run) = filter.run {
        query.push(" and run_id = ").push_bind(run.0);
    }
    if let Some(workflow) = &filter.workflow {
        query.push(" and workflow = ").push_bind(workflow);
    }
    if let Some(before) = before {
        query.push(" and id < ").push_bind(before);
    }
    query.push(" order by id desc limit ").push_bind(limit);
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(|row| row_of(row).map(|row| row.plan)).collect()
}

fn row_of(row: &PgRow) -> Result<PlanRow, sqlx::Error> {
    let id: Uuid = row.try_get(0)?;
    let wrong = |column: &str, text: &str| {
        let text = format!("table compensation_plans, plan {id}, column {column}: {text}");
        sqlx::Error::Decode(text.into())
    };
    let (scope, state): (String, String) = (row.try_get(3)?, row.try_get(12)?);
    let states = [PlanState::Open, PlanState::Applied, PlanState::Withdrawn, PlanState::Expired];
    let state = states.into_iter().find(|known| known.as_str() == state);
    let Moment(made_at) = row.try_get(7)?;
    let (approved_at, ended_at): (Option<Moment>, Option<Moment>) =
        (row.try_get(15)?, row.try_get(18)?);
    let instant = |at: Option<Moment>| at.map(|Moment(at)| Timestamp(at));
    let number = |count: i64| u64::try_from(count).unwrap_or_default();
    let revision: i32 = row.try_get(9)?;
    let plan = CompensationPlan {
        id,
        run: RunId(row.try_get(1)?),
        workflow: row.try_get(2)?,
        scope: serde_json::from_str(&scope).map_err(|error| wrong("scope", &error.to_string()))?,
        force: row.try_get(4)?,
        reason: row.try_get(5)?,
        made_by: row.try_get(6)?,
        made_at: Timestamp(made_at),
        seq: number(row.try_get(8)?),
        revision: u32::try_from(revision).unwrap_or_default(),
        undos: number(row.try_get(10)?),
        past_pivot: row.try_get(11)?,
        state: state.ok_or_else(|| wrong("state", "is none"))?,
        needs_approval: row.try_get(13)?,
        approved_by: row.try_get(14)?,
        approved_at: instant(approved_at),
        approval_reason: row.try_get(16)?,
        ended_by: row.try_get(17)?,
        ended_at: instant(ended_at),
        end_reason: row.try_get(19)?,
    };
    Ok(PlanRow { plan, mark: row.try_get(20)? })
}

/// Returns the number of undos of a run of `workflow` that one person may request alone; `None` for
/// any number.
pub(crate) async fn alone(
    connection: &mut PgConnection,
    namespace: &str,
    workflow: &str,
) -> Result<Option<u64>, sqlx::Error> {
    let above: Option<i64> = sqlx::query_scalar(
        "-- undo_approvals_above\nselect above from undo_approvals where namespace = $1 and workflow = $2",
    )
    .bind(namespace)
    .bind(workflow)
    .fetch_optional(connection)
    .await?;
    Ok(above.map(|above| u64::try_from(above).unwrap_or_default()))
}

/// Returns the number of undos of a run that one person may request alone, by workflow, in a
/// namespace.
pub(crate) async fn alone_in(
    connection: &mut PgConnection,
    namespace: &str,
) -> Result<HashMap<String, u64>, sqlx::Error> {
    let rows = sqlx::query(
        "-- undo_approvals_of\nselect workflow, above from undo_approvals where namespace = $1",
    )
    .bind(namespace)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<i64, _>(1)?.unsigned_abs()))).collect()
}

/// Returns the same of all namespaces, at most `each` of one and `all` together.
pub(crate) async fn all_alone(
    connection: &mut PgConnection,
    (each, all): (i64, i64),
) -> Result<Vec<(String, String, u64)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- undo_approvals_all\n\
         select namespace, workflow, above from (select namespace, workflow, above, \
           row_number() over (partition by namespace order by workflow) as place from undo_approvals) a \
         where place <= $1 limit $2",
    )
    .bind(each)
    .bind(all)
    .fetch_all(connection)
    .await?;
    let read = |row: &PgRow| {
        let above: i64 = row.try_get(2)?;
        Ok((row.try_get(0)?, row.try_get(1)?, above.unsigned_abs()))
    };
    rows.iter().map(read).collect()
}

/// Returns the condition on which undos of a workflow's runs need a second person.
pub(crate) async fn approval(
    connection: &mut PgConnection,
    namespace: &str,
    workflow: &str,
) -> Result<UndoApprovalView, sqlx::Error> {
    let row = sqlx::query(
        "-- undo_approvals_find\n\
         select above, changed_at, changed_by, reason from undo_approvals where namespace = $1 and workflow = $2",
    )
    .bind(namespace)
    .bind(workflow)
    .fetch_optional(connection)
    .await?;
    let mut view = UndoApprovalView {
        workflow: workflow.to_owned(),
        approval: Approval::Never,
        changed_at: None,
        changed_by: None,
        reason: None,
    };
    if let Some(row) = row {
        let (above, Moment(at)): (i64, Moment) = (row.try_get(0)?, row.try_get(1)?);
        view.approval = match u32::try_from(above).unwrap_or(u32::MAX) {
            0 => Approval::Always,
            above => Approval::Above(above),
        };
        view.changed_at = Some(Timestamp(at));
        (view.changed_by, view.reason) = (row.try_get(2)?, row.try_get(3)?);
    }
    Ok(view)
}

/// Sets when undos of a workflow's runs need a second person.
pub(crate) async fn set_approval(
    connection: &mut PgConnection,
    (namespace, workflow): (&str, &str),
    approval: Approval,
    by: &By,
    at: Time,
) -> Result<(), sqlx::Error> {
    let Some(alone) = approval.alone() else {
        sqlx::query(
            "-- undo_approvals_unset\ndelete from undo_approvals where namespace = $1 and workflow = $2",
        )
        .bind(namespace)
        .bind(workflow)
        .execute(connection)
        .await?;
        return Ok(());
    };
    sqlx::query(
        "-- undo_approvals_set\n\
         insert into undo_approvals (namespace, workflow, above, changed_at, changed_by, reason) \
         values ($1, $2, $3, $4, $5, $6) on conflict (namespace, workflow) do update set above = excluded.above, \
         changed_at = excluded.changed_at, changed_by = excluded.changed_by, reason = excluded.reason",
    )
    .bind(namespace)
    .bind(workflow)
    .bind(i64::from(alone))
    .bind(Moment(at))
    .bind(&*by.actor)
    .bind(&by.reason)
    .execute(connection)
    .await?;
    Ok(())
}
