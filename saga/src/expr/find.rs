//! Finds what a path leads to, without copying it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use super::Root;
use super::eval::{EvalError, Evaluation, Gathered, encrypted};
use crate::{Payload, json};

/// A part of a document.
#[derive(Clone)]
pub(crate) struct Found {
    document: Payload,
    range: Range<usize>,
}

impl Found {
    pub(super) fn whole(document: Payload) -> Found {
        Found { range: 0..document.text().len(), document }
    }

    /// Returns the part of `document` that the reference tokens `rest` of a JSON Pointer lead to.
    fn within(document: Payload, rest: &str) -> Option<Found> {
        if rest.is_empty() {
            return Some(Found::whole(document));
        }
        let text = document.text();
        let part = json::find(text, rest)?;
        let start = part.as_ptr() as usize - text.as_ptr() as usize;
        Some(Found { range: start..start + part.len(), document })
    }

    pub(super) fn text(&self) -> &str {
        self.document.text().get(self.range.clone()).unwrap_or_default()
    }

    pub(super) fn is_whole(&self) -> bool {
        self.range.len() == self.document.text().len()
    }

    pub(super) fn into_payload(self) -> Payload {
        if self.is_whole() {
            return self.document;
        }
        Payload::trusted(self.text().to_owned()).expect("a part of a JSON document")
    }
}

/// Results of paths, so that a fan-out does not resolve them once for each item. Paths into an item are not kept.
#[derive(Default)]
pub(crate) struct Memo(RefCell<HashMap<String, Option<Found>>>);

impl Evaluation<'_> {
    /// Finds what `path` leads to. The outputs of a fan-out are put together only if that takes at most `room` bytes.
    pub(super) fn find(&mut self, path: &str, room: usize) -> Result<Option<Found>, EvalError> {
        let Some(root) = Root::of(path) else { return Ok(None) };
        self.find_from(root, path, room)
    }

    /// Returns the same, for a path that was taken apart.
    pub(super) fn find_from(
        &mut self,
        root: Root<'_>,
        path: &str,
        room: usize,
    ) -> Result<Option<Found>, EvalError> {
        self.fits_whole(root, room)?;
        let lasts = !matches!(root, Root::Item(_) | Root::Index) && !root.rest().is_empty();
        if lasts && let Some(known) = self.memo.0.borrow().get(path) {
            return Ok(known.clone());
        }
        let found = match self.start(root) {
            None => None,
            Some((document, rest)) => {
                let length = document.text().len();
                let found = Found::within(document.clone(), rest);
                if found.is_none() && json::leads_into_envelope(document.text(), rest) {
                    return Err(encrypted(path));
                }
                if !rest.is_empty() {
                    self.look_at(found.as_ref().map_or(length, |found| found.range.end))?;
                }
                found
            }
        };
        if lasts {
            self.memo.0.borrow_mut().insert(path.to_owned(), found.clone());
        }
        Ok(found)
    }

    /// Checks that the outputs of a fan-out, if a path leads to them as a whole, have at most `room` bytes together.
    pub(super) fn fits_whole(&self, root: Root<'_>, room: usize) -> Result<(), EvalError> {
        match (root, self.gathered(root)) {
            (Root::Step(id, _), Some(gathered)) if gathered.bytes > room => {
                Err(outputs_too_large(id, gathered, room))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn exists(&mut self, path: &str) -> Result<bool, EvalError> {
        let Some(root) = Root::of(path) else { return Ok(false) };
        if self.gathered(root).is_some() {
            return Ok(true);
        }
        self.find_from(root, path, usize::MAX).map(|found| found.is_some())
    }

    /// Returns the measures of the outputs of a fan-out, if a path leads to them as a whole.
    pub(super) fn gathered(&self, root: Root<'_>) -> Option<Gathered> {
        match root {
            Root::Step(id, "") => self.scope.gathered(id),
            _ => None,
        }
    }

    /// Returns the document that a path begins in, with the reference tokens that lead on from there: of a fan-out, the
    /// output that the first token names.
    fn start<'p>(&self, root: Root<'p>) -> Option<(Payload, &'p str)> {
        let document = match root {
            Root::Input(_) => self.scope.input(),
            Root::Step(id, rest) if !rest.is_empty() && self.scope.gathered(id).is_some() => {
                let rest = rest.strip_prefix('/')?;
                let (index, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                return Some((self.scope.gathered_item(id, json::list_index(index)?)?, rest));
            }
            Root::Step(id, _) => self.scope.step(id)?,
            Root::Item(_) => self.scope.item()?,
            Root::Index => Payload::of(&self.scope.index()?).ok()?,
        };
        Some((document, root.rest()))
    }
}

fn outputs_too_large(id: &str, gathered: Gathered, room: usize) -> EvalError {
    let Gathered { count, bytes } = gathered;
    EvalError {
        code: "outputs_too_large",
        pointer: format!("/steps/{id}"),
        message: format!(
            "the {count} outputs of '{id}' have {bytes} bytes together; {room} are allowed here. A path to one of \
             them, such as '/steps/{id}/0', and `length` are not limited by that"
        ),
    }
}
