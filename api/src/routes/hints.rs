//! Hints: identifiers that documents of sources had.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_engine::ingress::HintQuery;
use backstitch_saga::protocol::{HintView, Page};
use utoipa::IntoParams;

use crate::access::Caller;
use crate::app::Shared;
use crate::body::json;
use crate::examples::ingress as examples;
use crate::problem::Answer;
use crate::query::{FromQuery, Pairs, QueryOf};

/// Query parameters of a search of hints.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HintsQuery {
    /// Kind: `email`, `phone`, or another name that a source gives. It must be given.
    #[param(required = true, value_type = String, example = "email")]
    kind: Option<String>,
    /// The value, in whatever spelling. It must be given.
    #[param(required = true, value_type = String, example = "Ann@shop.internal")]
    value: Option<String>,
    /// The country of a national phone number, such as `DE`.
    #[param(example = "DE")]
    region: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for HintsQuery {
    fn read(pairs: &mut Pairs) -> Self {
        HintsQuery {
            kind: pairs.text("kind"),
            value: pairs.text("value"),
            region: pairs.text("region"),
            after: pairs.text("after"),
            limit: pairs.limit(),
        }
    }
}

/// List documents by an identifier that they had, the newest first
///
/// Identifiers are captured from documents that were accepted and from those that were refused, as their source says. They are found in
/// whatever spelling they came; nothing is merged by them. Those that identify nobody are marked as `junk`.
#[utoipa::path(
    get, path = "/v1/hints", tag = "ingress", operation_id = "list_hints",
    params(HintsQuery),
    responses((status = 200, description = "A page of hints, each with its document, event and stream.", body = Page<HintView>, example = json!(examples::hints())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<HintsQuery>,
) -> Answer {
    let HintsQuery { kind, value, region, after, limit } = query;
    let wanted = HintQuery { kind, value, region };
    let found = app.engine.hints(&caller.namespace, &wanted, after.as_deref(), limit).await?;
    json(StatusCode::OK, &found)
}
