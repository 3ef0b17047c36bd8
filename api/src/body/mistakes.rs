//! All mistakes in the form of a body, not only the first that serde finds: wrong parts are left out, and the rest is
//! read again. Mistakes that may only follow from an omission are not reported.

use backstitch_saga::misread::Rule;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Misread, misread};

/// Largest number of further mistakes that are reported.
const MOST: usize = 20;
/// Longer bodies are not read again.
const LONGEST: usize = 64 * 1024;

/// Finds what else is wrong with the JSON `text` as a `T`, beside the `first` mistake.
pub(super) fn others<T: DeserializeOwned>(text: &str, first: &Misread) -> Vec<Misread> {
    let mut found: Vec<Misread> = Vec::new();
    if text.len() > LONGEST {
        return found;
    }
    // A duplicate member occurs once in this.
    let Ok(mut value) = serde_json::from_str::<Value>(text) else { return found };
    let mut gone: Vec<String> = Vec::new();
    while found.len() < MOST {
        let last = found.last().unwrap_or(first);
        if last.rule != Rule::Twice {
            if !leave_out(&mut value, &last.pointer) {
                break;
            }
            gone.push(last.pointer.clone());
        }
        let text = value.to_string();
        let Err(error) = serde_json::from_str::<T>(&text) else { break };
        let next = misread::<T>(&text, &error);
        if follows(&next, &gone) {
            break;
        }
        found.push(next);
    }
    found
}

/// Takes a member out of its object. Returns whether there was one: an element of a list keeps its place, or those
/// behind it would be found elsewhere.
fn leave_out(value: &mut Value, pointer: &str) -> bool {
    let Some((parent, name)) = pointer.rsplit_once('/') else { return false };
    let name = name.replace("~1", "/").replace("~0", "~");
    let parent = value.pointer_mut(parent).and_then(Value::as_object_mut);
    parent.is_some_and(|parent| parent.remove(&name).is_some())
}

/// Returns whether a mistake may only follow from an omission: the missing member was omitted, or something
/// below it was.
fn follows(next: &Misread, gone: &[String]) -> bool {
    gone.iter().any(|gone| {
        let below = gone.strip_prefix(&next.pointer).and_then(|rest| rest.strip_prefix('/'));
        match next.rule {
            Rule::Missing => below.is_some_and(|name| next.message.contains(&format!("`{name}`"))),
            _ => below.is_some() || *gone == next.pointer,
        }
    })
}
