//! Log lines of failing handlers. In each second the first few failures of a handler and code are written one by one,
//! and only the number of the others: an unreachable target fails every task, and a line for each would cost more than
//! the task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backstitch_saga::protocol::Failure;
use tokio::time::Instant;

/// So many lines are written of one handler and code in a window.
const FEW: u32 = 5;
/// Length of a window.
const WINDOW: Duration = Duration::from_secs(1);
/// Number of handlers with codes that are distinguished in a window.
const MOST: usize = 256;
/// The code of a handler that panicked.
const PANIC: &str = "panic";

/// The failures of the window that is open.
#[derive(Debug, Default)]
struct Window {
    ends: Option<Instant>,
    /// By handler and code.
    counts: HashMap<String, HashMap<String, u32>>,
    kinds: usize,
    /// Failures of handlers and codes beyond those that are distinguished.
    others: u32,
    /// `true` if somebody waits for the end of the window.
    watched: bool,
}

/// The summary of a window: handler and code, and the number of failures that were not written.
type Rest = Vec<(String, String, u32)>;

impl Window {
    /// Closes the window if it is over.
    fn close(&mut self, now: Instant) -> Rest {
        if self.ends.is_none_or(|ends| now < ends) {
            return Rest::new();
        }
        self.end()
    }

    fn end(&mut self) -> Rest {
        let Window { counts, others, .. } = std::mem::take(self);
        let each = counts.into_iter().flat_map(|(handler, codes)| {
            codes.into_iter().map(move |(code, count)| (handler.clone(), code, count))
        });
        let mut rest: Rest = each
            .filter(|(.., count)| *count > FEW)
            .map(|(handler, code, count)| (handler, code, count - FEW))
            .collect();
        rest.sort();
        if others > 0 {
            rest.push(("others".to_owned(), "others".to_owned(), others));
        }
        rest
    }

    /// Counts a failure. Returns whether it is written.
    fn count(&mut self, now: Instant, handler: &str, code: &str) -> bool {
        self.ends.get_or_insert(now + WINDOW);
        let known = self.counts.get_mut(handler).and_then(|codes| codes.get_mut(code));
        if let Some(count) = known {
            *count = count.saturating_add(1);
            return *count <= FEW;
        }
        if self.kinds == MOST {
            self.others = self.others.saturating_add(1);
            return false;
        }
        self.kinds += 1;
        self.counts.entry(handler.to_owned()).or_default().insert(code.to_owned(), 1);
        true
    }
}

/// Writes failures to the log, within bounds.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures(Arc<Mutex<Window>>);

impl Failures {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells that a handler failed: what and where, and never what it was given or said.
    pub(super) fn tell(&self, handler: &str, failure: &Failure) {
        let (kind, code, now) = (failure.kind, failure.code.as_str(), Instant::now());
        let mut window = self.window();
        let rest = window.close(now);
        let is_written = window.count(now, handler, code);
        // A count that nothing follows is told at the end of its window.
        let watch = !is_written && !std::mem::replace(&mut window.watched, true);
        let ends = window.ends.filter(|_| watch);
        drop(window);
        write(rest);
        if is_written && code == PANIC {
            tracing::error!(handler, code, "the handler panicked");
        } else if is_written {
            tracing::warn!(handler, ?kind, code, "the handler failed");
        }
        if let Some(ends) = ends {
            let failures = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep_until(ends).await;
                let rest = failures.window().close(Instant::now());
                write(rest);
            });
        }
    }

    /// Tells what was only counted until now.
    pub(super) fn tell_rest(&self) {
        let rest = self.window().end();
        write(rest);
    }
}

fn write(rest: Rest) {
    for (handler, code, more) in rest {
        tracing::warn!(handler, code, more, "the handler failed more often within a second");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_failures_in_a_second_a_few_are_written_and_the_others_counted() {
        let (mut window, now) = (Window::default(), Instant::now());
        let written = (0..1_000).filter(|_| window.count(now, "pay", "down")).count();
        assert_eq!(written, FEW as usize);
        // Another code, and another handler, are told for themselves.
        assert!(window.count(now, "pay", "refused") && window.count(now, "ship", "down"));
        assert_eq!(window.close(now + WINDOW / 2), []);
        let rest = window.close(now + WINDOW);
        assert_eq!(rest, [("pay".to_owned(), "down".to_owned(), 1_000 - FEW)]);
        // The next second begins anew.
        assert!(window.count(now + WINDOW, "pay", "down"));
        assert_eq!(window.end(), []);
    }

    #[test]
    fn codes_without_end_are_counted_together() {
        let (mut window, now) = (Window::default(), Instant::now());
        let written = (0..MOST + 10).filter(|at| window.count(now, "pay", &format!("c{at}")));
        assert_eq!(written.count(), MOST);
        assert_eq!(window.end(), [("others".to_owned(), "others".to_owned(), 10)]);
    }
}
