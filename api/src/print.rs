//! Standard output and standard error: the one place of this crate that writes to them.
//!
//! A program whose output is no longer read (`backstitch run list | head`) ends as Unix programs do: silently, with the
//! exit code that a shell gives to SIGPIPE. Servers and other children stop with this process, however it ends.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

/// Exit code of a program whose output is not read any more: 128 and the number of SIGPIPE.
const CLOSED: i32 = 141;
/// Exit code of a program whose output cannot be written, such as to a full disk.
const FAILED: i32 = 1;

/// Writes `text` and a line break to standard output, and ends the program when that is impossible.
pub(crate) fn line(text: impl Display) {
    self::text(format_args!("{text}\n"));
}

/// Writes `words` as they are to standard output, and ends the program when that is impossible.
pub(crate) fn text(words: impl Display) {
    let Err(error) = write(&mut std::io::stdout().lock(), words) else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(CLOSED);
    }
    note(format_args!("backstitch: cannot write to standard output: {error}"));
    std::process::exit(FAILED);
}

/// Writes a line of a server to standard output. A server goes on if its output is not read.
pub(crate) fn announce(text: impl Display) {
    // Its log, on standard error, says the same.
    let _ = write(&mut std::io::stdout().lock(), format_args!("{text}\n"));
}

/// Writes a remark and a line break to standard error, for people.
pub(crate) fn note(text: impl Display) {
    // There is no place left to report that it cannot be written.
    let _ = write(&mut std::io::stderr().lock(), format_args!("{text}\n"));
}

/// Returns a number of things, in words: `1 item`, `3 items`.
pub(crate) fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn write(out: &mut impl Write, text: impl Display) -> std::io::Result<()> {
    write!(out, "{text}")?;
    out.flush()
}
