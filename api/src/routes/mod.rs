//! The routes: one function each, which reads the request, asks the engine and prints the answer.

mod acts;
mod amend;
mod audit;
mod contracts;
mod credentials;
mod cursors;
mod database_roles;
mod doors;
mod each;
mod effects;
mod erasures;
mod events;
mod files;
mod hints;
mod imports;
mod incident_acts;
mod incidents;
mod intakes;
mod jobs;
mod labels;
mod links;
pub(crate) mod ops;
mod pauses;
mod plans;
mod queues;
pub(crate) mod quotas;
mod repair;
mod reprocesses;
mod retention;
mod runs;
mod schedules;
mod sequence;
mod signals;
mod sources;
mod start_requests;
mod steps;
mod subscriptions;
mod tasks;
mod transforms;
mod versions;
mod workers;
mod workflows;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::app::App;
use crate::{console, front, problem};

/// What the document says about the whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Backstitch",
        description = "A durable saga engine on PostgreSQL. Every error is an `application/problem+json` with a stable `code`. Lists are read page by page: pass `next` as `after`. Lengths of time are text like `30s` or `1h 30m`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "runs", description = "Start, inspect, undo"),
        (name = "incidents", description = "What needs a person, and what people did"),
        (name = "jobs", description = "One verb on many incidents or runs"),
        (name = "tasks", description = "What workers ask and report"),
        (name = "workflows", description = "Definitions"),
        (name = "schedules", description = "Starts of runs by the calendar"),
        (name = "contracts", description = "Shapes of documents, their versions and compatibility"),
        (name = "ingress", description = "Sources and what they send"),
        (name = "events", description = "The log of what happened"),
        (name = "queues", description = "Limits, breakers, pauses"),
        (name = "server", description = "Who am I, is it well"),
    )
)]
struct Head;

/// All routes with their description.
pub(crate) fn collect() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Head::openapi())
        .routes(routes!(runs::list, runs::start))
        .routes(routes!(runs::start_many))
        .routes(routes!(runs::show))
        .routes(routes!(runs::history))
        .routes(routes!(runs::tree))
        .routes(routes!(runs::items))
        .routes(routes!(acts::compensate))
        .routes(routes!(acts::cancel))
        .routes(routes!(acts::kill))
        .routes(routes!(acts::retry))
        .routes(routes!(acts::mark_compensated))
        .routes(routes!(acts::pause))
        .routes(routes!(labels::label))
        .routes(routes!(acts::resume))
        .routes(routes!(acts::rerun))
        .routes(routes!(plans::make))
        .routes(routes!(plans::list))
        .routes(routes!(plans::show, plans::edit))
        .routes(routes!(plans::approve))
        .routes(routes!(plans::apply))
        .routes(routes!(plans::withdraw))
        .routes(routes!(plans::approval, plans::set_approval))
        .routes(routes!(steps::show))
        .routes(routes!(steps::retry))
        .routes(routes!(steps::skip))
        .routes(routes!(steps::resolve))
        .routes(routes!(signals::send))
        .routes(routes!(signals::send_by_key))
        .routes(routes!(incidents::list))
        .routes(routes!(incidents::groups))
        .routes(routes!(incidents::counts))
        .routes(routes!(incidents::show))
        .routes(routes!(effects::list))
        .routes(routes!(effects::counts))
        .routes(routes!(audit::acts))
        .routes(routes!(start_requests::list))
        .routes(routes!(start_requests::show))
        .routes(routes!(start_requests::retry))
        .routes(routes!(start_requests::dismiss))
        .routes(routes!(incident_acts::retry))
        .routes(routes!(incident_acts::skip))
        .routes(routes!(incident_acts::resolve))
        .routes(routes!(incident_acts::mark_compensated))
        .routes(routes!(incident_acts::compensate))
        .routes(routes!(incident_acts::cancel))
        .routes(routes!(incident_acts::abandon))
        .routes(routes!(incident_acts::assign))
        .routes(routes!(incident_acts::note))
        .routes(routes!(pauses::list))
        .routes(routes!(pauses::pause))
        .routes(routes!(pauses::resume))
        .routes(routes!(retention::show))
        .routes(routes!(retention::erase))
        .routes(routes!(retention::set))
        .routes(routes!(jobs::list, jobs::create))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::items))
        .routes(routes!(jobs::pause))
        .routes(routes!(jobs::resume))
        .routes(routes!(jobs::stop))
        .routes(routes!(tasks::claim))
        .routes(routes!(tasks::complete))
        .routes(routes!(tasks::heartbeat))
        .routes(routes!(tasks::release))
        .routes(routes!(workers::sign_off))
        .routes(routes!(workers::why))
        .routes(routes!(workers::list))
        .routes(routes!(workflows::list))
        .routes(routes!(workflows::validate))
        .routes(routes!(workflows::versions))
        .routes(routes!(workflows::show, workflows::register))
        .routes(routes!(workflows::rehearsal))
        .routes(routes!(schedules::list))
        .routes(routes!(schedules::show, schedules::put, schedules::delete))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(schedules::trigger))
        .routes(routes!(schedules::backfill))
        .routes(routes!(schedules::next))
        .routes(routes!(schedules::starts))
        .routes(routes!(sequence::key))
        .routes(routes!(sequence::facts))
        .routes(routes!(sequence::establish))
        .routes(routes!(sequence::withdraw))
        .routes(routes!(sequence::skip_requirements))
        .routes(routes!(versions::drain))
        .routes(routes!(versions::list, versions::start))
        .routes(routes!(versions::show))
        .routes(routes!(versions::runs))
        .routes(routes!(versions::stop))
        .routes(routes!(queues::list))
        .routes(routes!(queues::show, queues::set, queues::remove))
        .routes(routes!(queues::pause))
        .routes(routes!(queues::resume))
        .routes(routes!(queues::open))
        .routes(routes!(queues::close))
        .routes(routes!(quotas::show, quotas::set, quotas::remove))
        .routes(routes!(contracts::list))
        .routes(routes!(contracts::show, contracts::set_mode))
        .routes(routes!(contracts::register))
        .routes(routes!(contracts::check))
        .routes(routes!(contracts::version))
        .routes(routes!(contracts::set_state))
        .routes(routes!(contracts::pin, contracts::unpin))
        .routes(routes!(transforms::list))
        .routes(routes!(transforms::show, transforms::put))
        .routes(routes!(transforms::activate))
        .routes(routes!(transforms::test))
        .routes(routes!(transforms::what_if))
        .routes(routes!(sources::list))
        .routes(routes!(sources::show, sources::put, sources::delete))
        .routes(routes!(sources::rotate))
        .routes(routes!(doors::take))
        .routes(routes!(doors::take_batch))
        .routes(routes!(files::take))
        .routes(routes!(imports::list))
        .routes(routes!(imports::show))
        .routes(routes!(imports::refused))
        .routes(routes!(imports::cancel))
        .routes(routes!(reprocesses::list, reprocesses::create))
        .routes(routes!(reprocesses::show))
        .routes(routes!(reprocesses::stop))
        .routes(routes!(reprocesses::problems))
        .routes(routes!(erasures::list, erasures::create))
        .routes(routes!(erasures::show))
        .routes(routes!(hints::list))
        .routes(routes!(links::list))
        .routes(routes!(links::show, links::put, links::delete))
        .routes(routes!(links::conflicts))
        .routes(routes!(links::resolve))
        .routes(routes!(intakes::list))
        .routes(routes!(intakes::show))
        .routes(routes!(intakes::raw))
        .routes(routes!(intakes::reprocess))
        .routes(routes!(events::list, events::publish))
        .routes(routes!(events::show))
        .routes(routes!(events::lineage))
        .routes(routes!(cursors::list))
        .routes(routes!(cursors::show, cursors::put, cursors::delete))
        .routes(routes!(subscriptions::list))
        .routes(routes!(subscriptions::show, subscriptions::put, subscriptions::delete))
        .routes(routes!(subscriptions::pause))
        .routes(routes!(subscriptions::resume))
        .routes(routes!(subscriptions::reset))
        .routes(routes!(subscriptions::skip))
        .routes(routes!(subscriptions::keys))
        .routes(routes!(subscriptions::skips))
        .routes(routes!(credentials::list))
        .routes(routes!(credentials::create, credentials::revoke))
        .routes(routes!(credentials::rotate))
        .routes(routes!(database_roles::list))
        .routes(routes!(database_roles::grant, database_roles::revoke))
        .routes(routes!(ops::whoami))
        .routes(routes!(ops::status))
        .routes(routes!(ops::background_tasks))
        .routes(routes!(ops::home))
        .routes(routes!(ops::livez))
        .routes(routes!(ops::readyz))
        .routes(routes!(ops::metrics))
        .routes(routes!(ops::openapi))
}

/// Reads `query` as that of every list.
#[cfg(feature = "fuzz")]
pub(crate) fn read_queries(query: &str) {
    use crate::query::parse;
    let _ = parse::<audit::ActsQuery>(query);
    let _ = parse::<credentials::CredentialsQuery>(query);
    let _ = parse::<events::EventsQuery>(query);
    let _ = parse::<incidents::IncidentsQuery>(query);
    let _ = parse::<links::LinksQuery>(query);
    let _ = parse::<links::LinkConflictsQuery>(query);
    let _ = parse::<reprocesses::MappingProblemsQuery>(query);
    let _ = parse::<hints::HintsQuery>(query);
    let _ = parse::<imports::ImportsQuery>(query);
    let _ = parse::<intakes::IntakesQuery>(query);
    let _ = parse::<doors::BatchQuery>(query);
    let _ = parse::<incidents::GroupsQuery>(query);
    let _ = parse::<jobs::JobsQuery>(query);
    let _ = parse::<jobs::JobItemsQuery>(query);
    let _ = parse::<runs::StartQuery>(query);
    let _ = parse::<runs::RunsQuery>(query);
    let _ = parse::<runs::RunQuery>(query);
    let _ = parse::<runs::PageQuery>(query);
    let _ = parse::<runs::ItemsQuery>(query);
    let _ = parse::<schedules::NextQuery>(query);
    let _ = parse::<start_requests::StartRequestsQuery>(query);
    let _ = parse::<versions::ResultQuery>(query);
    let _ = parse::<workers::WorkersQuery>(query);
}

/// The whole server.
pub(crate) fn router(app: Arc<App>) -> Router {
    let (router, _) = collect().split_for_parts();
    let config = Config::from("/openapi.json").validator_url("none");
    let docs = Router::from(SwaggerUi::new("/docs").config(config));
    let api = router
        .merge(docs.layer(map_response(problem::dress)))
        .fallback(problem::unknown_route)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(from_fn_with_state(app.clone(), front::front))
        .with_state(app.clone());
    api.clone().merge(console::router(api, app))
}
