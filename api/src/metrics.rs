//! Numbers for Prometheus: what the engine counts and what requests did, in the text format 0.0.4.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use backstitch_engine::{Family, Metrics, NumberKind, Sample};

use crate::front::RouteTable;

/// The upper bounds of the buckets of a request's time, in microseconds.
const BUCKETS: [(u64, &str); 12] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (5_000_000, "5"),
    (30_000_000, "30"),
];

/// Counters of one route. Counting takes no lock.
#[derive(Debug)]
pub(crate) struct RouteNumbers {
    /// Requests by status, from 100 to 599.
    by_status: Box<[AtomicU64]>,
    /// Requests by the bucket their time falls into; the last is for longer ones.
    by_time: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl Default for RouteNumbers {
    fn default() -> Self {
        RouteNumbers {
            by_status: std::iter::repeat_with(AtomicU64::default).take(500).collect(),
            by_time: Default::default(),
            micros: AtomicU64::default(),
        }
    }
}

impl RouteNumbers {
    /// Counts one answer.
    pub(crate) fn count(&self, status: StatusCode, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.partition_point(|(bound, _)| *bound < micros);
        let status = usize::from(status.as_u16()).clamp(100, 599) - 100;
        self.by_status[status].fetch_add(1, Ordering::Relaxed);
        self.by_time[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// Returns all numbers as Prometheus reads them. Routes that were never asked for are left out.
pub(crate) fn print(
    engine: &Metrics,
    server: &Metrics,
    families: &[Family],
    routes: &RouteTable,
) -> String {
    let mut text = String::with_capacity(16 * 1024);
    let mut line = |name: &str, help: &str, kind: &str, value: f64| {
        head(&mut text, name, help, kind);
        let _ = writeln!(text, "{name} {value}");
    };
    for (name, help, counter, value) in engine.iter().chain(server) {
        line(name, help, if *counter { "counter" } else { "gauge" }, *value);
    }
    families.iter().for_each(|family| print_family(&mut text, family));
    let routes = routes.numbers();
    head(&mut text, "backstitch_http_requests_total", "Requests answered", "counter");
    for (path, method, numbers) in &routes {
        for (index, count) in numbers.by_status.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let status = index + 100;
                let _ = writeln!(
                    text,
                    "backstitch_http_requests_total{{method=\"{method}\",route=\"{path}\",status=\"{status}\"}} {count}"
                );
            }
        }
    }
    let name = "backstitch_http_request_seconds";
    head(
        &mut text,
        name,
        "Time from a request's headers to its answer, waiting included",
        "histogram",
    );
    for (path, method, numbers) in &routes {
        histogram(&mut text, name, &format!("method=\"{method}\",route=\"{path}\""), numbers);
    }
    text
}

fn print_family(text: &mut String, family: &Family) {
    let kind = match family.kind {
        NumberKind::Counter => "counter",
        NumberKind::Gauge => "gauge",
        NumberKind::Histogram => "histogram",
    };
    head(text, family.name, family.help, kind);
    for Sample { suffix, labels, value } in &family.samples {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{suffix}", family.name);
        for (index, (name, value)) in labels.iter().enumerate() {
            let comma = if index == 0 { "{" } else { "," };
            let _ = write!(text, "{comma}{name}=\"{}\"", escaped(value));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(text, "{end} {value}");
    }
}

/// Returns the value of a label as between quotes.
fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn histogram(text: &mut String, name: &str, labels: &str, numbers: &RouteNumbers) {
    let counts = numbers.by_time.each_ref().map(|count| count.load(Ordering::Relaxed));
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return;
    }
    let mut below = 0;
    for ((_, bound), count) in BUCKETS.iter().zip(counts) {
        below += count;
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
    }
    let seconds = Duration::from_micros(numbers.micros.load(Ordering::Relaxed)).as_secs_f64();
    let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}");
    let _ = writeln!(text, "{name}_sum{{{labels}}} {seconds}");
    let _ = writeln!(text, "{name}_count{{{labels}}} {total}");
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;

    #[test]
    fn numbers_are_printed_as_prometheus_reads_them() {
        let routes = RouteTable::new([(Method::GET, "/v1/runs/{id}".to_owned())]);
        let numbers = routes.numbers()[0].2;
        numbers.count(StatusCode::OK, Duration::from_micros(500));
        numbers.count(StatusCode::OK, Duration::from_millis(7));
        numbers.count(StatusCode::NOT_FOUND, Duration::from_secs(60));
        let engine = vec![
            ("backstitch_commits_total", "Batches committed", true, 3.0),
            ("backstitch_queue", "Commands that wait", false, 0.5),
        ];
        let labels = vec![("queue", "a \"b\" \\".to_owned()), ("le", "5".to_owned())];
        let family = Family {
            name: "backstitch_times",
            help: "Times.",
            kind: NumberKind::Histogram,
            samples: vec![Sample { suffix: "_bucket", labels, value: 4.0 }],
        };
        let server = vec![("backstitch_http_waiting", "Requests that wait", false, 2.0)];
        let text = print(&engine, &server, &[family], &routes);
        let expected = "\
# HELP backstitch_commits_total Batches committed
# TYPE backstitch_commits_total counter
backstitch_commits_total 3
# HELP backstitch_queue Commands that wait
# TYPE backstitch_queue gauge
backstitch_queue 0.5
# HELP backstitch_http_waiting Requests that wait
# TYPE backstitch_http_waiting gauge
backstitch_http_waiting 2
# HELP backstitch_times Times.
# TYPE backstitch_times histogram
backstitch_times_bucket{queue=\"a \\\"b\\\" \\\\\",le=\"5\"} 4
# HELP backstitch_http_requests_total Requests answered
# TYPE backstitch_http_requests_total counter
backstitch_http_requests_total{method=\"GET\",route=\"/v1/runs/{id}\",status=\"200\"} 2
backstitch_http_requests_total{method=\"GET\",route=\"/v1/runs/{id}\",status=\"404\"} 1
# HELP backstitch_http_request_seconds Time from a request's headers to its answer, waiting included
# TYPE backstitch_http_request_seconds histogram
backstitch_http_request_seconds_bucket{method=\"GET\",route=\"/v1/runs/{id}\",le=\"0.0005\"} 1
backstitch_http_request_seconds_bucket{method=\"GET\",route=\"/v1/runs/{id}\",le=\"0.001\"} 1
backstitch_http_request_seconds_bucket{method=\"GET\",route=\"/v1/runs/{id}\",le=\"0.0025\"} 1
backstitch_http_request_seconds_bucket{method=\"GET\",route=\"/v1/runs/{id}\",le=\"0.005\"} 1
backstitch_http_request_seconds_bucket{method=\"GET\",route=\"/v1/runs/{id}\",le=\"0.01\"} 2
backstitch_http_request_seconds_bucket{method=\"GET\",route=\"/v1/runs/{id}\",le=\"0.025\"} 2
backstitch_http_request_seconds_bucket{method=\"GET\",route=\"/v1/runs/{id}\",le=\"0.05\"} 2
backstitch_http_request_seconds_bucket{method=\"GET\",route=\"/v1/runs/{id}\",le=\"0.1\"} 2
backstitch_http_request_seconds_bucket{method=\"GET\",route=\"/v1/runs/{id}\",le=\"0.5\"} 2
backstitch_http_request_seconds_bucket{method=\"GET\",route=\"/v1/runs/{id}\",le=\"1\"} 2
backstitch_http_request_seconds_bucket{method=\"GET\",route=\"/v1/runs/{id}\",le=\"5\"} 2
backstitch_http_request_seconds_bucket{method=\"GET\",route=\"/v1/runs/{id}\",le=\"30\"} 2
backstitch_http_request_seconds_bucket{method=\"GET\",route=\"/v1/runs/{id}\",le=\"+Inf\"} 3
backstitch_http_request_seconds_sum{method=\"GET\",route=\"/v1/runs/{id}\"} 60.0075
backstitch_http_request_seconds_count{method=\"GET\",route=\"/v1/runs/{id}\"} 3
";
        assert_eq!(text, expected);
    }
}
