//! Fingerprints of incidents: two incidents of one cause have the same. A fingerprint is made of place, kind and
//! message, without all that differs from run to run. Pure.

use std::fmt::Write as _;

use uuid::Uuid;

use crate::id::named;
use crate::{IncidentKind, StepPath};

/// The name space of fingerprints, made once at random.
const SPACE: Uuid = Uuid::from_u128(0x5d0f_2f0b_63c1_4b1e_9a57_2f9e_63a8_d0c4);
/// Number of characters of a message that count; the rest is a stack trace, a document, a page of
/// HTML.
const LONGEST: usize = 1_000;

/// Returns the fingerprint of an incident: 16 hexadecimal digits, the same for the same workflow, step (all items of a
/// map are one step), kind, error code and message but for its numbers, ids and quoted parts.
#[must_use]
pub fn fingerprint(
    workflow: &str,
    step: Option<&StepPath>,
    kind: IncidentKind,
    code: Option<&str>,
    message: &str,
) -> String {
    let mut text = format!("{workflow}\0");
    // Writing to a string cannot fail.
    let _ = write!(text, "{}\0", step.map_or("", |step| &step.step));
    let _ = write!(text, "{}\0{}\0{}", kind.as_str(), code.unwrap_or(""), normal_form(message));
    let mut digits = named(&SPACE, text.as_bytes()).simple().to_string();
    digits.truncate(16);
    digits
}

/// Returns whether `text` can be a fingerprint.
#[must_use]
pub fn is_fingerprint(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns the message without what differs from run to run: a quoted part becomes `?`; a number, a UUID, hexadecimal
/// digits or a word with digits in it become `#`. Lower case, one space between words.
fn normal_form(message: &str) -> String {
    let chars: Vec<char> = message.chars().take(LONGEST).collect();
    let mut out = String::with_capacity(chars.len());
    let mut at = 0;
    while let Some(&here) = chars.get(at) {
        if let Some(end) = end_of_quote(&chars, at) {
            out.push('?');
            at = end;
        } else if here.is_alphanumeric() {
            let end = end_of_word(&chars, at);
            word(&mut out, &chars[at..end]);
            at = end;
        } else {
            if !here.is_whitespace() {
                out.push(here);
            } else if !out.ends_with(' ') {
                out.push(' ');
            }
            at += 1;
        }
    }
    out.trim().to_owned()
}

/// Returns the end of the quoted part that begins at `at`. An apostrophe within a word begins none.
fn end_of_quote(chars: &[char], at: usize) -> Option<usize> {
    let close = match chars[at] {
        quote @ ('"' | '\'' | '`') => quote,
        '“' | '„' => '”',
        '‘' => '’',
        '«' => '»',
        _ => return None,
    };
    let within = |at: usize| chars.get(at).is_some_and(|c| c.is_alphanumeric());
    if at.checked_sub(1).is_some_and(within) {
        return None;
    }
    let ends = |end: &usize| chars[*end] == close && !(close == '\'' && within(*end + 1));
    (at + 1..chars.len()).find(ends).map(|end| end + 1)
}

/// Returns the end of the word that begins at `at`; a UUID is one word.
fn end_of_word(chars: &[char], at: usize) -> usize {
    let is_uuid = |text: &[char]| {
        text.iter().enumerate().all(|(place, c)| match place {
            8 | 13 | 18 | 23 => *c == '-',
            _ => c.is_ascii_hexdigit(),
        })
    };
    if chars.get(at..at + 36).is_some_and(is_uuid) {
        return at + 36;
    }
    (at..chars.len()).find(|end| !chars[*end].is_alphanumeric()).unwrap_or(chars.len())
}

/// Adds a word. `order10248` keeps its letters, since they say what is counted; `3c00f` does not.
fn word(out: &mut String, word: &[char]) {
    let hexadecimal = word.iter().all(|c| c.is_ascii_hexdigit() || *c == '-');
    let Some(first) = word.iter().position(char::is_ascii_digit) else {
        if hexadecimal && word.len() >= 8 {
            return number(out);
        }
        out.extend(word.iter().flat_map(|c| c.to_lowercase()));
        return;
    };
    let counted = first > 0 && word[first..].iter().all(char::is_ascii_digit);
    if counted && !(hexadecimal && word.len() >= 4) {
        out.extend(word[..first].iter().flat_map(|c| c.to_lowercase()));
    }
    number(out);
}

/// Adds a number; one that continues after a point, a comma or a colon is still one.
fn number(out: &mut String) {
    if out.ends_with("#.") || out.ends_with("#,") || out.ends_with("#:") {
        out.pop();
    } else {
        out.push('#');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_taken_out() {
        for (message, normal) in [
            ("No stock", "no stock"),
            ("declined:  card 4711 \n expired", "declined: card # expired"),
            ("order10248 is gone", "order# is gone"),
            ("run 019a9b1e-3c00-7c41-9d3e-abcdefabcdef, try 3", "run #, try #"),
            ("commit deadbeef at 0x7ffe12", "commit # at #"),
            ("took 1.532 s at 10:02:11.250", "took # s at #"),
            ("no customer \"c-7\" in 'eu'", "no customer ? in ?"),
            ("can't find “Müller”", "can't find ?"),
            ("the users' file isn't there", "the users' file isn't there"),
            ("10.0.0.1:5432 refused", "# refused"),
            ("an \"open quote", "an \"open quote"),
            ("HTTP 503", "http #"),
            ("", ""),
            ("#.", "#."),
        ] {
            assert_eq!(normal_form(message), normal, "{message}");
        }
    }

    #[test]
    fn only_the_beginning_of_a_message_counts() {
        let long = |tail: &str| normal_form(&format!("{}{tail}", "é".repeat(LONGEST)));
        assert_eq!(long("a"), long("b"));
    }

    #[test]
    fn the_same_trouble_has_the_same_fingerprint() {
        let of = |workflow, step: &str, kind, code, message| {
            fingerprint(workflow, Some(&step.parse().unwrap()), kind, code, message)
        };
        use IncidentKind::{CompensationBlocked, TaskExhausted};
        let one = of("order", "stock/3", TaskExhausted, Some("gone"), "gone: chai 12");
        assert_eq!(one, of("order", "stock/7", TaskExhausted, Some("gone"), "gone: chai 9"));
        assert_eq!((one.len(), one.chars().all(|c| c.is_ascii_hexdigit())), (16, true));
        for other in [
            of("orders", "stock/3", TaskExhausted, Some("gone"), "gone: chai 12"),
            of("order", "pay", TaskExhausted, Some("gone"), "gone: chai 12"),
            of("order", "stock/3", CompensationBlocked, Some("gone"), "gone: chai 12"),
            of("order", "stock/3", TaskExhausted, Some("lost"), "gone: chai 12"),
            of("order", "stock/3", TaskExhausted, None, "gone: chai 12"),
            of("order", "stock/3", TaskExhausted, Some("gone"), "gone: tea 12"),
            fingerprint("order", None, TaskExhausted, Some("gone"), "gone: chai 12"),
        ] {
            assert_ne!(one, other);
        }
    }

    /// Fingerprints are in tables and in links: a change of the rule changes all of them.
    #[test]
    fn fingerprints_do_not_change() {
        let step = StepPath::step("pay");
        let kind = IncidentKind::TaskExhausted;
        assert_eq!(
            fingerprint("order", Some(&step), kind, Some("busy"), "busy: 3 of 8"),
            "29118ef453a3503d"
        );
        assert!(is_fingerprint("29118ef453a3503d"));
        for other in
            ["", "29118ef453a3503", "29118EF453A3503D", "29118ef453a3503d0", "29118ef453a3503g"]
        {
            assert!(!is_fingerprint(other), "{other}");
        }
    }
}
