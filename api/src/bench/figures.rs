//! Figures: percentiles, medians over repetitions, and how they are printed.

use std::collections::BTreeMap;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::noisy;

/// Results of one workload. Which numbers there are depends on the workload; `docs/performance.md` says what each is.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Figures {
    /// `w1` to `w8`, `w10`, `numbering`, or `noisy`.
    pub(super) workload: String,
    /// Variant of the workload, such as `10000 items`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) variant: Option<String>,
    /// Of what `p50_ms` and `p99_ms` are: `run`, `hand-off`, `start`, `page` or `request at half`.
    pub(super) latency_of: &'static str,
    /// Number of measurements; every number is their median.
    pub(super) repeats: usize,
    #[serde(flatten)]
    pub(super) numbers: BTreeMap<&'static str, f64>,
}

impl Figures {
    pub(super) fn set(&mut self, name: &'static str, value: f64) {
        if value.is_finite() {
            self.numbers.insert(name, value);
        }
    }

    pub(super) fn set_some(&mut self, name: &'static str, value: Option<f64>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.numbers.get(name).copied()
    }

    /// Adds the median and slow end of `times`, given in microseconds.
    pub(super) fn latency(&mut self, latency_of: &'static str, mut times: Vec<u64>) {
        self.latency_of = latency_of;
        times.sort_unstable();
        self.set_some("p50_ms", percentile(&times, 50));
        self.set_some("p99_ms", percentile(&times, 99));
    }
}

/// Returns a percentile of sorted microseconds, in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
pub(super) fn percentile(sorted: &[u64], percent: usize) -> Option<f64> {
    let place = sorted.len().checked_sub(1)? * percent / 100;
    Some(sorted[place] as f64 / 1_000.0)
}

/// Returns the medians of repetitions of the same workload, with the extremes of its rate.
pub(super) fn median(repetitions: &[Figures]) -> Option<Figures> {
    let mut all = repetitions.first()?.clone();
    all.repeats = repetitions.len();
    for (name, value) in &mut all.numbers {
        let mut values: Vec<f64> = repetitions.iter().filter_map(|one| one.get(name)).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        *value = match values.len() % 2 {
            1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
    }
    let rates = || repetitions.iter().filter_map(|one| one.get("steps_per_s"));
    all.set_some("steps_per_s_min", rates().min_by(f64::total_cmp));
    all.set_some("steps_per_s_max", rates().max_by(f64::total_cmp));
    Some(all)
}

/// The columns of the table: heading, number, decimals, factor.
const COLUMNS: [(&str, &str, usize, f64); 13] = [
    ("runs/s", "runs_per_s", 1, 1.0),
    ("steps/s", "steps_per_s", 0, 1.0),
    ("of floor", "share_of_floor", 0, 100.0),
    ("p50 ms", "p50_ms", 2, 1.0),
    ("p99 ms", "p99_ms", 2, 1.0),
    ("server", "server_cpu_s_per_1000_steps", 1, 1_000.0),
    ("worker", "worker_cpu_s_per_1000_steps", 1, 1_000.0),
    ("PostgreSQL", "postgres_cpu_s_per_1000_steps", 1, 1_000.0),
    ("driver", "driver_cpu_s_per_1000_steps", 1, 1_000.0),
    ("tx/step", "transactions_per_step", 3, 1.0),
    ("WAL B/step", "wal_bytes_per_step", 0, 1.0),
    ("server MiB", "server_peak_mib", 0, 1.0),
    ("floor steps/s", "floor_steps_per_s", 0, 1.0),
];

/// Returns the tables for people: of the workloads, and of noisy neighbours.
pub(super) fn tables(all: &[Figures]) -> String {
    let is_noisy = |figures: &&Figures| figures.get(noisy::TIMED[0].1[1]).is_some();
    let (noisy, others): (Vec<&Figures>, Vec<&Figures>) = all.iter().partition(is_noisy);
    let mut tables = Vec::new();
    if !others.is_empty() {
        tables.push(table(&others));
    }
    if !noisy.is_empty() {
        tables.push(noisy_table(&noisy));
    }
    tables.join("\n\n")
}

fn noisy_table(all: &[&Figures]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let headings = noisy::TIMED.iter().map(|(what, _)| format!("{what}: calm/noisy/after"));
    let rest = ["noisy requests/s", "server MiB"].map(str::to_owned);
    table.set_header([String::new()].into_iter().chain(headings).chain(rest));
    for figures in all {
        let number = |name: &str| figures.get(name).map_or("-".to_owned(), |ms| format!("{ms:.1}"));
        let times = noisy::TIMED.iter().map(|(_, names)| names.map(number).join("/"));
        let rest = ["noisy_requests_per_s", "server_peak_mib"];
        let rest = rest.map(|name| figures.get(name).map_or("-".to_owned(), |n| format!("{n:.0}")));
        let name = format!("noisy ({})", figures.variant.as_deref().unwrap_or_default());
        table.add_row([name].into_iter().chain(times).chain(rest));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\np99 in ms of the requests of the calm namespace")
}

fn table(all: &[&Figures]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let columns: Vec<_> = COLUMNS
        .iter()
        .filter(|(_, name, _, _)| all.iter().any(|figures| figures.get(name).is_some()))
        .collect();
    let headings = columns.iter().map(|(heading, ..)| (*heading).to_owned());
    table.set_header(["".to_owned(), "ms of a".to_owned()].into_iter().chain(headings));
    for figures in all {
        let variant = figures.variant.as_deref().map_or(String::new(), |text| format!(" ({text})"));
        let name = format!("{}{variant}", figures.workload);
        let cells = columns.iter().map(|(_, name, decimals, factor)| {
            let sign = if *name == "share_of_floor" { " %" } else { "" };
            figures.get(name).map_or("-".to_owned(), |value| {
                let value = value * factor;
                format!("{value:.decimals$}{sign}", decimals = *decimals)
            })
        });
        table.add_row([name, figures.latency_of.to_owned()].into_iter().chain(cells));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\nserver, worker, PostgreSQL, driver: processor seconds per million steps")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rate: f64) -> Figures {
        let mut figures = Figures { workload: "w1".to_owned(), ..Figures::default() };
        figures.set("steps_per_s", rate);
        figures
    }

    #[test]
    fn medians_are_of_each_number() {
        let all = median(&[figures(3.0), figures(1.0), figures(2.5)]).unwrap();
        assert_eq!(all.get("steps_per_s"), Some(2.5));
        assert_eq!(all.get("steps_per_s_min"), Some(1.0));
        assert_eq!(median(&[figures(1.0), figures(2.0)]).unwrap().get("steps_per_s"), Some(1.5));
        assert!(median(&[]).is_none());
    }

    #[test]
    fn the_table_shows_only_what_was_measured() {
        let text = tables(&[figures(1234.0)]);
        assert!(text.contains("1234") && !text.contains("of floor"), "{text}");
        assert!(!text.contains("calm"), "{text}");
    }

    #[test]
    fn noisy_neighbours_have_a_table_of_their_own() {
        let mut noisy = Figures { variant: Some("lists".to_owned()), ..Figures::default() };
        noisy.set("start_calm_p99_ms", 4.0);
        noisy.set("start_noisy_p99_ms", 12.5);
        let text = tables(&[noisy]);
        assert!(text.contains("noisy (lists)") && text.contains("4.0/12.5/-"), "{text}");
        assert!(!text.contains("steps/s"), "{text}");
    }
}
