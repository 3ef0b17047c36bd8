//! Receives files: finds their rows while they arrive, and stores them in pieces until they are
//! processed.
//!
//! No more than a piece of a file is in memory. A repeated file is recognised, and an incomplete one is forgotten.

use backstitch_integration::ingress::{
    FileForm, Form, LONGEST_HEADER, Rejected, Row, Rows, Sender, check_header,
};
use backstitch_saga::protocol::ImportReceipt;
use sha2::{Digest, Sha256};

use super::arrival::Arrival;
use super::doors::OpenSource;
use super::kept;
use crate::crash::commit;
use crate::log::trust_number;
use crate::store::imports::{self as table, ImportRow, NewPiece, Whole};
use crate::{Engine, Error};

/// The most bytes of a file.
pub const LARGEST_FILE: u64 = 4 << 30;
/// Imports of a namespace that are under way.
pub const MOST_IMPORTS: i64 = 20;
/// The most rows of a piece, and bytes beyond which none is added.
const PIECE: (i32, usize) = (500, 512 * 1024);
/// Mark in place of the length of a row that is too long.
const TOO_LONG: u32 = u32::MAX;

/// A file that is coming.
pub struct Upload {
    row: ImportRow,
    rows: Rows,
    limit: usize,
    digest: Sha256,
    piece: Vec<u8>,
    in_piece: i32,
    number: i32,
}

/// The inner error: a mistake in a file as a whole.
type Received<T> = Result<Result<T, Box<Rejected>>, Error>;

impl Upload {
    /// Takes the row that was found.
    fn add(&mut self) -> Result<(), Box<Rejected>> {
        let Upload { row, rows, piece, .. } = self;
        if row.form == Form::Csv.as_str() && row.header.is_none() {
            check_header(rows.row())?;
            if let Row::Whole(header) = rows.row() {
                row.header = Some(header.to_vec());
            }
            rows.set_limit(self.limit);
            rows.clear();
            return Ok(());
        }
        match rows.row() {
            Row::Whole(row) => {
                let length = u32::try_from(row.len()).unwrap_or(TOO_LONG);
                piece.extend_from_slice(&length.to_be_bytes());
                piece.extend_from_slice(row);
            }
            Row::TooLong => piece.extend_from_slice(&TOO_LONG.to_be_bytes()),
        }
        rows.clear();
        self.in_piece += 1;
        Ok(())
    }

    fn is_full(&self) -> bool {
        let (rows, bytes) = PIECE;
        self.in_piece >= rows || self.piece.len() >= bytes
    }
}

/// Splits a piece into its rows; `None` for one that is too long.
pub(super) fn rows_of(mut piece: &[u8]) -> Vec<Option<&[u8]>> {
    let mut rows = Vec::new();
    while let Some((length, rest)) = piece.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length);
        if length == TOO_LONG {
            rows.push(None);
            piece = rest;
            continue;
        }
        let (row, behind) = rest.split_at(rest.len().min(length as usize));
        rows.push(Some(row));
        piece = behind;
    }
    rows
}

impl Engine {
    /// Begins to receive a file of a sender that was verified.
    ///
    /// # Errors
    /// [`Error::Quota`] when too many of the namespace are under way; [`Error::Store`].
    pub async fn begin_import(
        &self,
        open: &OpenSource,
        arrival: &Arrival,
        sender: &Sender,
    ) -> Result<Upload, Error> {
        let node = self.node();
        let form = match sender.form() {
            Form::Csv => FileForm::Csv,
            Form::Json | Form::CloudEvent => FileForm::Lines,
        };
        let id = node.clock.new_run().0;
        let new = kept::new(open, arrival, id, Vec::new(), "file", sender);
        let row = ImportRow {
            id,
            namespace: new.namespace,
            source: new.source,
            state: "receiving".to_owned(),
            form: sender.form().as_str().to_owned(),
            content_type: new.content_type,
            header: None,
            trust: trust_number(sender.trust),
            peer: new.peer,
            request_id: new.request_id,
            headers: new.headers,
            received_at: arrival.at,
            ended_at: None,
            digest: None,
            bytes: 0,
            rows: 0,
            accepted: 0,
            duplicates: 0,
            refused: 0,
            waits_for: None,
        };
        let mut connection = node.database.actor(&row.namespace).await?;
        let begun = table::begin(&mut connection, &row, MOST_IMPORTS).await;
        if !commit!("import_begin", begun)? {
            let message = format!("a namespace has at most {MOST_IMPORTS} imports under way");
            let retry_after = Some(std::time::Duration::from_secs(10));
            return Err(Error::Quota { code: "too_many_imports", message, retry_after });
        }
        Ok(Upload {
            row,
            rows: Rows::new(form, first_limit(form, open.max_bytes())),
            limit: open.max_bytes(),
            digest: Sha256::new(),
            piece: Vec::new(),
            in_piece: 0,
            number: 0,
        })
    }

    /// Takes the next bytes of a file.
    ///
    /// # Errors
    /// The mistakes of the file as a whole, within; [`Error::Conflict`] `import_cancelled`; [`Error::Store`].
    pub async fn receive(&self, upload: &mut Upload, bytes: &[u8]) -> Received<()> {
        upload.digest.update(bytes);
        upload.row.bytes += i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (behind, found) = upload.rows.take(rest);
            rest = behind;
            if found && let Err(rejected) = upload.add() {
                return Ok(Err(rejected));
            }
            if upload.is_full() {
                self.keep_piece(upload).await?;
            }
        }
        Ok(Ok(()))
    }

    /// Notes that a file has arrived completely. Its rows are processed from then on, unless it was
    /// sent before.
    ///
    /// # Errors
    /// As [`Engine::receive`].
    pub async fn finish_import(&self, mut upload: Upload) -> Received<ImportReceipt> {
        if upload.rows.is_there()
            && let Err(rejected) = upload.add()
        {
            return self.refuse_file(&upload, rejected).await;
        }
        if upload.row.form == Form::Csv.as_str()
            && upload.row.header.is_none()
            && let Err(rejected) = check_header(Row::Whole(b""))
        {
            return self.refuse_file(&upload, rejected).await;
        }
        if upload.in_piece > 0 {
            self.keep_piece(&mut upload).await?;
        }
        let Upload { mut row, digest, .. } = upload;
        row.digest = Some(digest.finalize().to_vec());
        let node = self.node();
        let mut connection = node.database.actor(&row.namespace).await?;
        let whole = table::finish(&mut connection, &row, node.clock.now()).await;
        let (import_id, duplicate) = match commit!("import_finish", whole)? {
            Whole::Runs => (row.id, false),
            Whole::Repeats(first) => (first, true),
            Whole::Gone => return Err(cancelled()),
        };
        let (rows, bytes) = (row.rows.unsigned_abs(), row.bytes.unsigned_abs());
        Ok(Ok(ImportReceipt { import_id, rows, bytes, duplicate }))
    }

    async fn refuse_file<T>(&self, upload: &Upload, rejected: Box<Rejected>) -> Received<T> {
        self.abandon_import(upload).await?;
        Ok(Err(rejected))
    }

    /// Forgets a file that does not come whole.
    ///
    /// # Errors
    /// [`Error::Store`]: it is forgotten later.
    pub async fn abandon_import(&self, upload: &Upload) -> Result<(), Error> {
        let mut connection = self.node().database.actor(&upload.row.namespace).await?;
        let removed = table::remove(&mut connection, upload.row.id).await;
        Ok(commit!("import_abandon", removed)?)
    }

    async fn keep_piece(&self, upload: &mut Upload) -> Result<(), Error> {
        let node = self.node();
        upload.number += 1;
        let piece = NewPiece {
            number: upload.number,
            first_row: upload.row.rows + 1,
            rows: upload.in_piece,
            body: std::mem::take(&mut upload.piece),
        };
        upload.row.rows += i64::from(upload.in_piece);
        upload.in_piece = 0;
        let mut connection = node.database.actor(&upload.row.namespace).await?;
        let so_far = (upload.row.bytes, node.clock.now());
        let received = table::receive(&mut connection, upload.row.id, &piece, so_far).await;
        match commit!("import_receive", received)? {
            true => Ok(()),
            false => Err(cancelled()),
        }
    }
}

/// Returns the most bytes of the first row: that of a CSV file names the columns.
fn first_limit(form: FileForm, limit: usize) -> usize {
    match form {
        FileForm::Csv => LONGEST_HEADER,
        FileForm::Lines => limit,
    }
}

fn cancelled() -> Error {
    Error::Conflict {
        code: "import_cancelled",
        message: "the import was cancelled while its file was coming".to_owned(),
    }
}
