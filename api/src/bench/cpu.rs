//! The processor time and memory of processes, as Linux tells them under `/proc`.

use std::fs;

/// Ticks a second in `/proc/PID/stat`: 100 on every Linux that this runs on (`USER_HZ`).
const TICKS: f64 = 100.0;

/// One line of `/proc/PID/stat`, as far as it matters.
struct Stat {
    parent: u32,
    /// Ticks of the process itself.
    own: u64,
    /// Ticks of its children that have ended.
    ended_children: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a line of `/proc`. The name in parentheses may hold anything, so the fields are counted
/// from its end.
fn parse(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        own: number(11)? + number(12)?,
        ended_children: number(13)? + number(14)?,
    })
}

/// Returns the processor seconds that a process has used; zero when it is gone.
#[expect(clippy::cast_precision_loss, reason = "seconds for people")]
pub(super) fn of_process(pid: u32) -> f64 {
    stat(pid).map_or(0.0, |stat| stat.own as f64 / TICKS)
}

/// Returns the same with all its children, those that have ended included.
#[expect(clippy::cast_precision_loss, reason = "seconds for people")]
pub(super) fn of_family(pid: u32) -> f64 {
    let own = stat(pid).map_or(0, |stat| stat.own + stat.ended_children);
    let Ok(entries) = fs::read_dir("/proc") else { return own as f64 / TICKS };
    let children = entries
        .filter_map(|entry| stat(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .filter(|stat| stat.parent == pid)
        .map(|stat| stat.own)
        .sum::<u64>();
    (own + children) as f64 / TICKS
}

/// Returns the parent of a process of this machine with this name.
pub(super) fn parent_of(pid: u32, name: &str) -> Option<u32> {
    let found = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (found.trim() == name).then(|| stat(pid).map(|stat| stat.parent))?
}

/// Returns the most memory that a process ever had, in MiB.
pub(super) fn peak_mib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1_024.0)
}

/// Describes the machine.
pub(super) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    format!("{cores} cores, {model}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_line() {
        let line = "42 (a ) name) S 7 1 1 0 -1 4194304 1 2 3 4 50 25 10 5 20 0 1 0 100";
        let stat = parse(line).unwrap();
        assert_eq!((stat.parent, stat.own, stat.ended_children), (7, 75, 15));
        assert!(peak_mib(std::process::id()).unwrap() > 1.0);
    }
}
