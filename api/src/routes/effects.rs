//! Effects that are open, over all runs.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::Span;
use backstitch_saga::protocol::{EffectCounts, EffectFilter, EffectLine, EffectStatus, Page};
use utoipa::IntoParams;

use crate::access::Caller;
use crate::app::Shared;
use crate::body::json;
use crate::examples::effects as examples;
use crate::problem::Answer;
use crate::query::{FromQuery, NoQuery, Pairs, QueryOf};

/// Query parameters of a list of open effects.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EffectsQuery {
    /// Only in this system: the queue on which the tasks of the step are offered.
    system: Option<String>,
    /// Only those that are open so.
    #[param(inline)]
    status: Option<EffectStatus>,
    /// Only of runs of this workflow.
    workflow: Option<String>,
    /// Only those that are open for longer than this.
    #[param(value_type = Option<String>, example = "1h")]
    older_than: Option<Span>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for EffectsQuery {
    fn read(pairs: &mut Pairs) -> Self {
        EffectsQuery {
            system: pairs.text("system"),
            status: pairs.word("status"),
            workflow: pairs.text("workflow"),
            older_than: pairs.parsed("older_than"),
            after: pairs.text("after"),
            limit: pairs.limit(),
        }
    }
}

/// List open effects, the longest open first
///
/// What stands in other systems and is to be undone, or was left behind by a run that failed, and what may have happened. A
/// run that ended with a clean outcome has none.
#[utoipa::path(
    get, path = "/v1/effects", tag = "incidents", operation_id = "list_effects",
    params(EffectsQuery),
    responses((status = 200, description = "A page of open effects.", body = Page<EffectLine>, example = json!(examples::effects())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<EffectsQuery>,
) -> Answer {
    let (after, limit) = (query.after, query.limit);
    let filter = EffectFilter {
        system: query.system,
        status: query.status,
        workflow: query.workflow,
        older_than: query.older_than,
    };
    let page = app.engine.effects(&caller.namespace, &filter, after.as_deref(), limit).await?;
    json(StatusCode::OK, &page)
}

/// Count the open effects by system
///
/// Of the oldest 10,000 steps with open effects; `more` says that there are others.
#[utoipa::path(
    get, path = "/v1/effects/counts", tag = "incidents", operation_id = "count_effects",
    responses((status = 200, description = "The counts.", body = EffectCounts, example = json!(examples::counts())))
)]
pub(crate) async fn counts(State(app): Shared, caller: Caller, _: QueryOf<NoQuery>) -> Answer {
    json(StatusCode::OK, &app.engine.effect_counts(&caller.namespace).await?)
}
