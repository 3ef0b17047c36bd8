//! Memory of a process, as the kernel counts it.

use anyhow::Context as _;

/// Resident memory of a process, in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Now.
    pub(super) now: u64,
    /// The most since the count began.
    pub(super) peak: u64,
}

/// Reads the memory of the process `pid`.
///
/// # Errors
/// When it is gone.
pub(super) fn of(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    read(&text).with_context(|| format!("{path} does not tell the memory"))
}

/// Begins to count the peak of the process `pid` anew.
///
/// # Errors
/// When it is gone, or the kernel does not let this process.
pub(super) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5").with_context(|| path.clone())
}

fn read(status: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib / 1024)
    };
    Some(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_mebibytes() {
        let status = "Name:\tx\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\nThreads:\t4\n";
        assert_eq!(read(status), Some(Memory { now: 100, peak: 200 }));
        assert_eq!(read("Name:\tx\n"), None);
    }
}
