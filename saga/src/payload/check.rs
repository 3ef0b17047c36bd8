//! Finds contents of a document from outside that are refused although it is well-formed JSON: those that
//! PostgreSQL or a later reader could not hold.
//!
//! One pass over the text without building anything. Whether the text is well-formed is not judged here.

use crate::Violation;
use crate::json::{find_special, skip_space, unescape};

use super::MAX_DEPTH;
use super::locate::pointer_at;

/// Checks well-formed text.
pub(super) fn check(text: &str) -> Result<(), Violation> {
    let mut scan = Scan {
        text,
        bytes: text.as_bytes(),
        frames: [0; MAX_DEPTH],
        depth: 0,
        keys: Vec::new(),
        unescaped: Vec::new(),
    };
    scan.run()
        .map_err(|fault| Violation::new(pointer_at(text, fault.at), fault.code, fault.message))
}

/// A mistake, and its byte position.
struct Fault {
    at: usize,
    code: &'static str,
    message: &'static str,
}

struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    /// For each open object or list, where its keys begin in `keys`.
    frames: [usize; MAX_DEPTH],
    depth: usize,
    /// The keys so far of all open objects.
    keys: Vec<Key>,
    /// The names of those keys that are spelt with escapes.
    unescaped: Vec<String>,
}

/// A key of an open object.
struct Key {
    /// Differs for most keys that differ; compared first.
    tag: u64,
    /// Position of the beginning of its literal.
    at: usize,
    name: Name,
}

/// Place of the name of a key.
#[derive(Clone, Copy)]
enum Name {
    /// In the text, behind the quote, so many bytes.
    Plain(usize),
    /// In `unescaped`, at this index.
    Unescaped(usize),
}

impl Scan<'_> {
    fn run(&mut self) -> Result<(), Fault> {
        let mut at = 0;
        while let Some(byte) = self.bytes.get(at) {
            at = match byte {
                b'"' => self.string(at)?,
                b'{' | b'[' => self.open(at)?,
                b'}' | b']' => self.close(at)?,
                b'-' | b'0'..=b'9' => self.number(at)?,
                b't' | b'n' => at + 4,
                b'f' => at + 5,
                _ => at + 1,
            };
        }
        Ok(())
    }

    /// Opens the object or list that begins at `at`.
    fn open(&mut self, at: usize) -> Result<usize, Fault> {
        let Some(frame) = self.frames.get_mut(self.depth) else {
            return Err(Fault {
                at,
                code: "nesting_too_deep",
                message: "objects and lists may be nested 64 deep",
            });
        };
        *frame = self.keys.len();
        self.depth += 1;
        Ok(at + 1)
    }

    /// Closes the object or list that ends at `at`: its keys must all differ.
    fn close(&mut self, at: usize) -> Result<usize, Fault> {
        self.depth = self.depth.saturating_sub(1);
        let first = self.frames[self.depth];
        let duplicate = match self.keys.len() - first {
            0 | 1 => None,
            2..=16 => self.duplicate_of_few(first),
            _ => self.duplicate_of_many(first),
        };
        self.keys.truncate(first);
        match duplicate {
            None => Ok(at + 1),
            Some(at) => Err(Fault {
                at,
                code: "duplicate_key",
                message: "the object has this key more than once; keep one",
            }),
        }
    }

    /// Checks the string that begins at `start`, keeps it if it is a key, and answers where to go on.
    fn string(&mut self, start: usize) -> Result<usize, Fault> {
        let mut at = find_special(self.bytes, start + 1);
        let escaped = self.bytes.get(at) == Some(&b'\\');
        while self.bytes.get(at) == Some(&b'\\') {
            at = find_special(self.bytes, self.escape(at)?);
        }
        let next = skip_space(self.bytes, at + 1);
        if self.bytes.get(next) != Some(&b':') {
            return Ok(next);
        }
        let (tag, name) = if escaped {
            let name = unescape(self.text.get(start..=at).unwrap_or_default()).into_owned();
            let tag = tag(name.as_bytes());
            self.unescaped.push(name);
            (tag, Name::Unescaped(self.unescaped.len() - 1))
        } else {
            let length = at - start - 1;
            (tag(self.bytes.get(start + 1..at).unwrap_or_default()), Name::Plain(length))
        };
        self.keys.push(Key { tag, at: start, name });
        Ok(next + 1)
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

    /// Returns the code unit of the `\uXXXX` at `at`, if there is one.
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

    fn name(&self, key: &Key) -> &[u8] {
        match key.name {
            Name::Plain(length) => self.bytes.get(key.at + 1..key.at + 1 + length),
            Name::Unescaped(index) => self.unescaped.get(index).map(String::as_bytes),
        }
        .unwrap_or_default()
    }

    /// Returns the position of a key, of those from `first` on, that occurred before.
    fn duplicate_of_few(&self, first: usize) -> Option<usize> {
        let keys = self.keys.get(first..)?;
        keys.iter().enumerate().find_map(|(index, key)| {
            let mut before = keys[..index].iter();
            let same = |other: &Key| other.tag == key.tag && self.name(other) == self.name(key);
            before.any(same).then_some(key.at)
        })
    }

    /// Returns the same in time `n log n`, for any keys.
    fn duplicate_of_many(&self, first: usize) -> Option<usize> {
        let mut sorted: Vec<&Key> = self.keys.get(first..)?.iter().collect();
        sorted.sort_unstable_by(|a, b| {
            a.tag.cmp(&b.tag).then_with(|| self.name(a).cmp(self.name(b))).then(a.at.cmp(&b.at))
        });
        let repeated = sorted.windows(2).filter_map(|pair| match pair {
            [a, b] if a.tag == b.tag && self.name(a) == self.name(b) => Some(b.at),
            _ => None,
        });
        repeated.min()
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

/// Returns the first and the last bytes of a key with its length.
fn tag(name: &[u8]) -> u64 {
    let bytes = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29)
        }
        _ => name.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
    };
    bytes ^ (name.len() as u64).rotate_right(8)
}
