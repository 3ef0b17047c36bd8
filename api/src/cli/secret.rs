//! Files that hold secrets, and secrets on the command line: read in one way, with a warning where others see them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;

use crate::print;

/// The permission bit that lets every user of the machine read a file.
const OTHERS_READ: u32 = 0o004;

/// Reads a file that holds nothing but a secret, such as a password or a URL with one. Warns when every user of this
/// machine can read it.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    warn_if_open(path);
    Ok(text.trim().to_owned())
}

/// Warns when every user of this machine can read `path`.
pub(crate) fn warn_if_open(path: &Path) {
    if std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.mode() & OTHERS_READ != 0) {
        print::note(format_args!(
            "backstitch: warning: every user of this machine can read {}, which holds a secret; \
             `chmod o-r` it",
            path.display()
        ));
    }
}

/// Warns that the secret in `flag` stands in the list of processes, and says where to put it instead.
pub(crate) fn warn_of_flag(flag: &str, instead: &str) {
    print::note(format_args!(
        "backstitch: warning: every user of this machine can see the secret in {flag} in the list \
         of processes; use {instead} instead"
    ));
}
