//! Compensation plans: undos that a person writes before they are applied, for the present state of a run. A plan is
//! applied only while the run would still be undone as planned, and only with an approval if the workflow needs a
//! second person.

use std::sync::Arc;

use backstitch_saga::protocol::{
    ApplyPlan, ApprovePlan, CompensationPlan, EditPlan, MakePlan, Page, PlanFilter, PlanState,
    PlanView, Scope, SetUndoApproval, UndoApprovalView,
};
use backstitch_saga::{By, Command, PlanPage, Refusal, RefusalCode, Run, RunId, Timestamp};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::cursor::Cursor;
use crate::node::Node;
use crate::page::page;
use crate::store::acts::{self, Act, Thing};
use crate::store::listed;
use crate::store::plans::{self as table, PlanRow};
use crate::{Engine, Error, definitions, reads};

/// Plans of a run that are open, at most.
pub(crate) const MOST_OPEN: i64 = 20;
/// The kind of the cursors of the list.
const CURSOR: char = 'l';

fn conflict(code: &'static str, message: impl Into<String>) -> Error {
    Error::Conflict { code, message: message.into() }
}

fn unknown(id: Uuid) -> Error {
    let message = format!("there is no plan {id} in this namespace");
    Error::NotFound { code: "unknown_plan", message }
}

/// Returns the error of a plan whose run would be undone differently by now.
fn expired() -> Error {
    let message = "the run has moved since this was planned, and something else would be undone; look at it and plan anew";
    Refusal::new(RefusalCode::PlanExpired, message).into()
}

/// Says why a plan cannot be changed as asked.
fn not_so(plan: &CompensationPlan, revision: u32) -> Error {
    match plan.state {
        PlanState::Open if plan.revision != revision => conflict(
            "plan_changed",
            format!("the plan was changed: it is at revision {}, look at it again", plan.revision),
        ),
        PlanState::Open => conflict(
            "plan_being_applied",
            "the plan is being applied; apply it again to finish that",
        ),
        state => conflict("plan_over", format!("the plan is {}", state.as_str())),
    }
}

/// Returns the refusal of an undo that one person may not ask for alone.
pub(crate) fn needs_approval(workflow: &str, undos: u64) -> Error {
    let message = format!(
        "undoing {undos} steps and items of a run of '{workflow}' needs a second person: make a plan \
         (POST /v1/runs/{{id}}/plans), and have somebody else approve it"
    );
    conflict("approval_needed", message)
}

/// Returns a plan for the present state of a run.
async fn draft(
    node: &Arc<Node>,
    namespace: &str,
    run: RunId,
    (scope, force): (Scope, bool),
    by: &By,
) -> Result<PlanRow, Error> {
    must_have_reason(by)?;
    let (of, now) = (scope.clone(), node.clock.now());
    let what = move |run: &Run| {
        let plan = run.plan_page(&of, now, &PlanPage::first())?;
        let workflow = run.graph().definition.name.clone();
        Ok::<_, Refusal>((plan, run.plan_mark(&of, now)?, run.seq(), workflow))
    };
    let (planned, mark, seq, workflow) = reads::read(node, namespace, run, what).await??;
    if planned.past_pivot && !force {
        let message = "the run has passed, or may have passed, its point of no return; force is needed to undo it";
        return Err(Refusal::new(RefusalCode::PastPivot, message).into());
    }
    let mut connection = node.database.reader(namespace).await?;
    let alone = table::alone(&mut connection, namespace, &workflow).await?;
    let plan = CompensationPlan {
        id: Uuid::now_v7(),
        run,
        workflow,
        scope,
        force,
        reason: by.reason.clone(),
        made_by: by.actor.to_string(),
        made_at: Timestamp(now),
        seq,
        revision: 1,
        undos: planned.total,
        past_pivot: planned.past_pivot,
        state: PlanState::Open,
        needs_approval: alone.is_some_and(|alone| planned.total > alone),
        approved_by: None,
        approved_at: None,
        approval_reason: None,
        ended_by: None,
        ended_at: None,
        end_reason: None,
    };
    Ok(PlanRow { plan, mark })
}

/// Records an act on a plan. The reason stays with the plan, which is erased with its run.
async fn note(
    node: &Node,
    connection: &mut PgConnection,
    namespace: &str,
    verb: &'static str,
    plan: &CompensationPlan,
    by: &By,
) -> Result<(), Error> {
    let by =
        &By { actor: by.actor.clone(), reason: format!("plan {} of run {}", plan.id, plan.run) };
    let detail = Some(format!(r#"{{"plan":"{}","run":"{}"}}"#, plan.id, plan.run));
    let (thing, name, at) = (Thing::Workflow, plan.workflow.as_str(), node.clock.now());
    Ok(acts::add(connection, &Act { namespace, thing, name, at, verb, by, detail }).await?)
}

async fn find(node: &Node, namespace: &str, id: Uuid) -> Result<PlanRow, Error> {
    let mut connection = node.database.reader(namespace).await?;
    table::find(&mut connection, namespace, id).await?.ok_or_else(|| unknown(id))
}

/// Returns the plan of `row` with a page of its undos if the run would still be undone so; `None`
/// if not.
async fn holds(
    node: &Arc<Node>,
    namespace: &str,
    row: &PlanRow,
    page: PlanPage,
) -> Result<Option<backstitch_saga::protocol::Plan>, Error> {
    let (scope, mark, now) = (row.plan.scope.clone(), row.mark, node.clock.now());
    let what = move |run: &Run| match run.plan_mark(&scope, now) {
        Ok(current) if current == mark => run.plan_page(&scope, now, &page).map(Some),
        _ => Ok(None),
    };
    match reads::read(node, namespace, row.plan.run, what).await {
        Ok(planned) => Ok(planned?.map(reads::with_cursor)),
        // Its run does not exist any more, or cannot be read.
        Err(Error::NotFound { .. } | Error::Damaged(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Ends an open plan, with a note.
async fn end(
    node: &Node,
    namespace: &str,
    plan: &CompensationPlan,
    state: PlanState,
    by: &By,
) -> Result<bool, Error> {
    let mut connection = node.database.reader(namespace).await?;
    let mut transaction = connection.begin().await?;
    let at = node.clock.now();
    let ended = table::end(&mut transaction, (namespace, plan.id), state, by, at).await?;
    if ended && state == PlanState::Withdrawn {
        note(node, &mut transaction, namespace, "withdraw", plan, by).await?;
    }
    commit!("plans_end", transaction.commit().await)?;
    Ok(ended)
}

impl Engine {
    /// Plans an undo of a run in its present state.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] when it could not be undone so, or without a reason; [`Error::Quota`].
    pub async fn make_plan(
        &self,
        namespace: &str,
        run: RunId,
        ask: MakePlan,
        by: &By,
    ) -> Result<PlanView, Error> {
        let node = self.node();
        let row = draft(node, namespace, run, (ask.scope, ask.force), by).await?;
        let mut connection = node.database.reader(namespace).await?;
        let mut transaction = connection.begin().await?;
        if !table::insert(&mut transaction, namespace, &row, MOST_OPEN).await? {
            let message = format!("a run has at most {MOST_OPEN} open plans; withdraw one");
            return Err(Error::Quota { code: "too_many_plans", message, retry_after: None });
        }
        note(node, &mut transaction, namespace, "plan", &row.plan, by).await?;
        commit!("plans_insert", transaction.commit().await)?;
        drop(connection);
        self.compensation_plan(namespace, row.plan.id, None, 100).await
    }

    /// Changes an open plan, which is rewritten for the present state of the run. An earlier approval is
    /// void.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it is at another revision, or over; [`Error::Refused`].
    pub async fn edit_plan(
        &self,
        namespace: &str,
        id: Uuid,
        ask: EditPlan,
        by: &By,
    ) -> Result<PlanView, Error> {
        let node = self.node();
        let there = find(node, namespace, id).await?.plan;
        let mut row = draft(node, namespace, there.run, (ask.scope, ask.force), by).await?;
        (row.plan.id, row.plan.revision) = (id, ask.revision);
        let mut connection = node.database.reader(namespace).await?;
        let mut transaction = connection.begin().await?;
        if !table::change(&mut transaction, namespace, &row).await? {
            drop(transaction);
            drop(connection);
            return Err(not_so(&find(node, namespace, id).await?.plan, ask.revision));
        }
        note(node, &mut transaction, namespace, "plan", &row.plan, by).await?;
        commit!("plans_change", transaction.commit().await)?;
        drop(connection);
        self.compensation_plan(namespace, id, None, 100).await
    }

    /// Lists plans, newest first; `after` is the cursor of the page before.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn plans(
        &self,
        namespace: &str,
        filter: &PlanFilter,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<CompensationPlan>, Error> {
        let before = after.map(|text| Cursor::place(CURSOR, text, |place| place.parse().ok()));
        let before = before.transpose()?;
        let mut connection = self.node().database.lister(namespace).await?;
        let limit = limit.clamp(1, 1_000);
        let beyond = i64::from(limit) + 1;
        let found = listed(table::list(&mut connection, namespace, filter, before, beyond).await)?;
        Ok(page(found, limit as usize, |plan| Cursor::of(CURSOR, &plan.id.to_string())))
    }

    /// Returns one plan, with a page of what it undoes while it holds.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn compensation_plan(
        &self,
        namespace: &str,
        id: Uuid,
        after: Option<&str>,
        limit: u32,
    ) -> Result<PlanView, Error> {
        let page = reads::plan_page(after, limit)?;
        let row = find(self.node(), namespace, id).await?;
        let undo = match row.plan.state {
            PlanState::Open => holds(self.node(), namespace, &row, page).await?,
            _ => None,
        };
        Ok(PlanView { holds: undo.is_some(), undo, plan: row.plan })
    }

    /// Approves a revision of a plan of another person. The same again, by the same person, changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it is one's own, at another revision, or over; [`Error::Refused`]
    /// when the run has moved, or without a reason.
    pub async fn approve_plan(
        &self,
        namespace: &str,
        id: Uuid,
        ask: &ApprovePlan,
        by: &By,
    ) -> Result<PlanView, Error> {
        must_have_reason(by)?;
        let node = self.node();
        let row = find(node, namespace, id).await?;
        let plan = &row.plan;
        if plan.state != PlanState::Open || plan.revision != ask.revision {
            return Err(not_so(plan, ask.revision));
        }
        if plan.made_by == *by.actor {
            let message = "who made a plan does not approve it: somebody else does";
            return Err(conflict("own_plan", message));
        }
        if plan.approved_by.is_none() {
            if holds(node, namespace, &row, PlanPage::first()).await?.is_none() {
                end(node, namespace, plan, PlanState::Expired, by).await?;
                return Err(expired());
            }
            let mut connection = node.database.reader(namespace).await?;
            let mut transaction = connection.begin().await?;
            let (of, at) = ((namespace, id, ask.revision), node.clock.now());
            if table::approve(&mut transaction, of, by, at).await? {
                note(node, &mut transaction, namespace, "approve", plan, by).await?;
            }
            commit!("plans_approve", transaction.commit().await)?;
        }
        let now = self.compensation_plan(namespace, id, None, 100).await?;
        if now.plan.revision != ask.revision || now.plan.approved_by.is_none() {
            return Err(not_so(&now.plan, ask.revision));
        }
        Ok(now)
    }

    /// Undoes a run as a plan says. If that is asked again, it is done once.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it is not approved and must be, at another revision, or over;
    /// [`Error::Refused`] by its run, `plan_expired` when that has moved.
    pub async fn apply_plan(
        &self,
        namespace: &str,
        id: Uuid,
        ask: &ApplyPlan,
        by: &By,
    ) -> Result<PlanView, Error> {
        let node = self.node();
        let PlanRow { plan, mark } = find(node, namespace, id).await?;
        let was_applied =
            plan.state == PlanState::Applied && plan.ended_by.as_deref() == Some(&*by.actor);
        if was_applied && plan.revision == ask.revision {
            return Ok(PlanView { plan, holds: false, undo: None });
        }
        if plan.state != PlanState::Open || plan.revision != ask.revision {
            return Err(not_so(&plan, ask.revision));
        }
        let mut connection = node.database.reader(namespace).await?;
        let alone = table::alone(&mut connection, namespace, &plan.workflow).await?;
        let needed = plan.needs_approval || alone.is_some_and(|alone| plan.undos > alone);
        if needed && plan.approved_by.is_none() {
            return Err(needs_approval(&plan.workflow, plan.undos));
        }
        let of = (namespace, id, ask.revision);
        let begun = commit!("plans_begin", table::begin(&mut connection, of, &by.actor).await)?;
        drop(connection);
        // The actor is the person who began it, even if another finishes an interrupted
        // application.
        let Some(actor) = begun else {
            return Err(not_so(&find(node, namespace, id).await?.plan, ask.revision));
        };
        let approved = plan.approved_by.as_ref().map(|who| format!(", approved by {who}"));
        let reason = format!("{} (plan {id}{})", plan.reason, approved.unwrap_or_default());
        let by = By { actor: actor.as_str().into(), reason };
        let (scope, force) = (plan.scope.clone(), plan.force);
        let command = Command::CompensateAsPlanned { scope, force, mark, by: by.clone() };
        let nothing = By { actor: by.actor, reason: String::new() };
        match node.ask(namespace, plan.run, command).await {
            Ok(_) => {
                end(node, namespace, &plan, PlanState::Applied, &nothing).await?;
                self.compensation_plan(namespace, id, None, 100).await
            }
            Err(Error::Refused(refusal))
                if matches!(
                    refusal.code,
                    RefusalCode::PlanExpired | RefusalCode::AlreadyCompensating
                ) =>
            {
                end(node, namespace, &plan, PlanState::Expired, &nothing).await?;
                Err(expired())
            }
            Err(Error::Refused(refusal)) => {
                let mut connection = node.database.reader(namespace).await?;
                commit!("plans_put_back", table::put_back(&mut connection, namespace, id).await)?;
                Err(refusal.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Withdraws an open plan. The same again changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it is being applied, or over; [`Error::Refused`] without a reason.
    pub async fn withdraw_plan(
        &self,
        namespace: &str,
        id: Uuid,
        by: &By,
    ) -> Result<PlanView, Error> {
        must_have_reason(by)?;
        let node = self.node();
        let plan = find(node, namespace, id).await?.plan;
        if plan.state == PlanState::Open {
            end(node, namespace, &plan, PlanState::Withdrawn, by).await?;
        }
        let now = self.compensation_plan(namespace, id, None, 100).await?;
        match now.plan.state {
            PlanState::Withdrawn => Ok(now),
            _ => Err(not_so(&now.plan, now.plan.revision)),
        }
    }

    /// Reads when undos of a workflow's runs need a second person.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn undo_approval(
        &self,
        namespace: &str,
        workflow: &str,
    ) -> Result<UndoApprovalView, Error> {
        definitions::view(&self.node().database, namespace, workflow, None).await?;
        let mut connection = self.node().database.reader(namespace).await?;
        Ok(table::approval(&mut connection, namespace, workflow).await?)
    }

    /// Sets when undos of a workflow's runs need a second person.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] without a reason.
    pub async fn set_undo_approval(
        &self,
        namespace: &str,
        workflow: &str,
        ask: &SetUndoApproval,
        by: &By,
    ) -> Result<UndoApprovalView, Error> {
        definitions::view(&self.node().database, namespace, workflow, None).await?;
        must_have_reason(by)?;
        let at = self.node().clock.now();
        let mut connection = self.node().database.reader(namespace).await?;
        let mut transaction = connection.begin().await?;
        let of = (namespace, workflow);
        table::set_approval(&mut transaction, of, ask.approval, by, at).await?;
        let detail = Some(serde_json::to_string(&ask.approval).unwrap_or_default());
        let (thing, verb) = (Thing::Workflow, "undo-approval");
        acts::add(
            &mut transaction,
            &Act { namespace, thing, name: workflow, at, verb, by, detail },
        )
        .await?;
        commit!("undo_approvals_set", transaction.commit().await)?;
        self.node().approvals.set(namespace, workflow, ask.approval);
        Ok(table::approval(&mut connection, namespace, workflow).await?)
    }
}
