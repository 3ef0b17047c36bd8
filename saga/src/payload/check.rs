//! What a document from outside must not contain although it is well-formed JSON: what PostgreSQL or a later
//! reader could not hold.
//!
//! One pass over the text without building anything. Whether the text is well-formed is not judged here.

use std::borrow::Cow;

use crate::Violation;
use crate::json::{find_special, skip_space, unescape};

use super::MAX_DEPTH;
use super::locate::pointer_at;

/// What is wrong, and at which byte.
struct Fault {
    at: usize,
    code: &'static str,
    message: &'static str,
}

/// Checks well-formed text.
pub(super) fn check(text: &str) -> Result<(), Violation> {
    Scan { text, bytes: text.as_bytes(), frames: [0; MAX_DEPTH], depth: 0, keys: Vec::new() }
        .run()
        .map_err(|fault| Violation::new(pointer_at(text, fault.at), fault.code, fault.message))
}

/// A key of an object that is being read.
struct Key<'a> {
    /// Differs for most keys that differ; compared first.
    tag: u64,
    name: Cow<'a, str>,
    at: usize,
}

struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    /// For each open object or list, where its keys begin in `keys`.
    frames: [usize; MAX_DEPTH],
    depth: usize,
    keys: Vec<Key<'a>>,
}

impl Scan<'_> {
    fn run(mut self) -> Result<(), Fault> {
        let mut at = 0;
        while let Some(byte) = self.bytes.get(at) {
            match byte {
                b'"' => at = self.string(at)?,
                b'{' | b'[' => {
                    let Some(frame) = self.frames.get_mut(self.depth) else {
                        return Err(Fault {
                            at,
                            code: "nesting_too_deep",
                            message: "objects and lists may be nested 64 deep",
                        });
                    };
                    *frame = self.keys.len();
                    self.depth += 1;
                    at += 1;
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.close(self.frames[self.depth])?;
                    at += 1;
                }
                b'-' | b'0'..=b'9' => at = self.number(at)?,
                _ => at += 1,
            }
        }
        Ok(())
    }

    /// Checks the string that begins at `start`, keeps it if it is a key, and answers where it ends.
    fn string(&mut self, start: usize) -> Result<usize, Fault> {
        let mut at = find_special(self.bytes, start + 1);
        let escaped = self.bytes.get(at) == Some(&b'\\');
        while self.bytes.get(at) == Some(&b'\\') {
            at = find_special(self.bytes, self.escape(at)?);
        }
        let end = at + 1;
        let next =
            if self.bytes.get(end) == Some(&b':') { end } else { skip_space(self.bytes, end) };
        if self.bytes.get(next) == Some(&b':') {
            let name = if escaped {
                unescape(self.text.get(start..end).unwrap_or_default())
            } else {
                Cow::Borrowed(self.text.get(start + 1..at).unwrap_or_default())
            };
            self.keys.push(Key { tag: tag(name.as_bytes()), name, at: start });
        }
        Ok(end)
    }

    /// Checks the escape sequence whose backslash is at `at` and answers where it ends.
    fn escape(&self, at: usize) -> Result<usize, Fault> {
        let Some(unit) = self.unit(at) else { return Ok(at + 2) };
        match unit {
            0 => Err(Fault {
                at,
                code: "nul_character",
                message: "the character U+0000 cannot be stored; remove it",
            }),
            0xd800..=0xdbff => match self.unit(at + 6) {
                Some(0xdc00..=0xdfff) => Ok(at + 12),
                _ => Err(lone_surrogate(at)),
            },
            0xdc00..=0xdfff => Err(lone_surrogate(at)),
            _ => Ok(at + 6),
        }
    }

    /// The code unit of the `\uXXXX` at `at`, if there is one.
    fn unit(&self, at: usize) -> Option<u32> {
        let escape = self.text.get(at..at + 6)?;
        u32::from_str_radix(escape.strip_prefix("\\u")?, 16).ok()
    }

    /// Checks the number that begins at `start` and answers where it ends.
    fn number(&self, start: usize) -> Result<usize, Fault> {
        let mut at = start + 1;
        let mut exponent = false;
        while let Some(byte) = self.bytes.get(at) {
            match byte {
                b'0'..=b'9' => {}
                b'e' | b'E' => exponent = true,
                b'.' | b'+' | b'-' => {}
                _ => break,
            }
            at += 1;
        }
        // Without an exponent, no number of up to 308 characters leaves the range.
        if (exponent || at - start > 308) && !fits(self.text.get(start..at)) {
            return Err(Fault {
                at: start,
                code: "number_out_of_range",
                message: "the number is too large for a double-precision float; send it as a string",
            });
        }
        Ok(at)
    }

    /// Closes an object or list: its keys, those from `first` on, must all differ.
    fn close(&mut self, first: usize) -> Result<(), Fault> {
        let keys = self.keys.get_mut(first..).unwrap_or_default();
        let duplicate =
            if keys.len() <= 16 { duplicate_of_few(keys) } else { duplicate_of_many(keys) };
        self.keys.truncate(first);
        match duplicate {
            None => Ok(()),
            Some(at) => Err(Fault {
                at,
                code: "duplicate_key",
                message: "the object has this key more than once; keep one",
            }),
        }
    }
}

fn lone_surrogate(at: usize) -> Fault {
    Fault {
        at,
        code: "lone_surrogate",
        message: "half of a surrogate pair is no character; send both halves or neither",
    }
}

fn fits(number: Option<&str>) -> bool {
    number.and_then(|text| text.parse::<f64>().ok()).is_some_and(f64::is_finite)
}

/// The first bytes of a key with its length.
fn tag(name: &[u8]) -> u64 {
    let first = match name.first_chunk::<8>() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => name.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
    };
    first ^ (name.len() as u64).rotate_right(8)
}

/// Where a key stands that was there before.
fn duplicate_of_few(keys: &[Key<'_>]) -> Option<usize> {
    keys.iter().enumerate().find_map(|(index, key)| {
        let before = keys.iter().take(index);
        before
            .into_iter()
            .any(|other| other.tag == key.tag && other.name == key.name)
            .then_some(key.at)
    })
}

/// The same in time `n log n`, for any keys that somebody may think of. Reorders them.
fn duplicate_of_many(keys: &mut [Key<'_>]) -> Option<usize> {
    keys.sort_unstable_by(|a, b| {
        (a.tag, a.name.as_ref(), a.at).cmp(&(b.tag, b.name.as_ref(), b.at))
    });
    let repeated = keys.windows(2).filter_map(|pair| match pair {
        [a, b] if a.tag == b.tag && a.name == b.name => Some(b.at),
        _ => None,
    });
    repeated.min()
}
