//! The doors through which sources send documents. Who sends is verified by the source itself, not by a credential of ours.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use backstitch_engine::ingress::{Arrival, OpenSource, RefusedIntake, Rejected, Taken};
use backstitch_engine::{Error, Role, ingress};
use backstitch_saga::Payload;
use backstitch_saga::protocol::{IntakeAnswer, IntakeAnswers, IntakeReceipt};
use utoipa::IntoParams;

use crate::access::{self, Caller};
use crate::app::{Access, App, Shared};
use crate::body::{self, json};
use crate::check::is_slug;
use crate::examples::ingress as examples;
use crate::logins::Peer;
use crate::problem::{Answer, Rejection};
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf};
use crate::rates::Lane;
use crate::turns::{self, Line};

/// Query parameters of a batch.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct BatchQuery {
    /// Whether all records are taken or none; each is taken or refused for itself without it.
    #[param(value_type = Option<bool>)]
    atomic: bool,
}

impl FromQuery for BatchQuery {
    fn read(pairs: &mut Pairs) -> Self {
        BatchQuery { atomic: pairs.parsed("atomic").unwrap_or(false) }
    }
}

/// Take in a document of a source
///
/// The source verifies who sends by its own scheme; no credential is asked for. The body is JSON, or one CloudEvent
/// (`application/cloudevents+json`), and is kept byte for byte. The checks, in their order, with their codes: `unknown_source`,
/// `source_disabled`, `payload_too_large`, `content_type_not_supported`, `signature_missing`, `signature_invalid`,
/// `timestamp_out_of_tolerance`; `invalid_json`, `duplicate_key`, `nesting_too_deep`, `nul_character`, `lone_surrogate`,
/// `number_out_of_range`; `cloudevent_not_valid`, `unknown_type`, `version_missing`, `version_unknown`, `version_retired`,
/// `schema_violation`, `dedupe_key_missing`, `mapping_refused`, `dedupe_key_reused`. What is refused after the signature is kept and listed.
#[utoipa::path(
    post, path = "/v1/in/{namespace}/{source}", tag = "ingress", operation_id = "take_in",
    params(
        ("namespace" = String, Path, description = "Namespace of the source", example = "default"),
        ("source" = String, Path, description = "Name of the source", example = "crm"),
    ),
    request_body(content = Payload, example = json!(examples::document())),
    responses(
        (status = 202, description = "It is an event of the log. Follows it a deprecated version of its contract, the header `Warning` says so.", body = IntakeReceipt, example = json!(examples::receipt())),
        (status = 200, description = "The same was taken in before; this is what became of it.", body = IntakeReceipt),
        (status = 400, description = "It cannot be read: `invalid_json`, `duplicate_key`, `nesting_too_deep`, `nul_character`, `lone_surrogate`, `number_out_of_range`."),
        (status = 401, description = "Who sends it is not verified: `signature_missing`, `signature_invalid`, `timestamp_out_of_tolerance`."),
        (status = 403, description = "The source takes nothing at present (`source_disabled`)."),
        (status = 404, description = "There is no such source (`unknown_source`)."),
        (status = 409, description = "Another document was taken in under its dedupe key (`dedupe_key_reused`)."),
        (status = 413, description = "It is too large (`payload_too_large`)."),
        (status = 415, description = "Its content type is not taken (`content_type_not_supported`)."),
        (status = 422, description = "It does not follow its contract: `cloudevent_not_valid`, `unknown_type`, `version_missing`, `version_unknown`, `version_retired`, `schema_violation`, `dedupe_key_missing`, `mapping_refused`."),
    )
)]
pub(crate) async fn take(
    State(app): Shared,
    PathOf((namespace, source)): PathOf<(String, String)>,
    _: QueryOf<NoQuery>,
    request: Request,
) -> Answer {
    let peer = let_in(&app, &request)?;
    let open = find(&app, peer, (&namespace, &source)).await?;
    let arrival = Arc::new(arrived(&app, request, &open, open.max_bytes()).await?);
    let sender = open
        .admit(&arrival.pairs(), &arrival.body, arrival.at, false)
        .map_err(|rejected| unverified(&app, *rejected))?;
    begins(&app, &open, (1, arrival.body.len())).await?;
    match app.engine.take_in(&open, arrival, sender).await? {
        Taken::Accepted { receipt, deprecated } => {
            let status = if receipt.duplicate { StatusCode::OK } else { StatusCode::ACCEPTED };
            let mut response = json(status, &receipt)?;
            if let Some((contract, version)) = deprecated {
                warn(&mut response, &contract, version);
            }
            Ok(response)
        }
        Taken::Refused(refused) => Err(rejection(refused)),
    }
}

/// Take in a small batch of a source
///
/// At most 1,000 records and 5 MiB: a JSON list, lines of JSON (`application/x-ndjson`), or CloudEvents
/// (`application/cloudevents-batch+json`). Each record is taken or refused for itself, by the checks and codes of one document;
/// with `atomic` all are taken or none.
#[utoipa::path(
    post, path = "/v1/in/{namespace}/{source}/batch", tag = "ingress", operation_id = "take_in_batch",
    params(
        ("namespace" = String, Path, description = "Namespace of the source", example = "default"),
        ("source" = String, Path, description = "Name of the source", example = "crm"),
        BatchQuery,
    ),
    request_body(content = Payload, example = json!(examples::batch())),
    responses(
        (status = 202, description = "All are events of the log, or were.", body = IntakeAnswers, example = json!(examples::answers())),
        (status = 207, description = "Some were refused.", body = IntakeAnswers),
        (status = 400, description = "It is no batch: `invalid_json`, `not_a_batch`, `batch_too_large`."),
        (status = 401, description = "Who sends it is not verified: `signature_missing`, `signature_invalid`, `timestamp_out_of_tolerance`."),
        (status = 403, description = "The source takes nothing at present (`source_disabled`)."),
        (status = 404, description = "There is no such source (`unknown_source`)."),
        (status = 413, description = "It is too large (`payload_too_large`)."),
        (status = 415, description = "Its content type is not taken (`content_type_not_supported`)."),
        (status = 422, description = "With `atomic`: none was taken, as some were refused."),
    )
)]
pub(crate) async fn take_batch(
    State(app): Shared,
    PathOf((namespace, source)): PathOf<(String, String)>,
    QueryOf(query): QueryOf<BatchQuery>,
    request: Request,
) -> Answer {
    let peer = let_in(&app, &request)?;
    let open = find(&app, peer, (&namespace, &source)).await?;
    let arrival = Arc::new(arrived(&app, request, &open, ingress::LARGEST_BATCH).await?);
    let sender = open
        .admit(&arrival.pairs(), &arrival.body, arrival.at, true)
        .map_err(|rejected| unverified(&app, *rejected))?;
    let batch = match app.engine.read_batch(&open, &arrival, sender).await? {
        Ok(batch) => batch,
        Err(rejected) => {
            begins(&app, &open, (1, arrival.body.len())).await?;
            let id = app.engine.keep_refused_batch(&open, &arrival, &sender, &rejected).await?;
            return Err(rejection(RefusedIntake::of(*rejected, Some(id))));
        }
    };
    begins(&app, &open, (batch.count(), arrival.body.len())).await?;
    let taken = app.engine.take_batch(&open, arrival, sender, batch, query.atomic).await?;
    let refused = taken.iter().any(|one| !matches!(one, Ok(Taken::Accepted { .. })));
    let records: Vec<IntakeAnswer> = taken.into_iter().map(record).collect();
    let status = match (refused, query.atomic) {
        (false, _) => StatusCode::ACCEPTED,
        (true, false) => StatusCode::MULTI_STATUS,
        (true, true) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    json(status, &IntakeAnswers { records })
}

/// Lets a request in, and returns from where it came.
pub(super) fn let_in(app: &App, request: &Request) -> Result<Option<Peer>, Rejection> {
    if app.access == Access::Open {
        access::must_name_loopback(request.headers())?;
    }
    Ok(request.extensions().get::<Peer>().copied())
}

/// Finds the source of a request. A peer that asks for too many that there are not is refused before they are looked for.
pub(super) async fn find(
    app: &App,
    peer: Option<Peer>,
    (namespace, name): (&str, &str),
) -> Result<Arc<OpenSource>, Rejection> {
    let unknown = || {
        let detail = "There is no source with this address. GET /v1/sources lists addresses.";
        Rejection::new(StatusCode::NOT_FOUND, "unknown_source", detail)
    };
    if !is_slug(namespace) || !is_slug(name) {
        return Err(unknown());
    }
    let now = Instant::now();
    let key = format!("{namespace}/{name}");
    if peer.is_some_and(|peer| !app.strangers.may_try(peer, &key, now)) {
        let detail = "Too many requests to sources that there are not came from this address.";
        let wait = std::time::Duration::from_secs(1);
        return Err(Rejection::too_many("too_many_unknown_sources", detail, wait));
    }
    let Some(open) = app.engine.open_source(namespace, name).await? else {
        app.strangers.failed(peer, &key, now);
        return Err(unknown());
    };
    app.strangers.succeeded(&key, now);
    if !open.is_enabled() {
        let detail = "The source takes nothing at present.";
        return Err(Rejection::new(StatusCode::FORBIDDEN, "source_disabled", detail));
    }
    Ok(open)
}

/// Returns the data of a request that are known before its body is read.
pub(super) fn arrival(app: &App, request: &Request) -> Arrival {
    let headers = request.headers().iter();
    let headers = headers
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect();
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.to_canonical().to_string());
    let request_id = request.headers().get("x-request-id");
    let request_id =
        request_id.filter(|id| id.len() <= 128).and_then(|id| id.to_str().ok()).map(str::to_owned);
    Arrival { headers, body: Vec::new(), at: app.engine.now(), peer, request_id }
}

/// Reads a request as it came.
async fn arrived(
    app: &App,
    request: Request,
    open: &OpenSource,
    limit: usize,
) -> Result<Arrival, Rejection> {
    let begun = arrival(app, &request);
    let body = body::read_at_door(request, app, open.namespace(), limit).await?;
    Ok(Arrival { body: body.into(), at: app.engine.now(), ..begun })
}

/// Waits for the turn of a request whose sender was verified, if it may send so many documents with so many bytes.
pub(super) async fn begins(
    app: &App,
    open: &OpenSource,
    (count, bytes): (usize, usize),
) -> Result<(), Rejection> {
    app.may_send(&caller(open), open.rate(), count)?;
    let line = Line::Namespace(Arc::clone(open.namespace()), Lane::Intake);
    app.turn(&line, turns::cost_of(Some(bytes))).await
}

/// A source as those who count requests know it.
fn caller(open: &OpenSource) -> Caller {
    Caller {
        name: format!("source/{}", open.name()).into(),
        namespace: Arc::clone(open.namespace()),
        role: Role::Viewer,
        digest: None,
        scope: None,
        until: None,
    }
}

/// The answer to a sender that was not verified, of whom nothing is kept but a count.
pub(super) fn unverified(app: &App, rejected: Rejected) -> Rejection {
    app.engine.count_unverified();
    rejection(RefusedIntake::of(rejected, None))
}

pub(super) fn rejection(refused: RefusedIntake) -> Rejection {
    let RefusedIntake { status, code, message, violations, intake_id } = refused;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
    Rejection::new(status, code, message).of_intake(violations, intake_id)
}

/// The answer for one record of a batch.
fn record(taken: Result<Taken, Error>) -> IntakeAnswer {
    let blank = IntakeAnswer {
        status: 202,
        intake_id: None,
        event_id: None,
        duplicate: false,
        code: None,
        message: None,
        errors: Vec::new(),
    };
    match taken {
        Ok(Taken::Accepted { receipt, .. }) => {
            let IntakeReceipt { intake_id, event_id, duplicate } = receipt;
            let status = if duplicate { 200 } else { 202 };
            IntakeAnswer { status, intake_id, event_id: Some(event_id), duplicate, ..blank }
        }
        Ok(Taken::Refused(refused)) => {
            let RefusedIntake { status, code, message, violations, intake_id } = refused;
            let (code, message) = (Some(code.to_owned()), Some(message));
            IntakeAnswer { status, intake_id, code, message, errors: violations, ..blank }
        }
        Err(error) => {
            let (status, code, message) = Rejection::from(error).told();
            IntakeAnswer { status, code: Some(code), message, ..blank }
        }
    }
}

/// Tells a sender that its contract is on its way out.
fn warn(response: &mut Response, contract: &str, version: u32) {
    let text = format!("299 - \"version {version} of {contract} is deprecated; send a newer one\"");
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().insert(header::WARNING, value);
    }
}
