//! The file of a ledger: one entry a line, only ever appended to, read again when the service starts.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, bail};

use crate::ledger::Entry;

/// An open ledger file.
#[derive(Debug)]
pub(crate) struct LedgerFile(File);

impl LedgerFile {
    /// Opens the file, making it if it is not there, and reads its entries. A last line without its end is what a
    /// killed service leaves; it was never answered for, and is cut off.
    pub(crate) fn open(path: &Path) -> anyhow::Result<(LedgerFile, Vec<Entry>)> {
        let at = || format!("the ledger {}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .with_context(|| format!("{} cannot be opened", at()))?;
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(|| format!("{} cannot be read", at()))?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            file.set_len(whole as u64).with_context(|| format!("{} cannot be cut", at()))?;
            file.seek(SeekFrom::End(0))?;
        }
        let mut entries = Vec::new();
        for (index, line) in text.get(..whole).unwrap_or_default().lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(entry) => entries.push(entry),
                Err(error) => bail!("{}, line {}: {error}", at(), index + 1),
            }
        }
        Ok((LedgerFile(file), entries))
    }

    /// Writes entries down. They survive the end of this process when this returns (not the end of the machine).
    pub(crate) fn append(&mut self, entries: &[Entry]) -> anyhow::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        self.0.write_all(&lines).context("the entry cannot be written")
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::effect::{Effect, Reserve};
    use crate::ledger::Ledger;

    fn entries() -> Vec<Entry> {
        let mut ledger = Ledger::new("R");
        let tea = Effect::Reserve(Reserve { sku: "TEA".to_owned(), quantity: 2 });
        ledger.record(1, "A-1", Uuid::from_u128(1), tea);
        ledger.undo(2, "A-1", Uuid::from_u128(1), Uuid::from_u128(2));
        ledger.undo(3, "A-2", Uuid::from_u128(3), Uuid::from_u128(4));
        ledger.entries().to_vec()
    }

    /// A path of its own in the temporary directory, removed when dropped.
    struct TempPath(std::path::PathBuf);

    impl TempPath {
        fn new(name: &str) -> TempPath {
            let name = format!("backstitch-{name}-{}.ndjson", std::process::id());
            TempPath(std::env::temp_dir().join(name))
        }
    }

    impl Drop for TempPath {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn what_was_written_is_read_again_and_added_to() {
        let path = TempPath::new("ledger-again");
        let entries = entries();
        let (mut file, before) = LedgerFile::open(&path.0).unwrap();
        assert!(before.is_empty());
        file.append(&entries[..2]).unwrap();
        drop(file);
        let (mut file, before) = LedgerFile::open(&path.0).unwrap();
        assert_eq!(before, entries[..2]);
        file.append(&entries[2..]).unwrap();
        assert_eq!(LedgerFile::open(&path.0).unwrap().1, entries);
    }

    #[test]
    fn a_line_torn_by_a_kill_is_cut_off() {
        let path = TempPath::new("ledger-torn");
        let entries = entries();
        let (mut file, _) = LedgerFile::open(&path.0).unwrap();
        file.append(&entries[..2]).unwrap();
        file.0.write_all(br#"{"seq":3,"at":"#).unwrap();
        drop(file);
        let (mut file, before) = LedgerFile::open(&path.0).unwrap();
        assert_eq!(before, entries[..2]);
        file.append(&entries[2..]).unwrap();
        assert_eq!(LedgerFile::open(&path.0).unwrap().1, entries);
    }

    #[test]
    fn a_line_that_is_no_entry_is_named() {
        let path = TempPath::new("ledger-bad");
        std::fs::write(&path.0, "{}\n").unwrap();
        let error = LedgerFile::open(&path.0).unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
