//! Examples of what is typed, made from the examples of the OpenAPI document. Each can be pasted into a shell.

use serde_json::Value;

use super::args::{flag_fields, flag_names, placed_fields};
use super::operation::{Field, Kind};
use super::verbs::Verb;

/// A line to start from.
pub(crate) fn example(verb: &Verb) -> String {
    let mut line = format!("backstitch {}", verb.words());
    for (place, field) in placed_fields(verb) {
        let is_run = place == "path" && field.name == "id" && verb.is_about_a_run();
        line += &if is_run { " RUN".to_owned() } else { format!(" {}", example_of(field)) };
    }
    if verb.takes_file() {
        line += " file.json";
    }
    for ((place, field), name) in flag_fields(verb).into_iter().zip(flag_names(verb)) {
        if field.example.is_some() && (place == "body" || field.required) {
            match (&field.kind, &field.example) {
                (Kind::Flag, Some(Value::Bool(true))) => line += &format!(" --{name}"),
                (Kind::Flag, _) => {}
                _ => line += &format!(" --{name} {}", example_of(field)),
            }
        }
    }
    line
}

fn example_of(field: &Field) -> String {
    let Some(example) = &field.example else { return field.name.to_uppercase() };
    let text = match (&field.kind, example) {
        (Kind::Pairs, Value::Object(pairs)) => {
            let first = pairs.iter().next();
            first.map(|(name, value)| format!("{name}:{}", plain(value))).unwrap_or_default()
        }
        (Kind::List, Value::Array(all)) => all.first().map(plain).unwrap_or_default(),
        (Kind::Choice { .. }, Value::Object(one)) => {
            let first = one.iter().next();
            first.map(|(name, value)| format!("{name}={}", plain(value))).unwrap_or_default()
        }
        (_, value) => plain(value),
    };
    quoted(&text)
}

/// `text` as one word of a shell.
pub(super) fn quoted(text: &str) -> String {
    let simple = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@".contains(c);
    if !text.is_empty() && text.chars().all(simple) {
        text.to_owned()
    } else if !text.contains('\'') {
        format!("'{text}'")
    } else if !text.contains(['"', '$', '`', '\\', '!']) {
        format!("\"{text}\"")
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A value as it is typed.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_quoted_so_that_a_shell_reads_it_as_it_is() {
        for text in [
            "plain",
            "",
            "two words",
            "the bank's",
            r#"it's "odd""#,
            r"a\b's",
            "$HOME's",
            "{\"a\":1}",
        ] {
            let said = std::process::Command::new("/bin/sh")
                .args(["-c", &format!("printf %s {}", quoted(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), text);
        }
    }
}
