//! The door through which sources send files: read while they come, a piece at a time.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use backstitch_engine::ingress::{LARGEST_FILE, OpenSource, RefusedIntake, Upload};
use backstitch_saga::protocol::ImportReceipt;

use super::doors::{arrival, begins, find, let_in, rejection, unverified};
use crate::app::{App, Shared};
use crate::body::{self, json, located};
use crate::examples::ingress as examples;
use crate::problem::{Answer, Rejection};
use crate::query::{NoQuery, PathOf, QueryOf};
use crate::rates::Lane;
use crate::turns::{self, Line};

/// Room for what is in memory of a file.
const ROOM: usize = 2 << 20;

/// Take in a file of a source
///
/// Lines of JSON (`application/x-ndjson`), or CSV with commas whose first row names the columns (`text/csv`): each row is a document. A
/// file is kept once it has come whole, and an import takes in its rows from then on, by the checks and codes of one document. The
/// same file again is the same import. The source verifies who sends by `basic`, `bearer` or `mutual_tls`.
#[utoipa::path(
    post, path = "/v1/in/{namespace}/{source}/files", tag = "ingress", operation_id = "take_in_file",
    params(
        ("namespace" = String, Path, description = "Namespace of the source", example = "default"),
        ("source" = String, Path, description = "Name of the source", example = "crm"),
    ),
    request_body(content = String, content_type = "application/x-ndjson", example = json!(examples::file())),
    responses(
        (status = 202, description = "It has come whole; its rows are being taken in.", body = ImportReceipt, example = json!(examples::import_receipt())),
        (status = 200, description = "The same came before; this is its import.", body = ImportReceipt),
        (status = 400, description = "It did not come whole (`body_incomplete`), or the first row of a CSV file names no columns: `csv_not_valid`, `duplicate_key`, `nul_character`."),
        (status = 401, description = "Who sends it is not verified: `signature_missing`, `signature_invalid`."),
        (status = 403, description = "The source takes nothing at present (`source_disabled`), or cannot verify who sends a file before it is read (`file_not_verifiable`)."),
        (status = 404, description = "There is no such source (`unknown_source`)."),
        (status = 408, description = "It stopped coming (`body_too_slow`)."),
        (status = 409, description = "A person has ended the import (`import_cancelled`)."),
        (status = 413, description = "It is too large (`payload_too_large`)."),
        (status = 415, description = "Its content type is not taken (`content_type_not_supported`)."),
        (status = 429, description = "The source sent too much (`too_many_documents`), or too many imports are under way (`too_many_imports`)."),
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
    body::must_not_be_encoded(request.headers())?;
    if body::size(request.headers()).is_some_and(|size| size as u64 > LARGEST_FILE) {
        return Err(too_large());
    }
    let arrival = arrival(&app, &request);
    let sender = open
        .admit_file(&arrival.pairs(), arrival.at)
        .map_err(|rejected| unverified(&app, *rejected))?;
    begins(&app, &open, (1, 0)).await?;
    let doors: Arc<str> = format!("in/{namespace}").into();
    let _room = app.room(&doors, ROOM)?;
    let mut upload = app.engine.begin_import(&open, &arrival, &sender).await?;
    if let Err(rejection) = receive(&app, &open, &mut upload, request).await {
        // What cannot be forgotten now is forgotten later.
        let _ = app.engine.abandon_import(&upload).await;
        return Err(rejection);
    }
    let receipt = app.engine.finish_import(upload).await?;
    let receipt = receipt.map_err(|rejected| rejection(RefusedIntake::of(*rejected, None)))?;
    let status = if receipt.duplicate { StatusCode::OK } else { StatusCode::ACCEPTED };
    let path = format!("/v1/imports/{}", receipt.import_id);
    located(json(status, &receipt), &path)
}

/// Gives the engine the bytes of a file as they come.
async fn receive(
    app: &App,
    open: &OpenSource,
    upload: &mut Upload,
    request: Request,
) -> Result<(), Rejection> {
    let line = Line::Namespace(Arc::clone(open.namespace()), Lane::Intake);
    let mut body = request.into_body();
    let (mut all, mut slice) = (0, 0);
    while let Some(data) = body::next(app, &mut body).await? {
        all += data.len() as u64;
        if all > LARGEST_FILE {
            return Err(too_large());
        }
        slice += data.len();
        if slice >= turns::PIECE {
            // It takes its turn with the other requests of its namespace.
            app.turn(&line, turns::cost_of(Some(slice))).await?;
            slice = 0;
        }
        let received = app.engine.receive(upload, &data).await?;
        received.map_err(|rejected| rejection(RefusedIntake::of(*rejected, None)))?;
    }
    Ok(())
}

fn too_large() -> Rejection {
    let detail = format!("A file may have {LARGEST_FILE} bytes.");
    Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
        .with_header(header::CONNECTION, "close")
}
