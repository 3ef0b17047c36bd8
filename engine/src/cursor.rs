//! Cursors: opaque to callers, checked when they come back.
//!
//! The text is hexadecimal: a letter for the kind of list, its place, and four bytes of a digest that detects typing
//! errors. Cursors carry no rights: a caller who forges one reads what that caller could read anyway.

use backstitch_saga::Violation;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::Error;

/// Makes and reads cursors.
pub(crate) struct Cursor;

impl Cursor {
    /// Returns a place in a list of the kind `kind`.
    pub(crate) fn of(kind: char, place: &str) -> String {
        seal(kind, place)
    }

    /// Returns the place of such a cursor, as `read` reads it.
    pub(crate) fn place<T>(
        kind: char,
        text: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Error> {
        open(kind, text).and_then(|place| read(&place)).ok_or_else(invalid)
    }

    pub(crate) fn of_run(id: Uuid) -> String {
        seal('r', &id.to_string())
    }

    pub(crate) fn run(text: &str) -> Result<Uuid, Error> {
        open('r', text).and_then(|place| place.parse().ok()).ok_or_else(invalid)
    }

    pub(crate) fn of_start_request(id: Uuid) -> String {
        seal('s', &id.to_string())
    }

    pub(crate) fn start_request(text: &str) -> Result<Uuid, Error> {
        open('s', text).and_then(|place| place.parse().ok()).ok_or_else(invalid)
    }

    pub(crate) fn of_workflow(name: &str, version: i32) -> String {
        seal('w', &format!("{version} {name}"))
    }

    pub(crate) fn workflow(text: &str) -> Result<(String, i32), Error> {
        let place = open('w', text).ok_or_else(invalid)?;
        let (version, name) = place.split_once(' ').ok_or_else(invalid)?;
        Ok((name.to_owned(), version.parse().map_err(|_| invalid())?))
    }

    pub(crate) fn of_schedule(name: &str) -> String {
        seal('s', name)
    }

    pub(crate) fn schedule(text: &str) -> Result<String, Error> {
        open('s', text).ok_or_else(invalid)
    }

    /// Returns a line of a schedule's history, or of what people did to it.
    pub(crate) fn of_start(id: i64) -> String {
        seal('t', &id.to_string())
    }

    pub(crate) fn start(text: &str) -> Result<i64, Error> {
        open('t', text).and_then(|place| place.parse().ok()).ok_or_else(invalid)
    }

    pub(crate) fn of_queue(name: &str) -> String {
        seal('q', name)
    }

    pub(crate) fn queue(text: &str) -> Result<String, Error> {
        open('q', text).ok_or_else(invalid)
    }

    /// Returns a place in a history: the record, and the number of its events that were returned.
    pub(crate) fn of_event(seq: i32, told: usize) -> String {
        seal('h', &format!("{seq} {told}"))
    }

    pub(crate) fn event(text: &str) -> Result<(i32, usize), Error> {
        let place = open('h', text).ok_or_else(invalid)?;
        let (seq, told) = place.split_once(' ').ok_or_else(invalid)?;
        Ok((seq.parse().map_err(|_| invalid())?, told.parse().map_err(|_| invalid())?))
    }

    pub(crate) fn of_worker(worker: &str, session: Uuid, node: i32) -> String {
        seal('v', &format!("{session} {node} {worker}"))
    }

    pub(crate) fn worker(text: &str) -> Result<(String, Uuid, i32), Error> {
        let place = open('v', text).ok_or_else(invalid)?;
        let (session, rest) = place.split_once(' ').ok_or_else(invalid)?;
        let (node, worker) = rest.split_once(' ').ok_or_else(invalid)?;
        let parsed = session.parse().ok().zip(node.parse().ok()).ok_or_else(invalid)?;
        Ok((worker.to_owned(), parsed.0, parsed.1))
    }

    /// Returns a place among the runs that have not ended: state and run.
    pub(crate) fn of_active(state: &str, run: Uuid) -> String {
        seal('a', &format!("{state} {run}"))
    }

    pub(crate) fn active(text: &str) -> Result<(String, Uuid), Error> {
        let place = open('a', text).ok_or_else(invalid)?;
        let (state, run) = place.split_once(' ').ok_or_else(invalid)?;
        Ok((state.to_owned(), run.parse().map_err(|_| invalid())?))
    }

    pub(crate) fn of_item(index: u32) -> String {
        seal('i', &index.to_string())
    }

    pub(crate) fn item(text: &str) -> Result<u32, Error> {
        open('i', text).and_then(|place| place.parse().ok()).ok_or_else(invalid)
    }
}

#[cfg(feature = "fuzz")]
impl Cursor {
    /// Reads `text` as a cursor of every list; what is read leads to the same place when it is made again.
    pub(crate) fn read_as_any(text: &str) {
        fn same<T: PartialEq + std::fmt::Debug>(
            text: &str,
            read: impl Fn(&str) -> Result<T, Error>,
            make: impl Fn(&T) -> String,
        ) {
            if let Ok(place) = read(text) {
                assert_eq!(read(&make(&place)).ok(), Some(place), "{text}");
            }
        }
        same(text, Cursor::run, |id| Cursor::of_run(*id));
        same(text, Cursor::start_request, |id| Cursor::of_start_request(*id));
        same(text, Cursor::workflow, |(name, version)| Cursor::of_workflow(name, *version));
        same(text, Cursor::schedule, |name| Cursor::of_schedule(name));
        same(text, Cursor::start, |id| Cursor::of_start(*id));
        same(text, Cursor::queue, |name| Cursor::of_queue(name));
        same(text, Cursor::event, |(seq, told)| Cursor::of_event(*seq, *told));
        same(text, Cursor::worker, |(worker, session, node)| {
            Cursor::of_worker(worker, *session, *node)
        });
        same(text, Cursor::active, |(state, run)| Cursor::of_active(state, *run));
        same(text, Cursor::item, |index| Cursor::of_item(*index));
    }
}

fn invalid() -> Error {
    Error::invalid(
        "invalid_cursor",
        Violation::new(
            "?after",
            "invalid_cursor",
            "this is not a cursor of this list; begin again without it",
        ),
    )
}

fn digest(kind: char, place: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(format!("{kind}{place}"))[..4])
}

pub(crate) fn seal(kind: char, place: &str) -> String {
    format!("{kind}{}{}", digest(kind, place), HEXLOWER.encode(place.as_bytes()))
}

pub(crate) fn open(kind: char, text: &str) -> Option<String> {
    let rest = text.strip_prefix(kind)?;
    let (_, place) = rest.split_at_checked(8)?;
    let place = String::from_utf8(HEXLOWER.decode(place.as_bytes()).ok()?).ok()?;
    // The digest is right, and PostgreSQL can be asked about it.
    (seal(kind, &place) == text && !place.contains('\0')).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_as_they_went() {
        let id = Uuid::new_v4();
        assert_eq!(Cursor::run(&Cursor::of_run(id)).unwrap(), id);
        assert_eq!(Cursor::event(&Cursor::of_event(7, 3)).unwrap(), (7, 3));
        assert_eq!(Cursor::item(&Cursor::of_item(9)).unwrap(), 9);
        let (name, version) = Cursor::workflow(&Cursor::of_workflow("a b", 2)).unwrap();
        assert_eq!((name.as_str(), version), ("a b", 2));
    }

    #[test]
    fn a_cursor_in_other_letters_than_ours_is_none() {
        let good = Cursor::of_schedule("nightly");
        assert_eq!(Cursor::schedule(&good).unwrap(), "nightly");
        let place = good.find("6c").unwrap();
        for bad in
            [good[..place].to_owned() + &good[place..].to_uppercase(), good.replacen("6c", "+c", 1)]
        {
            assert!(Cursor::schedule(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let good = Cursor::of_event(7, 3);
        for bad in [
            "",
            "h",
            "h12",
            "'; drop table runs; --",
            "é",
            &good[..good.len() - 1],
            &Cursor::of_item(9),
        ] {
            assert!(
                matches!(Cursor::event(bad), Err(Error::Invalid { code: "invalid_cursor", .. })),
                "{bad}"
            );
        }
    }
}
