//! Words, marks and instants as pages show them.

use backstitch_saga::Timestamp;
use backstitch_saga::protocol::{Outcome, RunLine, RunView, State, StepView};

/// A state as a colour and a sign: no page relies on colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// Under way.
    Busy,
    /// Waits without a person.
    Calm,
    /// Goes back.
    Back,
    /// Needs a person.
    Bad,
    /// Not known.
    Doubt,
    /// Not begun, or not done.
    Idle,
}

impl Tone {
    /// Returns the class in the stylesheet.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Busy => "busy",
            Tone::Calm => "calm",
            Tone::Back => "back",
            Tone::Bad => "bad",
            Tone::Doubt => "doubt",
            Tone::Idle => "idle",
        }
    }

    /// Returns the sign beside the word.
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Tone::Good => "✓",
            Tone::Busy => "▶",
            Tone::Calm => "◷",
            Tone::Back => "↩",
            Tone::Bad => "!",
            Tone::Doubt => "?",
            Tone::Idle => "–",
        }
    }
}

/// A word with its tone.
#[derive(Clone, Debug)]
pub(crate) struct Badge {
    pub(crate) tone: Tone,
    pub(crate) word: String,
}

impl Badge {
    pub(crate) fn new(tone: Tone, word: &str) -> Badge {
        Badge { tone, word: spoken(word) }
    }

    pub(crate) fn class(&self) -> &'static str {
        self.tone.class()
    }

    pub(crate) fn sign(&self) -> &'static str {
        self.tone.sign()
    }
}

/// Returns the word that the API has for a value of an enumeration.
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    let word = serde_json::to_value(value).unwrap_or_default();
    word.as_str().unwrap_or_default().to_owned()
}

/// Returns a word of the API for people: `compensation_blocked` is `compensation blocked`.
pub(crate) fn spoken(word: &str) -> String {
    word.replace('_', " ")
}

/// Returns the badge of a run's state.
pub(crate) fn run_badge(state: State, outcome: Option<Outcome>) -> Badge {
    match outcome {
        Some(outcome) => Badge::new(outcome_tone(outcome), outcome.as_str()),
        None => Badge::new(state_tone(state), state.as_str()),
    }
}

pub(crate) fn line_badge(line: &RunLine) -> Badge {
    run_badge(line.state, line.outcome)
}

pub(crate) fn view_badge(view: &RunView) -> Badge {
    run_badge(view.state, view.outcome)
}

pub(crate) fn outcome_tone(outcome: Outcome) -> Tone {
    match outcome {
        Outcome::Succeeded => Tone::Good,
        Outcome::FailedDirty => Tone::Bad,
        Outcome::PartiallyCompleted => Tone::Doubt,
        Outcome::FailedClean
        | Outcome::Compensated
        | Outcome::CompensatedWithManualSteps
        | Outcome::Cancelled => Tone::Back,
    }
}

pub(crate) fn state_tone(state: State) -> Tone {
    match state {
        State::Queued | State::Waiting | State::Paused => Tone::Calm,
        State::Running => Tone::Busy,
        State::Compensating => Tone::Back,
        State::CompensationBlocked => Tone::Bad,
        State::Ended => Tone::Idle,
    }
}

/// Returns the badge of a step's state: that of its undo, if that began, before that of the step.
pub(crate) fn step_badge(step: &StepView) -> Badge {
    step_words(&step.state, step.compensation.as_deref())
}

pub(crate) fn step_words(state: &str, compensation: Option<&str>) -> Badge {
    let tone = match (compensation, state) {
        (Some("compensation_blocked"), _) => Tone::Bad,
        (Some(_), _) => Tone::Back,
        (None, "succeeded") => Tone::Good,
        (None, "parked" | "failed") => Tone::Bad,
        (None, "unknown" | "verifying") => Tone::Doubt,
        (None, "leased" | "offered" | "open" | "child_running") => Tone::Busy,
        (None, "backoff" | "awaiting_signal" | "sleeping" | "held") => Tone::Calm,
        (None, _) => Tone::Idle,
    };
    Badge::new(tone, compensation.unwrap_or(state))
}

/// Returns an instant, in the spelling of the API. The script of the page adds how long ago it was.
pub(crate) fn instant(at: Timestamp) -> String {
    at.0.to_string()
}

/// Returns an instant for reading: `2026-01-31 10:02:11`.
pub(crate) fn moment(at: Timestamp) -> String {
    let text = instant(at);
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// Returns a length of time with the usual precision.
pub(crate) fn length(millis: u64) -> String {
    let (seconds, rest) = (millis / 1_000, millis % 1_000);
    match seconds {
        0 => format!("{rest} ms"),
        1..=9 => format!("{seconds}.{} s", rest / 100),
        10..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        7_200..=172_799 => format!("{} h {:02} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Prints JSON with lines and indents, its numbers and names as they were sent, cut where it gets too long to
/// be read.
pub(crate) fn pretty(text: &str) -> String {
    const MOST: usize = 20_000;
    let mut printed = String::with_capacity(text.len().min(MOST) * 2);
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut chars = text.chars().filter(|char| !char.is_control() || *char == ' ').peekable();
    while let Some(char) = chars.next() {
        if printed.len() > MOST {
            break;
        }
        if quoted {
            printed.push(char);
            quoted = escaped || char != '"';
            escaped = !escaped && char == '\\';
            continue;
        }
        match char {
            ' ' => {}
            '"' => {
                quoted = true;
                printed.push(char);
            }
            '{' | '[' => {
                printed.push(char);
                while chars.next_if_eq(&' ').is_some() {}
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    printed.push(close);
                } else {
                    depth += 1;
                    line(&mut printed, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut printed, depth);
                printed.push(char);
            }
            ',' => {
                printed.push(char);
                line(&mut printed, depth);
            }
            ':' => printed.push_str(": "),
            other => printed.push(other),
        }
    }
    cut(&printed, MOST)
}

fn line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n("  ", depth.min(40)));
}

/// Returns the beginning of a text.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// Returns a number with its thousands apart.
pub(crate) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_precise_as_one_looks_for() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_250, "1.2 s"),
            (61_000, "61 s"),
            (125_000, "2 min 05 s"),
            (7_200_000, "2 h 00 min"),
            (200_000_000, "2 d 07 h"),
        ] {
            assert_eq!(length(millis), text);
        }
    }

    #[test]
    fn numbers_have_their_thousands_apart() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(count), text);
        }
    }

    #[test]
    fn json_keeps_its_numbers_and_texts() {
        let text = r#"{"b":12345678901234567890.10,"a":["x, {\"y\"}: z",{}],"c":[]}"#;
        let wanted = "{\n  \"b\": 12345678901234567890.10,\n  \"a\": [\n    \"x, {\\\"y\\\"}: z\",\n    {}\n  ],\n  \"c\": []\n}";
        assert_eq!(pretty(text), wanted);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut("aü", 2), "a…");
        assert_eq!(cut("aü", 3), "aü");
    }

    #[test]
    fn an_undo_is_told_before_what_it_undoes() {
        assert_eq!(step_words("succeeded", Some("compensation_blocked")).tone, Tone::Bad);
        assert_eq!(step_words("succeeded", Some("compensated")).tone, Tone::Back);
        assert_eq!(step_words("succeeded", None).tone, Tone::Good);
    }
}
