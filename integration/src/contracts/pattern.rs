//! Patterns of contracts: the part of ECMA-262 that a linear matcher reads in the same way, with texts that match.

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind};

/// The most bytes of a pattern.
pub(crate) const LONGEST: usize = 500;
/// The most bytes that a pattern may need when it is compiled.
pub(crate) const LARGEST: usize = 1 << 19;
/// The most bytes of an example.
const LONGEST_EXAMPLE: usize = 4_096;
/// The most parts of a pattern that are written out for an example.
const MOST_STEPS: usize = 20_000;

/// A regular expression, with texts that match it.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: String,
    regex: Regex,
    /// At least one.
    examples: Vec<String>,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// A message for people.
    pub(super) fn parse(text: &str) -> Result<Pattern, String> {
        if text.len() > LONGEST {
            return Err(format!("a pattern has at most {LONGEST} bytes"));
        }
        let translated = translate(text)?;
        let regex = RegexBuilder::new(&translated)
            .size_limit(LARGEST)
            .dfa_size_limit(LARGEST)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => {
                    "the pattern is too large when it is compiled".to_owned()
                }
                _ => "not a regular expression of the supported kind".to_owned(),
            })?;
        let hir = regex_syntax::Parser::new()
            .parse(&translated)
            .map_err(|_| "not a regular expression of the supported kind".to_owned())?;
        let mut examples: Vec<String> = Vec::new();
        for seed in 0..EXAMPLES {
            let mut maker =
                Maker { seed: seed + 1, first: seed == 0, steps: 0, out: String::new() };
            if maker.write(&hir) && regex.is_match(&maker.out) && !examples.contains(&maker.out) {
                examples.push(maker.out);
            }
        }
        if examples.is_empty() {
            return Err(
                "no text could be found that matches the pattern; write it without ^ and $ within"
                    .to_owned(),
            );
        }
        Ok(Pattern { text: text.to_owned(), regex, examples })
    }

    /// Returns the pattern as it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    pub(super) fn examples(&self) -> &[String] {
        &self.examples
    }
}

/// The number of examples that are tried.
const EXAMPLES: u64 = 24;

const DIGITS: &str = "0-9";
const WORDS: &str = "0-9A-Za-z_";
const SPACES: &str =
    r"\t\n\v\f\r \u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}";

/// Writes a pattern of ECMA-262 for the matcher that we use; refuses what the two would read differently.
fn translate(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len() * 2);
    let mut characters = text.chars().peekable();
    let mut in_class = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' => translate_escape(&mut characters, &mut out)?,
            '[' if in_class => out.push_str(r"\["),
            '[' => {
                in_class = true;
                out.push('[');
                if characters.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                if characters.peek() == Some(&']') {
                    return Err("an empty class matches nothing".to_owned());
                }
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            // Operations on sets, which ECMA-262 does not have.
            '&' | '~' if in_class => out.extend(['\\', character]),
            '-' if in_class && characters.peek() == Some(&'-') => {
                return Err("write '-' in a class as '\\-'".to_owned());
            }
            '.' if !in_class => out.push_str(r"[^\n\r\u{2028}\u{2029}]"),
            '(' if !in_class => {
                out.push('(');
                if characters.next_if_eq(&'?').is_some() {
                    if characters.next_if_eq(&':').is_none() {
                        return Err("of groups with '?', only (?:…) is supported".to_owned());
                    }
                    out.push_str("?:");
                }
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

fn translate_escape(
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    out: &mut String,
) -> Result<(), String> {
    let refused = |escape: &str| Err(format!("'\\{escape}' is not supported in a pattern"));
    match characters.next() {
        Some('d') => out.push_str(&format!("[{DIGITS}]")),
        Some('D') => out.push_str(&format!("[^{DIGITS}]")),
        Some('w') => out.push_str(&format!("[{WORDS}]")),
        Some('W') => out.push_str(&format!("[^{WORDS}]")),
        Some('s') => out.push_str(&format!("[{SPACES}]")),
        Some('S') => out.push_str(&format!("[^{SPACES}]")),
        Some(control @ ('t' | 'n' | 'r' | 'f' | 'v')) => out.extend(['\\', control]),
        Some(hex @ ('u' | 'x')) => {
            if characters.peek() == Some(&'{') {
                return refused(&format!("{hex}{{"));
            }
            out.extend(['\\', hex]);
        }
        Some(property @ ('p' | 'P')) => out.extend(['\\', property]),
        Some(mark) if mark.is_ascii_punctuation() && !matches!(mark, '<' | '>') => {
            out.extend(['\\', mark]);
        }
        Some(other) => return refused(&other.to_string()),
        None => return Err("a pattern does not end with '\\'".to_owned()),
    }
    Ok(())
}

/// Writes one text that an expression matches, by choices that follow from a seed.
struct Maker {
    seed: u64,
    first: bool,
    steps: usize,
    out: String,
}

impl Maker {
    /// Returns a number below `n`: 0 for the first text, scattered for the others.
    fn choose(&mut self, n: usize) -> usize {
        if self.first || n <= 1 {
            return 0;
        }
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.seed >> 33).unwrap_or_default() % n
    }

    /// Returns whether it could be written.
    fn write(&mut self, hir: &Hir) -> bool {
        // Repetitions of nothing have no length.
        self.steps += 1;
        if self.out.len() > LONGEST_EXAMPLE || self.steps > MOST_STEPS {
            return false;
        }
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => true,
            HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
                Ok(text) => {
                    self.out.push_str(text);
                    true
                }
                Err(_) => false,
            },
            HirKind::Class(Class::Unicode(class)) => {
                let ranges = class.ranges();
                let index = self.choose(ranges.len());
                let Some(range) = ranges.get(index) else { return false };
                // Something that people can read, where there is a choice.
                let readable = ['a', 'A', '0', ' ', '~'];
                let picked =
                    readable.into_iter().find(|c| (range.start()..=range.end()).contains(c));
                let choices = (self.choose(2), self.choose(2));
                self.out.push(match (picked, choices) {
                    (Some(readable), (0, _)) => readable,
                    (_, (_, 0)) => range.start(),
                    _ => range.end(),
                });
                !self.out.contains('\0')
            }
            HirKind::Class(Class::Bytes(_)) => false,
            HirKind::Repetition(repetition) => {
                let most = repetition.max.unwrap_or(repetition.min.saturating_add(3));
                let more = most.saturating_sub(repetition.min).min(8) as usize + 1;
                let times = repetition.min as usize + self.choose(more);
                (0..times).all(|_| self.write(&repetition.sub))
            }
            HirKind::Capture(capture) => self.write(&capture.sub),
            HirKind::Concat(parts) => parts.iter().all(|part| self.write(part)),
            HirKind::Alternation(parts) => {
                let index = self.choose(parts.len());
                parts.get(index).is_some_and(|part| self.write(part))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_read_as_ecma_262_reads_it() {
        for (pattern, text, matches) in [
            (r"^\d+$", "123", true),
            (r"^\d+$", "١٢٣", false),
            (r"^\w$", "é", false),
            (r"^.$", "\r", false),
            (r"^[[a]$", "[", true),
            (r"^[a&&b]$", "&", true),
            (r"^\s$", "\u{feff}", true),
            (r"^\s$", "\u{85}", false),
            (r"^a\/b$", "a/b", true),
            (r"^[\d.]+$", "1.5", true),
            (r"^[^\d]$", "1", false),
            ("b", "abc", true),
            (r"^\u00e9$", "é", true),
            (r"^\p{L}+$", "Ünïcode", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(text), matches, "{pattern} {text}");
        }
        for pattern in [
            r"(?=a)",
            r"(a)\1",
            r"\bfoo",
            "(?i)a",
            "[]",
            "a{2000}{2000}",
            "(",
            r"\",
            r"\A",
            r"\u{61}",
            "a^",
            "(?<n>a)",
            "[a--b]",
        ] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn examples_of_a_pattern_match_it() {
        for pattern in
            [r"^[A-Z]{3}-\d{2,5}$", "^(red|green|blue)$", "^$", r"^\S+@\S+$", "^[^a-z]{2}$", "x|y"]
        {
            let pattern = Pattern::parse(pattern).unwrap();
            assert!(pattern.examples().iter().all(|example| pattern.matches(example)));
        }
        assert_eq!(Pattern::parse("^(red|green|blue)$").unwrap().examples().len(), 3);
    }
}
