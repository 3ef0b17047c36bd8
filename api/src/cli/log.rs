//! The log: text for people or JSON for machines, always on standard error, one event a line.

use std::io::{IsTerminal, Stderr, Write};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::print;

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log. Servers log what they do; other verbs only what goes wrong. `RUST_LOG` overrules both.
pub(crate) fn start(format: Format, server: bool) {
    let default = if server { "info,sqlx=warn" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // A log that nobody reads any more is no reason to panic, which reporting it on standard error would be.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    match format {
        Format::Text => {
            let colours = std::io::stderr().is_terminal();
            let lines = move || Lines { out: std::io::stderr(), colours };
            builder.with_writer(lines).with_ansi(colours).init();
        }
        Format::Json => {
            builder.with_writer(std::io::stderr).json().flatten_event(true).init();
            // Else a panic would be the one thing in the log that is not JSON.
            std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a defect")));
        }
    }
}

impl Format {
    /// Announces on standard output that a server is up: `lines` for people, or one JSON object with `members`.
    pub(crate) fn announce(self, lines: &[String], members: serde_json::Value) {
        match self {
            Format::Text => print::announce(lines.join("\n")),
            Format::Json => print::announce(members),
        }
    }

    /// Reports the error that ends the program.
    pub(crate) fn fail(self, error: &anyhow::Error) {
        match self {
            Format::Text => print::note(format_args!("backstitch: {error:#}")),
            Format::Json => {
                let error = format!("{error:#}");
                tracing::error!(%error, "the program ends");
            }
        }
    }
}

/// Writes each event as one line, whatever the texts in it are: nobody can write a line of their own into the log.
struct Lines {
    out: Stderr,
    colours: bool,
}

impl Write for Lines {
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        self.out.write_all(one_line(&String::from_utf8_lossy(event), self.colours).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// The text of an event with control characters, and those that turn the direction of reading, as escapes. The line
/// break at its end stays, and so do colours where they are asked for.
fn one_line(event: &str, colours: bool) -> String {
    let (text, end) = event.strip_suffix('\n').map_or((event, ""), |text| (text, "\n"));
    let mut line = String::with_capacity(event.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if let Some(length) = colour(rest).filter(|_| colours) {
            line.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        rest = &rest[next.len_utf8()..];
        match next {
            '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}' => {
                line.extend(next.escape_unicode());
            }
            next if next.is_control() => line.extend(next.escape_default()),
            next => line.push(next),
        }
    }
    line.push_str(end);
    line
}

/// The length of the escape sequence for a colour that `text` begins with.
fn colour(text: &str) -> Option<usize> {
    let codes = text.strip_prefix("\u{1b}[")?;
    let end = codes.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    codes[end..].starts_with('m').then_some(end + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_it_tells() {
        let event = "WARN name=a\n2026-01-01 ERROR forged\u{1b}[2K\u{202e}x\r\n";
        let expected = "WARN name=a\\n2026-01-01 ERROR forged\\u{1b}[2K\\u{202e}x\\r\n";
        assert_eq!(one_line(event, false), expected);
        assert_eq!(one_line(event, true), expected);
        assert_eq!(one_line("\u{1b}[33mWARN\u{1b}[0m ä\n", true), "\u{1b}[33mWARN\u{1b}[0m ä\n");
        assert_eq!(one_line("\u{1b}[33mWARN\n", false), "\\u{1b}[33mWARN\n");
    }
}
