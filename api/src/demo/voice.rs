//! Output of the demo: lines on standard output, a progress bar on a terminal, nothing with `--json`.

use std::fmt::Display;
use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::print;

/// The output, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voice {
    silent: bool,
}

impl Voice {
    /// Returns a voice that says everything, or nothing.
    pub(crate) fn new(silent: bool) -> Voice {
        Voice { silent }
    }

    /// Prints one line, or several.
    pub(crate) fn say(&self, text: impl Display) {
        if !self.silent {
            print::line(text);
        }
    }

    /// Prints a line for something that is up now.
    pub(crate) fn started(&self, name: &str, what: &str, pid: Option<u32>, since: Instant) {
        let pid = pid.map_or(String::new(), |pid| format!("pid {pid}"));
        let took = since.elapsed().as_millis();
        self.say(format_args!("  {name:<11} {what:<36} {pid:<12} {took:>5} ms"));
    }

    /// Shows how far `total` things got.
    pub(crate) fn progress(&self, total: usize, what: &'static str) -> Progress {
        let bar = (!self.silent && std::io::stdout().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("  {bar:40} {pos}/{len} {msg}  {elapsed}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total as u64).with_style(style).with_message(what)
        });
        Progress { voice: *self, bar, total, done: 0, what, since: Instant::now() }
    }
}

/// Progress of the demo.
pub(crate) struct Progress {
    voice: Voice,
    bar: Option<ProgressBar>,
    total: usize,
    done: usize,
    what: &'static str,
    since: Instant,
}

impl Progress {
    /// Counts one more as done. Without a terminal, every quarter is said.
    pub(crate) fn step(&mut self) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
            return;
        }
        let quarter = |done: usize| done * 4 / self.total.max(1);
        if quarter(self.done) > quarter(self.done - 1) && self.done < self.total {
            self.voice.say(format_args!("  {} of {} {}", self.done, self.total, self.what));
        }
    }

    /// Finishes, as all are done.
    pub(crate) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let secs = self.since.elapsed().as_secs_f64();
        self.voice
            .say(format_args!("  {} of {} {} in {secs:.1} s", self.done, self.total, self.what));
    }
}
