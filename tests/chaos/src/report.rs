//! The final report: cases, violations, counters, recovery times.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::evidence::{Evidence, Violation};

/// Number of violations of each invariant that are reported with their evidence; the others are
/// counted.
const TOLD: usize = 3;

/// Durations.
#[derive(Clone, Debug, Default)]
pub struct Spans(Vec<Duration>);

impl Spans {
    /// Notes one.
    pub fn add(&mut self, span: Duration) {
        self.0.push(span);
    }

    fn at(&self, permille: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * permille).div_ceil(1_000).saturating_sub(1);
        sorted.get(place).copied().unwrap_or_default()
    }
}

/// Result of a tier.
pub struct Report {
    began: Instant,
    /// The command that repeats the plan.
    again: String,
    cases: usize,
    runs: usize,
    violations: usize,
    by_invariant: BTreeMap<&'static str, usize>,
    failed: Vec<String>,
    counters: BTreeMap<String, f64>,
    recoveries: BTreeMap<String, Spans>,
    lines: Vec<String>,
    vacuous: Vec<String>,
    skipped: Vec<String>,
}

impl Report {
    /// Returns a report of nothing yet; `again` is the command that repeats it.
    #[must_use]
    pub fn new(again: &str) -> Report {
        Report {
            began: Instant::now(),
            again: again.to_owned(),
            cases: 0,
            runs: 0,
            violations: 0,
            by_invariant: BTreeMap::new(),
            failed: Vec::new(),
            counters: BTreeMap::new(),
            recoveries: BTreeMap::new(),
            lines: Vec::new(),
            vacuous: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Notes that a case was run. The first violations are told at once, with their stories.
    pub fn case(&mut self, name: &str, violations: &[Violation], evidence: &Evidence) {
        self.cases += 1;
        self.runs += evidence.stories.len();
        for violation in violations {
            let told = self.by_invariant.entry(violation.invariant).or_default();
            *told += 1;
            self.violations += 1;
            if *told <= TOLD {
                println!("in {name}:\n{}", evidence.tell(violation));
            }
        }
        if !violations.is_empty() {
            self.failed.push(name.to_owned());
        }
    }

    /// Adds to a counter.
    pub fn count(&mut self, counter: &str, by: f64) {
        *self.counters.entry(counter.to_owned()).or_default() += by;
    }

    /// Adds a counter that must not be zero in the end.
    pub fn must_count(&mut self, counter: &str) {
        let counted = self.counters.entry(counter.to_owned()).or_default();
        if *counted == 0.0 {
            self.vacuous.push(format!("nothing was seen of: {counter}"));
        }
    }

    /// Adds the recovery times of one fault.
    pub fn recovery(&mut self, fault: &str, spans: Spans) {
        self.recoveries.entry(fault.to_owned()).or_default().0.extend(spans.0);
    }

    /// Adds the lateness of timers, in milliseconds.
    pub fn timers(&mut self, what: &str, late: &[i64]) {
        let mut spans = Spans::default();
        let span = |ms: &i64| Duration::from_millis(u64::try_from(*ms).unwrap_or_default());
        late.iter().for_each(|ms| spans.add(span(ms)));
        let [median, p99, worst] = [500, 990, 1_000].map(|part| spans.at(part).as_millis());
        let count = late.len();
        self.say(format!(
            "{what}: {count}, late by {median} ms (median), {p99} ms (p99), {worst} ms (worst)"
        ));
    }

    /// Adds the crash points that no shape passed.
    pub fn never_reached(&mut self, reached: usize, never: &[String]) {
        self.lines.push(format!("crash points reached: {reached}, not reached: {}", never.len()));
        if !never.is_empty() {
            self.vacuous.push(format!("crash points that no shape reaches: {}", never.join(", ")));
        }
    }

    /// Adds a line of its own.
    pub fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Adds something that this machine cannot show.
    pub fn skip(&mut self, why: impl Into<String>) {
        self.skipped.push(why.into());
    }

    /// Adds something that makes the whole run worthless.
    pub fn fail(&mut self, why: impl Into<String>) {
        self.vacuous.push(why.into());
    }

    /// Adds a bound on the share of a namespace that does not hold.
    pub fn broken(&mut self, bound: impl Into<String>) {
        *self.by_invariant.entry("bounds").or_default() += 1;
        self.violations += 1;
        self.lines.push(format!("BROKEN: {}", bound.into()));
    }

    /// Returns whether nothing was violated so far.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations == 0
    }

    /// Returns the violations so far, by invariant.
    #[must_use]
    pub fn violated(&self) -> &BTreeMap<&'static str, usize> {
        &self.by_invariant
    }

    /// Prints everything; whether all is well.
    #[must_use]
    pub fn conclude(self) -> bool {
        println!(
            "\n== chaos: {} cases, {} runs, {} s",
            self.cases,
            self.runs,
            self.began.elapsed().as_secs()
        );
        for line in &self.lines {
            println!("{line}");
        }
        if !self.counters.is_empty() {
            println!("\nseen of what is to be tested:");
            for (counter, value) in &self.counters {
                println!("  {value:>8}  {counter}");
            }
        }
        if !self.recoveries.is_empty() {
            println!("\nrecovery after a fault (seconds):    median     p99   worst   times");
            for (fault, spans) in &self.recoveries {
                let [median, late, worst] =
                    [500, 990, 1_000].map(|part| spans.at(part).as_secs_f64());
                println!(
                    "  {fault:<34} {median:>7.2} {late:>7.2} {worst:>7.2} {:>7}",
                    spans.0.len()
                );
            }
        }
        println!("\nviolations: {}", self.violations);
        for (invariant, count) in &self.by_invariant {
            println!("  {invariant}: {count}");
        }
        for case in &self.failed {
            println!("  failed: backstitch-chaos {case}");
        }
        for why in &self.skipped {
            println!("not shown here: {why}");
        }
        for why in &self.vacuous {
            println!("not shown: {why}");
        }
        let well = self.violations == 0 && self.vacuous.is_empty();
        if !well {
            println!("the same again: {}", self.again);
        }
        well
    }
}
