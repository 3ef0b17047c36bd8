//! Metrics of the process, under the names that Prometheus clients use. Where there is no `/proc`, only what is known
//! without it.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::{Family, number};

/// Ticks of a second in `/proc/self/stat`: the same on all platforms that Linux has today.
const TICKS: f64 = 100.0;
/// The size of a page in `/proc/self/statm`, where it cannot be found out.
const PAGE: u64 = 4_096;

/// Returns the time of the first call, which is as near to the start of the process as this can
/// know.
fn started() -> &'static (Instant, f64) {
    static STARTED: OnceLock<(Instant, f64)> = OnceLock::new();
    STARTED.get_or_init(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Instant::now(), now.as_secs_f64())
    })
}

/// Notes that the process begins.
pub(crate) fn begins() {
    started();
}

pub(super) fn families() -> [Family; 7] {
    let (since, at) = started();
    let optional = |family: Family, value: Option<f64>| match value {
        Some(value) => family.one(value),
        None => family,
    };
    [
        optional(
            Family::gauge(
                "process_resident_memory_bytes",
                "Memory of the process that is resident.",
            ),
            resident_pages().map(|pages| number(pages * PAGE)),
        ),
        optional(
            Family::counter(
                "process_cpu_seconds_total",
                "Time of processors that the process used.",
            ),
            cpu_ticks().map(|ticks| number(ticks) / TICKS),
        ),
        optional(
            Family::gauge("process_open_fds", "Files and sockets that the process has open."),
            std::fs::read_dir("/proc/self/fd").ok().map(|files| number(files.count() as u64)),
        ),
        optional(
            Family::gauge("process_max_fds", "The most files and sockets that it may have open."),
            most_files().map(number),
        ),
        optional(Family::gauge("process_threads", "Threads of the process."), stat(17).map(number)),
        Family::gauge(
            "process_start_time_seconds",
            "When the engine of the process began, in seconds since 1970.",
        )
        .one(*at),
        Family::gauge("backstitch_uptime_seconds", "For how long the engine has been there.")
            .one(since.elapsed().as_secs_f64()),
    ]
}

fn resident_pages() -> Option<u64> {
    std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()
}

/// Returns a field of `/proc/self/stat`, counted from the first after the name, which may have spaces.
fn stat(field: usize) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    text.rsplit_once(") ")?.1.split(' ').nth(field)?.parse().ok()
}

fn cpu_ticks() -> Option<u64> {
    Some(stat(11)? + stat(12)?)
}

fn most_files() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn a_process_on_linux_knows_all_of_itself() {
        begins();
        for family in families() {
            let [sample] = &family.samples[..] else { panic!("{family:?}") };
            assert!(sample.value >= 0.0, "{family:?}");
        }
        assert!(resident_pages().is_some_and(|pages| pages > 100));
        assert!(stat(17).is_some_and(|threads| threads >= 1));
    }
}
