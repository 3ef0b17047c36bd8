//! The size of a regular expression and the cost of matching it, estimated from its text before it is compiled.
//!
//! The estimate need not be exact: the limits of the compiled pattern hold in any case. It must not be smaller than the
//! truth by orders of magnitude.

use super::limits::{BACKTRACKS, PATTERN_STATES};

/// States of a class of Unicode characters.
const UNICODE_CLASS: u64 = 500;
/// States of a class that takes nearly every character.
const WIDE_CLASS: u64 = 12;
/// Groups within groups beyond this depth count as too large.
const MAX_NESTING: usize = 50;

/// An estimate of one pattern.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pattern {
    /// States of the compiled pattern.
    pub(super) states: u64,
    /// Number of places in the pattern that a match can be at, at the same time.
    pub(super) places: u64,
    /// It has look-around, back-references or the like, and is matched by trying and going back.
    pub(super) backtracks: bool,
}

impl Pattern {
    /// Estimates the pattern `text`.
    pub(super) fn read(text: &str) -> Pattern {
        let mut reader = Reader { rest: text, fold: false, backtracks: false };
        let mut size = Size::default();
        loop {
            size = size.plus(reader.alternatives(0));
            // A parenthesis that closes nothing is a mistake, which compiling finds.
            if reader.next().is_none() {
                break;
            }
        }
        let factor = if reader.fold { 2 } else { 1 };
        Pattern {
            states: size.states.saturating_mul(factor),
            places: size.places,
            backtracks: reader.backtracks,
        }
    }

    /// Visits that matching a text of `length` bytes counts for.
    pub(super) fn cost(&self, length: usize) -> u64 {
        let length = length as u64;
        let linear = length.saturating_mul(self.places) / 64;
        if !self.backtracks {
            return 1 + linear;
        }
        let backtracks = BACKTRACKS as u64;
        // Each time that it goes back it may look at all of the text.
        linear
            .saturating_add(backtracks * 5)
            .saturating_add(length.saturating_mul(length.min(backtracks)) / 100)
    }
}

#[derive(Clone, Copy, Default)]
struct Size {
    states: u64,
    places: u64,
}

impl Size {
    fn of(states: u64) -> Size {
        Size { states, places: 1 }
    }

    fn plus(self, other: Size) -> Size {
        Size {
            states: self.states.saturating_add(other.states),
            places: self.places.saturating_add(other.places),
        }
    }

    fn times(self, count: u64) -> Size {
        Size {
            states: self.states.saturating_mul(count),
            places: self.places.saturating_mul(count),
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    fold: bool,
    backtracks: bool,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn take(&mut self, start: &str) -> bool {
        let rest = self.rest.strip_prefix(start);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Reads everything up to the parenthesis that closes the group, which is left.
    fn alternatives(&mut self, depth: usize) -> Size {
        let mut all = Size::default();
        while !self.rest.is_empty() && !self.rest.starts_with(')') {
            let atom = self.atom(depth);
            all = all.plus(self.repeated(atom));
        }
        all
    }

    fn atom(&mut self, depth: usize) -> Size {
        match self.next() {
            Some('(') if depth >= MAX_NESTING => Size::of(PATTERN_STATES).times(2),
            Some('(') => {
                self.group_kind();
                let inner = self.alternatives(depth + 1);
                self.take(")");
                inner.plus(Size { states: 2, places: 0 })
            }
            Some('[') => self.class(),
            Some('\\') => Size::of(self.escape()),
            Some('.') => Size::of(WIDE_CLASS),
            Some('|' | '^' | '$') => Size { states: 1, places: 0 },
            _ => Size::of(1),
        }
    }

    fn group_kind(&mut self) {
        if !self.take("?") {
            return;
        }
        if self.take(":") {
            return;
        }
        let named = self.rest.starts_with("P<")
            || (self.rest.starts_with('<')
                && !self.rest.starts_with("<=")
                && !self.rest.starts_with("<!"));
        if named {
            let end = self.rest.find('>').map_or(self.rest.len(), |end| end + 1);
            self.rest = &self.rest[end..];
            return;
        }
        let flags = self.rest.find(|c: char| !c.is_ascii_alphabetic() && c != '-');
        let flags = flags.unwrap_or(self.rest.len());
        if self.rest[flags..].starts_with([':', ')']) {
            self.fold |= self.rest[..flags].contains('i');
            self.rest = &self.rest[flags..];
            self.take(":");
            return;
        }
        self.backtracks = true;
    }

    fn escape(&mut self) -> u64 {
        match self.next() {
            Some('p' | 'P') => {
                if self.take("{") {
                    let end = self.rest.find('}').map_or(self.rest.len(), |end| end + 1);
                    self.rest = &self.rest[end..];
                } else {
                    self.next();
                }
                UNICODE_CLASS
            }
            Some('1'..='9' | 'k' | 'K' | 'G' | 'z' | 'Z') => {
                self.backtracks = true;
                1
            }
            Some('w' | 'W' | 'd' | 'D' | 's' | 'S' | 'b' | 'B') => WIDE_CLASS,
            _ => 2,
        }
    }

    fn class(&mut self) -> Size {
        let mut states = if self.take("^") { WIDE_CLASS } else { 1 };
        let mut first = true;
        let mut open = 1_u32;
        while let Some(next) = self.next() {
            match next {
                ']' if !first => open -= 1,
                '[' => open += 1,
                '\\' => states = states.saturating_add(self.escape()),
                next if next.is_ascii() => states += 1,
                _ => states += 4,
            }
            first = false;
            if open == 0 {
                break;
            }
        }
        Size::of(states)
    }

    /// Returns an atom with the quantifiers that follow.
    fn repeated(&mut self, atom: Size) -> Size {
        let mut size = atom;
        let mut quantified = false;
        loop {
            if self.take("+") {
                self.backtracks |= quantified;
            } else if !(self.take("*") || self.take("?")) {
                let Some(count) = self.count() else { return size };
                size = size.times(count);
            }
            size.states = size.states.saturating_add(1);
            quantified = true;
        }
    }

    /// Returns the most repetitions that `{n}`, `{n,}` or `{n,m}` asks for.
    fn count(&mut self) -> Option<u64> {
        let inner = self.rest.strip_prefix('{')?;
        let end = inner.find('}')?;
        let (least, most) = inner[..end].split_once(',').unwrap_or((&inner[..end], "0"));
        let number = |text: &str| match text.trim() {
            "" => Some(0),
            text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(text.parse().unwrap_or(u64::MAX))
            }
            _ => None,
        };
        let (least, most) = (number(least)?, number(most)?);
        self.rest = &inner[end + 1..];
        Some(least.saturating_add(1).max(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_multiply_and_unicode_classes_weigh_much() {
        let states = |text| Pattern::read(text).states;
        assert!(states("^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$") < 500);
        assert!(states(r"(?i)\p{L}{200}0") > PATTERN_STATES);
        assert!(states(r"[\p{L}\p{N} ]{1,64}") <= PATTERN_STATES);
        assert!(states("((a{100}){100}){100}") > PATTERN_STATES);
        assert!(states("a{4294967296}{4294967296}{4294967296}") > PATTERN_STATES);
        assert!(states(&"(".repeat(900)) > PATTERN_STATES);
    }

    #[test]
    fn look_around_and_back_references_are_found() {
        for text in [
            "^(a|a)*(?!x)b$",
            "(?=a)",
            "(?<=a)b",
            "(?<!a)b",
            r"(a)\1",
            "(?>a)",
            "a++",
            r"(?<n>a)\k<n>",
        ] {
            assert!(Pattern::read(text).backtracks, "{text}");
        }
        for text in [
            "(a+)+$",
            "(?:a)",
            "(?i)a",
            "(?i:a)b",
            "(?P<n>a)",
            "(?<n>a)",
            "a+?",
            r"\d{3}\.[^\]]",
            "[(?=]",
        ] {
            assert!(!Pattern::read(text).backtracks, "{text}");
        }
    }

    #[test]
    fn a_match_that_backtracks_costs_as_much_as_its_limit() {
        let linear = Pattern::read("^[a-z]+$");
        assert!(linear.cost(100) < 10);
        assert!(Pattern::read("(?=a)b").cost(10) >= BACKTRACKS as u64);
        assert!(Pattern::read("(?=a)b").cost(200_000) > super::super::limits::VISITS);
    }
}
