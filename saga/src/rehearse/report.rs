//! Results of a rehearsal, as data and as text for people.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::fault::Fault;
use super::{Finding, Severity};
use crate::Violation;

/// Results of the rehearsal of a workflow definition.
#[derive(Clone, Debug, Serialize)]
pub struct Rehearsal {
    /// The workflow.
    pub workflow: String,
    /// Its version.
    pub version: u32,
    /// Number of kinds of runs: combinations of documents, and orders of concurrent moves.
    pub scenes: usize,
    /// Number of traces by the number of faults in them, from 0 on.
    pub levels: Vec<Level>,
    /// Traces that ended in one outcome, nothing left behind.
    pub closed: u64,
    /// Traces that wait for a person who was informed.
    pub parked: u64,
    /// Traces that broke a rule.
    pub open: u64,
    /// Outcomes of the traces that ended.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Each step with what went wrong at it.
    pub coverage: Vec<StepCoverage>,
    /// Parts that no trace reached, for people.
    pub not_reached: Vec<String>,
    /// Defects, each with its shortest trace; the shortest first.
    pub defects: Vec<Defect>,
    /// Everything that is found out about the definition, with how severe it is: the same list that registering it
    /// gives.
    pub findings: Vec<Finding>,
}

/// The traces with so many faults.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Level {
    /// Number of faults.
    pub faults: u32,
    /// Number of traces.
    pub traces: u64,
    /// `true` if these are all traces.
    pub complete: bool,
}

/// One step with what went wrong at it.
#[derive(Clone, Debug, Serialize)]
pub struct StepCoverage {
    /// The step.
    pub step: String,
    /// Everything that can go wrong at it.
    pub faults: BTreeMap<Fault, Cell>,
}

/// One failure point: the traces in which it struck, items of a fan-out together.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cell {
    /// All.
    pub traces: u64,
    /// Those that wait for a person.
    pub parked: u64,
    /// Those that broke a rule.
    pub open: u64,
}

/// A defect: a rule that traces broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Defect {
    /// The broken rule.
    pub rule: &'static str,
    /// Explanation, for people.
    pub message: String,
    /// Number of traces.
    pub traces: u64,
    /// The shortest of them, a line for each thing that happened.
    pub trace: Vec<String>,
}

/// More defects are counted, not shown.
const SHOWN: usize = 10;

/// The most columns of a terminal that the table takes.
const WIDTH: usize = 80;

/// Spaces between two columns.
const GAP: usize = 2;

impl Rehearsal {
    /// Returns whether every trace closed, also where that is only warned of.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.defects.is_empty()
    }

    /// Returns whether a server registers the definition: nothing is wrong with it but what is warned of.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.count(Severity::Error) == 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// Writes the parts that no trace reached, and whether a server accepts the definition.
    fn verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |finding: &&Finding| {
            self.defects.iter().any(|defect| defect.rule == finding.violation.code)
        };
        for finding in self.findings.iter().filter(|finding| !shown(finding)) {
            let Violation { pointer, code, message } = &finding.violation;
            let severity = match finding.severity {
                Severity::Error => "Error",
                Severity::Warning => "Warning",
            };
            let place = if pointer.is_empty() { "the document" } else { pointer };
            writeln!(f, "\n{severity} ({code}) at {place}: {message}.")?;
        }
        let count =
            |severity, noun| counted(u64::try_from(self.count(severity)).unwrap_or(u64::MAX), noun);
        let (errors, warnings) =
            (count(Severity::Error, "error"), count(Severity::Warning, "warning"));
        match (self.is_accepted(), self.findings.is_empty()) {
            (true, true) => writeln!(f, "\nA server registers it."),
            (true, false) => writeln!(f, "\nA server registers it, with {warnings}."),
            (false, _) => writeln!(f, "\nA server refuses it: {errors}, {warnings}."),
        }
    }

    /// Returns whether all traces were run with as many faults as were asked for.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.levels.iter().all(|level| level.complete)
    }

    /// Returns the number of traces.
    #[must_use]
    pub fn traces(&self) -> u64 {
        self.closed + self.parked + self.open
    }

    /// Fails a test unless every trace closed.
    ///
    /// # Panics
    /// With the shortest traces of what does not close.
    pub fn assert_closes(&self) {
        assert!(self.closes(), "{self}");
    }

    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let possible =
            |fault: &&Fault| self.coverage.iter().any(|step| step.faults.contains_key(fault));
        let columns: Vec<&Fault> = Fault::ALL.iter().filter(possible).collect();
        let name = |step: &StepCoverage| step.step.chars().count();
        let first = self.coverage.iter().map(name).max().unwrap_or(0).max(4);
        let cells: Vec<Vec<String>> = self
            .coverage
            .iter()
            .map(|step| columns.iter().map(|fault| cell(step.faults.get(fault))).collect())
            .collect();
        let width = |column: usize| {
            let cells = cells.iter().map(|row| row[column].len()).max().unwrap_or(0);
            cells.max(columns[column].words().0.len())
        };
        // Faults beyond the width of a terminal are in a second block below the first.
        let mut from = 0;
        while from < columns.len() {
            let mut taken = first + GAP + width(from);
            let mut to = from + 1;
            while to < columns.len() && taken + GAP + width(to) <= WIDTH {
                taken += GAP + width(to);
                to += 1;
            }
            write!(f, "{:first$}", "step")?;
            for (at, fault) in columns.iter().enumerate().take(to).skip(from) {
                write!(f, "  {:>1$}", fault.words().0, width(at))?;
            }
            writeln!(f)?;
            for (step, row) in self.coverage.iter().zip(&cells) {
                write!(f, "{:first$}", step.step)?;
                for (at, cell) in row.iter().enumerate().take(to).skip(from) {
                    write!(f, "  {cell:>0$}", width(at))?;
                }
                writeln!(f)?;
            }
            writeln!(f)?;
            from = to;
        }
        for fault in columns {
            let (head, words) = fault.words();
            let of =
                if fault.of().is_empty() { String::new() } else { format!("{}: ", fault.of()) };
            writeln!(f, "{head:>7}  {of}{words}")?;
        }
        writeln!(
            f,
            "Numbers are traces; p: some wait for a person; !: some do not close;\n0: never reached; -: cannot happen."
        )
    }
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn cell(cell: Option<&Cell>) -> String {
    let Some(Cell { traces, parked, open }) = cell else { return "-".to_owned() };
    let mark = match (open, parked) {
        (0, 0) => "",
        (0, _) => "p",
        _ => "!",
    };
    format!("{traces}{mark}")
}

impl fmt::Display for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} version {}\n", self.workflow, self.version)?;
        self.table(f)?;
        writeln!(f)?;
        for Level { faults, traces, complete } in &self.levels {
            let rest = if *complete { "all there are" } else { "not all: the bound was reached" };
            let (traces, faults) = (counted(*traces, "trace"), counted((*faults).into(), "fault"));
            writeln!(f, "{traces} with {faults}, {rest}")?;
        }
        let Rehearsal { closed, parked, open, .. } = self;
        writeln!(
            f,
            "{} in {}: {closed} closed, {parked} waiting for a person, {open} not closed",
            counted(self.traces(), "trace"),
            counted(u64::try_from(self.scenes).unwrap_or(u64::MAX), "scene"),
        )?;
        let outcomes: Vec<String> =
            self.outcomes.iter().map(|(outcome, traces)| format!("{outcome} {traces}")).collect();
        writeln!(f, "Outcomes: {}", outcomes.join(", "))?;
        for missing in &self.not_reached {
            writeln!(f, "Not reached: {missing}")?;
        }
        for Defect { rule, message, traces, trace } in self.defects.iter().take(SHOWN) {
            let traces = counted(*traces, "trace");
            writeln!(f, "\nDoes not close ({rule}): {message}. {traces}, the shortest:")?;
            for line in trace {
                writeln!(f, "  {line}")?;
            }
        }
        match self.defects.len().saturating_sub(SHOWN) {
            0 => {}
            more => writeln!(f, "\nAnd {more} more that do not close.")?,
        }
        self.verdict(f)
    }
}
