//! Closing report of the demo: the stories, the table, the ledgers beside the runs, the verdict.

use std::collections::BTreeMap;

use backstitch_saga::protocol::Outcome;
use backstitch_saga::{Jitter, Retry};
use backstitch_shop::check::{Audit, Book};
use backstitch_shop::effect::Kind;
use backstitch_workflows::Money;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::{Value, json};

use super::play::Played;
use super::scenario::Scenario;
use super::story::{Moment, Try};
use super::voice::Voice;

/// Width of tables if there is no terminal.
const WIDTH: u16 = 118;

/// A scenario that was played.
pub(crate) struct Told<'a> {
    pub(crate) scenario: &'a Scenario,
    /// Position of its run among those played.
    pub(crate) index: usize,
    pub(crate) moments: Vec<Moment>,
    /// The tries of the payment, when there was more than one.
    pub(crate) tries: Vec<Try>,
    /// Events that its history should have and has not.
    pub(crate) missing: Vec<&'static str>,
    /// The plan that a person saw before undoing it.
    pub(crate) plan: Vec<String>,
}

/// Everything that the demo found out.
pub(crate) struct Findings<'a> {
    pub(crate) played: Vec<Played>,
    pub(crate) told: Vec<Told<'a>>,
    pub(crate) audit: Audit,
    /// Runs that did not end as they should, a line each.
    pub(crate) unexpected: Vec<String>,
    /// Retry policy of the payment.
    pub(crate) retry: Retry,
}

impl Findings<'_> {
    /// Returns whether every run ended as it should and the ledgers agree.
    pub(crate) fn good(&self) -> bool {
        self.unexpected.is_empty() && self.audit.agrees()
    }

    /// Returns the number of runs by outcome.
    fn outcomes(&self) -> BTreeMap<&'static str, usize> {
        let mut outcomes = BTreeMap::new();
        for played in &self.played {
            *outcomes.entry(outcome(played)).or_default() += 1;
        }
        outcomes
    }

    /// Says it all.
    pub(crate) fn say(&self, voice: &Voice) {
        for told in &self.told {
            self.say_story(told, voice);
        }
        voice.say("\nHow they ended");
        voice.say(self.closing_table());
        voice.say("\nThe three ledgers, kept by the services, beside what the runs say");
        voice.say(self.ledger_table());
        voice.say("");
        for line in self.audit.differences.iter().chain(&self.unexpected) {
            voice.say(format_args!("  ✗ {line}"));
        }
        voice.say(self.verdict());
    }

    fn say_story(&self, told: &Told<'_>, voice: &Voice) {
        voice.say(format_args!("\n{}  {}", told.scenario.order, told.scenario.title));
        let plan_before =
            told.moments.iter().position(|moment| moment.text.starts_with("a person"));
        for (index, moment) in told.moments.iter().enumerate() {
            if Some(index) == plan_before {
                told.plan.iter().for_each(|line| voice.say(format_args!("              {line}")));
            }
            voice.say(format_args!("  {:>7} ms  {}", moment.after_ms, moment.text));
        }
        if told.scenario.shows.contains(&"retry_scheduled") && told.tries.len() > 2 {
            voice.say(self.retry_table(&told.tries));
        }
    }

    /// Returns each try, and from which span its delay was drawn.
    fn retry_table(&self, tries: &[Try]) -> Table {
        let of = self.retry.max_attempts.map_or(String::new(), |max| format!(" of {max}"));
        let mut table = table(["attempt", "ended after", "with", "next after", "drawn from"]);
        for (tried, number) in tries.iter().zip(0_i32..) {
            let ceiling = self.retry.first_delay.0 as f64 * self.retry.multiplier.powi(number);
            let ceiling = ceiling.min(self.retry.max_delay.0 as f64);
            let drawn = match self.retry.jitter {
                Jitter::Full => format!("0 to {ceiling} ms"),
                Jitter::Equal => format!("{} to {ceiling} ms", ceiling / 2.0),
                Jitter::Decorrelated | Jitter::None => String::new(),
            };
            table.add_row([
                format!("{}{of}", tried.attempt),
                format!("{} ms", tried.after_ms),
                tried.error.clone().unwrap_or_else(|| "success".to_owned()),
                tried.put_off_ms.map_or(String::new(), |delay| format!("{delay} ms")),
                tried.put_off_ms.map_or(String::new(), |_| drawn),
            ]);
        }
        right(&mut table, &[1, 3]);
        table
    }

    fn closing_table(&self) -> Table {
        let mut table = table(["orders", "outcome", "what the run says", "what the ledgers hold"]);
        let special: Vec<usize> = self.told.iter().map(|told| told.index).collect();
        let mut ordinary: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, played) in self.played.iter().enumerate() {
            if !special.contains(&index) {
                *ordinary.entry(outcome(played)).or_default() += 1;
            }
        }
        for (outcome, count) in ordinary {
            let (says, holds) = match outcome {
                "succeeded" => ("everything was done", "all that was ordered and paid"),
                "compensated" => ("undone; all that had been done was reverted", "nothing"),
                "failed_clean" => ("failed; nothing was left behind", "nothing"),
                _ => ("", ""),
            };
            table.add_row([&count.to_string(), outcome, says, holds]);
        }
        for told in &self.told {
            if let Some(played) = self.played.get(told.index) {
                let holds = self.audit.holds(&played.order);
                table.add_row([&played.order, outcome(played), &played.view.summary, &holds]);
            }
        }
        table
    }

    fn ledger_table(&self) -> Table {
        let header = [
            "ledger", "done", "undone", "revoked", "stand", "runs say", "that is", "repeats",
            "agree",
        ];
        let mut table = table(header);
        for book in &self.audit.books {
            table.add_row([
                book.service.as_str().to_owned(),
                book.done.to_string(),
                book.undone.to_string(),
                book.revoked.to_string(),
                book.standing.to_string(),
                book.runs_say.to_string(),
                measure(book),
                book.repeats.to_string(),
                if book.agrees { "yes" } else { "NO" }.to_owned(),
            ]);
        }
        right(&mut table, &[1, 2, 3, 4, 5, 6, 7]);
        table
    }

    fn verdict(&self) -> String {
        let runs = self.played.len();
        if self.good() {
            return format!(
                "All {runs} runs ended as they should, and the ledgers agree with every one of them: nothing is \
                 missing,\nnothing is there twice, and what was undone is undone, last things first."
            );
        }
        format!(
            "NOT GOOD: {} of {runs} runs did not end as they should; {} differences between runs and ledgers.",
            self.unexpected.len(),
            self.audit.differences.len()
        )
    }

    /// Returns the same for machines.
    pub(crate) fn json(&self, took_ms: u128) -> Value {
        let scenarios = self.told.iter().filter_map(|told| {
            let played = self.played.get(told.index)?;
            let story: Vec<_> = told
                .moments
                .iter()
                .map(|moment| json!({"after_ms": moment.after_ms, "text": moment.text}))
                .collect();
            Some(json!({
                "order": played.order,
                "title": told.scenario.title,
                "run": played.view.id,
                "outcome": played.view.outcome,
                "expected": told.scenario.ends,
                "summary": played.view.summary,
                "ledgers": self.audit.holds(&played.order),
                "story": story,
            }))
        });
        let books = self.audit.books.iter().map(|book| {
            json!({
                "ledger": book.service,
                "done": book.done,
                "undone": book.undone,
                "revoked": book.revoked,
                "standing": book.standing,
                "runs_say": book.runs_say,
                "repeats": book.repeats,
                "came_too_late": book.came_too_late,
                "agrees": book.agrees,
            })
        });
        json!({
            "good": self.good(),
            "orders": self.played.len(),
            "took_ms": u64::try_from(took_ms).unwrap_or(u64::MAX),
            "outcomes": self.outcomes(),
            "scenarios": scenarios.collect::<Vec<_>>(),
            "ledgers": books.collect::<Vec<_>>(),
            "unexpected": self.unexpected,
            "differences": self.audit.differences,
        })
    }
}

/// Returns the outcome of a run; its state if it has not ended.
fn outcome(played: &Played) -> &'static str {
    played.view.outcome.map_or(played.view.state.as_str(), Outcome::as_str)
}

/// Describes the remaining effects, in the service's own measure.
fn measure(book: &Book) -> String {
    match book.service {
        Kind::Stock => format!("{} pieces", book.measure),
        Kind::Payment => {
            Money::hundredths(i64::try_from(book.measure).unwrap_or(i64::MAX)).to_string()
        }
        Kind::Shipping => format!("{} parcels", book.measure),
    }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if !table.is_tty() {
        table.set_width(WIDTH);
    }
    table.set_header(header);
    table
}

fn right(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
