//! The audit: what people did, to whatever it was.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::protocol::{ActFilter, ActLine, Page};
use backstitch_saga::{RunId, Timestamp};
use utoipa::IntoParams;
use uuid::Uuid;

use crate::access::Caller;
use crate::app::Shared;
use crate::body::json;
use crate::examples::incidents as examples;
use crate::problem::Answer;
use crate::query::{FromQuery, Pairs, QueryOf, words};

/// Query parameters of a list of acts.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ActsQuery {
    /// Only by this person.
    actor: Option<String>,
    /// Only on this run.
    run: Option<RunId>,
    /// Only on this workflow and its runs.
    workflow: Option<String>,
    /// Only on this queue.
    queue: Option<String>,
    /// Only on this schedule.
    schedule: Option<String>,
    /// Only on this job.
    job: Option<Uuid>,
    /// Only on facts about this subject.
    #[param(example = "customer:42")]
    subject: Option<String>,
    /// Only on this credential.
    credential: Option<String>,
    /// Only on the grants of this role of the database.
    database_role: Option<String>,
    /// Only on the contract with this subject.
    contract: Option<String>,
    /// Only on this subscription.
    subscription: Option<String>,
    /// Only on this source.
    source: Option<String>,
    /// Only this verb.
    #[param(schema_with = verbs, example = "mark-compensated")]
    verb: Option<String>,
    /// Only at this instant or later.
    from: Option<Timestamp>,
    /// Only before this instant.
    to: Option<Timestamp>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for ActsQuery {
    fn read(pairs: &mut Pairs) -> Self {
        ActsQuery {
            actor: pairs.text("actor"),
            run: pairs.parsed("run"),
            workflow: pairs.text("workflow"),
            queue: pairs.text("queue"),
            schedule: pairs.text("schedule"),
            job: pairs.parsed("job"),
            subject: pairs.text("subject"),
            credential: pairs.text("credential"),
            database_role: pairs.text("database_role"),
            contract: pairs.text("contract"),
            subscription: pairs.text("subscription"),
            source: pairs.text("source"),
            verb: pairs.one_of("verb", ActFilter::VERBS),
            from: pairs.parsed("from"),
            to: pairs.parsed("to"),
            after: pairs.text("after"),
            limit: pairs.limit(),
        }
    }
}

fn verbs() -> utoipa::openapi::schema::Object {
    words("Only acts of this verb.", ActFilter::VERBS)
}

/// List what people did, newest first
///
/// The audit: who did what to runs, workflows, queues, schedules, jobs, facts, credentials, contracts and roles of the database,
/// when and why; also to those that are gone, runs for as long as they are kept. What was written on incidents stands with them.
#[utoipa::path(
    get, path = "/v1/acts", tag = "acts", operation_id = "list_acts",
    params(ActsQuery),
    responses((status = 200, description = "A page of acts.", body = Page<ActLine>, example = json!(examples::acts())))
)]
pub(crate) async fn acts(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<ActsQuery>,
) -> Answer {
    let filter = ActFilter {
        actor: query.actor,
        run: query.run,
        workflow: query.workflow,
        queue: query.queue,
        schedule: query.schedule,
        job: query.job.map(|job| job.to_string()),
        subject: query.subject,
        credential: query.credential,
        database_role: query.database_role,
        contract: query.contract,
        subscription: query.subscription,
        source: query.source,
        verb: query.verb,
        from: query.from,
        to: query.to,
    };
    let after = query.after.as_deref();
    json(StatusCode::OK, &app.engine.acts(&caller.namespace, &filter, after, query.limit).await?)
}
