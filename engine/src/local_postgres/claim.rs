//! The claim of a program on a data directory: a lock that the operating system releases when the program ends, in
//! whatever way.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::{LocalPostgresError, failed};

/// A directory that belongs to this process as long as the value exists.
#[derive(Debug)]
pub(super) struct Claim {
    _lock: File,
}

impl Claim {
    /// Claims `dir`.
    ///
    /// # Errors
    /// At once when another program has claimed it; the error names its process.
    pub(super) fn of(dir: &Path) -> Result<Claim, LocalPostgresError> {
        let path = dir.join("owner.lock");
        let explain = |error| failed(format!("claiming {}", dir.display()), error);
        let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = open.map_err(explain)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).map_err(explain)?;
                let pid = pid.trim();
                let of = if pid.is_empty() { String::new() } else { format!(" (process {pid})") };
                let holder = format!("another `backstitch`{of}");
                return Err(LocalPostgresError::InUse { dir: dir.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(explain(error)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(explain)?;
        writeln!(file, "{}", std::process::id()).map_err(explain)?;
        Ok(Claim { _lock: file })
    }
}
