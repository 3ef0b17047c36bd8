//! Makes of good text what nobody would write: by chance, and the same by the same seed.

/// A small generator (SplitMix64).
#[derive(Clone, Debug)]
pub struct Chance(u64);

/// Pieces that often break readers: brackets, escapes, numbers at an edge, characters of many
/// bytes.
const PIECES: [&str; 44] = [
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\udc00",
    "\\u0061",
    "\0",
    "null",
    "true",
    "-",
    "+",
    "0",
    "00",
    "-0",
    "1e400",
    "1e-400",
    "0.1",
    "4294967296",
    "-1",
    "18446744073709551616",
    "9223372036854775807",
    "*",
    "/",
    "~",
    "~2",
    "/0",
    "%",
    "%00",
    "%zz",
    "&",
    "=",
    " ",
    "\n",
    "é",
    "\u{202e}",
    "\u{feff}",
    "🦀",
    "{\"a\":1,\"a\":2}",
];

/// Values of every kind, and expressions.
const VALUES: [&str; 26] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "0.5",
    "1e400",
    "4294967295",
    "18446744073709551616",
    "\"\"",
    "\"a\"",
    "\"1s\"",
    "\"all\"",
    "\"any\"",
    "[]",
    "{}",
    "{\"const\":null}",
    "{\"path\":\"/input\"}",
    "{\"path\":\"/item/a/0\"}",
    "{\"exists\":\"/steps/a\"}",
    "{\"length\":{\"path\":\"/input/a\"}}",
    "{\"default\":[{\"path\":\"/input/a\"},{\"const\":[]}]}",
    "{\"not\":{\"const\":true}}",
    "{\"quorum\":2}",
    "{\"tolerate\":{\"ratio\":0.5}}",
];

impl Chance {
    /// Returns the generator of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `limit`, or 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % (limit.max(1) as u64)).unwrap_or(0)
    }

    /// One of `corpus` with a few changes.
    pub fn mutated(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, corpus);
        }
        bytes.truncate(64 * 1024);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        let part = self.part(bytes);
        match self.below(15) {
            0 => {
                bytes.truncate(at);
            }
            1 => drop(bytes.drain(part)),
            2 => {
                let copy = bytes[part].to_vec();
                bytes.splice(at..at, copy);
            }
            3 => {
                let other = &corpus[self.below(corpus.len())];
                let taken = other[self.part(other)].to_vec();
                bytes.splice(part, taken);
            }
            4 => {
                let piece = PIECES[self.below(PIECES.len())];
                bytes.splice(part, piece.bytes());
            }
            5 => {
                let piece = PIECES[self.below(PIECES.len())].repeat(1 + self.below(100));
                bytes.splice(at..at, piece.bytes());
            }
            6 => {
                let copy = bytes[part.clone()].repeat(self.below(20));
                bytes.splice(part, copy);
            }
            7 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
            8 => {
                let piece = PIECES[self.below(PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
            // What was a document stays one.
            _ => {
                let from = corpus[self.below(corpus.len())].clone();
                if let (Some(place), Some(value)) = (self.value(bytes), self.value(&from)) {
                    let value = match self.below(3) {
                        0 => VALUES[self.below(VALUES.len())].as_bytes().to_vec(),
                        _ => from[value].to_vec(),
                    };
                    bytes.splice(place, value);
                }
            }
        }
    }

    /// Returns the range of some value of a JSON document, if the bytes look like one.
    fn value(&mut self, bytes: &[u8]) -> Option<std::ops::Range<usize>> {
        let begins = |at: &usize| {
            matches!(bytes[*at], b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')
        };
        let from = self.below(bytes.len());
        let from = (from..bytes.len()).find(begins)?;
        let (mut depth, mut quoted, mut at) = (0_usize, false, from);
        while at < bytes.len() {
            match bytes[at] {
                b'\\' if quoted => at += 1,
                b'"' => quoted = !quoted,
                _ if quoted => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' | b',' if depth == 0 => return Some(from..at),
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth == 0 && !quoted && matches!(bytes[from], b'{' | b'[' | b'"') {
                return Some(from..at.min(bytes.len()));
            }
        }
        None
    }

    /// Returns some part of `bytes`, mostly a small one.
    fn part(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let from = self.below(bytes.len() + 1);
        let longest = if self.below(4) == 0 { bytes.len() } else { 12 };
        let until = (from + self.below(longest + 1)).min(bytes.len());
        from..until
    }
}
