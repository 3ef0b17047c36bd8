//! Opens a page in the browser of whoever typed the command.

use std::process::Stdio;

use tokio::process::Command;

/// The program that opens a page, as each system calls it.
const OPENER: (&str, &[&str]) = if cfg!(target_os = "macos") {
    ("open", &[])
} else if cfg!(target_os = "windows") {
    ("cmd", &["/c", "start", ""])
} else {
    ("xdg-open", &[])
};

/// Opens `url`. Where there is no browser that is said, and nothing else changes.
pub(crate) fn open(url: &str) {
    let (program, arguments) = OPENER;
    let opened = Command::new(program)
        .args(arguments)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match opened {
        // It is waited for, so that no process of ours is left behind.
        Ok(mut browser) => drop(tokio::spawn(async move { browser.wait().await })),
        Err(error) => tracing::warn!(%error, program, "no browser was opened; go to {url}"),
    }
}
