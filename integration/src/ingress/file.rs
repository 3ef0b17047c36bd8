//! Files: rows of lines of JSON or of CSV, found one at a time, however large the file is.
//!
//! CSV is that of RFC 4180 with commas, in UTF-8: the first row names the columns, and each other row is a document
//! whose values are texts. An empty field is left out, `""` is an empty text. A row is stored with the first row of its
//! file, so that it can be read by itself.

use std::collections::BTreeMap;

use backstitch_saga::{Payload, Violation};

use super::checks::Rejected;
use super::read::unreadable;
use crate::document::{Object, Value};

/// The most bytes of the first row of a CSV file.
pub const LONGEST_HEADER: usize = 64 * 1024;
/// The most columns of a CSV file.
pub(crate) const MOST_COLUMNS: usize = 1_000;

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileForm {
    /// Lines of JSON.
    Lines,
    /// CSV with a header.
    Csv,
}

/// A row of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row<'a> {
    /// The bytes of a row, without those that end it.
    Whole(&'a [u8]),
    /// A row of more bytes than are allowed.
    TooLong,
}

/// Place within a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    /// At the beginning of a field.
    Begin,
    /// In a field without quotes.
    Plain,
    /// Between quotes.
    Quoted,
    /// Behind a quote that ends a field, or is the first of two.
    Quote,
}

/// Finds the rows of a file in its bytes, which come in pieces.
#[derive(Clone, Debug)]
pub struct Rows {
    form: FileForm,
    limit: usize,
    held: Vec<u8>,
    within: Within,
    too_long: bool,
    /// Bytes that have come, as far as a byte order mark reaches.
    begun: usize,
}

impl Rows {
    /// Returns a finder of rows of at most `limit` bytes.
    #[must_use]
    pub fn new(form: FileForm, limit: usize) -> Rows {
        let within = Within::Begin;
        Rows { form, limit, held: Vec::new(), within, too_long: false, begun: 0 }
    }

    /// Sets the most bytes of the rows to come.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes the next bytes, and returns the bytes behind the first row that ends in them, and whether one does. The
    /// row is had by [`Rows::row`]. Rows without anything are passed over.
    #[must_use]
    pub fn take<'b>(&mut self, bytes: &'b [u8]) -> (&'b [u8], bool) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| self.ends(*byte));
            let (part, behind) = match end {
                Some(end) => (rest.get(..end), rest.get(end + 1..)),
                None => (Some(rest), None),
            };
            self.hold(part.unwrap_or_default());
            let Some(behind) = behind else { return (&[], false) };
            rest = behind;
            if self.is_there() {
                return (rest, true);
            }
        }
        (rest, false)
    }

    /// Returns whether there is a row that the end of the file ends.
    #[must_use]
    pub fn is_there(&mut self) -> bool {
        self.within = Within::Begin;
        if self.too_long {
            return true;
        }
        match self.form {
            FileForm::Lines => {
                let trimmed = self.held.trim_ascii();
                if trimmed.len() < self.held.len() {
                    self.held = trimmed.to_vec();
                }
            }
            FileForm::Csv => {
                if self.held.last() == Some(&b'\r') {
                    self.held.pop();
                }
            }
        }
        !self.held.is_empty()
    }

    /// Returns the row that was found.
    #[must_use]
    pub fn row(&self) -> Row<'_> {
        if self.too_long { Row::TooLong } else { Row::Whole(&self.held) }
    }

    /// Forgets the row that was found, before the next bytes are taken.
    pub fn clear(&mut self) {
        self.held.clear();
        self.too_long = false;
    }

    /// Returns whether a byte ends a row.
    fn ends(&mut self, byte: u8) -> bool {
        if let Some(mark) = BYTE_ORDER_MARK.get(self.begun) {
            if byte == *mark {
                self.begun += 1;
                return false;
            }
            self.begun = BYTE_ORDER_MARK.len() + 1;
        }
        if self.form == FileForm::Lines {
            return byte == b'\n';
        }
        let (next, ends) = match (self.within, byte) {
            (Within::Begin, b'"') | (Within::Quote, b'"') => (Within::Quoted, false),
            (Within::Quoted, b'"') => (Within::Quote, false),
            (Within::Quoted, _) => (Within::Quoted, false),
            (_, b',') => (Within::Begin, false),
            (_, b'\n') => (Within::Begin, true),
            (Within::Quote, b'\r') => (Within::Quote, false),
            _ => (Within::Plain, false),
        };
        self.within = next;
        ends
    }

    fn hold(&mut self, part: &[u8]) {
        if self.too_long || part.is_empty() {
            return;
        }
        // The bytes that end a row of CSV, and a byte order mark, are no part of it.
        if self.held.len() + part.len() > self.limit + 4 {
            self.too_long = true;
            self.held = Vec::new();
            return;
        }
        self.held.extend_from_slice(part);
        if self.held.starts_with(&BYTE_ORDER_MARK) && self.begun == BYTE_ORDER_MARK.len() {
            self.held.drain(..BYTE_ORDER_MARK.len());
            self.begun += 1;
        }
    }
}

fn wrong(message: impl Into<String>) -> Violation {
    Violation::new("", "csv_not_valid", message.into())
}

/// Reads the fields of a row of CSV; `None` for one without anything.
///
/// # Errors
/// `csv_not_valid`, `nul_character`.
fn fields(row: &[u8]) -> Result<Vec<Option<String>>, Violation> {
    let text = std::str::from_utf8(row).map_err(|error| {
        wrong(format!("not UTF-8 from byte {} of the row on; send UTF-8", error.valid_up_to()))
    })?;
    if text.contains('\0') {
        let message = "the row has the character NUL, which no text may have";
        return Err(Violation::new("", "nul_character", message));
    }
    let mut all = Vec::new();
    let mut rest = text;
    loop {
        let (field, behind) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (field, behind) = unquoted(quoted)?;
                (Some(field), behind)
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, behind) = rest.split_at(end);
                if field.contains('"') {
                    return Err(wrong(format!(
                        "field {} has a quote and does not begin with one; put it between quotes, and write its quotes twice",
                        all.len() + 1
                    )));
                }
                (Some(field.to_owned()).filter(|field| !field.is_empty()), behind)
            }
        };
        all.push(field);
        if all.len() > MOST_COLUMNS {
            return Err(wrong(format!("a row has at most {MOST_COLUMNS} fields")));
        }
        rest = match behind.strip_prefix(',') {
            Some(rest) => rest,
            None if behind.is_empty() => return Ok(all),
            None => {
                return Err(wrong(format!(
                    "behind the quote of field {} stands a text",
                    all.len()
                )));
            }
        };
    }
}

/// Reads a field up to the quote that ends it. Returns the text behind it, too.
fn unquoted(text: &str) -> Result<(String, &str), Violation> {
    let mut field = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('"') {
        field.push_str(before);
        match behind.strip_prefix('"') {
            Some(behind) => {
                field.push('"');
                rest = behind;
            }
            None => return Ok((field, behind)),
        }
    }
    Err(wrong("a quote is not closed"))
}

/// Checks the first row of a CSV file.
///
/// # Errors
/// `csv_not_valid`, `duplicate_key`, `nul_character`.
pub fn check_header(row: Row<'_>) -> Result<(), Box<Rejected>> {
    let named = match row {
        Row::Whole(row) => columns(row).map(drop),
        Row::TooLong => Err(wrong(format!("the first row has at most {LONGEST_HEADER} bytes"))),
    };
    named.map_err(unreadable)
}

fn columns(row: &[u8]) -> Result<Vec<String>, Violation> {
    let named: Option<Vec<String>> =
        fields(row)?.into_iter().map(|name| name.filter(|name| !name.is_empty())).collect();
    let named = named.ok_or_else(|| wrong("the first row has a name for each column"))?;
    let mut sorted: Vec<&String> = named.iter().collect();
    sorted.sort();
    if let Some([name, _]) = sorted.windows(2).find_map(|two| match two {
        [one, other] if one == other => Some([one, other]),
        _ => None,
    }) {
        let shown: String = name.chars().take(100).collect();
        let message = format!("two columns have the name '{shown}'");
        return Err(Violation::new("", "duplicate_key", message));
    }
    Ok(named)
}

/// Returns a row of a CSV file in its stored form: with the first row of its file.
#[must_use]
pub fn with_header(header: &[u8], row: &[u8]) -> Vec<u8> {
    [header, b"\n", row].concat()
}

/// Reads a row of CSV with the first row of its file, as the bytes of a document of at most `limit` bytes.
///
/// # Errors
/// `payload_too_large`, `csv_not_valid`, `duplicate_key`, `nul_character`.
pub(super) fn read(bytes: &[u8], limit: usize) -> Result<(Payload, Value), Violation> {
    let mut rows = Rows::new(FileForm::Csv, LONGEST_HEADER);
    let (rest, found) = rows.take(bytes);
    if !found {
        return Err(wrong("there is no row behind the first"));
    }
    let header = match rows.row() {
        Row::Whole(row) => columns(row)?,
        Row::TooLong => return Err(wrong("the first row is too long")),
    };
    let size = rest.len();
    if size > limit {
        let message = format!("the row has {size} bytes; {limit} are allowed");
        return Err(Violation::new("", "payload_too_large", message));
    }
    let row = fields(rest)?;
    if row.len() != header.len() {
        let (has, wants) = (row.len(), header.len());
        return Err(wrong(format!("the row has {has} fields, and there are {wants} columns")));
    }
    let named = header.into_iter().zip(row);
    let members: BTreeMap<String, Value> =
        named.filter_map(|(name, field)| Some((name, Value::String(field?)))).collect();
    let value = Value::Object(Object::from(members));
    let payload = value.to_payload();
    payload.check(limit)?;
    Ok((payload, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the rows of a file that comes in pieces of `size` bytes.
    fn rows(form: FileForm, bytes: &[u8], size: usize) -> Vec<Option<String>> {
        let mut rows = Rows::new(form, 20);
        let mut found = Vec::new();
        let mut keep = |rows: &mut Rows| {
            found.push(match rows.row() {
                Row::Whole(row) => Some(String::from_utf8_lossy(row).into_owned()),
                Row::TooLong => None,
            });
            rows.clear();
        };
        for piece in bytes.chunks(size) {
            let mut rest = piece;
            while !rest.is_empty() {
                let (behind, is_there) = rows.take(rest);
                rest = behind;
                if is_there {
                    keep(&mut rows);
                }
            }
        }
        if rows.is_there() {
            keep(&mut rows);
        }
        found
    }

    #[test]
    fn rows_are_the_same_however_a_file_is_cut() {
        let long = "x".repeat(30);
        let csv = format!(
            "\u{feff}a,b\r\n\"1\n,\",\"x\"\"y\"\n\n{long}\n\u{feff}c,d\r\n\r\n\"{long}\n\",1\ne,\"f"
        );
        let expected = ["a,b", "\"1\n,\",\"x\"\"y\"", "-", "\u{feff}c,d", "-", "e,\"f"];
        let lines = format!("\u{feff}{{}}\r\n  \n[1]\n{long}\n\n \"a\" \n2");
        for size in 1..csv.len() {
            let told = |row: Option<String>| row.unwrap_or_else(|| "-".to_owned());
            let found = rows(FileForm::Csv, csv.as_bytes(), size);
            assert_eq!(found.into_iter().map(told).collect::<Vec<_>>(), expected, "{size}");
            let found = rows(FileForm::Lines, lines.as_bytes(), size);
            let found: Vec<String> = found.into_iter().map(told).collect();
            assert_eq!(found, ["{}", "[1]", "-", "\"a\"", "2"], "{size}");
        }
    }

    #[test]
    fn fields_are_read_as_rfc_4180_says_or_the_row_is_refused() {
        let text = |text: &str| Some(text.to_owned());
        for (row, expected) in [
            ("a,b", vec![text("a"), text("b")]),
            ("", vec![None]),
            (",", vec![None, None]),
            ("\"\",x", vec![text(""), text("x")]),
            ("\"a\"\"b\",\"c,\nd\"", vec![text("a\"b"), text("c,\nd")]),
            (" a , b", vec![text(" a "), text(" b")]),
            ("é,\"ß\"", vec![text("é"), text("ß")]),
        ] {
            assert_eq!(fields(row.as_bytes()), Ok(expected), "{row}");
        }
        for (row, code) in [
            (&b"a\"b"[..], "csv_not_valid"),
            (b"\"a\"b", "csv_not_valid"),
            (b"\"a", "csv_not_valid"),
            (b"a,\"b\"\"", "csv_not_valid"),
            (b"\xff", "csv_not_valid"),
            (b"a\0", "nul_character"),
        ] {
            assert_eq!(fields(row).map_err(|wrong| wrong.code), Err(code.into()), "{row:?}");
        }
    }
}
