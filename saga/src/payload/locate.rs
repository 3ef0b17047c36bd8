//! Finds the JSON Pointer of a byte of a document, for error messages. Slow, and tolerant of any text.

use crate::json::{push_token, skip_space, string_end, unescape};

/// Pointers are not made longer than this many bytes; a longer one ends at its last reference token that fits.
const MAX_POINTER: usize = 1_000;

enum Frame {
    Object { key: Option<String> },
    List { index: usize },
}

/// Returns the pointer of the value or key that the byte at `target` belongs to, as far as the text up to
/// there shows it.
pub(super) fn pointer_at(text: &str, target: usize) -> String {
    let bytes = text.as_bytes();
    let mut stack: Vec<Frame> = Vec::new();
    let mut at = 0;
    while at < target || (at == target && bytes.get(at) == Some(&b'"')) {
        match bytes.get(at) {
            None => break,
            Some(b'{') => stack.push(Frame::Object { key: None }),
            Some(b'[') => stack.push(Frame::List { index: 0 }),
            Some(b'}' | b']') => drop(stack.pop()),
            Some(b',') => match stack.last_mut() {
                Some(Frame::Object { key }) => *key = None,
                Some(Frame::List { index }) => *index += 1,
                None => {}
            },
            Some(b'"') => {
                let end = string_end(bytes, at);
                if let Some(Frame::Object { key: key @ None }) = stack.last_mut() {
                    // The pointer itself must not have what it points at.
                    *key = text.get(at..end).map(|raw| unescape(raw).replace('\0', "\u{fffd}"));
                }
                at = skip_space(bytes, end);
                continue;
            }
            Some(_) => {}
        }
        at += 1;
    }
    print(&stack)
}

fn print(stack: &[Frame]) -> String {
    let mut pointer = String::new();
    for frame in stack {
        let kept = pointer.len();
        match frame {
            Frame::Object { key: None } => break,
            Frame::Object { key: Some(key) } => push_token(&mut pointer, key),
            Frame::List { index } => push_token(&mut pointer, &index.to_string()),
        }
        if pointer.len() > MAX_POINTER {
            pointer.truncate(kept);
            break;
        }
    }
    pointer
}

/// Returns the byte at a line and column, both from 1, columns in bytes.
pub(super) fn offset(text: &str, line: usize, column: usize) -> usize {
    let before = text.split_inclusive('\n').take(line.saturating_sub(1));
    before.map(str::len).sum::<usize>() + column.saturating_sub(1)
}
